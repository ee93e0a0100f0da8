//! Creating resources.

use ipnet::IpNet;
use weir_common::datastore::{Compare, Datastore, Entry, Outcome, Selection, keys};
use weir_common::resources::{self, Birth, IpPool, Kind, Resource, check_blocks, check_overlap};

use super::blocks::entries_in;
use super::guard::Guard;
use super::{ATTEMPTS, StoreError, read_stored_pool};

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
    for _ in 0..ATTEMPTS {
        if let Outcome::Committed(_) = try_create(datastore, resource, birth).await? {
            return Ok(());
        }
    }
    let name = resource.name().to_owned();
    Err(StoreError::Contended { kind: resource.kind, name, attempts: ATTEMPTS })
}

async fn try_create(
    datastore: &dyn Datastore,
    resource: &Resource,
    birth: &Birth,
) -> Result<Outcome, StoreError> {
    let (kind, name) = (resource.kind, resource.name());
    let key = kind.key(name);
    let mut selections = vec![Selection::Key(key.clone())];
    if kind == Kind::IpPool {
        selections.push(Selection::Prefix(keys::POOLS.to_owned()));
    }
    let mut guard = Guard::read(datastore, selections).await?;
    if guard.take_one(0).is_some() {
        return Err(StoreError::AlreadyExists { kind, name: name.to_owned() });
    }
    let mut transaction = guard.transaction();
    if kind == Kind::IpPool {
        let pools = guard.selected.pop().unwrap_or_default();
        check_pool(datastore, &resource.pool()?, &pools).await?;
        let prefix = keys::POOLS.to_owned();
        transaction.compares.push(Compare::NoneNewer { prefix, revision: guard.revision });
    }
    let value = resource.clone().created(birth.clone()).to_stored(None)?;
    transaction.create(key, value);
    Ok(datastore.commit(transaction).await?)
}

/// Checks a new pool against the pools there are, then against the blocks
/// that a deleted pool may have left behind.
pub(super) async fn check_pool(
    datastore: &dyn Datastore,
    pool: &IpPool,
    pools: &[Entry],
) -> Result<(), StoreError> {
    let existing: Vec<IpPool> = pools.iter().filter_map(read_stored_pool).collect();
    check_overlap(pool, &existing).map_err(resources::Error::Invalid)?;
    let (blocks, _) = entries_in(datastore, Some(pool.cidr)).await?;
    let blocks: Vec<IpNet> = blocks.into_iter().map(|(cidr, _)| cidr).collect();
    check_blocks(pool, &blocks).map_err(resources::Error::Invalid)?;
    Ok(())
}
