//! What Weir asks of a datastore.
//!
//! A datastore is an ordered map from keys to JSON values in which every
//! change has a revision, as etcd v3 defines it. [`Datastore`] is the whole of
//! what Weir uses; the crate `weir-datastore` implements it over etcd, over an
//! embedded database and in memory. Correctness of everything above rests on
//! one promise: [`Datastore::commit`] applies all writes of a [`Transaction`]
//! or none, and only if all its comparisons hold at that moment.

mod configuration;
mod error;
pub mod keys;
mod last_endpoint;
mod paging;
mod stored;
mod transact;
mod transaction;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use configuration::{
    DatastoreConfiguration, ENDPOINT_FORM, EtcdConfiguration, HIDDEN_ENDPOINT, Pem,
    may_hold_password,
};
pub use error::Error;
pub use last_endpoint::{Forgetful, LastEndpoint};
pub use paging::{Pages, Paging};
pub use stored::{Stored, Unreadable};
pub use transact::{Attempts, Contended, Decision, MAX_ATTEMPTS, transact};
pub use transaction::{Compare, Outcome, Transaction, Write};

/// A point in the datastore's history. Revisions grow with every commit; zero
/// is before the first one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub i64);

impl std::fmt::Display for Revision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which history of a datastore an answer belongs to, as far as the datastore tells.
///
/// A datastore that is restored from a snapshot begins another history. Revisions
/// alone do not show it: writes, or whoever restores (`etcdutl snapshot restore
/// --bump-revision`), carry the new history past what the old one came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The id of etcd's cluster: another one when it was restored with another token
    /// or other members. Zero where the datastore does not tell.
    pub cluster: u64,
    /// The raft term, which never falls, and which a restoration starts over
    /// (`etcdctl/snapshot/v3_snapshot.go`, `saveWALAndSnap`).
    pub term: u64,
}

impl History {
    /// Whether `later` may be a later moment of the same history. What is not told
    /// rules nothing out.
    pub fn goes_on_in(&self, later: Self) -> bool {
        self.cluster == 0
            || later.cluster == 0
            || (later.cluster == self.cluster && later.term >= self.term)
    }
}

/// One key with its value and the revision of the commit that last wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key, as `keys` makes it.
    pub key: String,
    /// The value as stored: JSON in UTF-8.
    pub value: Vec<u8>,
    /// The revision that last changed it (etcd's mod revision).
    pub revision: Revision,
}

/// What one element of a [`Datastore::read`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The entry of one key, if it is there.
    Key(String),
    /// All entries whose key begins with this, in key order.
    Prefix(String),
}

/// The answer to one [`Datastore::read`]: all of it as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The entries found, one list for each selection, in the order asked.
    pub selected: Vec<Vec<Entry>>,
    /// The datastore's revision at that moment.
    pub revision: Revision,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries in key order.
    pub entries: Vec<Entry>,
    /// Pass this as `after` to get the next page; `None` on the last one.
    pub next: Option<String>,
    /// The datastore's revision when this page was read.
    pub revision: Revision,
    /// The history that was read.
    pub history: History,
}

/// What tells whether anything changed under some prefixes, all of it as of one
/// moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many keys there are under each prefix, in the order asked.
    pub counts: Vec<usize>,
    /// Whether one of them was created or changed after the revision asked about.
    pub newer: bool,
    /// The datastore's revision at that moment.
    pub revision: Revision,
    /// The history that was counted in.
    pub history: History,
}

/// A change seen by a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was created or changed.
    Put(Entry),
    /// The key was deleted by the commit of this revision.
    Delete {
        /// The deleted key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the commit that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next changes and returns them in order of revision, all
    /// changes of one commit in one batch. Never empty. A call that is dropped
    /// before it ends loses no changes, nor does one that failed: the next
    /// call goes on where the last batch ended.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the history since the last batch is gone
    /// (list again, then watch from there); [`Error::Unavailable`] when the
    /// datastore cannot be reached.
    async fn next(&mut self) -> Result<Vec<Event>, Error>;
}

/// An ordered key-value store with revisions and transactions.
#[async_trait]
pub trait Datastore: Send + Sync {
    /// Reads several keys and prefixes in one round trip and as of one moment.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`], [`Error::NotPermitted`].
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error>;

    /// Lists at most `limit` entries whose key begins with `prefix`, in key
    /// order, starting behind the key `after`.
    ///
    /// Each page is read at a moment of its own: to miss nothing, watch from
    /// behind the first page's revision.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error>;

    /// Applies all writes, or none if a comparison does not hold.
    ///
    /// # Errors
    /// [`Error::Unavailable`] may leave it open whether the transaction took
    /// effect: a caller that tries again must compare what it read before.
    /// [`Error::Unwritable`], [`Error::NotPermitted`]: it took none.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error>;

    /// Watches all keys under the prefixes from behind `after` on: the first
    /// event is the first change with a revision greater than `after`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`]. History that is gone shows
    /// in the first [`Watch::next`].
    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error>;

    /// Counts the keys under each prefix, and says whether one of them was created
    /// or changed after `after`. With the counts of that revision at hand this
    /// tells of deletions too. No values are carried where the datastore can avoid
    /// it.
    ///
    /// # Errors
    /// As [`Datastore::read`].
    async fn tally(&self, prefixes: &[&str], after: Revision) -> Result<Tally, Error> {
        let prefix = |prefix: &&str| Selection::Prefix((*prefix).to_owned());
        let selections: Vec<Selection> = prefixes.iter().map(prefix).collect();
        let Snapshot { selected, revision } = self.read(&selections).await?;
        Ok(Tally {
            counts: selected.iter().map(Vec::len).collect(),
            newer: selected.iter().flatten().any(|entry| entry.revision > after),
            revision,
            history: History::default(),
        })
    }

    /// Looks whether something could be written now, and writes nothing.
    ///
    /// # Errors
    /// Those that a commit would meet, as far as they can be foreseen.
    async fn check_writable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Puts the store itself in order: now and then, and after much was changed. One in a
    /// file moves its log into the file.
    ///
    /// # Errors
    /// As [`Datastore::commit`]; nothing is lost then.
    async fn maintain(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Reads one key.
    ///
    /// # Errors
    /// As [`Datastore::read`].
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let mut snapshot = self.read(&[Selection::Key(key.to_owned())]).await?;
        Ok(snapshot.selected.pop().and_then(|mut entries| entries.pop()))
    }
}
