//! The pools of a new cluster.

use weir_common::datastore::{Datastore, Decision, Entry, Selection, keys, transact};
use weir_common::ipam::Guarded;
use weir_common::resources::{Birth, Kind, Resource};

use super::create::check_pool;
use super::error::StoreError;

/// Creates these pools, all in one transaction, unless there is a pool
/// already: then nothing is changed, and the names of the pools there are come
/// back.
///
/// # Errors
/// [`StoreError::Invalid`] for a pool that breaks a rule;
/// [`StoreError::Locked`]; [`StoreError::Contended`];
/// [`StoreError::Datastore`].
pub async fn initialize(
    datastore: &dyn Datastore,
    pools: &[(Resource, Birth)],
) -> Result<Vec<String>, StoreError> {
    transact(datastore, |_| async move {
        let prefix = keys::POOLS.to_owned();
        let guarded = Guarded::read(datastore, [Selection::Prefix(prefix.clone())]).await?;
        let existing = guarded.entries(0);
        if !existing.is_empty() {
            let name = |entry: &Entry| Kind::IpPool.name_of(&entry.key).map(str::to_owned);
            return Ok(Decision::Done(existing.iter().filter_map(name).collect()));
        }
        let mut transaction = guarded.transaction();
        transaction.none_newer(prefix, guarded.revision);
        for (pool, birth) in pools {
            check_pool(datastore, &pool.pool()?, &[]).await?;
            let value = pool.clone().created(birth.clone()).to_stored(None)?;
            transaction.create(pool.kind.key(pool.name()), value);
        }
        Ok(Decision::Commit(transaction, Vec::new()))
    })
    .await
}
