//! What is logged, and where.

use std::path::PathBuf;

use super::super::Error;
use super::value::invalid;
use super::written::Written;

/// How large a log file may become in MB, where the configuration does not say.
const DEFAULT_LOG_MEGABYTES: u32 = 100;

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only failures.
    Error,
    /// And what may need attention.
    Warning,
    /// And what was done.
    #[default]
    Info,
    /// And how.
    Debug,
}

/// A file to log to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path, which is absolute: plugins run in whatever directory the runtime
    /// is in.
    pub path: PathBuf,
    /// How large it may become, in bytes, before it is set aside.
    pub max_size: u64,
}

pub(super) fn log_level(text: Option<&str>) -> Result<LogLevel, Error> {
    match text.unwrap_or("info").to_lowercase().as_str() {
        "error" | "fatal" | "panic" | "none" => Ok(LogLevel::Error),
        "warning" | "warn" => Ok(LogLevel::Warning),
        "info" | "" => Ok(LogLevel::Info),
        "debug" | "trace" => Ok(LogLevel::Debug),
        _ => Err(invalid(
            "log_level",
            text.unwrap_or_default(),
            "write error, warning, info or debug",
        )),
    }
}

impl Written {
    pub(super) fn log_file(&self) -> Result<Option<LogFile>, Error> {
        let Some(path) = self.log_file_path.clone().filter(|path| !path.as_os_str().is_empty())
        else {
            return Ok(None);
        };
        if !path.is_absolute() {
            let path = path.display().to_string();
            return Err(invalid("log_file_path", &path, "write a path that begins with '/'"));
        }
        let megabytes = match self.log_file_max_size {
            None | Some(0) => DEFAULT_LOG_MEGABYTES,
            Some(megabytes) => megabytes,
        };
        Ok(Some(LogFile { path, max_size: u64::from(megabytes) << 20 }))
    }
}
