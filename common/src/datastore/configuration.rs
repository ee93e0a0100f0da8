//! Where the datastore is and how it is reached.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// The place of the embedded datastore when nothing else is configured.
pub const DEFAULT_EMBEDDED_PATH: &str = "/var/lib/weir/weir.db";

/// A datastore, as validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// A file on this host.
    Embedded {
        /// The database file; its directory is made when it is missing.
        path: PathBuf,
    },
    /// An etcd cluster.
    Etcd(EtcdConfiguration),
}

impl Configuration {
    /// What tells this datastore from another one: its file, or etcd's URLs, whose order
    /// says nothing.
    pub fn place(&self) -> String {
        match self {
            Self::Embedded { path } => path.display().to_string(),
            Self::Etcd(etcd) => {
                let endpoints = etcd.endpoints.iter().map(|it| it.trim_end_matches('/'));
                endpoints.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl Default for Configuration {
    fn default() -> Self {
        Self::Embedded { path: DEFAULT_EMBEDDED_PATH.into() }
    }
}

/// An etcd cluster and the credentials for it.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfiguration {
    /// `http://` or `https://` URLs, tried in this order. Never empty.
    pub endpoints: Vec<String>,
    /// PEM file with the authorities that sign the servers' certificates; the
    /// system's own are used without it.
    pub ca_cert_file: Option<PathBuf>,
    /// PEM files with the client's certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// How long one endpoint may take to accept a connection.
    pub connect_timeout: Duration,
    /// How long one endpoint may take to answer one request.
    pub request_timeout: Duration,
}

impl EtcdConfiguration {
    /// A configuration for these endpoints without TLS files and credentials,
    /// with the default time limits: 2 s to connect, 5 s for a request.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca_cert_file: None,
            client_certificate: None,
            credentials: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl std::fmt::Debug for EtcdConfiguration {
    /// Leaves the password out: configurations end up in logs.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EtcdConfiguration")
            .field("endpoints", &self.endpoints)
            .field("ca_cert_file", &self.ca_cert_file)
            .field("client_certificate", &self.client_certificate)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}
