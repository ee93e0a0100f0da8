//! The ready guard: nothing is written while the datastore is being moved.

use std::ops::Deref;

use super::error::Error;
use crate::datastore::{Datastore, Entry, Selection, Snapshot, Stored, Transaction, keys};
use crate::resources::ClusterInformation;

/// The cluster's `datastoreReady`, which forbids all changes while the datastore is
/// being moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadyFlag(Option<Stored<ClusterInformation>>);

impl ReadyFlag {
    /// What to read for it.
    pub fn selection() -> Selection {
        Selection::Key(keys::CLUSTER_INFORMATION.to_owned())
    }

    /// Parses what was found for [`ReadyFlag::selection`].
    ///
    /// # Errors
    /// [`Error::Malformed`] when it cannot be used.
    pub fn parse(entry: Option<&Entry>) -> Result<Self, Error> {
        let read = |entry| Stored::read(entry, ClusterInformation::from_json);
        Ok(Self(entry.map(read).transpose()?))
    }

    /// Refuses while the datastore is being moved. A cluster that never had the flag is
    /// ready.
    ///
    /// # Errors
    /// [`Error::NotReady`].
    pub fn require(&self) -> Result<(), Error> {
        match self.0.as_ref().and_then(|information| information.value.datastore_ready) {
            Some(false) => Err(Error::NotReady),
            _ => Ok(()),
        }
    }

    /// Requires of a transaction that the flag is as it was read.
    pub fn guard(&self, transaction: &mut Transaction) {
        let revision = self.0.as_ref().map(|information| information.revision);
        transaction.as_read(keys::CLUSTER_INFORMATION.to_owned(), revision);
    }
}

/// What was read as of one moment, in a datastore that may be written to.
#[derive(Clone, Debug)]
pub struct Guarded {
    flag: ReadyFlag,
    snapshot: Snapshot,
}

impl Guarded {
    /// Reads these selections and the ready flag.
    ///
    /// # Errors
    /// [`Error::NotReady`] while the datastore is being moved; [`Error::Malformed`] when
    /// the flag cannot be used; [`Error::Datastore`].
    pub async fn read(
        datastore: &dyn Datastore,
        selections: impl Into<Vec<Selection>>,
    ) -> Result<Self, Error> {
        let mut selections: Vec<Selection> = selections.into();
        selections.push(ReadyFlag::selection());
        let mut snapshot = datastore.read(&selections).await?;
        let entries = snapshot.selected.pop().unwrap_or_default();
        let flag = ReadyFlag::parse(entries.first())?;
        flag.require()?;
        Ok(Self { flag, snapshot })
    }

    /// A transaction that fails when the ready flag has changed since.
    pub fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::default();
        self.flag.guard(&mut transaction);
        transaction
    }
}

/// What was found, one list for each selection.
impl Deref for Guarded {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}
