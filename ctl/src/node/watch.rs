//! The watch stream of the datastore: a snapshot first, then its changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use weir_common::datastore::{
    Datastore, Entry, Error, Event, Pages, Revision, Selection, Watch, keys,
};
use weir_common::network::{ClusterSnapshot, ClusterState, ObservedRevision};

use super::history::Recorder;

/// How long a silent watch is trusted before the datastore is asked for a sign
/// of life: a connection that was cut without a word looks silent.
const SILENCE: Duration = Duration::from_secs(30);

/// The pauses between attempts to reach a datastore that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the first listing waits for what was recorded before: where that is little, it is read
/// by then.
const PATIENCE: Duration = Duration::from_millis(100);

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
/// What blocks tell of their addresses' holders is recorded, by a recorder that may still be
/// `opening`.
pub async fn list_and_watch(
    datastore: Arc<dyn Datastore>,
    listeners: Sender<WatchEvent>,
    opening: JoinHandle<Recorder>,
) {
    let mut pause = FIRST_PAUSE;
    let mut recording = Recording { recorder: None, opening: Some(opening) };
    loop {
        let started = Instant::now();
        recording.wait(PATIENCE).await;
        let Some(error) = watch_once(datastore.as_ref(), &listeners, &mut recording).await else {
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

/// A recorder, once it has read what was recorded before: that may be much, and routes do not
/// wait for it.
struct Recording {
    recorder: Option<Recorder>,
    /// `None` once it has ended.
    opening: Option<JoinHandle<Recorder>>,
}

impl Recording {
    /// Waits for the recorder, for so long at most.
    async fn wait(&mut self, limit: Duration) {
        let Some(opening) = &mut self.opening else { return };
        if let Ok(opened) = timeout(limit, opening).await {
            (self.recorder, self.opening) = (opened.ok(), None);
        }
    }

    /// The listing has ended. A recorder that comes only now lists the blocks for itself.
    /// Returns it, with the revision up to which it has seen everything.
    async fn listed(
        &mut self,
        datastore: &dyn Datastore,
        mut revision: Revision,
    ) -> Result<Option<(&mut Recorder, Revision)>, Error> {
        let is_late = self.recorder.is_none();
        self.wait(Duration::MAX).await;
        let Some(recorder) = &mut self.recorder else { return Ok(None) };
        if is_late {
            recorder.begin();
            let (mut pages, mut first) = (Pages::new(datastore, keys::BLOCKS), None);
            while let Some(page) = pages.next().await? {
                revision = *first.get_or_insert(page.revision);
                page.entries.iter().for_each(|entry| recorder.found(entry, Timestamp::now()));
            }
        }
        recorder.listed(Timestamp::now());
        Ok(Some((recorder, revision)))
    }
}

/// What ended it; `None` when the receiver is gone.
async fn watch_once(
    datastore: &dyn Datastore,
    listeners: &Sender<WatchEvent>,
    recording: &mut Recording,
) -> Option<Error> {
    let mut recorder = recording.recorder.as_mut();
    if let Some(recorder) = &mut recorder {
        recorder.begin();
    }
    let mut record = |entry: &Entry| {
        if let Some(recorder) = &mut recorder {
            recorder.found(entry, Timestamp::now());
        }
    };
    match ClusterSnapshot::read_whole_telling(datastore, &mut record).await {
        Ok(ClusterSnapshot { state, observed, .. }) => {
            let revision = observed.revision;
            listeners.send(WatchEvent::Listed(Box::new(state), observed)).await.ok()?;
            match recording.listed(datastore, revision).await {
                Ok(recorder) => watch(datastore, revision, listeners, recorder).await,
                Err(error) => Some(error),
            }
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
    mut recorder: Option<(&mut Recorder, Revision)>,
) -> Option<Error> {
    let prefixes = ClusterState::PREFIXES.map(str::to_owned);
    let mut watch = match datastore.watch(&prefixes, after).await {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match next(datastore, watch.as_mut(), after, &mut recorder).await {
            Ok(events) => {
                after = events.iter().map(Event::revision).fold(after, Revision::max);
                if let Some((recorder, seen)) = &mut recorder {
                    let is_new = |event: &&Event| event.revision() > *seen;
                    recorder.changed(events.iter().filter(is_new), Timestamp::now());
                }
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
    recorder: &mut Option<(&mut Recorder, Revision)>,
) -> Result<Vec<Event>, Error> {
    loop {
        if let Ok(outcome) = timeout(SILENCE, watch.next()).await {
            return outcome;
        }
        let sign = Selection::Key(keys::CLUSTER_INFORMATION.to_owned());
        if datastore.read(&[sign]).await?.revision < after {
            return Err(Error::Compacted { after });
        }
        if let Some((recorder, _)) = recorder {
            recorder.alive(Timestamp::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::{mpsc, oneshot};
    use weir_common::datastore::{Transaction, Write};
    use weir_common::ipam::history::{HistoryQuestion, answer};
    use weir_common::ipam::{Attribute, Block};
    use weir_datastore::Memory;
    use weir_process::read_history;

    use super::*;

    /// Writes a block whose first address has this handle.
    async fn put(store: &Memory, cidr: &str, handle: &str) {
        let mut block = Block::new(cidr.parse().unwrap(), "n1", 1);
        let handle_id = Some(handle.to_owned());
        block.assign(0, Attribute { handle_id, ..Attribute::default() });
        let write = Write::Put { key: keys::block(block.cidr), value: block.to_json() };
        let transaction = Transaction { compares: Vec::new(), writes: vec![write] };
        store.commit(transaction).await.unwrap();
    }

    /// The handles that an address had.
    fn holders(path: &Path, address: &str) -> Vec<String> {
        let question = HistoryQuestion::Address(address.parse().unwrap());
        let told = answer(&question, read_history(path).unwrap()).tenures.into_iter();
        told.map(|tenure| tenure.holder.handle.unwrap()).collect()
    }

    /// Waits for so many changes.
    async fn told(events: &mut mpsc::Receiver<WatchEvent>, count: usize) {
        let mut told = 0;
        while told < count {
            if let WatchEvent::Changed(changes) = events.recv().await.unwrap() {
                told += changes.len();
            }
        }
    }

    /// Routes do not wait for the history, and nothing is missing in it.
    #[tokio::test]
    async fn a_history_that_is_read_late_has_everything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let store = Arc::new(Memory::new());
        put(&store, "10.7.0.0/28", "a").await;
        let (read, reading) = oneshot::channel::<()>();
        let file = path.clone();
        let opening = tokio::spawn(async move {
            reading.await.unwrap();
            Recorder::open(&file)
        });
        let (sender, mut events) = mpsc::channel(9);
        tokio::spawn(list_and_watch(store.clone(), sender, opening));
        let first = events.recv().await.unwrap();
        assert!(matches!(first, WatchEvent::Listed(..)), "{first:?}");
        // After the listing, and before the recorder's own.
        put(&store, "10.7.0.0/28", "b").await;
        put(&store, "10.7.0.16/28", "c").await;
        read.send(()).unwrap();
        told(&mut events, 2).await;
        put(&store, "10.7.0.16/28", "d").await;
        told(&mut events, 1).await;
        assert_eq!(holders(&path, "10.7.0.0"), ["b"]);
        assert_eq!(holders(&path, "10.7.0.16"), ["c", "d"]);
    }
}
