//! The id of a cluster, by which two ways to a datastore are known to lead to one cluster.

use super::error::Error;
use crate::datastore::{Datastore, Decision, Stored, Transaction, keys, transact};
use crate::resources::{Birth, ClusterInformation};

/// The `clusterGUID` of the cluster in a datastore; `None` where it has none.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Datastore`].
pub async fn cluster_guid(datastore: &dyn Datastore) -> Result<Option<String>, Error> {
    Ok(read(datastore).await?.and_then(|stored| stored.value.guid))
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
    change(datastore, |information| {
        let value = information.with_guid(birth, guid);
        value.filter(|_| information.datastore_ready != Some(false))
    })
    .await
}

/// Locks the datastore (`ready` is false) or unlocks it, as calicoctl does
/// (`commands/datastore/migrate/lock.go`): while it is locked, no program of Weir's or
/// Calico's assigns or releases an address. The other arguments are as for
/// [`ensure_cluster_guid`].
///
/// # Errors
/// [`Error::Malformed`], [`Error::Contended`], [`Error::Datastore`].
pub async fn set_ready(
    datastore: &dyn Datastore,
    ready: bool,
    birth: &Birth,
    guid: &str,
) -> Result<(), Error> {
    change(datastore, |information| information.with_ready(ready, birth, guid)).await
}

/// What a datastore says about its cluster; `None` where it says nothing.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Datastore`].
pub async fn cluster_information(
    datastore: &dyn Datastore,
) -> Result<Option<ClusterInformation>, Error> {
    Ok(read(datastore).await?.map(|stored| stored.value))
}

/// Stores what `decide` makes of the cluster's information, if it makes anything of it.
async fn change(
    datastore: &dyn Datastore,
    decide: impl Fn(&ClusterInformation) -> Option<Vec<u8>>,
) -> Result<(), Error> {
    let key = keys::CLUSTER_INFORMATION;
    transact(datastore, async |_| {
        let stored = read(datastore).await?;
        let revision = stored.as_ref().map(|stored| stored.revision);
        let information = stored.map(|stored| stored.value).unwrap_or_default();
        let Some(value) = decide(&information) else {
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

async fn read(datastore: &dyn Datastore) -> Result<Option<Stored<ClusterInformation>>, Error> {
    let entry = datastore.get(keys::CLUSTER_INFORMATION).await?;
    let stored = entry.map(|entry| Stored::read(&entry, ClusterInformation::from_json));
    Ok(stored.transpose()?)
}
