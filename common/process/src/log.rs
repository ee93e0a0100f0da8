//! The log: standard error, and a file where the configuration names one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use weir_common::cni::{Configuration, LogLevel};

use crate::PARENT_VARIABLE;

/// Starts logging as the configuration says. A file that cannot be opened is
/// reported on standard error; the call goes on.
pub fn start(configuration: &Configuration) {
    let level = match configuration.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let to_stderr = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_filter(level);
    let opened = configuration.log_file.as_deref().map(open);
    let (file, failure) = match opened.transpose() {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let to_file = file
        .map(|file| tracing_subscriber::fmt::layer().json().with_writer(file).with_filter(level));
    // A second call of one process (tests) keeps the log of the first.
    let _ = tracing_subscriber::registry().with(to_stderr).with(to_file).try_init();
    if let (Some(error), Some(path)) = (failure, &configuration.log_file) {
        tracing::warn!(log_file_path = %path.display(), %error, "cannot log to this file");
    }
    // Said once a call: by the plugin that the runtime started.
    let delegated = std::env::var_os(PARENT_VARIABLE).is_some();
    if !configuration.without_meaning.is_empty() && !delegated {
        let keys = configuration.without_meaning.join(", ");
        tracing::info!(keys, "these keys of the configuration have no meaning in Weir");
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
