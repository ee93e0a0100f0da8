//! The pools of a new cluster.

use weir_common::datastore::{Compare, Datastore, Entry, Outcome, Selection, keys};
use weir_common::resources::{Birth, Kind, Resource};

use super::create::check_pool;
use super::guard::Guard;
use super::{ATTEMPTS, StoreError};

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
    for _ in 0..ATTEMPTS {
        let selection = Selection::Prefix(keys::POOLS.to_owned());
        let mut guard = Guard::read(datastore, vec![selection]).await?;
        let existing = guard.selected.pop().unwrap_or_default();
        if !existing.is_empty() {
            let name = |entry: &Entry| Kind::IpPool.name_of(&entry.key).map(str::to_owned);
            return Ok(existing.iter().filter_map(name).collect());
        }
        let mut transaction = guard.transaction();
        let prefix = keys::POOLS.to_owned();
        transaction.compares.push(Compare::NoneNewer { prefix, revision: guard.revision });
        for (pool, birth) in pools {
            check_pool(datastore, &pool.pool()?, &[]).await?;
            let value = pool.clone().created(birth.clone()).to_stored(None)?;
            transaction.create(pool.kind.key(pool.name()), value);
        }
        if let Outcome::Committed(_) = datastore.commit(transaction).await? {
            return Ok(Vec::new());
        }
    }
    let name = pools.first().map(|(pool, _)| pool.name().to_owned()).unwrap_or_default();
    Err(StoreError::Contended { kind: Kind::IpPool, name, attempts: ATTEMPTS })
}
