//! Where the datastore is: the command line says it, else the environment,
//! else Weir's own file, else the node's CNI configuration; else it is the
//! embedded one in its default place.

mod settings;
mod sources;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weir_common::cni;
use weir_common::datastore::{
    DatastoreConfiguration, ENDPOINT_FORM, EtcdConfiguration, HIDDEN_ENDPOINT, Pem,
    may_hold_password,
};

use crate::network::{Network, datastore_of, plugins};

pub use settings::Settings;
pub use sources::{
    DEFAULT_CONFIG_FILE, DEFAULT_NETWORK_DIRECTORY, Sources, read_network_directory,
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
        match &self.configuration {
            DatastoreConfiguration::Embedded { path } => {
                write!(formatter, "embedded, {}", path.display())?
            }
            DatastoreConfiguration::Etcd(etcd) => {
                write!(formatter, "etcd, {}", etcd.endpoints.join(", "))?;
                if let Some((user, _)) = &etcd.credentials {
                    write!(formatter, ", as user {user}")?;
                }
                if let Some((certificate, _)) = &etcd.client_certificate {
                    write!(formatter, ", with certificate {certificate}")?;
                }
                if let Some(authorities) = &etcd.authorities {
                    write!(formatter, ", trusting {authorities}")?;
                }
            }
        }
        write!(formatter, " (named by {})", self.source)
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
            Self::Default => formatter.write_str("the default"),
        }
    }
}

/// Why it cannot be said where the datastore is.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// No such type of datastore.
    #[error(
        "datastore_type {value:?} in {source_name} is unknown; \
         write etcdv3 (with etcd_endpoints) or embedded"
    )]
    UnknownType {
        /// The type as written.
        value: String,
        /// Who wrote it.
        source_name: Source,
    },
    /// An etcd without endpoints.
    #[error(
        "{0} says that the datastore is etcd, but not where; \
         set etcd_endpoints, for example to http://127.0.0.1:2379"
    )]
    NoEndpoints(Source),
    /// One of the client's certificate and its key is missing.
    #[error("{0} names only one of etcd_cert_file and etcd_key_file; name both")]
    HalfACertificate(Source),
    /// Certificates in files and in the source itself, of which calicoctl allows one.
    #[error(
        "{0} has certificates both inline (etcdCACert, etcdCert, etcdKey) and in files; \
         leave out one of them"
    )]
    InlineAndFiles(Source),
    /// A user without a password.
    #[error("{0} names an etcd_username without etcd_password; set ETCD_PASSWORD too, or neither")]
    NoPassword(Source),
    /// A password without a user.
    #[error("{0} has an etcd_password without etcd_username; name the user too, or neither")]
    NoUser(Source),
    /// An endpoint that may hold a password.
    #[error("etcd_endpoints {HIDDEN_ENDPOINT:?} in {0} cannot be used: {ENDPOINT_FORM}")]
    UserInEndpoint(Source),
    /// Weir's own file cannot be read.
    #[error("{path} cannot be read; check that it exists and may be read", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The plugin itself would refuse what a file of the CNI configuration says.
    #[error("{path} does not say where the datastore is", path = path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: cni::Error,
    },
    /// Weir's own file is not a mapping.
    #[error(
        "{path} is not YAML with one setting a line; write for example \
         etcd_endpoints: http://127.0.0.1:2379", path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        #[source]
        cause: serde_norway::Error,
    },
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
    /// Weir's own configuration file, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// The files of the CNI configuration, in the order in which the first
    /// one counts.
    pub network: Vec<(PathBuf, String)>,
}

/// Chooses the datastore: the first source that says where one is, as a
/// whole. A network named in the call always does: its containers' addresses are
/// where its plugins keep them, whatever is said elsewhere. Only flags are completed from the environment, so that a password
/// need not stand on the command line.
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
    if candidates.environment.says_where() {
        return locate(&candidates.environment, Source::Environment);
    }
    if let Some((path, text)) = &candidates.file {
        let settings = Settings::from_yaml(text)
            .map_err(|cause| LocationError::Malformed { path: path.clone(), cause })?;
        if settings.says_where() {
            return locate(&settings, Source::File(path.clone()));
        }
    }
    let weirs = candidates.network.iter().find_map(|(path, text)| Some((path, weir_plugin(text)?)));
    match weirs {
        Some((path, plugin)) => of_network(path, &plugin),
        None => Ok(Location {
            configuration: DatastoreConfiguration::default(),
            source: Source::Default,
        }),
    }
}

/// The configuration of a network's first plugin of type `weir`. A file that is
/// no network is somebody else's concern.
fn weir_plugin(text: &str) -> Option<Map<String, Value>> {
    plugins(text).ok()?.into_iter().find(|plugin| plugin.get("type") == Some(&"weir".into()))
}

/// The datastore that a plugin itself uses.
fn of_network(path: &Path, plugin: &Map<String, Value>) -> Result<Location, LocationError> {
    let configuration = datastore_of(plugin)
        .map_err(|cause| LocationError::Network { path: path.to_owned(), cause })?;
    Ok(Location { configuration, source: Source::Network(path.to_owned()) })
}

fn locate(settings: &Settings, source: Source) -> Result<Location, LocationError> {
    let embedded = match settings.kind.as_deref() {
        Some("etcdv3" | "etcd") => false,
        Some("embedded") => true,
        Some(other) => {
            let value = other.to_owned();
            return Err(LocationError::UnknownType { value, source_name: source });
        }
        None => settings.endpoints.is_empty(),
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
        return Err(LocationError::NoEndpoints(source.clone()));
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
