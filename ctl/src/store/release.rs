//! Deleting a pool together with its blocks and affinities.
//!
//! Who takes an address from a pool compares the pool in the same transaction
//! (weir-ipam does). Deleting a pool therefore has to see to the blocks that
//! appear between reading and committing:
//!
//! - What fits into one transaction is deleted in one. It compares that no
//!   block in the pool's range was made or changed since it was read.
//! - Else, and when that was in vain because others change blocks of that
//!   range all the time, the pool is disabled first. From then on nobody takes
//!   an address from it, and its blocks can be deleted one batch after the
//!   other, each only if it is still as it was read. If an address turns up
//!   nevertheless, the pool becomes what it was. If this process dies in
//!   between, the pool is left disabled, and deleting it again goes on where
//!   this one stopped.

use ipnet::IpNet;
use serde_json::Value;
use weir_common::datastore::{Compare, Datastore, Entry, Outcome, Revision, Transaction, keys};
use weir_common::resources::{Kind, Resource};

use super::blocks::{self, StoredBlock, blocks_in};
use super::guard::Guard;
use super::{ATTEMPTS, StoreError, read_stored_pool};

/// After so many attempts in one transaction the pool is disabled first.
const ATTEMPTS_AT_ONCE: usize = 5;

/// The most writes in one transaction: some room below what etcd allows, for
/// the comparisons that come with them.
const BATCH: usize = 100;

/// How many affinities are read at once.
const PAGE: usize = 500;

/// Tries to delete the pool in `entry`.
///
/// # Errors
/// [`StoreError::PoolInUse`]; [`StoreError::Unreadable`];
/// [`StoreError::Datastore`].
pub(super) async fn delete_pool(
    datastore: &dyn Datastore,
    guard: &Guard,
    entry: Entry,
    attempt: usize,
) -> Result<Outcome, StoreError> {
    let Some(pool) = read_stored_pool(&entry) else {
        // Without a range there is nothing that could be in it.
        let mut transaction = guard.transaction();
        transaction.delete(entry.key, entry.revision);
        return Ok(datastore.commit(transaction).await?);
    };
    let (name, range) = (pool.name.as_str(), pool.cidr);
    let holdings = Holdings::read(datastore, range).await?;
    holdings.check_unused(name, range)?;
    let at_once = holdings.doomed.len() < BATCH && attempt < ATTEMPTS_AT_ONCE;
    if at_once {
        let mut transaction = guard.transaction();
        holdings.compare_range(range, &mut transaction);
        delete_all(&holdings.doomed, &mut transaction);
        transaction.delete(entry.key, entry.revision);
        return Ok(datastore.commit(transaction).await?);
    }
    delete_in_batches(datastore, guard, entry, range, name).await
}

/// A key to delete, and when it was last written.
type Doomed = (String, Revision);

/// What a pool has in the datastore besides itself.
struct Holdings {
    addresses: usize,
    doomed: Vec<Doomed>,
    revision: Revision,
}

impl Holdings {
    async fn read(datastore: &dyn Datastore, range: IpNet) -> Result<Self, StoreError> {
        let (blocks, revision) = blocks_in(datastore, Some(range)).await?;
        let mut doomed: Vec<Doomed> =
            blocks.iter().map(|block| (block.key.clone(), block.revision)).collect();
        doomed.extend(affinities_in(datastore, range).await?);
        Ok(Self { addresses: blocks.iter().map(StoredBlock::in_use).sum(), doomed, revision })
    }

    fn check_unused(&self, name: &str, cidr: IpNet) -> Result<(), StoreError> {
        match self.addresses {
            0 => Ok(()),
            addresses => Err(StoreError::PoolInUse { name: name.to_owned(), cidr, addresses }),
        }
    }

    /// Requires that no block in the range is new or changed.
    fn compare_range(&self, range: IpNet, transaction: &mut Transaction) {
        let prefix = blocks::key_prefix(range);
        transaction.compares.push(Compare::NoneNewer { prefix, revision: self.revision });
    }
}

fn delete_all(doomed: &[Doomed], transaction: &mut Transaction) {
    for (key, revision) in doomed {
        transaction.delete(key.clone(), *revision);
    }
}

async fn affinities_in(datastore: &dyn Datastore, range: IpNet) -> Result<Vec<Doomed>, StoreError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = datastore.list(keys::HOSTS, after.as_deref(), PAGE).await?;
        for entry in page.entries {
            let block = keys::parse_affinity(&entry.key).map(|(_, block)| block);
            if block.is_some_and(|block| blocks::overlap(range, block)) {
                found.push((entry.key, entry.revision));
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
    }
}

async fn delete_in_batches(
    datastore: &dyn Datastore,
    guard: &Guard,
    entry: Entry,
    range: IpNet,
    name: &str,
) -> Result<Outcome, StoreError> {
    let mut transaction = guard.transaction();
    transaction.update(entry.key.clone(), entry.revision, disabled(&entry)?);
    let Outcome::Committed(revision) = datastore.commit(transaction).await? else {
        return Ok(Outcome::Conflict);
    };
    for _ in 0..ATTEMPTS {
        let holdings = Holdings::read(datastore, range).await?;
        if let Err(in_use) = holdings.check_unused(name, range) {
            let mut transaction = guard.transaction();
            transaction.update(entry.key, revision, entry.value);
            datastore.commit(transaction).await?;
            return Err(in_use);
        }
        let pool = (entry.key.as_str(), revision);
        let outcome = empty_pool(datastore, guard, pool, range, &holdings).await?;
        if let Outcome::Committed(_) = outcome {
            return Ok(outcome);
        }
        let now = datastore.get(&entry.key).await?;
        if now.is_none_or(|now| now.revision != revision) {
            return Ok(Outcome::Conflict);
        }
    }
    Ok(Outcome::Conflict)
}

/// Deletes what a disabled pool holds, and then the pool, which compares the
/// range once more: who does not compare pools (Calico) may have taken an
/// address even so.
async fn empty_pool(
    datastore: &dyn Datastore,
    guard: &Guard,
    (key, revision): (&str, Revision),
    range: IpNet,
    holdings: &Holdings,
) -> Result<Outcome, StoreError> {
    for batch in holdings.doomed.chunks(BATCH) {
        let mut transaction = guard.transaction();
        transaction.unchanged(key.to_owned(), revision);
        delete_all(batch, &mut transaction);
        if datastore.commit(transaction).await? == Outcome::Conflict {
            return Ok(Outcome::Conflict);
        }
    }
    let mut transaction = guard.transaction();
    holdings.compare_range(range, &mut transaction);
    transaction.delete(key.to_owned(), revision);
    Ok(datastore.commit(transaction).await?)
}

/// The value of the same pool, disabled.
fn disabled(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    let mut pool = Resource::from_stored(Kind::IpPool, &entry.value)?;
    if let Some(Value::Object(spec)) = pool.object.get_mut("spec") {
        spec.insert("disabled".to_owned(), true.into());
    }
    Ok(pool.clone().replacing(&pool).to_stored(None)?)
}
