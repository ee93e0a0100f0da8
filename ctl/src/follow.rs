//! The watch stream of the datastore: a snapshot first, then its changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use weir_common::datastore::{Datastore, Entry, Error, Event, Revision, Selection, Watch, keys};
use weir_common::network::{ClusterSnapshot, ClusterState, ObservedRevision};

use super::history::Recorder;

/// How long a silent watch is trusted before the datastore is asked for a sign
/// of life: a connection that was cut without a word looks silent.
const SILENCE: Duration = Duration::from_secs(30);

/// The pauses between attempts to reach a datastore that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One message of the stream.
#[derive(Debug)]
pub enum WatchEvent {
    /// The whole state, and its revision.
    Listed(Box<ClusterState>, ObservedRevision),
    /// The changes since, in order.
    Changed(Vec<Event>),
    /// The datastore cannot be reached, or broke off. Another snapshot follows
    /// as soon as it is back.
    Lost(Error),
}

/// Lists and watches for as long as the receiver is there. Whatever breaks the watch
/// off, a snapshot follows: it also shows a datastore that was restored from an
/// older state, which a watch would not.
/// What blocks tell of their addresses' holders is recorded.
pub async fn list_and_watch(
    datastore: Arc<dyn Datastore>,
    listeners: Sender<WatchEvent>,
    mut recorder: Recorder,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let Some(error) = watch_once(datastore.as_ref(), &listeners, &mut recorder).await else {
            return;
        };
        // History that is gone is no fault of the datastore's.
        if !matches!(error, Error::Compacted { .. })
            && listeners.send(WatchEvent::Lost(error)).await.is_err()
        {
            return;
        }
        // A watch that breaks off at once, again and again, must not cost a
        // listing each time.
        if started.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What ended it; `None` when the receiver is gone.
async fn watch_once(
    datastore: &dyn Datastore,
    listeners: &Sender<WatchEvent>,
    recorder: &mut Recorder,
) -> Option<Error> {
    recorder.begin();
    let mut record = |entry: &Entry| recorder.found(entry, Timestamp::now());
    match ClusterSnapshot::read_whole_telling(datastore, &mut record).await {
        Ok(ClusterSnapshot { state, observed, .. }) => {
            let revision = observed.revision;
            listeners.send(WatchEvent::Listed(Box::new(state), observed)).await.ok()?;
            recorder.listed(Timestamp::now());
            watch(datastore, revision, listeners, recorder).await
        }
        Err(error) => Some(error),
    }
}

/// Passes changes on until the watch breaks off, with the reason; `None` when
/// nobody listens any more.
async fn watch(
    datastore: &dyn Datastore,
    mut after: Revision,
    listeners: &Sender<WatchEvent>,
    recorder: &mut Recorder,
) -> Option<Error> {
    let prefixes = ClusterState::PREFIXES.map(str::to_owned);
    let mut watch = match datastore.watch(&prefixes, after).await {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match next(datastore, watch.as_mut(), after, recorder).await {
            Ok(events) => {
                after = events.iter().map(Event::revision).fold(after, Revision::max);
                recorder.changed(&events, Timestamp::now());
                listeners.send(WatchEvent::Changed(events)).await.ok()?;
            }
            Err(error) => return Some(error),
        }
    }
}

/// The next changes after the revision `after`. While there are none the
/// datastore is asked now and then whether it is there, and still where it was:
/// one that was restored from an older state meanwhile would stay silent up to
/// that revision.
async fn next(
    datastore: &dyn Datastore,
    watch: &mut dyn Watch,
    after: Revision,
    recorder: &mut Recorder,
) -> Result<Vec<Event>, Error> {
    loop {
        if let Ok(outcome) = timeout(SILENCE, watch.next()).await {
            return outcome;
        }
        let sign = Selection::Key(keys::CLUSTER_INFORMATION.to_owned());
        if datastore.read(&[sign]).await?.revision < after {
            return Err(Error::Compacted { after });
        }
        recorder.alive(Timestamp::now());
    }
}
