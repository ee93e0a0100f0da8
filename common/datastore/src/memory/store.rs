//! The map with revisions and its history.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use tokio::sync::watch;
use weir_common::datastore::{
    Compare, Entry, Error, Event, History, Outcome, Page, Revision, Selection, Snapshot,
    Transaction, Write,
};

/// The store that several processes share.
pub(super) struct Store {
    entries: BTreeMap<String, Entry>,
    history: VecDeque<Event>,
    compacted: Revision,
    /// The revision of the last commit; watches wait for it to change.
    revision: watch::Sender<Revision>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            history: VecDeque::new(),
            compacted: Revision::default(),
            revision: watch::Sender::new(Revision::default()),
        }
    }
}

impl Store {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    pub(super) fn read(&self, selections: &[Selection]) -> Snapshot {
        let select = |selection: &Selection| match selection {
            Selection::Key(key) => self.entries.get(key).cloned().into_iter().collect(),
            Selection::Prefix(prefix) => self.under(prefix, None).cloned().collect(),
        };
        Snapshot {
            selected: selections.iter().map(select).collect(),
            revision: *self.revision.borrow(),
        }
    }

    pub(super) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Page {
        let mut found = self.under(prefix, after);
        let entries: Vec<Entry> = found.by_ref().take(limit).cloned().collect();
        let more = found.next().is_some();
        let next = entries.last().filter(|_| more).map(|entry| entry.key.clone());
        Page { entries, next, revision: *self.revision.borrow(), history: History::default() }
    }

    pub(super) fn commit(&mut self, transaction: Transaction) -> Outcome {
        if !transaction.compares.iter().all(|compare| self.holds(compare)) {
            return Outcome::Conflict;
        }
        Outcome::Committed(self.apply(transaction.writes))
    }

    pub(super) fn put_all(
        &mut self,
        pairs: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Revision {
        self.apply(pairs.into_iter().map(|(key, value)| Write::Put { key, value }))
    }

    pub(super) fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
        self.history.retain(|event| event.revision() > revision);
    }

    /// All changes under the prefixes after a revision, in their order.
    pub(super) fn changes(
        &self,
        prefixes: &[String],
        after: Revision,
    ) -> Result<Vec<Event>, Error> {
        if after < self.compacted {
            return Err(Error::Compacted { after });
        }
        let first = self.history.partition_point(|event| event.revision() <= after);
        let concerned = |event: &&Event| prefixes.iter().any(|it| event.key().starts_with(it));
        Ok(self.history.range(first..).filter(concerned).cloned().collect())
    }

    fn under(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = &Entry> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent { key } => !self.entries.contains_key(key),
            Compare::Unchanged { key, revision } => {
                self.entries.get(key).is_some_and(|entry| entry.revision == *revision)
            }
            Compare::NoneNewer { prefix, revision } => {
                self.under(prefix, None).all(|entry| entry.revision <= *revision)
            }
        }
    }

    /// Carries the writes out at the next revision. If none changes anything
    /// (deletions of keys that are not there), there is no next revision, as
    /// in etcd.
    fn apply(&mut self, writes: impl IntoIterator<Item = Write>) -> Revision {
        let last = *self.revision.borrow();
        let revision = Revision(last.0 + 1);
        let known = self.history.len();
        for write in writes {
            self.history.extend(write_one(&mut self.entries, write, revision));
        }
        if self.history.len() == known {
            return last;
        }
        self.revision.send_replace(revision);
        revision
    }
}

fn write_one(
    entries: &mut BTreeMap<String, Entry>,
    write: Write,
    revision: Revision,
) -> Option<Event> {
    match write {
        Write::Put { key, value } => {
            let entry = Entry { key: key.clone(), value, revision };
            entries.insert(key, entry.clone());
            Some(Event::Put(entry))
        }
        Write::Delete { key } => entries.remove(&key).map(|_| Event::Delete { key, revision }),
    }
}
