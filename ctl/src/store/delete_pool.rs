//! Deleting a pool together with its blocks and affinities.
//!
//! Who takes an address from a pool compares the pool in the same transaction
//! (weir-ipam does). Deleting a pool therefore has to see to the blocks that
//! appear between reading and committing:
//!
//! - What fits into one transaction is deleted in one. It compares that no
//!   block near the pool's range was made or changed since it was read.
//! - Else, and when that was in vain because others change blocks there all
//!   the time, the pool is disabled first. From then on nobody takes an address
//!   from it, and its blocks can be deleted one batch after the other, each
//!   only if it and the pool are still as they were read; what happens in
//!   other pools does not matter. If an address turns up nevertheless, or
//!   anything fails, the pool becomes what it was. If this process dies in
//!   between, the pool is left disabled, and deleting it again goes on where
//!   this one stopped.
//!
//! Addresses of nodes' IPIP tunnels do not keep a pool: it is disabled first, and
//! then they are released, each together with its handle and with the field of the
//! Node that names it. The node's agent takes another one out of another pool. By
//! force all other addresses are released in the same way.

use ipnet::IpNet;
use serde_json::Value;
use weir_common::datastore::{
    Compare, Datastore, Entry, Outcome, Revision, Selection, Transaction, keys,
};
use weir_common::ipam::release::forget_full;
use weir_common::ipam::{Block, Stored};
use weir_common::node::is_tunnel_address;
use weir_common::resources::{Kind, Resource};

use super::blocks::{self, blocks_in, in_use};
use super::delete::{Deleted, Deletion};
use super::guard::Guard;
use super::release::release_all;
use super::{ATTEMPTS, StoreError, read_stored_pool};

/// After so many attempts in one transaction the pool is disabled first.
const ATTEMPTS_AT_ONCE: usize = 5;

/// The most keys deleted in one transaction. An affinity takes what its host
/// noted about the block along; etcd allows 128 writes.
const BATCH: usize = 60;

/// How many affinities are read at once.
const PAGE: usize = 500;

/// Deletes a pool. When that fails the pool becomes what it was; what was
/// deleted or released in it by then stays so.
///
/// # Errors
/// As [`Deletion::run`]; [`StoreError::LeftDisabled`] when the pool could not
/// be made what it was.
pub(super) async fn delete_pool(deletion: &Deletion<'_>) -> Result<Deleted, StoreError> {
    let mut removal = Removal { deletion, disabled: None, deleted: Deleted::default() };
    match removal.run().await {
        Ok(()) => Ok(removal.deleted),
        Err(error) => Err(removal.restore(error).await),
    }
}

/// What the pool was before it was disabled here, and what it became by that.
struct Disabled {
    original: Vec<u8>,
    written: Vec<u8>,
}

/// A pool on its way out.
struct Removal<'a> {
    deletion: &'a Deletion<'a>,
    /// Set as soon as the pool may have been disabled here.
    disabled: Option<Disabled>,
    deleted: Deleted,
}

/// The pool and what it had in the datastore at one step.
struct Step {
    guard: Guard,
    entry: Entry,
    contents: Contents,
}

impl Removal<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        for attempt in 0..ATTEMPTS {
            if let Outcome::Committed(_) = self.step(attempt).await? {
                return Ok(());
            }
        }
        let name = self.deletion.name.to_owned();
        Err(StoreError::Contended { kind: Kind::IpPool, name, attempts: ATTEMPTS })
    }

    /// Takes the next step; the last one is committed, after all others, and
    /// after a conflict, everything is read again.
    async fn step(&mut self, attempt: usize) -> Result<Outcome, StoreError> {
        let (datastore, name) = (self.deletion.datastore, self.deletion.name);
        let selection = Selection::Key(Kind::IpPool.key(name));
        let mut guard = Guard::read(datastore, vec![selection]).await?;
        let Some(entry) = guard.take_one(0) else {
            return Err(StoreError::DoesNotExist { kind: Kind::IpPool, name: name.to_owned() });
        };
        if attempt == 0 {
            self.deletion.check_version(&entry)?;
        }
        let Some(pool) = read_stored_pool(&entry) else {
            // Without a range there is nothing that could be in it.
            let mut transaction = guard.transaction();
            transaction.delete(entry.key, entry.revision);
            return Ok(datastore.commit(transaction).await?);
        };
        let contents = Contents::read(datastore, pool.cidr).await?;
        if !self.deletion.force {
            contents.check_unused(name, pool.cidr)?;
        }
        let few = contents.addresses() == 0 && contents.doomed.len() < BATCH;
        let step = Step { guard, entry, contents };
        if is_disabled(&step.entry) {
            return self.empty(&step).await;
        }
        if few && attempt < ATTEMPTS_AT_ONCE {
            return self.delete_at_once(step, pool.cidr).await;
        }
        self.disable(step).await?;
        Ok(Outcome::Conflict)
    }

    /// Deletes everything in one transaction.
    async fn delete_at_once(&mut self, step: Step, range: IpNet) -> Result<Outcome, StoreError> {
        let Step { guard, entry, contents } = step;
        let mut transaction = guard.transaction();
        contents.compare_range(range, &mut transaction);
        delete_all(&contents.doomed, &mut transaction);
        transaction.delete(entry.key, entry.revision);
        let outcome = self.deletion.datastore.commit(transaction).await?;
        if let Outcome::Committed(_) = outcome {
            self.deleted.blocks += contents.blocks.len();
        }
        Ok(outcome)
    }

    /// Disables the pool, unless it was changed meanwhile.
    async fn disable(&mut self, step: Step) -> Result<(), StoreError> {
        let Step { guard, entry, .. } = step;
        let written = with_disabled(&entry, Some(true.into()))?;
        let mut transaction = guard.transaction();
        transaction.update(entry.key, entry.revision, written.clone());
        // Before the commit: its answer may get lost.
        let before = self.disabled.replace(Disabled { original: entry.value, written });
        if self.deletion.datastore.commit(transaction).await? == Outcome::Conflict {
            self.disabled = before;
        }
        Ok(())
    }

    /// Releases what is in use in a disabled pool, or else deletes what is
    /// left, and with the last of it the pool.
    async fn empty(&mut self, step: &Step) -> Result<Outcome, StoreError> {
        if step.contents.addresses() > 0 {
            self.release(step).await?;
            return Ok(Outcome::Conflict);
        }
        self.delete_in_batches(step).await
    }

    /// Releases the addresses in use, as far as nobody changes their blocks
    /// meanwhile.
    async fn release(&mut self, step: &Step) -> Result<(), StoreError> {
        let (mut done, total) = (0, step.contents.addresses());
        for block in step.contents.blocks.iter().filter(|block| in_use(&block.value) > 0) {
            let pool = (step.entry.key.as_str(), step.entry.revision);
            let released = release_all(self.deletion.datastore, &step.guard, pool, block).await?;
            if let Outcome::Committed(_) = released {
                self.deleted.addresses += in_use(&block.value);
            }
            done += in_use(&block.value);
            self.deletion.observer.progress(done, total);
        }
        Ok(())
    }

    /// Deletes blocks and affinities. The pool goes once a look found none:
    /// who does not compare pools (Calico) may have made one even so.
    async fn delete_in_batches(&mut self, step: &Step) -> Result<Outcome, StoreError> {
        let Step { guard, entry, contents } = step;
        let datastore = self.deletion.datastore;
        if contents.doomed.is_empty() {
            let mut transaction = guard.transaction();
            transaction.delete(entry.key.clone(), entry.revision);
            return Ok(datastore.commit(transaction).await?);
        }
        for (number, batch) in contents.doomed.chunks(BATCH).enumerate() {
            self.deletion.observer.progress(number * BATCH, contents.doomed.len());
            let mut transaction = guard.transaction();
            transaction.unchanged(entry.key.clone(), entry.revision);
            delete_all(batch, &mut transaction);
            if datastore.commit(transaction).await? == Outcome::Conflict {
                break;
            }
            let is_block = |(key, _): &&Doomed| keys::parse_block(key).is_some();
            self.deleted.blocks += batch.iter().filter(is_block).count();
        }
        Ok(Outcome::Conflict)
    }

    /// Makes the pool what it was, if it was disabled here; gives the error to
    /// report.
    async fn restore(&self, error: StoreError) -> StoreError {
        let Some(disabled) = &self.disabled else { return error };
        for _ in 0..ATTEMPTS {
            match self.try_restore(disabled).await {
                Ok(Outcome::Committed(_)) => return error,
                Ok(Outcome::Conflict) => {}
                Err(_) => break,
            }
        }
        let name = self.deletion.name.to_owned();
        StoreError::LeftDisabled { name, cause: Box::new(error) }
    }

    async fn try_restore(&self, disabled: &Disabled) -> Result<Outcome, StoreError> {
        let datastore = self.deletion.datastore;
        let selection = Selection::Key(Kind::IpPool.key(self.deletion.name));
        let mut guard = Guard::read(datastore, vec![selection]).await?;
        let Some(entry) = guard.take_one(0).filter(is_disabled) else {
            return Ok(Outcome::Committed(guard.revision));
        };
        let value = if entry.value == disabled.written {
            disabled.original.clone()
        } else {
            // Somebody else changed the pool after it was disabled here: that
            // change stays.
            with_disabled(&entry, flag(&disabled.original))?
        };
        let mut transaction = guard.transaction();
        transaction.update(entry.key, entry.revision, value);
        Ok(datastore.commit(transaction).await?)
    }
}

/// A key to delete, and when it was last written.
type Doomed = (String, Revision);

/// What a pool has in the datastore besides itself.
struct Contents {
    blocks: Vec<Stored<Block>>,
    doomed: Vec<Doomed>,
    revision: Revision,
}

impl Contents {
    async fn read(datastore: &dyn Datastore, range: IpNet) -> Result<Self, StoreError> {
        let (blocks, revision) = blocks_in(datastore, Some(range)).await?;
        let mut doomed: Vec<Doomed> =
            blocks.iter().map(|block| (keys::block(block.value.cidr), block.revision)).collect();
        doomed.extend(affinities_in(datastore, range).await?);
        Ok(Self { blocks, doomed, revision })
    }

    /// How many addresses are in use.
    fn addresses(&self) -> usize {
        self.blocks.iter().map(|block| in_use(&block.value)).sum()
    }

    /// Refuses what only force takes away: addresses other than of tunnels.
    fn check_unused(&self, name: &str, cidr: IpNet) -> Result<(), StoreError> {
        let tunnels = self.blocks.iter().map(|it| it.value.held_by(is_tunnel_address).len()).sum();
        match self.addresses() - tunnels {
            0 => Ok(()),
            addresses => {
                let name = name.to_owned();
                Err(StoreError::PoolInUse { name, cidr, addresses, tunnels })
            }
        }
    }

    /// Requires that no block in the range is new or changed. More keys than
    /// those of the range begin alike, so that others can make this fail.
    fn compare_range(&self, range: IpNet, transaction: &mut Transaction) {
        let prefix = blocks::key_prefix(range);
        transaction.compares.push(Compare::NoneNewer { prefix, revision: self.revision });
    }
}

fn delete_all(doomed: &[Doomed], transaction: &mut Transaction) {
    for (key, revision) in doomed {
        transaction.delete(key.clone(), *revision);
        if let Some((host, block)) = keys::parse_affinity(key) {
            forget_full(host, block, transaction);
        }
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

/// What the stored pool says about being disabled, if anything.
fn flag(value: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(value).ok()?;
    value.get("spec")?.get("disabled").cloned()
}

/// Whether nobody takes an address from the stored pool.
fn is_disabled(entry: &Entry) -> bool {
    flag(&entry.value) == Some(Value::Bool(true))
}

/// The value of the same pool with this flag.
fn with_disabled(entry: &Entry, flag: Option<Value>) -> Result<Vec<u8>, StoreError> {
    let mut pool = Resource::from_stored(Kind::IpPool, &entry.value)?;
    if let Some(Value::Object(spec)) = pool.object.get_mut("spec") {
        spec.insert("disabled".to_owned(), flag.unwrap_or(Value::Bool(false)));
    }
    Ok(pool.clone().replacing(&pool).to_stored(None)?)
}
