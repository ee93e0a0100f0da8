//! The id of a cluster, by which two ways to a datastore are known to lead to one cluster.

use super::error::Error;
use crate::datastore::{Datastore, Decision, Stored, Transaction, keys, transact};
use crate::resources::{Birth, ClusterInformation};

/// The `clusterGUID` of the cluster in a datastore; `None` where it has none.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Datastore`].
pub async fn cluster_guid(datastore: &dyn Datastore) -> Result<Option<String>, Error> {
    let entry = datastore.get(keys::CLUSTER_INFORMATION).await?;
    let stored = entry.map(|entry| Stored::read(&entry, ClusterInformation::from_json));
    Ok(stored.transpose()?.and_then(|stored| stored.value.guid))
}

/// Gives the cluster a GUID and the ready flag if it has no GUID, so that Calico's
/// programs accept a datastore that Weir began. Of two callers at once one writes; while
/// the datastore is being moved none does. `birth` is for a new document, `guid` a random
/// UUID.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Contended`], [`Error::Datastore`].
pub async fn ensure_cluster_guid(
    datastore: &dyn Datastore,
    birth: &Birth,
    guid: &str,
) -> Result<(), Error> {
    let key = keys::CLUSTER_INFORMATION;
    transact(datastore, async |_| {
        let found = datastore.get(key).await?;
        let stored = found.map(|entry| Stored::read(&entry, ClusterInformation::from_json));
        let stored = stored.transpose()?;
        let revision = stored.as_ref().map(|stored| stored.revision);
        let information = stored.map(|stored| stored.value).unwrap_or_default();
        let value = information.with_guid(birth, guid);
        let Some(value) = value.filter(|_| information.datastore_ready != Some(false)) else {
            return Ok(Decision::Done(()));
        };
        let mut transaction = Transaction::default();
        match revision {
            Some(revision) => transaction.update(key.to_owned(), revision, value),
            None => transaction.create(key.to_owned(), value),
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await
}
