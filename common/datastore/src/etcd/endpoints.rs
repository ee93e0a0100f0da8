//! The endpoints of a cluster, and going on to another when one fails or is silent.
//!
//! etcd-client spreads requests over its endpoints but repeats none, so that a
//! dead endpoint fails every n-th request. Here each endpoint has a client of
//! its own, made when it is first needed; one that answered is used until it
//! fails, and is left to the next process as the first to ask.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use etcd_client::{Client, GetOptions, KvClient, WatchClient};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use weir_common::datastore::{Error, EtcdConfiguration, LastEndpoint, keys};

use super::diagnose::diagnose;
use super::dial::{Dial, bad_endpoint, is_https};
use super::error::{
    AllFailed, EtcdFailure, RequestFate, judge, judge_answer, needs_no_log_in, refused,
};
use super::race::{HEAD_START, Race, RaceStep, order, remembered};
use super::tls::Tls;

/// Answers are as large as what was asked for; gRPC's usual limit is 4 MiB.
const LARGEST_ANSWER: usize = i32::MAX as usize;

/// How long a watch waits for a sign of life of its endpoint when requests are answered
/// elsewhere.
const WATCH_PATIENCE: Duration = Duration::from_secs(1);

/// How long a watch is silent before it is asked for.
const WATCH_SILENCE: Duration = Duration::from_millis(500);

/// The clients of one connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
    endpoint: usize,
}

impl Connection {
    fn new(client: &Client, endpoint: usize) -> Self {
        Self {
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
            endpoint,
        }
    }

    /// Asks whether a key is there, as linearizable as all that is read: a member that does
    /// not reach its leader gives no answer. Whether the key may be read is found out after
    /// that, so that a refusal is an answer too.
    async fn sign_of_life(mut self) -> Result<(), etcd_client::Error> {
        let options = GetOptions::new().with_count_only();
        match self.kv.get(keys::CLUSTER_INFORMATION, Some(options)).await {
            Err(error) if judge_answer(&error) != RequestFate::Denied => Err(error),
            _ => Ok(()),
        }
    }
}

/// What a request does, and with that how it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// It reads: another endpoint is asked when one is silent.
    Read,
    /// It writes, and takes effect once even when it is sent twice. It is sent to an endpoint
    /// that answers, and to another one only after that one failed.
    RepeatableWrite,
    /// It writes: it is sent once, to an endpoint that answers.
    Write,
}

/// All endpoints of a cluster.
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    /// The one that answered last in this process, unless it has failed since.
    current: watch::Sender<Option<usize>>,
    memory: Box<dyn LastEndpoint>,
    /// The one that the memory names, once it was asked; the first one if it names none.
    left: OnceLock<Mutex<usize>>,
    location: String,
}

/// Why no endpoint did what it was asked.
enum Unanswered {
    /// This one answered that it will not, and neither would the others.
    Refused(usize, EtcdFailure),
    /// None of these answered.
    AllFailed(Vec<(usize, EtcdFailure)>),
}

impl Endpoints {
    /// Checks the configuration without dialling.
    pub(super) fn new(
        configuration: &EtcdConfiguration,
        memory: Box<dyn LastEndpoint>,
    ) -> Result<Self, Error> {
        if configuration.endpoints.is_empty() {
            return Err(bad_endpoint("", "names no endpoint; give at least one URL"));
        }
        let tls = match configuration.endpoints.iter().any(|url| is_https(url)) {
            true => Some(Tls::new(configuration)?),
            false => None,
        };
        let mut all = Vec::new();
        for (index, url) in configuration.endpoints.iter().enumerate() {
            let dial = Dial::new(url, tls.as_ref(), configuration)?;
            all.push(Endpoint {
                index,
                url: url.clone(),
                configuration: configuration.clone(),
                line: Mutex::new(Line { dial, was_lost: false, connection: None }),
                log_in: tokio::sync::Mutex::new(()),
            });
        }
        let location = configuration.endpoints.join(",");
        let current = watch::Sender::new(None);
        Ok(Self { all, current, memory, left: OnceLock::new(), location })
    }

    /// How the cluster is called in errors.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Sends a request to the endpoint that answered last, and to others as its kind allows.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with every endpoint asked and its cause,
    /// or, for what no endpoint would do, what [`refused`] makes of it.
    pub(super) async fn call<T, F>(
        &self,
        kind: RequestKind,
        request: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let answer = match kind {
            RequestKind::Read => self.race(&self.order(), &request).await,
            _ => self.send(kind, &request).await,
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Refused(index, failure)) => Err(self.refused(kind, index, failure)),
            Err(Unanswered::AllFailed(mut failures)) => {
                failures.sort_by_key(|(index, _)| *index);
                let explained = failures.into_iter().map(async |(index, failure)| {
                    let endpoint = &self.all[index];
                    (endpoint.url.clone(), endpoint.explain(failure).await)
                });
                Err(self.unavailable(join_all(explained).await))
            }
        }
    }

    /// The error for what no endpoint does.
    fn refused(&self, kind: RequestKind, index: usize, failure: EtcdFailure) -> Error {
        let Endpoint { url, configuration, .. } = &self.all[index];
        let user = configuration.credentials.as_ref().map(|(user, _)| user.as_str());
        refused(failure, url.clone(), user, kind != RequestKind::Read)
    }

    /// Sends a request that writes. It is never sent to a second endpoint while the first may
    /// still answer; to find one that answers, a request is raced that does nothing.
    async fn send<T, F>(
        &self,
        kind: RequestKind,
        request: &impl Fn(Connection) -> F,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (mut order, mut failures) = (self.order(), Vec::new());
        while !order.is_empty() {
            let index = match self.current().filter(|index| order.contains(index)) {
                Some(index) => index,
                None => match self.find(&order).await {
                    Ok(index) => index,
                    Err(Unanswered::AllFailed(more)) => {
                        failures.extend(more);
                        break;
                    }
                    Err(refused) => return Err(refused),
                },
            };
            match self.all[index].call(request).await {
                Ok(answer) => {
                    self.has_answered(index);
                    return Ok(answer);
                }
                Err(failure) => failures.push((index, self.judge(index, failure)?)),
            }
            if kind == RequestKind::Write {
                break;
            }
            order.retain(|it| *it != index);
        }
        Err(Unanswered::AllFailed(failures))
    }

    /// One of these endpoints that answers.
    async fn find(&self, order: &[usize]) -> Result<usize, Unanswered> {
        let sign = async |connection: Connection| {
            let endpoint = connection.endpoint;
            connection.sign_of_life().await.map(|()| endpoint)
        };
        self.race(order, &sign).await
    }

    /// Sends a request that may be sent to several endpoints, as [`Race`] decides.
    async fn race<T, F>(
        &self,
        order: &[usize],
        request: &impl Fn(Connection) -> F,
    ) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let ask = async |index: usize| (index, self.all[index].call(request).await);
        let probe = async |index: usize| (index, self.all[index].probe().await);
        let mut race = Race::new(order.iter().copied());
        let (mut asked, mut probed) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut failures, mut steps, mut head_start) = (Vec::new(), race.begin(), None);
        loop {
            for step in steps.drain(..) {
                match step {
                    RaceStep::Ask(index) => {
                        asked.push(ask(index));
                        head_start = Some(Instant::now() + HEAD_START);
                    }
                    RaceStep::Probe(index) => probed.push(probe(index)),
                }
            }
            if asked.is_empty() && probed.is_empty() {
                return Err(Unanswered::AllFailed(failures));
            }
            tokio::select! {
                biased;
                Some((index, answer)) = asked.next() => match answer {
                    Ok(answer) => {
                        race.silent().filter(|it| *it != index).for_each(|it| self.forget(it));
                        self.has_answered(index);
                        return Ok(answer);
                    }
                    Err(failure) => {
                        failures.push((index, self.judge(index, failure)?));
                        steps = race.ask_failed(index);
                    }
                },
                Some((index, answer)) = probed.next() => match answer {
                    Ok(()) => steps = race.probe_answered(index),
                    Err(failure) if race.probe_failed(index) => {
                        self.forget(index);
                        failures.push((index, failure));
                    }
                    Err(_) => {}
                },
                () = sleep_until(head_start.unwrap_or_else(Instant::now)),
                    if head_start.is_some() =>
                {
                    head_start = None;
                    steps = race.head_start_is_over();
                }
            }
        }
    }

    /// The failure, if another endpoint may do better.
    fn judge(&self, index: usize, failure: EtcdFailure) -> Result<EtcdFailure, Unanswered> {
        match judge(&failure) {
            RequestFate::TryNext => {
                self.forget(index);
                Ok(failure)
            }
            _ => Err(Unanswered::Refused(index, failure)),
        }
    }

    /// Ends when the endpoint of a watch answers no more: another one has answered a request,
    /// or none has, and this one shows no sign of life.
    pub(super) async fn is_lost(&self, connection: &Connection) {
        if self.all.len() == 1 {
            // There is no other: HTTP/2's own pings end what is broken.
            return std::future::pending().await;
        }
        let mut current = self.current.subscribe();
        loop {
            let is_elsewhere = *current.borrow_and_update() != Some(connection.endpoint);
            if is_elsewhere {
                // A watch that tells of changes meanwhile is alive.
                sleep(WATCH_SILENCE).await;
                let sign = timeout(WATCH_PATIENCE, connection.clone().sign_of_life()).await;
                let is_alive = sign.is_ok_and(|answer| is_answer(&answer));
                if !is_alive {
                    return;
                }
            }
            if current.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The error that names these endpoints and their causes.
    pub(super) fn unavailable(&self, failures: Vec<(String, EtcdFailure)>) -> Error {
        Error::Unavailable { location: self.location.clone(), cause: Box::new(AllFailed(failures)) }
    }

    /// The error for an answer that cannot be understood.
    pub(super) fn failed(&self, error: etcd_client::Error) -> Error {
        Error::Failed { location: self.location.clone(), cause: Box::new(EtcdFailure::from(error)) }
    }

    fn current(&self) -> Option<usize> {
        *self.current.borrow()
    }

    fn order(&self) -> Vec<usize> {
        let first = self.current().unwrap_or_else(|| *unpoisoned(self.left()));
        order(self.all.len(), first)
    }

    /// What was left by the last process. It is read when it is needed, and not before: what
    /// a call learns while others wait for the host's lock is of use to them.
    fn left(&self) -> &Mutex<usize> {
        self.left.get_or_init(|| {
            let urls: Vec<_> = self.all.iter().map(|endpoint| endpoint.url.clone()).collect();
            let left = if urls.len() > 1 { self.memory.recall() } else { None };
            Mutex::new(remembered(&urls, left.as_deref()).unwrap_or(0))
        })
    }

    fn has_answered(&self, index: usize) {
        self.current.send_if_modified(|current| current.replace(index) != Some(index));
        if std::mem::replace(&mut *unpoisoned(self.left()), index) != index {
            self.memory.leave(&self.all[index].url);
        }
    }

    fn forget(&self, index: usize) {
        self.all[index].forget();
        self.current.send_if_modified(|current| {
            let was_current = *current == Some(index);
            *current = current.filter(|_| !was_current);
            was_current
        });
    }
}

/// What a panic left behind is still whole here: it is replaced in one step.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an endpoint has answered, be it that it refuses. One without a leader has not.
fn is_answer(answer: &Result<(), etcd_client::Error>) -> bool {
    answer.as_ref().err().is_none_or(|error| judge_answer(error) != RequestFate::TryNext)
}

/// One endpoint.
struct Endpoint {
    index: usize,
    url: String,
    configuration: EtcdConfiguration,
    line: Mutex<Line>,
    /// Held by the task that logs in, as several need to do it only once.
    log_in: tokio::sync::Mutex<()>,
}

/// The connection to an endpoint, once it was needed, and how the next one is made.
struct Line {
    dial: Dial,
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
                self.forget();
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
        let known = self.connection();
        let limit = self.limit(known.is_some());
        let answer = async {
            let connection = match known {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            request(connection).await
        };
        match timeout(limit, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(EtcdFailure::TimedOut(limit)),
        }
    }

    /// Asks for a sign of life, without logging in: that is work for etcd.
    async fn probe(&self) -> Result<(), EtcdFailure> {
        let known = self.connection();
        let limit = self.limit(known.is_some());
        let sign = async {
            let connection = match known {
                Some(connection) => connection,
                None => Connection::new(&self.dial().connect(None).await?, self.index),
            };
            let answer = connection.clone().sign_of_life().await;
            Ok((connection, answer))
        };
        let (connection, answer) = match timeout(limit, sign).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return Err(EtcdFailure::Answered(error)),
            Err(_) => return Err(EtcdFailure::TimedOut(limit)),
        };
        if !is_answer(&answer) {
            return answer.map_err(EtcdFailure::Answered);
        }
        if self.configuration.credentials.is_none() {
            unpoisoned(&self.line).connection.get_or_insert(connection);
        }
        Ok(())
    }

    /// How long an answer may take. The first request also connects, as the client dials by
    /// itself.
    fn limit(&self, is_connected: bool) -> Duration {
        let EtcdConfiguration { connect_timeout, request_timeout, .. } = self.configuration;
        if is_connected { request_timeout } else { connect_timeout + request_timeout }
    }

    fn connection(&self) -> Option<Connection> {
        unpoisoned(&self.line).connection.clone()
    }

    /// How the next connection is made.
    fn dial(&self) -> Dial {
        let mut line = unpoisoned(&self.line);
        if line.was_lost
            && let Some(dial) = self.renewed()
        {
            line.dial = dial;
        }
        line.dial.clone()
    }

    /// The connection, which several tasks make only once.
    async fn connect(&self) -> Result<Connection, etcd_client::Error> {
        let _log_in = self.log_in.lock().await;
        if let Some(connection) = self.connection() {
            return Ok(connection);
        }
        let client = self.log_in(self.dial()).await?;
        let connection = Connection::new(&client, self.index);
        unpoisoned(&self.line).connection = Some(connection.clone());
        Ok(connection)
    }

    /// A client, logged in if there are credentials and etcd asks for them, as
    /// etcd's own client does it.
    async fn log_in(&self, dial: Dial) -> Result<Client, etcd_client::Error> {
        match dial.connect(self.configuration.credentials.as_ref()).await {
            Err(error) if needs_no_log_in(&error) => dial.connect(None).await,
            result => result,
        }
    }

    /// Makes the next request open a new connection.
    fn forget(&self) {
        let mut line = unpoisoned(&self.line);
        line.connection = None;
        line.was_lost = true;
    }

    /// How to connect after a failure: with the certificates that there are by now, since
    /// an operator may have renewed them. While they cannot be used, as in the moment when
    /// they are written, those of before are.
    fn renewed(&self) -> Option<Dial> {
        let tls = is_https(&self.url).then(|| Tls::new(&self.configuration))?.ok()?;
        Dial::new(&self.url, Some(&tls), &self.configuration).ok()
    }

    /// The failure in words that do not depend on how far a connection came.
    async fn explain(&self, failure: EtcdFailure) -> EtcdFailure {
        if !failure.is_of_connection() {
            return failure;
        }
        let found = diagnose(&self.url, &self.configuration).await;
        found.map_or(failure, EtcdFailure::Disagreement)
    }
}
