//! Gathering what is said about the datastore on this machine.

use std::path::{Path, PathBuf};

use weir_common::nearest;

use super::Candidates;
use super::error::{LocationError, UnreadFile};
use super::settings::{Settings, is_doubtful_variable, misspelt_variable};

/// Where calicoctl has its configuration.
pub const CALICOCTL_CONFIG_FILE: &str = "/etc/calico/calicoctl.cfg";
/// The directory of the CNI configuration.
pub const DEFAULT_NETWORK_DIRECTORY: &str = "/etc/cni/net.d";

/// Where to look.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file.
    pub config_file: PathBuf,
    /// Whether someone named that file, so that it has to be there.
    pub config_file_required: bool,
    /// calicoctl's configuration file, which is read only where someone names it.
    pub calicoctl_config_file: PathBuf,
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
        environment: &[(String, String)],
    ) -> Result<Candidates, LocationError> {
        let file = self.read_config_file()?;
        Ok(Candidates {
            command_line,
            named: None,
            environment: Settings::from_environment(environment),
            misspelt_variable: misspelt_variable(given_names(environment)),
            doubtful_variable: given_names(environment)
                .find(|name| is_doubtful_variable(name))
                .map(str::to_owned),
            file_is_named: self.config_file_required,
            unread: self.unread(file.is_some()),
            file,
            network: read_network_directory(&self.network_directory),
        })
    }

    /// Files that seem to be meant to name a datastore, but are not read: those whose names
    /// are almost that of the configuration file, calicoctl's, and networks that are no text.
    fn unread(&self, has_config_file: bool) -> Vec<UnreadFile> {
        const FARTHEST: usize = 3;
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let own = name(&self.config_file).unwrap_or_default();
        let stem = own.split('.').next().unwrap_or_default();
        let is_near = |path: &PathBuf| {
            let near = |name: String| {
                name.split('.').next() == Some(stem)
                    || nearest(&name, [own.as_str()], FARTHEST).is_some()
            };
            !has_config_file && name(path).is_some_and(near)
        };
        let beside = self.config_file.parent().map(files_of).unwrap_or_default();
        let calicoctls = Some(self.calicoctl_config_file.clone()).filter(|path| path.exists());
        let other_names = beside.into_iter().filter(is_near).chain(calicoctls);
        let networks = network_files(&self.network_directory).into_iter();
        let unreadable = networks.filter(|path| std::fs::read_to_string(path).is_err());
        let other_names = other_names.map(UnreadFile::OtherName);
        other_names.chain(unreadable.map(UnreadFile::Unreadable)).collect()
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
    let readable = |path: PathBuf| std::fs::read_to_string(&path).ok().map(|text| (path, text));
    network_files(directory).into_iter().filter_map(readable).collect()
}

fn network_files(directory: &Path) -> Vec<PathBuf> {
    let rank = |path: &PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some("conflist") => Some(0),
        Some("conf" | "json") => Some(1),
        _ => None,
    };
    let ranked = |path: PathBuf| Some((rank(&path)?, path));
    let mut paths: Vec<_> = files_of(directory).into_iter().filter_map(ranked).collect();
    paths.sort();
    paths.into_iter().map(|(_, path)| path).collect()
}

/// The variables that have a value.
fn given_names(environment: &[(String, String)]) -> impl Iterator<Item = &str> {
    environment.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str())
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| !path.is_dir()).collect()
}
