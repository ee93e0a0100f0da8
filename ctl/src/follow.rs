//! The watch stream of the datastore: a snapshot first, then its changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use weir_common::datastore::{Datastore, Entry, Error, Event, Revision, Selection, Watch, keys};
use weir_common::network::{ClusterSnapshot, ClusterState, ObservedRevision};

/// How long a silent watch is trusted before the datastore is asked for a sign
/// of life: a connection that was cut without a word looks silent.
const SILENCE: Duration = Duration::from_secs(30);

/// The pauses between attempts to reach a datastore that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Who is shown what is read, besides the one who gets the stream.
pub trait Witness: Send {
    /// What it keeps of a listing, for the one who gets the stream.
    type Kept: Send;

    /// A listing begins: each entry follows, then [`Witness::listed`], or another listing.
    fn begin(&mut self);

    /// An entry of the listing.
    fn found(&mut self, entry: &Entry, now: Timestamp);

    /// What it has kept of a listing that is whole.
    fn kept(&mut self) -> Self::Kept;

    /// The listing has been handed on.
    fn listed(&mut self, now: Timestamp);

    /// Changes, as the watch tells of them.
    fn changed(&mut self, events: &[Event], now: Timestamp);

    /// All changes until now were seen.
    fn alive(&mut self, now: Timestamp);
}

/// One message of the stream.
#[derive(Debug)]
pub enum WatchEvent<K = ()> {
    /// The whole state, its revision, and what the witness has kept.
    Listed(Box<ClusterState>, ObservedRevision, K),
    /// The changes since, in order.
    Changed(Vec<Event>),
    /// The datastore cannot be reached, or broke off. Another snapshot follows
    /// as soon as it is back.
    Lost(Error),
}

/// Lists and watches for as long as the receiver is there. Whatever breaks the watch
/// off, a snapshot follows: it also shows a datastore that was restored from an
/// older state, which a watch would not.
pub async fn list_and_watch<W: Witness>(
    datastore: Arc<dyn Datastore>,
    listeners: Sender<WatchEvent<W::Kept>>,
    mut witness: W,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let Some(error) = watch_once(datastore.as_ref(), &listeners, &mut witness).await else {
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
async fn watch_once<W: Witness>(
    datastore: &dyn Datastore,
    listeners: &Sender<WatchEvent<W::Kept>>,
    witness: &mut W,
) -> Option<Error> {
    witness.begin();
    let mut record = |entry: &Entry| witness.found(entry, Timestamp::now());
    match ClusterSnapshot::read_whole_telling(datastore, &mut record).await {
        Ok(ClusterSnapshot { state, observed, .. }) => {
            let revision = observed.revision;
            let listed = WatchEvent::Listed(Box::new(state), observed, witness.kept());
            listeners.send(listed).await.ok()?;
            witness.listed(Timestamp::now());
            watch(datastore, revision, listeners, witness).await
        }
        Err(error) => Some(error),
    }
}

/// Passes changes on until the watch breaks off, with the reason; `None` when
/// nobody listens any more.
async fn watch<W: Witness>(
    datastore: &dyn Datastore,
    mut after: Revision,
    listeners: &Sender<WatchEvent<W::Kept>>,
    witness: &mut W,
) -> Option<Error> {
    let prefixes = ClusterState::PREFIXES.map(str::to_owned);
    let mut watch = match datastore.watch(&prefixes, after).await {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match next(datastore, watch.as_mut(), after, witness).await {
            Ok(events) => {
                after = events.iter().map(Event::revision).fold(after, Revision::max);
                witness.changed(&events, Timestamp::now());
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
async fn next<W: Witness>(
    datastore: &dyn Datastore,
    watch: &mut dyn Watch,
    after: Revision,
    witness: &mut W,
) -> Result<Vec<Event>, Error> {
    loop {
        if let Ok(outcome) = timeout(SILENCE, watch.next()).await {
            return outcome;
        }
        let sign = Selection::Key(keys::CLUSTER_INFORMATION.to_owned());
        if datastore.read(&[sign]).await?.revision < after {
            return Err(Error::Compacted { after });
        }
        witness.alive(Timestamp::now());
    }
}
