//! The id of a cluster, by which two ways to a datastore are known to lead to one cluster.

use super::{Error, Guarded};
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
/// programs accept a datastore that Weir began. Of two callers at once one writes.
/// `birth` is for a new document, `guid` a random UUID.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Malformed`], [`Error::Contended`], [`Error::Datastore`].
pub async fn ensure_cluster_guid(
    datastore: &dyn Datastore,
    birth: &Birth,
    guid: &str,
) -> Result<(), Error> {
    transact(datastore, async |_| {
        let key = keys::CLUSTER_INFORMATION.to_owned();
        let guarded = Guarded::read(datastore, []).await?;
        let information = guarded.cluster_information();
        let stored = information.map(|it| it.value.clone()).unwrap_or_default();
        let Some(value) = stored.with_guid(birth, guid) else { return Ok(Decision::Done(())) };
        let mut transaction = Transaction::default();
        match information {
            Some(found) => transaction.update(key, found.revision, value),
            None => transaction.create(key, value),
        };
        Ok(Decision::Commit(transaction, ()))
    })
    .await
}
