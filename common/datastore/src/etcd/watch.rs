//! Watching an etcd cluster.
//!
//! etcd promises that all changes of one revision come in one message only
//! within one range of keys, so that several prefixes are watched as the one
//! range from the first to the last, and what lies between them is left out
//! here.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{Error as EtcdError, GetOptions, WatchOptions, WatchResponse, WatchStream};
use weir_common::datastore::{Entry, Error, Event, History, Revision, Watch};

use super::convert;
use super::endpoints::{Connection, Endpoints, RequestKind};
use super::error::{EtcdFailure, is_outside_history};
use crate::request::range_end;

/// One running watch. When its endpoint fails, it goes on at another one.
pub(super) struct EtcdWatch {
    endpoints: Arc<Endpoints>,
    prefixes: Vec<String>,
    after: Revision,
    /// What the stream belongs to.
    history: History,
    /// The last change that it told, other than a deletion.
    last: Option<Entry>,
    stream: Option<(WatchStream, Connection)>,
    /// Whether this stream has told anything. One that breaks before is not
    /// replaced; without that limit a watch that always breaks is replaced for ever.
    heard: bool,
}

impl EtcdWatch {
    pub(super) async fn start(
        endpoints: Arc<Endpoints>,
        prefixes: Vec<String>,
        after: Revision,
    ) -> Result<Self, Error> {
        let Opened { stream, connection, history, .. } = open(&endpoints, &prefixes, after).await?;
        let stream = Some((stream, connection));
        Ok(Self { endpoints, prefixes, after, history, last: None, stream, heard: true })
    }

    /// Ends the stream; an error if it should not be replaced.
    fn broken(&mut self, cause: EtcdError) -> Result<(), Error> {
        self.stream = None;
        if std::mem::replace(&mut self.heard, false) {
            return Ok(());
        }
        let failure = (self.endpoints.location().to_owned(), EtcdFailure::from(cause));
        Err(self.endpoints.unavailable(vec![failure]))
    }

    /// Starts another stream where the last one ended.
    ///
    /// The datastore may have been restored meanwhile. At an older revision etcd would
    /// be silent until it comes to the one that was told already; one that other
    /// writes have carried past it would go on in the middle of another history. So
    /// what was told last must still have been written then. Where nothing shows it,
    /// reading everything again does no harm.
    async fn reopen(&mut self) -> Result<(WatchStream, Connection), Error> {
        let Opened { stream, connection, now, history } =
            open(&self.endpoints, &self.prefixes, self.after).await?;
        // A member that lags looks the same.
        let is_older = now < self.after || !self.history.goes_on_in(history);
        if is_older || !self.is_as_told().await? {
            return Err(Error::Compacted { after: self.after });
        }
        self.history = history;
        Ok((stream, connection))
    }

    /// Whether etcd has the last change that was told in its history.
    async fn is_as_told(&self) -> Result<bool, Error> {
        let Some(last) = &self.last else {
            return Ok(false);
        };
        let request = |connection: Connection| entry_at(connection, &last.key, last.revision);
        Ok(self.endpoints.call(RequestKind::Read, request).await?.as_ref() == Some(last))
    }

    /// The changes in a message that lie under the prefixes.
    fn changes(&mut self, response: &WatchResponse) -> Result<Vec<Event>, EtcdError> {
        let mut changed = response.events().iter().filter_map(|event| Some((event, event.kv()?)));
        let is_watched =
            |key: &[u8]| self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        let events = changed
            .clone()
            .filter(|(_, entry)| is_watched(entry.key()))
            .map(|(event, entry)| convert::event(event.event_type(), entry.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some((_, last)) = changed.next_back() {
            self.after = Revision(last.mod_revision());
        }
        let put = |event: &Event| match event {
            Event::Put(entry) => Some(entry.clone()),
            Event::Delete { .. } => None,
        };
        self.last = events.iter().rev().find_map(put).or(self.last.take());
        Ok(events)
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let (stream, connection) = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let stream = self.reopen().await?;
                    self.stream.insert(stream)
                }
            };
            let told = tokio::select! {
                told = message(stream) => told,
                () = self.endpoints.is_lost(connection) => {
                    Err(EtcdError::WatchError("its endpoint answers no more".to_owned()))
                }
            };
            let response = match told {
                Ok(response) => response,
                Err(error) => {
                    self.broken(error)?;
                    continue;
                }
            };
            if response.compact_revision() > 0 {
                self.stream = None;
                return Err(Error::Compacted { after: self.after });
            }
            self.heard = true;
            let events = self.changes(&response).map_err(|error| self.endpoints.failed(error))?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// A stream that etcd has confirmed.
struct Opened {
    stream: WatchStream,
    connection: Connection,
    /// The revision at which the endpoint is.
    now: Revision,
    history: History,
}

async fn open(
    endpoints: &Endpoints,
    prefixes: &[String],
    after: Revision,
) -> Result<Opened, Error> {
    let request = |connection: Connection| open_stream(connection, prefixes, after);
    endpoints.call(RequestKind::Read, request).await
}

/// Starts a watch and waits until etcd confirms it.
async fn open_stream(
    mut connection: Connection,
    prefixes: &[String],
    after: Revision,
) -> Result<Opened, EtcdError> {
    let first = prefixes.iter().map(|prefix| convert::first_key(prefix)).min();
    let end = prefixes.iter().map(|prefix| range_end(prefix)).max();
    let (Some(first), Some(end)) = (first, end) else {
        return Err(EtcdError::Internal("a watch of no prefix would never end".to_owned()));
    };
    let options =
        WatchOptions::new().with_range(end).with_start_revision(after.0.saturating_add(1));
    let mut stream = connection.watch.watch(first, Some(options)).await?;
    let confirmed = message(&mut stream).await?;
    let now = Revision(confirmed.header().map_or(0, |header| header.revision()));
    let history = convert::history(confirmed.header());
    Ok(Opened { stream, connection, now, history })
}

/// What a key had at a revision; `None` also when that is forgotten, or still to
/// come.
async fn entry_at(
    mut connection: Connection,
    key: &str,
    at: Revision,
) -> Result<Option<Entry>, EtcdError> {
    let options = GetOptions::new().with_revision(at.0);
    match connection.kv.get(key, Some(options)).await {
        Ok(mut response) => Ok(convert::entries(response.take_kvs())?.pop()),
        Err(error) if is_outside_history(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The next message. A watch that etcd ends is an error, unless history is
/// missing, which the message tells.
async fn message(stream: &mut WatchStream) -> Result<WatchResponse, EtcdError> {
    match stream.message().await? {
        Some(response) if response.canceled() && response.compact_revision() == 0 => {
            Err(EtcdError::WatchError(response.cancel_reason().to_owned()))
        }
        Some(response) => Ok(response),
        None => Err(EtcdError::WatchError("etcd ended the watch".to_owned())),
    }
}
