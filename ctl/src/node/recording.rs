//! The recorder of who had which address, beside what the agent follows.

use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir_common::datastore::{Datastore, Entry, Error, Event, Pages, Revision, keys};

use super::history::Recorder;
use crate::follow::Witness;

/// How long a listing waits for what was recorded before: where that is little, it is read by then.
const PATIENCE: Duration = Duration::from_millis(100);

/// A recorder, once it has read what was recorded before: that may be much, and routes do not
/// wait for it.
pub struct Recording {
    recorder: Option<Recorder>,
    /// `None` once it has ended.
    opening: Option<JoinHandle<Recorder>>,
    /// Up to where the recorder has seen everything.
    seen: Revision,
}

impl Recording {
    /// By a recorder that may still be `opening`.
    pub fn new(opening: JoinHandle<Recorder>) -> Self {
        Self { recorder: None, opening: Some(opening), seen: Revision(0) }
    }

    /// Waits for the recorder, for so long at most.
    async fn wait(&mut self, limit: Duration) {
        let Some(opening) = &mut self.opening else { return };
        if let Ok(opened) = timeout(limit, opening).await {
            (self.recorder, self.opening) = (opened.ok(), None);
        }
    }
}

impl Witness for Recording {
    type Kept = ();

    async fn begin(&mut self) {
        self.wait(PATIENCE).await;
        if let Some(recorder) = &mut self.recorder {
            recorder.begin();
        }
    }

    fn found(&mut self, entry: &Entry, now: Timestamp) {
        if let Some(recorder) = &mut self.recorder {
            recorder.found(entry, now);
        }
    }

    fn kept(&mut self) {}

    /// A recorder that comes only now lists the blocks for itself.
    async fn listed(&mut self, datastore: &dyn Datastore, revision: Revision) -> Result<(), Error> {
        let is_late = self.recorder.is_none();
        self.wait(Duration::MAX).await;
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        self.seen = revision;
        if is_late {
            recorder.begin();
            let (mut pages, mut first) = (Pages::new(datastore, keys::BLOCKS), None);
            while let Some(page) = pages.next().await? {
                self.seen = *first.get_or_insert(page.revision);
                page.entries.iter().for_each(|entry| recorder.found(entry, Timestamp::now()));
            }
        }
        recorder.listed(Timestamp::now());
        Ok(())
    }

    fn changed(&mut self, events: &[Event], now: Timestamp) {
        let seen = self.seen;
        if let Some(recorder) = &mut self.recorder {
            recorder.changed(events.iter().filter(|event| event.revision() > seen), now);
        }
    }

    fn alive(&mut self, now: Timestamp) {
        if let Some(recorder) = &mut self.recorder {
            recorder.alive(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tokio::sync::{mpsc, oneshot};
    use weir_common::datastore::{Transaction, Write};
    use weir_common::ipam::history::{HistoryQuestion, answer};
    use weir_common::ipam::{Attribute, Block};
    use weir_datastore::Memory;
    use weir_process::read_history;

    use super::*;
    use crate::follow::{WatchEvent, list_and_watch};

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
        tokio::spawn(list_and_watch(store.clone(), sender, Recording::new(opening)));
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
