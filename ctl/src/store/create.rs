//! Creating resources.

use ipnet::IpNet;
use weir_common::datastore::{Datastore, Decision, Entry, Selection, keys, transact};
use weir_common::ipam::Guarded;
use weir_common::resources::{
    self, Birth, IpPool, Kind, Resource, check_blocks, check_overlap, check_range,
};

use super::blocks::entries_in;
use super::error::StoreError;
use super::read::read_stored_pool;

/// Creates a resource.
///
/// A pool is created only if no pool was created since the pools were
/// compared with it: of two overlapping pools created at the same moment one
/// gets through, and the other one finds it here at its next attempt.
///
/// # Errors
/// [`StoreError::Invalid`] for a resource that breaks a rule, alone or with
/// the pools and blocks there are; [`StoreError::AlreadyExists`];
/// [`StoreError::Locked`]; [`StoreError::Contended`];
/// [`StoreError::Datastore`].
pub async fn create(
    datastore: &dyn Datastore,
    resource: &Resource,
    birth: &Birth,
) -> Result<(), StoreError> {
    resource.check()?;
    transact(datastore, |_| decide(datastore, resource, birth)).await
}

async fn decide(
    datastore: &dyn Datastore,
    resource: &Resource,
    birth: &Birth,
) -> Result<Decision<()>, StoreError> {
    let (kind, name) = (resource.kind, resource.name());
    let key = kind.key(name);
    let guarded = Guarded::read(datastore, selections(kind, &key)).await?;
    if guarded.entry(0).is_some() {
        return Err(StoreError::AlreadyExists { kind, name: name.to_owned() });
    }
    let mut transaction = guarded.transaction();
    if kind == Kind::IpPool {
        check_pool(datastore, &resource.pool()?, guarded.entries(1)).await?;
        transaction.none_newer(keys::POOLS.to_owned(), guarded.revision);
    }
    transaction.create(key, resource.clone().created(birth.clone()).to_stored(None)?);
    Ok(Decision::Commit(transaction, ()))
}

/// What a change of a resource rests on: itself, and for a pool all pools.
pub(super) fn selections(kind: Kind, key: &str) -> Vec<Selection> {
    let pools = (kind == Kind::IpPool).then(|| Selection::Prefix(keys::POOLS.to_owned()));
    std::iter::once(Selection::Key(key.to_owned())).chain(pools).collect()
}

/// Checks a new pool against the pools there are, then against the blocks
/// that a deleted pool may have left behind.
pub(super) async fn check_pool(
    datastore: &dyn Datastore,
    pool: &IpPool,
    pools: &[Entry],
) -> Result<(), StoreError> {
    let existing: Vec<IpPool> = pools.iter().filter_map(read_stored_pool).collect();
    check_range(pool).map_err(resources::Error::Invalid)?;
    check_overlap(pool, &existing).map_err(resources::Error::Invalid)?;
    let (blocks, _) = entries_in(datastore, Some(pool.cidr)).await?;
    let blocks: Vec<IpNet> = blocks.into_iter().map(|(cidr, _)| cidr).collect();
    check_blocks(pool, &blocks).map_err(resources::Error::Invalid)?;
    Ok(())
}
