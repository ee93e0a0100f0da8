//! The endpoints of a cluster, and going on to the next when one fails.
//!
//! etcd-client spreads requests over its endpoints but repeats none, so that a
//! dead endpoint fails every n-th request. Here each endpoint has a client of
//! its own, made when it is first needed; one that answered is used until it
//! fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient, TlsOptions, WatchClient};
use tokio::sync::Mutex;
use weir_common::datastore::{Error, EtcdConfiguration};

use super::error::{AllFailed, EtcdFailure, RequestFate, describe, judge, needs_no_log_in};
use super::tls;

/// Answers are as large as what was asked for; gRPC's usual limit is 4 MiB.
const LARGEST_ANSWER: usize = i32::MAX as usize;

/// How often a watch makes sure that its endpoint is still there. etcd closes
/// connections that ask more often than every 5 s (`--grpc-keepalive-min-time`).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// No endpoint has answered yet.
const NONE_KNOWN: usize = usize::MAX;

/// The clients of one connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
}

/// Whether a request may be sent again when it is unknown what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It may.
    Safe,
    /// It may not: only the endpoint that answered last is asked.
    Unsafe,
}

/// All endpoints of a cluster.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    known_good: AtomicUsize,
    location: String,
}

impl Endpoints {
    /// Checks the configuration without dialling.
    pub(super) async fn new(configuration: &EtcdConfiguration) -> Result<Self, Error> {
        if configuration.endpoints.is_empty() {
            return Err(bad_endpoint("", "names no endpoint; give at least one URL"));
        }
        let tls = match configuration.endpoints.iter().any(|url| is_https(url)) {
            true => Some(tls::options(configuration)?),
            false => None,
        };
        let mut all = Vec::new();
        for url in &configuration.endpoints {
            let options = options(configuration, tls.clone().filter(|_| is_https(url)));
            check(url, &options, configuration).await?;
            let line = Mutex::new(Line { options, was_lost: false, connection: None });
            all.push(Endpoint { url: url.clone(), configuration: configuration.clone(), line });
        }
        let location = configuration.endpoints.join(",");
        Ok(Self { all, known_good: AtomicUsize::new(NONE_KNOWN), location })
    }

    /// How the cluster is called in errors.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Whether the last request was answered by one of the endpoints.
    pub(super) fn is_one_known_good(&self) -> bool {
        self.known_good.load(Ordering::Relaxed) != NONE_KNOWN
    }

    /// Sends a request to the endpoint that answered last, or the first one,
    /// and, if it may be repeated, to each of the others until one answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with every endpoint asked and its cause,
    /// [`Error::Denied`], or [`Error::Failed`] for what no endpoint would do.
    pub(super) async fn call<T, F>(
        &self,
        repeat: Repeat,
        request: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut failures = Vec::new();
        for index in self.order() {
            let endpoint = &self.all[index];
            let failure = match endpoint.call(&request).await {
                Ok(answer) => {
                    self.known_good.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let location = endpoint.url.clone();
            match judge(&failure) {
                RequestFate::Denied | RequestFate::LogInAgain => {
                    return Err(Error::Denied { location, cause: Box::new(failure) });
                }
                RequestFate::Refused => {
                    return Err(Error::Failed { location, cause: Box::new(failure) });
                }
                RequestFate::TryNext => failures.push((location, failure)),
            }
            endpoint.forget().await;
            self.known_good.store(NONE_KNOWN, Ordering::Relaxed);
            if repeat == Repeat::Unsafe {
                break;
            }
        }
        Err(self.unavailable(failures))
    }

    /// The error that names these endpoints and their causes.
    pub(super) fn unavailable(&self, failures: Vec<(String, EtcdFailure)>) -> Error {
        Error::Unavailable { location: self.location.clone(), cause: Box::new(AllFailed(failures)) }
    }

    /// The error for an answer that cannot be understood.
    pub(super) fn failed(&self, error: etcd_client::Error) -> Error {
        Error::Failed { location: self.location.clone(), cause: Box::new(EtcdFailure::from(error)) }
    }

    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.all.len();
        let first = match self.known_good.load(Ordering::Relaxed) {
            NONE_KNOWN => 0,
            index => index,
        };
        (0..count).map(move |step| (first + step) % count)
    }
}

/// How a connection to an endpoint of this configuration is made.
fn options(configuration: &EtcdConfiguration, tls: Option<TlsOptions>) -> ConnectOptions {
    let options = ConnectOptions::new()
        .with_connect_timeout(configuration.connect_timeout)
        .with_keep_alive(KEEP_ALIVE, configuration.request_timeout)
        .with_keep_alive_while_idle(false)
        .with_require_leader(true);
    tls.into_iter().fold(options, ConnectOptions::with_tls)
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// One endpoint.
struct Endpoint {
    url: String,
    configuration: EtcdConfiguration,
    line: Mutex<Line>,
}

/// The connection to an endpoint, once it was needed, and how the next one is made.
struct Line {
    options: ConnectOptions,
    was_lost: bool,
    connection: Option<Connection>,
}

impl Endpoint {
    async fn call<T, F>(&self, request: &impl Fn(Connection) -> F) -> Result<T, EtcdFailure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        match self.call_once(request).await {
            Err(failure) if self.may_log_in_again(&failure) => {
                // etcd refused before it did anything, so this repeats nothing.
                self.forget().await;
                self.call_once(request).await
            }
            result => result,
        }
    }

    fn may_log_in_again(&self, failure: &EtcdFailure) -> bool {
        self.configuration.credentials.is_some() && judge(failure) == RequestFate::LogInAgain
    }

    async fn call_once<T, F>(&self, request: &impl Fn(Connection) -> F) -> Result<T, EtcdFailure>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let known = self.line.lock().await.connection.clone();
        let EtcdConfiguration { connect_timeout, request_timeout, .. } = self.configuration;
        // The first request also connects, as the client dials by itself.
        let limit = match known {
            Some(_) => request_timeout,
            None => connect_timeout + request_timeout,
        };
        let answer = async {
            let connection = match known {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            request(connection).await
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(EtcdFailure::TimedOut(limit)),
        }
    }

    /// The connection, which several tasks make only once.
    async fn connect(&self) -> Result<Connection, etcd_client::Error> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok(connection.clone());
        }
        if line.was_lost
            && let Some(options) = self.renewed()
        {
            line.options = options;
        }
        let client = self.log_in(line.options.clone()).await?;
        let connection = Connection {
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
        };
        Ok(line.connection.insert(connection).clone())
    }

    /// A client, logged in if there are credentials and etcd asks for them, as
    /// etcd's own client does it.
    async fn log_in(&self, anonymous: ConnectOptions) -> Result<Client, etcd_client::Error> {
        let Some((user, password)) = &self.configuration.credentials else {
            return Client::connect([&self.url], Some(anonymous)).await;
        };
        let named = anonymous.clone().with_user(user, password);
        match Client::connect([&self.url], Some(named)).await {
            Err(error) if needs_no_log_in(&error) => {
                Client::connect([&self.url], Some(anonymous)).await
            }
            result => result,
        }
    }

    /// Makes the next request open a new connection.
    async fn forget(&self) {
        let mut line = self.line.lock().await;
        line.connection = None;
        line.was_lost = true;
    }

    /// How to connect after a failure: with the certificates that there are by now, since
    /// an operator may have renewed them. While they cannot be used, as in the moment when
    /// they are written, those of before are.
    fn renewed(&self) -> Option<ConnectOptions> {
        let tls = is_https(&self.url).then(|| tls::options(&self.configuration))?;
        Some(options(&self.configuration, Some(tls.ok()?)))
    }
}

/// Makes a client without credentials and drops it again: that checks the URL
/// and the TLS options, and does not dial.
async fn check(
    url: &str,
    options: &ConnectOptions,
    configuration: &EtcdConfiguration,
) -> Result<(), Error> {
    if !url.starts_with("http://") && !is_https(url) {
        return Err(bad_endpoint(url, "begins with neither http:// nor https://"));
    }
    match Client::connect([url], Some(options.clone())).await {
        Ok(_) => Ok(()),
        Err(etcd_client::Error::InvalidUri(error)) => {
            Err(bad_endpoint(url, &format!("is not a URL: {error}")))
        }
        Err(error) => Err(tls::unusable(configuration, &describe(&error))),
    }
}

fn bad_endpoint(url: &str, reason: &str) -> Error {
    Error::Misconfigured {
        field: "etcd_endpoints",
        value: url.to_owned(),
        reason: format!("{reason} (as in http://192.0.2.1:2379)"),
    }
}
