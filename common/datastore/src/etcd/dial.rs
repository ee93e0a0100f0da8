//! How one endpoint is dialled.

use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, Error as EtcdError};
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;
use weir_common::datastore::{Error, EtcdConfiguration};
use weir_common::error_chain;

use super::tls::{self, Tls};

/// How often a watch makes sure that its endpoint is still there. etcd closes
/// connections that ask more often than every 5 s (`--grpc-keepalive-min-time`).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// All that a connection to an endpoint takes, other than a user.
#[derive(Clone)]
pub(super) struct Dial(Endpoint);

impl Dial {
    /// Checks the URL, and the certificates against one another. Does not dial.
    ///
    /// # Errors
    /// [`Error::Misconfigured`].
    pub(super) fn new(
        url: &str,
        tls: Option<&Tls>,
        configuration: &EtcdConfiguration,
    ) -> Result<Self, Error> {
        if !url.starts_with("http://") && !is_https(url) {
            return Err(bad_endpoint(url, "begins with neither http:// nor https://"));
        }
        let uri: Uri =
            url.parse().map_err(|error| bad_endpoint(url, &format!("is not a URL: {error}")))?;
        let endpoint = Endpoint::from(uri)
            .connect_timeout(configuration.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(configuration.request_timeout)
            .keep_alive_while_idle(false);
        let Some(Tls { options, verifier }) = tls.filter(|_| is_https(url)) else {
            return Ok(Self(endpoint));
        };
        endpoint
            .tls_config_with_verifier(options.clone(), verifier.clone())
            .map(Self)
            .map_err(|error| tls::unusable(configuration, &error_chain(&error)))
    }

    /// A client that dials with its first request, which is the log-in if a user is given.
    ///
    /// # Errors
    /// The log-in fails.
    pub(super) async fn connect(
        &self,
        user: Option<&(String, String)>,
    ) -> Result<Client, EtcdError> {
        let options = ConnectOptions::new().with_require_leader(true);
        let options = user.into_iter().fold(options, |it, (user, word)| it.with_user(user, word));
        Client::from_channel(Channel::Tonic(self.0.connect_lazy()), Some(options)).await
    }
}

pub(super) fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

pub(super) fn bad_endpoint(url: &str, reason: &str) -> Error {
    Error::Misconfigured {
        field: "etcd_endpoints",
        value: url.to_owned(),
        reason: format!("{reason} (as in http://192.0.2.1:2379)"),
    }
}
