//! Where the datastore is: the command line says it, else the environment,
//! else Weir's own file, else the node's CNI configuration; else it is the
//! embedded one in its default place.

mod error;
mod settings;
mod sources;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weir_common::datastore::{
    Datastore, DatastoreConfiguration, EtcdConfiguration, Pem, may_hold_password,
};
use weir_datastore::{missing_file, open_with};
use weir_process::EndpointFile;

use crate::network::{Network, asks_weir_ipam, datastore_of, plugins};
use crate::session::Failure;

use error::UnreadFile;
use settings::is_setting;

pub use error::LocationError;
pub use settings::{DEFAULT_CONFIG_FILE, Settings};
pub use sources::{
    CALICOCTL_CONFIG_FILE, DEFAULT_NETWORK_DIRECTORY, Sources, read_network_directory,
};

/// A datastore and who said that it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What to open.
    pub configuration: DatastoreConfiguration,
    /// Who said so.
    pub source: Source,
}

impl std::fmt::Display for Location {
    /// All but the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (named by {})", self.configuration, self.source)
    }
}

impl Location {
    /// Refuses to make this embedded datastore, which is not there, where nothing asks for an
    /// embedded one: another one may be meant by a name that is misspelt.
    ///
    /// # Errors
    /// [`LocationError::NotAskedFor`].
    pub fn require_asked_for(&self) -> Result<(), LocationError> {
        match self.source {
            Source::Default => Err(LocationError::NotAskedFor(self.configuration.to_string())),
            _ => Ok(()),
        }
    }

    /// Opens the datastore for what goes on and may make it.
    ///
    /// # Errors
    /// It cannot be opened, or is not there and nobody asked for it.
    pub async fn open(&self) -> Result<Box<dyn Datastore>, Failure> {
        if missing_file(&self.configuration).is_some() {
            self.require_asked_for()?;
        }
        let memory = Box::new(EndpointFile::of(&self.configuration));
        Ok(open_with(&self.configuration, memory).await?)
    }
}

/// Who said where the datastore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Flags of this call.
    CommandLine,
    /// The environment's variables.
    Environment,
    /// Weir's own configuration file, or the one named by `--config`.
    File(PathBuf),
    /// A file of the CNI configuration with a plugin of type `weir`.
    Network(PathBuf),
    /// Nobody.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CommandLine => formatter.write_str("the command line"),
            Self::Environment => formatter.write_str("the environment"),
            Self::File(path) | Self::Network(path) => write!(formatter, "{}", path.display()),
            Self::Default => formatter
                .write_str("the default, because no flag, variable or file names another one"),
        }
    }
}

/// What there is to choose from.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The flags of this call.
    pub command_line: Settings,
    /// The network that this call names.
    pub named: Option<Network>,
    /// The environment's variables.
    pub environment: Settings,
    /// The name of one of them that nobody reads, and the one that was meant.
    pub misspelt_variable: Option<(String, String)>,
    /// The name of one that nobody reads, and that may be meant all the same.
    pub doubtful_variable: Option<String>,
    /// Weir's own configuration file, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// Whether this call names that file.
    pub file_is_named: bool,
    /// The files of the CNI configuration, in the order in which the first
    /// one counts.
    pub network: Vec<(PathBuf, String)>,
    /// Files that seem to be meant to name a datastore, but are not read.
    pub unread: Vec<UnreadFile>,
}

/// Chooses the datastore: the first source that says where one is, as a
/// whole. A network or a file named in the call always does: its containers' addresses are
/// where its plugins keep them, whatever is said elsewhere. Only what the call names is
/// completed from the environment, so that a password need not stand on the command line.
/// The default counts only where nothing looks as if it were meant to name another one.
///
/// # Errors
/// [`LocationError`] when the chosen source is wrong.
pub fn choose(candidates: &Candidates) -> Result<Location, LocationError> {
    if candidates.command_line.says_where() {
        let settings = candidates.command_line.or(&candidates.environment);
        return locate(&settings, Source::CommandLine);
    }
    if let Some(Network { path, plugin }) = &candidates.named {
        return of_network(path, plugin);
    }
    if candidates.file_is_named
        && let Some((path, text)) = &candidates.file
    {
        let settings = read_file(path, text)?.or(&candidates.environment);
        if !settings.says_where() {
            return Err(LocationError::SaysNothing(path.clone()));
        }
        return locate(&settings, Source::File(path.clone()));
    }
    if let Some((name, meant)) = candidates.misspelt_variable.clone() {
        return Err(LocationError::UnknownVariable { name, meant });
    }
    if candidates.environment.says_where() {
        return locate(&candidates.environment, Source::Environment);
    }
    if let Some((path, text)) = &candidates.file {
        let settings = read_file(path, text)?;
        if settings.says_where() {
            return locate(&settings, Source::File(path.clone()));
        }
        if settings != Settings::default() {
            return Err(LocationError::NoEndpoints(Source::File(path.clone())));
        }
    }
    let of_weir = |plugin: &Map<String, Value>| plugin.get("type") == Some(&"weir".into());
    let found = first_plugin(&candidates.network, of_weir)
        .or_else(|| first_plugin(&candidates.network, asks_weir_ipam));
    match found {
        Some((path, plugin)) => {
            refuse_beside_plugins(path, &candidates.network)?;
            of_network(path, &plugin)
        }
        None => by_default(candidates),
    }
}

fn read_file(path: &Path, text: &str) -> Result<Settings, LocationError> {
    let failed = |cause| LocationError::Malformed { path: path.to_owned(), cause };
    Settings::from_yaml(text).map_err(failed)
}

/// Refuses a setting in the list itself: the plugins do not see it, and would go by another
/// datastore.
fn refuse_beside_plugins(path: &Path, files: &[(PathBuf, String)]) -> Result<(), LocationError> {
    let text = files.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str());
    let list = text.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let list = list.filter(|list| list.contains_key("plugins")).unwrap_or_default();
    match list.keys().find(|key| is_setting(key)) {
        Some(key) => {
            Err(LocationError::BesidePlugins { path: path.to_owned(), key: key.to_owned() })
        }
        None => Ok(()),
    }
}

/// The default datastore, where nothing looks as if it were meant to name another one.
fn by_default(candidates: &Candidates) -> Result<Location, LocationError> {
    for (settings, source) in [
        (&candidates.command_line, Source::CommandLine),
        (&candidates.environment, Source::Environment),
    ] {
        if *settings != Settings::default() {
            return Err(LocationError::NoEndpoints(source));
        }
    }
    if let Some(name) = candidates.doubtful_variable.clone() {
        return Err(LocationError::DoubtfulVariable(name));
    }
    // No plugin of Weir's was found in them.
    let is_meant = |(_, text): &&(PathBuf, String)| {
        let text = text.to_ascii_lowercase();
        ["weir", "\"etcd", "\"datastore"].iter().any(|word| text.contains(word))
    };
    let broken = candidates.network.iter().find(is_meant);
    let broken = broken.map(|(path, _)| UnreadFile::Malformed(path.clone()));
    match broken.or_else(|| candidates.unread.first().cloned()) {
        Some(file) => Err(LocationError::Unread(file)),
        None => Ok(Location {
            configuration: DatastoreConfiguration::default(),
            source: Source::Default,
        }),
    }
}

/// The first plugin of this sort. A file that is no network is somebody else's concern.
fn first_plugin(
    files: &[(PathBuf, String)],
    is_meant: impl Fn(&Map<String, Value>) -> bool,
) -> Option<(&Path, Map<String, Value>)> {
    let meant = |text: &str| plugins(text).ok()?.into_iter().find(|plugin| is_meant(plugin));
    files.iter().find_map(|(path, text)| Some((path.as_path(), meant(text)?)))
}

/// The datastore that a plugin itself uses.
fn of_network(path: &Path, plugin: &Map<String, Value>) -> Result<Location, LocationError> {
    let configuration = datastore_of(plugin)
        .map_err(|cause| LocationError::Network { path: path.to_owned(), cause })?;
    let says_where = |key| plugin.get(key).is_some_and(|value| value.as_str() != Some(""));
    let is_default = matches!(configuration, DatastoreConfiguration::Embedded { .. })
        && !["datastore_type", "datastore_path"].into_iter().any(says_where);
    let source = if is_default { Source::Default } else { Source::Network(path.to_owned()) };
    Ok(Location { configuration, source })
}

fn locate(settings: &Settings, source: Source) -> Result<Location, LocationError> {
    let embedded = match settings.kind.as_deref() {
        Some("etcdv3" | "etcd") => false,
        Some("embedded") => true,
        Some(other) => {
            let value = other.to_owned();
            return Err(LocationError::UnknownType { value, source_name: source });
        }
        None => settings.endpoints.is_empty() && settings.discovery.is_none(),
    };
    let configuration = if embedded {
        settings.path.clone().map_or_else(DatastoreConfiguration::default, |path| {
            DatastoreConfiguration::Embedded { path }
        })
    } else {
        DatastoreConfiguration::Etcd(etcd(settings, &source)?)
    };
    Ok(Location { configuration, source })
}

fn etcd(settings: &Settings, source: &Source) -> Result<EtcdConfiguration, LocationError> {
    if settings.endpoints.is_empty() {
        return Err(match settings.discovery {
            Some(_) => LocationError::Discovery(source.clone()),
            None => LocationError::NoEndpoints(source.clone()),
        });
    }
    // First of all: endpoints are named in messages and logs.
    if may_hold_password(&settings.endpoints) {
        return Err(LocationError::UserInEndpoint(source.clone()));
    }
    let credentials = match (&settings.username, &settings.password) {
        (Some(user), Some(password)) => Some((user.clone(), password.clone())),
        (None, None) => None,
        (Some(_), None) => return Err(LocationError::NoPassword(source.clone())),
        (None, Some(_)) => return Err(LocationError::NoUser(source.clone())),
    };
    let (authorities, client_certificate) = certificates(settings, source)?;
    Ok(EtcdConfiguration {
        authorities,
        client_certificate,
        credentials,
        ..EtcdConfiguration::new(settings.endpoints.clone())
    })
}

/// The authorities, and the client's certificate with its key.
type Certificates = (Option<Pem>, Option<(Pem, Pem)>);

/// calicoctl takes them from files or inline, and refuses both at once as well
/// (`libcalico-go/lib/backend/etcdv3/etcdv3.go`, `NewEtcdV3Client`).
fn certificates(settings: &Settings, source: &Source) -> Result<Certificates, LocationError> {
    let file = |path: &Option<PathBuf>| path.clone().map(Pem::File);
    let inline = |text: &Option<String>| text.clone().map(Pem::Inline);
    let Settings { authority, certificate, key, .. } = settings;
    let files = [file(authority), file(certificate), file(key)];
    let Settings { inline_authority, inline_certificate, inline_key, .. } = settings;
    let inlines = [inline(inline_authority), inline(inline_certificate), inline(inline_key)];
    let is_given = |given: &[Option<Pem>]| given.iter().any(Option::is_some);
    let [authorities, certificate, key] = match (is_given(&files), is_given(&inlines)) {
        (true, true) => return Err(LocationError::InlineAndFiles(source.clone())),
        (_, true) => inlines,
        _ => files,
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok((authorities, Some((certificate, key)))),
        (None, None) => Ok((authorities, None)),
        _ => Err(LocationError::HalfACertificate(source.clone())),
    }
}

#[cfg(test)]
mod tests;
