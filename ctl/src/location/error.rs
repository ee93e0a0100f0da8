//! Why it is not known where the datastore is.

use std::path::PathBuf;

use weir_common::cni;
use weir_common::datastore::{ENDPOINT_FORM, HIDDEN_ENDPOINT};

use super::Source;
use super::settings::{DEFAULT_CONFIG_FILE, SettingsError};

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
    /// Nothing asks for an embedded datastore, and there is none.
    #[error(
        "there is no datastore yet ({0}, the default) and nothing names one; to make an embedded \
         one: --datastore-type=embedded, DATASTORE_TYPE=embedded, or \"datastore_type\": \
         \"embedded\" in the network's file; for etcd: --etcd-endpoints"
    )]
    NotAskedFor(String),
    /// A variable that may be meant to name the datastore.
    #[error(
        "nothing that is read names a datastore, and the variable {0} looks as if it should; \
         write ETCD_ENDPOINTS, or DATASTORE_TYPE=embedded"
    )]
    DoubtfulVariable(String),
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
    /// Weir's own file, or calicoctl's, has something in it that is not read.
    #[error("{path} does not say where the datastore is", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: SettingsError,
    },
    /// The file that the call names has no setting that says where.
    #[error(
        "{path} names no datastore; write for example etcd_endpoints: http://127.0.0.1:2379, \
         or datastore_type: embedded", path = .0.display()
    )]
    SaysNothing(PathBuf),
    /// A variable that is close to one that is read.
    #[error("the environment variable {name} is unknown; write {meant}, or unset it")]
    UnknownVariable {
        /// Its name.
        name: String,
        /// The one that was probably meant.
        meant: String,
    },
    /// A setting of a list of plugins, which libcni gives to none of them.
    #[error(
        "{key} in {path} stands beside \"plugins\", where no plugin reads it; write it into the \
         plugin", path = path.display()
    )]
    BesidePlugins {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
    },
    /// etcd's servers are to be found by DNS.
    #[error("etcd_discovery_srv in {0} is not supported; list the servers in etcd_endpoints")]
    Discovery(Source),
    /// The default would be used, beside a file that looks as if it named another one.
    #[error(
        "{0}, and nothing else says where the datastore is; correct that, or name the \
         datastore: --etcd-endpoints URLS, or --datastore-type embedded"
    )]
    Unread(UnreadFile),
}

/// A file that seems to be meant to name a datastore, but is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnreadFile {
    /// A network that seems to name a datastore, or Weir, but has no plugin of Weir's.
    Malformed(PathBuf),
    /// One of the CNI configuration's that this user may not read, or that is not text.
    Unreadable(PathBuf),
    /// One that has another name than the file that is read.
    OtherName(PathBuf),
}

impl std::fmt::Display for UnreadFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(path) => write!(
                formatter,
                "{} is not a network with a plugin of type weir or weir-ipam (look at its JSON, \
                 \"plugins\" and \"type\")",
                path.display()
            ),
            Self::Unreadable(path) => write!(formatter, "{} cannot be read", path.display()),
            Self::OtherName(path) => write!(
                formatter,
                "{path} is not read (the file is {DEFAULT_CONFIG_FILE}; another one: --config {path})",
                path = path.display()
            ),
        }
    }
}
