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
//!
//! By force the pool is disabled first, too; then all addresses in it are
//! released, each together with its handle.

use ipnet::IpNet;
use serde_json::Value;
use weir_common::datastore::{Compare, Datastore, Entry, Outcome, Revision, Transaction, keys};
use weir_common::resources::{Kind, Resource};

use super::blocks::{self, StoredBlock, blocks_in};
use super::delete::{Deleted, Deletion};
use super::guard::Guard;
use super::release::release_all;
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
    deletion: &Deletion<'_>,
    guard: &Guard,
    entry: Entry,
    attempt: usize,
    deleted: &mut Deleted,
) -> Result<Outcome, StoreError> {
    let datastore = deletion.datastore;
    let Some(pool) = read_stored_pool(&entry) else {
        // Without a range there is nothing that could be in it.
        let mut transaction = guard.transaction();
        transaction.delete(entry.key, entry.revision);
        return Ok(datastore.commit(transaction).await?);
    };
    let range = pool.cidr;
    let holdings = Holdings::read(datastore, range).await?;
    if !deletion.force {
        holdings.check_unused(&pool.name, range)?;
    }
    let few = holdings.addresses() == 0 && holdings.doomed.len() < BATCH;
    if few && attempt < ATTEMPTS_AT_ONCE {
        let mut transaction = guard.transaction();
        holdings.compare_range(range, &mut transaction);
        delete_all(&holdings.doomed, &mut transaction);
        transaction.delete(entry.key, entry.revision);
        let outcome = datastore.commit(transaction).await?;
        if let Outcome::Committed(_) = outcome {
            deleted.blocks += holdings.blocks.len();
        }
        return Ok(outcome);
    }
    delete_in_batches(deletion, guard, entry, range, deleted).await
}

/// A key to delete, and when it was last written.
type Doomed = (String, Revision);

/// What a pool has in the datastore besides itself.
struct Holdings {
    blocks: Vec<StoredBlock>,
    doomed: Vec<Doomed>,
    revision: Revision,
}

impl Holdings {
    async fn read(datastore: &dyn Datastore, range: IpNet) -> Result<Self, StoreError> {
        let (blocks, revision) = blocks_in(datastore, Some(range)).await?;
        let mut doomed: Vec<Doomed> =
            blocks.iter().map(|block| (block.key.clone(), block.revision)).collect();
        doomed.extend(affinities_in(datastore, range).await?);
        Ok(Self { blocks, doomed, revision })
    }

    /// How many addresses are in use.
    fn addresses(&self) -> usize {
        self.blocks.iter().map(StoredBlock::in_use).sum()
    }

    fn check_unused(&self, name: &str, cidr: IpNet) -> Result<(), StoreError> {
        match self.addresses() {
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
    deletion: &Deletion<'_>,
    guard: &Guard,
    entry: Entry,
    range: IpNet,
    deleted: &mut Deleted,
) -> Result<Outcome, StoreError> {
    let datastore = deletion.datastore;
    let mut transaction = guard.transaction();
    transaction.update(entry.key.clone(), entry.revision, disabled(&entry)?);
    let Outcome::Committed(revision) = datastore.commit(transaction).await? else {
        return Ok(Outcome::Conflict);
    };
    let emptying = Emptying { deletion, guard, key: &entry.key, revision, range };
    for _ in 0..ATTEMPTS {
        let holdings = Holdings::read(datastore, range).await?;
        if let Err(in_use) = holdings.check_unused(deletion.name, range) {
            if !deletion.force {
                let mut transaction = guard.transaction();
                transaction.update(entry.key, revision, entry.value);
                datastore.commit(transaction).await?;
                return Err(in_use);
            }
            emptying.release(&holdings, deleted).await?;
        } else if let outcome @ Outcome::Committed(_) = emptying.delete(&holdings, deleted).await? {
            return Ok(outcome);
        }
        let now = datastore.get(&entry.key).await?;
        if now.is_none_or(|now| now.revision != revision) {
            return Ok(Outcome::Conflict);
        }
    }
    Ok(Outcome::Conflict)
}

/// A disabled pool that is being emptied.
struct Emptying<'a> {
    deletion: &'a Deletion<'a>,
    guard: &'a Guard,
    key: &'a str,
    revision: Revision,
    range: IpNet,
}

impl Emptying<'_> {
    /// Releases the addresses in use, as far as nobody changes their blocks
    /// meanwhile.
    async fn release(&self, holdings: &Holdings, deleted: &mut Deleted) -> Result<(), StoreError> {
        let (datastore, observer) = (self.deletion.datastore, self.deletion.observer);
        let (mut done, total) = (0, holdings.addresses());
        for block in holdings.blocks.iter().filter(|block| block.in_use() > 0) {
            let pool = (self.key, self.revision);
            let outcome = release_all(datastore, self.guard, pool, block).await?;
            if let Outcome::Committed(_) = outcome {
                deleted.addresses += block.in_use();
            }
            done += block.in_use();
            observer.progress(done, total);
        }
        Ok(())
    }

    /// Deletes blocks and affinities, and then the pool, which compares the
    /// range once more: who does not compare pools (Calico) may have taken an
    /// address even so.
    async fn delete(
        &self,
        holdings: &Holdings,
        deleted: &mut Deleted,
    ) -> Result<Outcome, StoreError> {
        let datastore = self.deletion.datastore;
        for (number, batch) in holdings.doomed.chunks(BATCH).enumerate() {
            self.deletion.observer.progress(number * BATCH, holdings.doomed.len());
            let mut transaction = self.guard.transaction();
            transaction.unchanged(self.key.to_owned(), self.revision);
            delete_all(batch, &mut transaction);
            if datastore.commit(transaction).await? == Outcome::Conflict {
                return Ok(Outcome::Conflict);
            }
            let is_block = |(key, _): &&Doomed| keys::parse_block(key).is_some();
            deleted.blocks += batch.iter().filter(is_block).count();
        }
        let mut transaction = self.guard.transaction();
        holdings.compare_range(self.range, &mut transaction);
        transaction.delete(self.key.to_owned(), self.revision);
        Ok(datastore.commit(transaction).await?)
    }
}

/// The value of the same pool, disabled.
fn disabled(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    let mut pool = Resource::from_stored(Kind::IpPool, &entry.value)?;
    if let Some(Value::Object(spec)) = pool.object.get_mut("spec") {
        spec.insert("disabled".to_owned(), true.into());
    }
    Ok(pool.clone().replacing(&pool).to_stored(None)?)
}
