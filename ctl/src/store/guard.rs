//! Reading what a change rests on, together with the flag that forbids all
//! changes.

use weir_common::datastore::{Datastore, Entry, Revision, Selection, Transaction, keys};
use weir_common::resources::ClusterInformation;

use super::StoreError;

/// What was read as of one moment, in a datastore that may be written to.
pub(super) struct Guard {
    /// What was found, one list for each selection.
    pub selected: Vec<Vec<Entry>>,
    /// The moment.
    pub revision: Revision,
    cluster: Option<Entry>,
}

impl Guard {
    /// Reads these selections and the ready flag.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when someone is moving the datastore;
    /// [`StoreError::Unreadable`] when the flag cannot be read;
    /// [`StoreError::Datastore`].
    pub async fn read(
        datastore: &dyn Datastore,
        mut selections: Vec<Selection>,
    ) -> Result<Self, StoreError> {
        selections.push(Selection::Key(keys::CLUSTER_INFORMATION.to_owned()));
        let mut snapshot = datastore.read(&selections).await?;
        let cluster = snapshot.selected.pop().and_then(|mut entries| entries.pop());
        if let Some(entry) = &cluster {
            let information = ClusterInformation::from_json(&entry.value).map_err(|cause| {
                StoreError::Unreadable { key: entry.key.clone(), cause: Box::new(cause) }
            })?;
            if information.datastore_ready == Some(false) {
                return Err(StoreError::Locked);
            }
        }
        Ok(Self { selected: snapshot.selected, revision: snapshot.revision, cluster })
    }

    /// Takes what was found for the selection of this number, at most one.
    pub fn take_one(&mut self, selection: usize) -> Option<Entry> {
        self.selected.get_mut(selection).and_then(Vec::pop)
    }

    /// A transaction that fails when the ready flag has changed since.
    pub fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::default();
        match &self.cluster {
            Some(entry) => transaction.unchanged(entry.key.clone(), entry.revision),
            None => transaction.absent(keys::CLUSTER_INFORMATION.to_owned()),
        };
        transaction
    }
}
