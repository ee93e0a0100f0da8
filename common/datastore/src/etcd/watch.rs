//! Watching an etcd cluster.
//!
//! etcd promises that all changes of one revision come in one message only
//! within one range of keys, so that several prefixes are watched as the one
//! range from the first to the last, and what lies between them is left out
//! here.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{Error as EtcdError, WatchOptions, WatchResponse, WatchStream};
use weir_common::datastore::{Error, Event, Revision, Watch};

use super::convert;
use super::endpoints::{Connection, Endpoints, Repeat};
use super::error::Failure;
use crate::request::range_end;

/// One running watch. When its endpoint fails, it goes on at another one.
pub(super) struct EtcdWatch {
    endpoints: Arc<Endpoints>,
    prefixes: Vec<String>,
    after: Revision,
    stream: Option<WatchStream>,
    /// Whether this stream has told anything. One that breaks before is not
    /// replaced, lest a watch that always breaks is replaced for ever.
    heard: bool,
}

impl EtcdWatch {
    pub(super) async fn start(
        endpoints: Arc<Endpoints>,
        prefixes: Vec<String>,
        after: Revision,
    ) -> Result<Self, Error> {
        let (stream, _) = open(&endpoints, &prefixes, after).await?;
        Ok(Self { endpoints, prefixes, after, stream: Some(stream), heard: true })
    }

    /// Ends the stream; an error if it should not be replaced.
    fn broken(&mut self, cause: EtcdError) -> Result<(), Error> {
        self.stream = None;
        if std::mem::replace(&mut self.heard, false) {
            return Ok(());
        }
        let failure = (self.endpoints.location().to_owned(), Failure::from(cause));
        Err(self.endpoints.unavailable(vec![failure]))
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
            .collect::<Result<_, _>>()?;
        if let Some((_, last)) = changed.next_back() {
            self.after = Revision(last.mod_revision());
        }
        Ok(events)
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let (stream, now) = open(&self.endpoints, &self.prefixes, self.after).await?;
                    // Restored from an older state, etcd would be silent up to the
                    // revision that it has told already. (Or this member lags.)
                    if now < self.after {
                        return Err(Error::Compacted { after: self.after });
                    }
                    self.stream.insert(stream)
                }
            };
            let response = match message(stream).await {
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

async fn open(
    endpoints: &Endpoints,
    prefixes: &[String],
    after: Revision,
) -> Result<(WatchStream, Revision), Error> {
    let request = |connection: Connection| open_stream(connection, prefixes, after);
    endpoints.call(Repeat::Safe, request).await
}

/// Starts a watch and waits until etcd confirms it, with the revision at which
/// the endpoint is.
async fn open_stream(
    mut connection: Connection,
    prefixes: &[String],
    after: Revision,
) -> Result<(WatchStream, Revision), EtcdError> {
    let first = prefixes.iter().map(|prefix| convert::first_key(prefix)).min();
    let end = prefixes.iter().map(|prefix| range_end(prefix)).max();
    let (Some(first), Some(end)) = (first, end) else {
        return Err(EtcdError::Internal("a watch of no prefix would never end".to_owned()));
    };
    let options =
        WatchOptions::new().with_range(end).with_start_revision(after.0.saturating_add(1));
    let mut stream = connection.watch.watch(first, Some(options)).await?;
    let confirmed = message(&mut stream).await?;
    let revision = confirmed.header().map_or(0, |header| header.revision());
    Ok((stream, Revision(revision)))
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
