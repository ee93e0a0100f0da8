//! What is logged, and where.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::error::Error;
use super::value::{absolute, invalid};
use super::written::{WrittenConfiguration, decode};

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

/// What is logged, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// How much.
    pub level: LogLevel,
    /// A file to log to, besides standard error.
    pub file: Option<LogFile>,
}

impl Logging {
    /// What of it can be used in a configuration, whatever else is wrong in there.
    pub fn lenient(json: &Map<String, Value>) -> Self {
        let usable = json.iter().filter(|(key, value)| is_usable(key, value) == Some(true));
        let usable = usable.map(|(key, value)| (key.clone(), value.clone())).collect();
        decode(&usable).and_then(|written| written.logging()).unwrap_or_default()
    }
}

/// Whether the value of a key of the log can be used; `None` for any other key.
pub(super) fn is_usable(key: &str, value: &Value) -> Option<bool> {
    Some(match key {
        "log_level" => value.as_str().is_some_and(|text| log_level(Some(text)).is_ok()),
        "log_file_path" => value.as_str().is_some_and(|path| Path::new(path).is_absolute()),
        "log_file_max_size" => value.as_u64().is_some_and(|size| u32::try_from(size).is_ok()),
        _ => return None,
    })
}

fn log_level(text: Option<&str>) -> Result<LogLevel, Error> {
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

impl WrittenConfiguration {
    pub(super) fn logging(&self) -> Result<Logging, Error> {
        Ok(Logging { level: log_level(self.log_level.as_deref())?, file: self.log_file()? })
    }

    fn log_file(&self) -> Result<Option<LogFile>, Error> {
        let Some(path) = absolute("log_file_path", self.log_file_path.as_deref())? else {
            return Ok(None);
        };
        let megabytes = match self.log_file_max_size {
            None | Some(0) => DEFAULT_LOG_MEGABYTES,
            Some(megabytes) => megabytes,
        };
        Ok(Some(LogFile { path, max_size: u64::from(megabytes) << 20 }))
    }
}
