//! Where the datastore is and how it is reached.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sha1::{Digest, Sha1};

/// The place of the embedded datastore when nothing else is configured.
pub const DEFAULT_EMBEDDED_PATH: &str = "/var/lib/weir/weir.db";

/// A datastore, as validated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreConfiguration {
    /// A file on this host.
    Embedded {
        /// The database file; its directory is made when it is missing.
        path: PathBuf,
    },
    /// An etcd cluster.
    Etcd(EtcdConfiguration),
}

impl DatastoreConfiguration {
    /// What tells this datastore from another one: its file, or etcd's URLs, whose order
    /// says nothing.
    pub fn place(&self) -> String {
        match self {
            Self::Embedded { path } => path.display().to_string(),
            Self::Etcd(etcd) => {
                let endpoints = etcd.endpoints.iter().map(|it| plain_endpoint(it));
                endpoints.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
            }
        }
    }

    /// A short name for [`Self::place`], fit for a file: 16 hexadecimal digits.
    pub fn place_id(&self) -> String {
        let digest = Sha1::digest(self.place().as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether two configurations lead to one datastore, as far as their text tells: the
    /// same file, or an endpoint in common. `None` when one datastore may be spelt in two
    /// ways here: by other members of one cluster, by another name of a host or a file.
    pub fn is_same_by_text(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Embedded { path: one }, Self::Embedded { path: other }) => {
                (one == other).then_some(true)
            }
            (Self::Etcd(one), Self::Etcd(other)) => {
                let theirs: BTreeSet<_> =
                    other.endpoints.iter().map(|it| plain_endpoint(it)).collect();
                let is_theirs = |endpoint: &String| theirs.contains(&plain_endpoint(endpoint));
                one.endpoints.iter().any(is_theirs).then_some(true)
            }
            _ => Some(false),
        }
    }
}

/// An endpoint's URL in the one way in which all its spellings are written: scheme and
/// host in lower case, with the port, without slashes at the end (RFC 3986, 6.2).
fn plain_endpoint(url: &str) -> String {
    let url = url.trim_end_matches('/').to_ascii_lowercase();
    let port = match url.split_once("://") {
        Some(("https", _)) => 443,
        _ => 80,
    };
    let authority = url.split_once("://").map_or(url.as_str(), |(_, authority)| authority);
    // An IPv6 address has colons of its own, in brackets.
    let behind_host = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    if behind_host.contains(':') { url } else { format!("{url}:{port}") }
}

impl std::fmt::Display for DatastoreConfiguration {
    /// All but the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded { path } => write!(formatter, "embedded, {}", path.display()),
            Self::Etcd(etcd) => {
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
                Ok(())
            }
        }
    }
}

impl Default for DatastoreConfiguration {
    fn default() -> Self {
        Self::Embedded { path: DEFAULT_EMBEDDED_PATH.into() }
    }
}

/// A certificate or a key in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file on this host.
    File(PathBuf),
    /// In the configuration itself.
    Inline(String),
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl std::fmt::Display for Pem {
    /// Where it is, and never what it is: keys end up here.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Inline(_) => formatter.write_str("(inline)"),
        }
    }
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// How an endpoint of etcd is written.
pub const ENDPOINT_FORM: &str = "write http://HOST:PORT or https://HOST:PORT, and user and \
                                 password as etcd_username and etcd_password";

/// Stands for an endpoint with a user in it.
pub const HIDDEN_ENDPOINT: &str = "…@…";

/// Whether one of these endpoints may hold a password, so that none of them is shown: a comma
/// in a password takes its URL apart.
pub fn may_hold_password(endpoints: &[String]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.contains('@'))
}

/// An etcd cluster and the credentials for it.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfiguration {
    /// `http://` or `https://` URLs. The one that answered last is asked first, else the
    /// first one; the others follow in this order. Never empty.
    pub endpoints: Vec<String>,
    /// The authorities that sign the servers' certificates; the system's own are used
    /// without them.
    pub authorities: Option<Pem>,
    /// The client's certificate and its key.
    pub client_certificate: Option<(Pem, Pem)>,
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
            authorities: None,
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
            .field("authorities", &self.authorities)
            .field("client_certificate", &self.client_certificate)
            .field("user", &self.credentials.as_ref().map(|(user, _)| user))
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(endpoints: &[&str]) -> DatastoreConfiguration {
        let endpoints = endpoints.iter().map(|it| (*it).to_owned()).collect();
        DatastoreConfiguration::Etcd(EtcdConfiguration::new(endpoints))
    }

    #[test]
    fn spellings_of_one_endpoint_are_one() {
        for (one, other) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379/"),
            ("HTTP://Etcd.Example:2379", "http://etcd.example:2379"),
            ("http://h", "http://h:80/"),
            ("https://[FD00::1]", "https://[fd00::1]:443"),
        ] {
            assert_eq!(etcd(&[one]).is_same_by_text(&etcd(&["http://x:1", other])), Some(true));
            assert_eq!(etcd(&[one]).place(), etcd(&[other]).place());
            assert_eq!(etcd(&[one]).place_id(), etcd(&[other]).place_id());
        }
    }

    #[test]
    fn what_the_text_does_not_tell_stays_open() {
        let file = |path: &str| DatastoreConfiguration::Embedded { path: path.into() };
        for (one, other) in [
            ("http://h:2379", "https://h:2379"),
            ("http://h:2379", "http://h:2380"),
            ("http://127.0.0.1:2379", "http://localhost:2379"),
        ] {
            assert_eq!(etcd(&[one]).is_same_by_text(&etcd(&[other])), None);
        }
        assert_eq!(file("/a").is_same_by_text(&file("/a")), Some(true));
        assert_eq!(file("/a").is_same_by_text(&file("/b")), None);
        assert_eq!(file("/a").is_same_by_text(&etcd(&["http://a:1"])), Some(false));
    }
}
