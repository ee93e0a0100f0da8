//! Gathering what is said about the datastore on this machine.

use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::{Candidates, LocationError};

/// Weir's own configuration file.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/weir/weirctl.yaml";
/// The directory of the CNI configuration.
pub const DEFAULT_NETWORK_DIRECTORY: &str = "/etc/cni/net.d";

/// Where to look.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file.
    pub config_file: PathBuf,
    /// Whether someone named that file, so that it has to be there.
    pub config_file_required: bool,
    /// The directory with the CNI configuration.
    pub network_directory: PathBuf,
}

impl Sources {
    /// Reads the files and puts them beside flags and environment.
    ///
    /// # Errors
    /// [`LocationError::Unreadable`] when the configuration file is there, or
    /// has to be, and cannot be read.
    pub fn gather(
        &self,
        command_line: Settings,
        environment: Settings,
    ) -> Result<Candidates, LocationError> {
        Ok(Candidates {
            command_line,
            named: None,
            environment,
            file: self.read_config_file()?,
            network: read_network_directory(&self.network_directory),
        })
    }

    fn read_config_file(&self) -> Result<Option<(PathBuf, String)>, LocationError> {
        let path = self.config_file.clone();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(cause)
                if cause.kind() == std::io::ErrorKind::NotFound && !self.config_file_required =>
            {
                Ok(None)
            }
            Err(cause) => Err(LocationError::Unreadable { path, cause }),
        }
    }
}

/// The readable files of the CNI configuration: lists of plugins first, then
/// single plugins, each in order of their names. Without the directory there
/// are none.
pub fn read_network_directory(directory: &Path) -> Vec<(PathBuf, String)> {
    let rank = |path: &PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some("conflist") => Some(0),
        Some("conf" | "json") => Some(1),
        _ => None,
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        entries.map(|entry| entry.path()).filter_map(|path| Some((rank(&path)?, path))).collect();
    paths.sort();
    let readable =
        |(_, path): (i32, PathBuf)| std::fs::read_to_string(&path).ok().map(|text| (path, text));
    paths.into_iter().filter_map(readable).collect()
}
