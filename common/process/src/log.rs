//! The log of a call: standard error, and a file where the configuration names
//! one.
//!
//! Every line carries the call's id, so that what belongs to one ADD can be found.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::{Arc, Once, OnceLock};
use std::time::Instant;

use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use weir_common::cni::skeleton::{Call, Outline};
use weir_common::cni::{CniCommand, Error, LogLevel, Logging, NetworkConfiguration};

use crate::call_report::{CALLS_SOCKET, CallReport};
use crate::log_file;
use crate::printable_log::PrintableLog;

/// The id of the call that this process is for: 16 hexadecimal digits.
fn call_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    // The standard library seeds its hashers by the kernel's random numbers.
    ID.get_or_init(|| format!("{:016x}", RandomState::new().build_hasher().finish()))
}

/// Does the work of a call with a log as its configuration says, and logs that it is
/// done. Where it fails the skeleton has that logged, as any other failure. Either way the
/// node's agent is told, to count it.
///
/// # Errors
/// Those of the work.
pub fn logged<T>(
    call: &Call,
    command: CniCommand,
    work: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let outline = Outline::of(call, command);
    start(&outline.logging);
    let _span = span(&outline).entered();
    if let Some(trace) = &call.environment.trace {
        tracing::debug!(trace_state = trace.state, "part of a trace");
    }
    name_keys_without_meaning(&call.configuration);
    let begin = Instant::now();
    let outcome = work();
    let code = outcome.as_ref().err().map(|error| error.code.number());
    CallReport { command, code, time: begin.elapsed() }.send(Path::new(CALLS_SOCKET));
    let outcome = outcome?;
    tracing::debug!(microseconds = microseconds_since(begin), "done");
    Ok(outcome)
}

/// Logs that a call failed, after so many `microseconds`, also one that was refused
/// before there was any work.
pub(crate) fn log_failure(outline: &Outline, error: &Error, microseconds: u64) {
    start(&outline.logging);
    let _span = span(outline).entered();
    let code = error.code.number();
    let (details, message) = (error.details.as_str(), error.message.as_str());
    tracing::error!(code, details, microseconds, "{message}");
}

/// Logs, at level debug, how long a step of a call took: from this value's making
/// to its end.
#[derive(Debug)]
pub struct Timing {
    step: &'static str,
    begin: Instant,
}

impl Timing {
    /// Begins a step.
    pub fn of(step: &'static str) -> Self {
        Self { step, begin: Instant::now() }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        tracing::debug!(step = self.step, microseconds = microseconds_since(self.begin), "step");
    }
}

pub(crate) fn microseconds_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn span(outline: &Outline) -> Span {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    let given = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    let trace = outline.trace.as_ref();
    tracing::error_span!(
        "call",
        id = call_id(),
        program = &*program,
        command = outline.command,
        network = given(&outline.network),
        container = given(&outline.container_id),
        interface = given(&outline.interface),
        trace_id = trace.map(|trace| trace.trace_id.as_str()),
        parent_id = trace.map(|trace| trace.parent_id.as_str()),
    )
}

/// Starts logging. A file that cannot be opened is reported on standard error; the call
/// goes on. What one process does after that (the DEL after a failed ADD, its failure)
/// keeps the log.
fn start(logging: &Logging) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| start_once(logging));
}

fn start_once(logging: &Logging) {
    let level = match logging.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let to_stderr = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(|| PrintableLog::Text(std::io::stderr()))
        .with_filter(level);
    let opened = logging.file.as_ref().map(log_file::open);
    let (file, failure) = match opened.transpose() {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let to_file = file.map(|file| {
        let file = Arc::new(file);
        let writer = move || PrintableLog::Json(Arc::clone(&file));
        let json = tracing_subscriber::fmt::layer().json().flatten_event(true);
        json.with_span_list(false).with_writer(writer).with_filter(level)
    });
    // Nobody else has started one.
    let _ = tracing_subscriber::registry().with(to_stderr).with(to_file).try_init();
    if let (Some(error), Some(log)) = (failure, &logging.file) {
        tracing::warn!(log_file_path = %log.path.display(), %error, "cannot log to this file");
    }
}

fn name_keys_without_meaning(configuration: &NetworkConfiguration) {
    if !configuration.without_meaning.is_empty() {
        let keys = configuration.without_meaning.join(", ");
        tracing::info!(keys, "these keys of the configuration have no meaning in Weir");
    }
}
