//! Changes that are tried out and not made.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use weir_common::datastore::{
    Datastore, Entry, Error, History, Outcome, Page, Revision, Selection, Snapshot, Transaction,
    Watch, Write,
};

/// A datastore that shows what is in another one and keeps all changes to itself: later
/// reads see them, the other datastore does not.
///
/// Commands run over it as they run over the real one, so that a dry run finds what they
/// would find. Comparisons are not repeated: no other program changes anything here.
#[derive(Default)]
pub struct DryRun<'a> {
    /// `None` for one in which nothing is.
    datastore: Option<&'a dyn Datastore>,
    changes: Mutex<DryRunChanges>,
}

#[derive(Default)]
struct DryRunChanges {
    /// What became of each key; `None` for a deleted one.
    keys: BTreeMap<String, Option<Entry>>,
    /// The revision of the last change.
    revision: Revision,
}

impl<'a> DryRun<'a> {
    /// A dry run on what is in `datastore`.
    pub fn new(datastore: &'a dyn Datastore) -> Self {
        Self { datastore: Some(datastore), ..Self::default() }
    }

    fn changes(&self) -> MutexGuard<'_, DryRunChanges> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DryRunChanges {
    /// The entries with the changes among the keys that are `wanted`, in key
    /// order.
    fn applied_to(&self, entries: Vec<Entry>, wanted: impl Fn(&str) -> bool) -> Vec<Entry> {
        let unchanged = entries.into_iter().filter(|entry| !self.keys.contains_key(&entry.key));
        let changed = self.keys.iter().filter(|(key, _)| wanted(key));
        let changed = changed.filter_map(|(_, entry)| entry.clone());
        let mut entries: Vec<Entry> = unchanged.chain(changed).collect();
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        entries
    }
}

#[async_trait]
impl Datastore for DryRun<'_> {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        let mut snapshot = match self.datastore {
            Some(datastore) => datastore.read(selections).await?,
            None => {
                let selected = vec![Vec::new(); selections.len()];
                Snapshot { selected, revision: Revision::default() }
            }
        };
        let mut changes = self.changes();
        changes.revision = changes.revision.max(snapshot.revision);
        for (selection, found) in selections.iter().zip(&mut snapshot.selected) {
            *found = changes.applied_to(std::mem::take(found), |key| match selection {
                Selection::Key(wanted) => key == wanted,
                Selection::Prefix(prefix) => key.starts_with(prefix.as_str()),
            });
        }
        snapshot.revision = changes.revision;
        Ok(snapshot)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let mut page = match self.datastore {
            Some(datastore) => datastore.list(prefix, after, limit).await?,
            None => Page {
                entries: Vec::new(),
                next: None,
                revision: Revision::default(),
                history: History::default(),
            },
        };
        let changes = self.changes();
        let last = page.next.clone();
        page.entries = changes.applied_to(page.entries, |key| {
            key.starts_with(prefix)
                && after.is_none_or(|after| key > after)
                && last.as_deref().is_none_or(|last| key <= last)
        });
        page.revision = page.revision.max(changes.revision);
        Ok(page)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let mut changes = self.changes();
        changes.revision.0 += 1;
        let revision = changes.revision;
        for write in transaction.writes {
            match write {
                Write::Put { key, value } => {
                    changes.keys.insert(key.clone(), Some(Entry { key, value, revision }));
                }
                Write::Delete { key } => {
                    changes.keys.insert(key, None);
                }
            }
        }
        Ok(Outcome::Committed(revision))
    }

    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        match self.datastore {
            Some(datastore) => datastore.watch(prefixes, after).await,
            None => Err(Error::Compacted { after }),
        }
    }
}
