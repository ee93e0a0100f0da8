//! Deleting a pool together with its blocks and affinities.
//!
//! Who takes an address from a pool compares the pool in the same transaction
//! (weir-ipam does). Deleting a pool therefore has to see to the blocks that
//! appear between reading and committing:
//!
//! - What fits into one transaction is deleted in one. It compares that no
//!   block near the pool's range was made or changed since it was read.
//! - Else, and when that was in vain because others change blocks there all
//!   the time, the pool is disabled first. From then on no program takes an address
//!   from it, and its blocks can be deleted one batch after the other, each
//!   only if it and the pool are still as they were read; what happens in
//!   other pools does not matter. If an address turns up nevertheless, or
//!   anything fails, the pool becomes what it was. If this process dies in
//!   between, the pool is left disabled, and deleting it again goes on where
//!   this one stopped.
//!
//! Addresses of nodes' tunnels do not keep a pool: it is disabled first, and
//! then they are released, each together with its handle and with the field of the
//! Node that names it. The node's agent takes another one out of another pool. By
//! force all other addresses are released in the same way.

use ipnet::IpNet;
use serde_json::Value;
use weir_common::datastore::{
    Attempts, Datastore, Decision, Entry, Pages, Revision, Transaction, keys, transact,
};
use weir_common::ipam::release::forget_full;
use weir_common::ipam::{Block, Guarded, Stored};
use weir_common::node::is_tunnel_address;
use weir_common::resources::{Kind, Resource, overlap};

use super::blocks::{self, blocks_in, in_use};
use super::deletion::{Deleted, Deletion};
use super::error::StoreError;
use super::read::read_stored_pool;
use super::release::release_all;

/// After so many attempts in one transaction the pool is disabled first.
const ATTEMPTS_AT_ONCE: u32 = 5;

/// The most keys deleted in one transaction. An affinity takes what its host
/// noted about the block along; etcd allows 128 writes.
const BATCH: usize = 60;

/// Deletes a pool. When that fails the pool becomes what it was; what was
/// deleted or released in it by then stays so.
///
/// # Errors
/// As [`Deletion::run`]; [`StoreError::LeftDisabled`] when the pool could not
/// be made what it was.
pub(super) async fn delete_pool(deletion: &Deletion<'_>) -> Result<Deleted, StoreError> {
    let mut removal = Removal {
        deletion,
        attempts: Attempts::default(),
        disabled: None,
        deleted: Deleted::default(),
    };
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
    attempts: Attempts,
    /// Set as soon as the pool may have been disabled here.
    disabled: Option<Disabled>,
    deleted: Deleted,
}

/// The pool and what it had in the datastore when it was last read.
struct State {
    guarded: Guarded,
    entry: Entry,
    contents: Contents,
}

impl Removal<'_> {
    async fn run(&mut self) -> Result<(), StoreError> {
        while !self.try_remove().await? {}
        Ok(())
    }

    /// Reads everything and goes as far as possible; answers whether the pool is gone.
    async fn try_remove(&mut self) -> Result<bool, StoreError> {
        let (datastore, name) = (self.deletion.datastore, self.deletion.name);
        let attempt = self.attempts.begin()?;
        let (guarded, entry) = self.deletion.read().await?;
        if attempt == 0 {
            self.deletion.check_version(&entry)?;
        }
        let Some(pool) = read_stored_pool(&entry) else {
            // Without a range there is nothing that could be in it.
            return self.delete_itself(&guarded, entry).await;
        };
        let contents = Contents::read(datastore, pool.cidr).await?;
        if !self.deletion.force {
            contents.check_unused(name, pool.cidr)?;
        }
        let few = contents.addresses() == 0 && contents.to_delete.len() < BATCH;
        let state = State { guarded, entry, contents };
        if is_disabled(&state.entry) && state.contents.addresses() > 0 {
            self.release(&state).await?;
            Ok(false)
        } else if is_disabled(&state.entry) {
            self.delete_in_batches(state).await
        } else if few && attempt < ATTEMPTS_AT_ONCE {
            self.delete_at_once(state, pool.cidr).await
        } else {
            self.disable(state).await?;
            Ok(false)
        }
    }

    /// Deletes everything in one transaction.
    async fn delete_at_once(&mut self, state: State, range: IpNet) -> Result<bool, StoreError> {
        let State { guarded, entry, contents } = state;
        let mut transaction = guarded.transaction();
        // More keys than those of the range begin alike, so that others can make this fail.
        transaction.none_newer(blocks::key_prefix(range), contents.revision);
        delete_all(&contents.to_delete, &mut transaction);
        transaction.delete(entry.key, entry.revision);
        let is_done = self.commit(transaction).await?;
        self.deleted.blocks += if is_done { contents.blocks.len() } else { 0 };
        Ok(is_done)
    }

    /// Disables the pool, unless it was changed meanwhile.
    async fn disable(&mut self, state: State) -> Result<(), StoreError> {
        let State { guarded, entry, .. } = state;
        let written = with_disabled(&entry, Some(true.into()))?;
        let mut transaction = guarded.transaction();
        transaction.update(entry.key, entry.revision, written.clone());
        // Before the commit: its answer may get lost.
        let before = self.disabled.replace(Disabled { original: entry.value, written });
        if !self.commit(transaction).await? {
            self.disabled = before;
        }
        Ok(())
    }

    /// Releases the addresses in use, as far as no other program changes their blocks
    /// meanwhile.
    async fn release(&mut self, state: &State) -> Result<(), StoreError> {
        let (datastore, State { guarded, entry, contents }) = (self.deletion.datastore, state);
        let (mut done, total) = (0, contents.addresses());
        for block in contents.blocks.iter().filter(|block| in_use(&block.value) > 0) {
            let addresses = in_use(&block.value);
            if release_all(datastore, &mut self.attempts, guarded, entry, block).await? {
                self.deleted.addresses += addresses;
            }
            done += addresses;
            self.deletion.observer.progress(done, total);
        }
        Ok(())
    }

    /// Deletes blocks and affinities. The pool goes once none was found: a program that
    /// does not compare pools (Calico) may have made one even so.
    async fn delete_in_batches(&mut self, state: State) -> Result<bool, StoreError> {
        let State { guarded, entry, contents } = state;
        if contents.to_delete.is_empty() {
            return self.delete_itself(&guarded, entry).await;
        }
        for (number, batch) in contents.to_delete.chunks(BATCH).enumerate() {
            self.deletion.observer.progress(number * BATCH, contents.to_delete.len());
            let mut transaction = guarded.transaction();
            transaction.unchanged(entry.key.clone(), entry.revision);
            delete_all(batch, &mut transaction);
            if !self.commit(transaction).await? {
                break;
            }
            let is_block = |(key, _): &&KeyToDelete| keys::parse_block(key).is_some();
            self.deleted.blocks += batch.iter().filter(is_block).count();
        }
        Ok(false)
    }

    async fn delete_itself(&mut self, guarded: &Guarded, pool: Entry) -> Result<bool, StoreError> {
        let mut transaction = guarded.transaction();
        transaction.delete(pool.key, pool.revision);
        self.commit(transaction).await
    }

    async fn commit(&mut self, transaction: Transaction) -> Result<bool, StoreError> {
        Ok(self.attempts.commit(self.deletion.datastore, transaction).await?)
    }

    /// Makes the pool what it was, if it was disabled here; gives the error to
    /// report.
    async fn restore(&self, error: StoreError) -> StoreError {
        let Some(disabled) = &self.disabled else { return error };
        let restored =
            transact(self.deletion.datastore, |_| self.decide_to_restore(disabled)).await;
        match restored {
            Ok(()) | Err(StoreError::DoesNotExist { .. }) => error,
            Err(_) => {
                let name = self.deletion.name.to_owned();
                StoreError::LeftDisabled { name, cause: Box::new(error) }
            }
        }
    }

    async fn decide_to_restore(&self, disabled: &Disabled) -> Result<Decision<()>, StoreError> {
        let (guarded, entry) = self.deletion.read().await?;
        if !is_disabled(&entry) {
            return Ok(Decision::Done(()));
        }
        let value = if entry.value == disabled.written {
            disabled.original.clone()
        } else {
            // Another program changed the pool after it was disabled here: that change
            // stays.
            with_disabled(&entry, flag(&disabled.original))?
        };
        let mut transaction = guarded.transaction();
        transaction.update(entry.key, entry.revision, value);
        Ok(Decision::Commit(transaction, ()))
    }
}

/// A key to delete, and when it was last written.
type KeyToDelete = (String, Revision);

/// What a pool has in the datastore besides itself.
struct Contents {
    blocks: Vec<Stored<Block>>,
    to_delete: Vec<KeyToDelete>,
    revision: Revision,
}

impl Contents {
    async fn read(datastore: &dyn Datastore, range: IpNet) -> Result<Self, StoreError> {
        let (blocks, revision) = blocks_in(datastore, Some(range)).await?;
        let mut to_delete: Vec<KeyToDelete> =
            blocks.iter().map(|block| (keys::block(block.value.cidr), block.revision)).collect();
        to_delete.extend(affinities_in(datastore, range).await?);
        Ok(Self { blocks, to_delete, revision })
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
}

fn delete_all(to_delete: &[KeyToDelete], transaction: &mut Transaction) {
    for (key, revision) in to_delete {
        transaction.delete(key.clone(), *revision);
        if let Some((host, block)) = keys::parse_affinity(key) {
            forget_full(host, block, transaction);
        }
    }
}

async fn affinities_in(
    datastore: &dyn Datastore,
    range: IpNet,
) -> Result<Vec<KeyToDelete>, StoreError> {
    let (mut found, mut pages) = (Vec::new(), Pages::new(datastore, keys::HOSTS));
    while let Some(page) = pages.next().await? {
        let is_in = |entry: &Entry| {
            let block = keys::parse_affinity(&entry.key).map(|(_, block)| block);
            block.is_some_and(|block| overlap(range, block))
        };
        let concerned = page.entries.into_iter().filter(is_in);
        found.extend(concerned.map(|entry| (entry.key, entry.revision)));
    }
    Ok(found)
}

/// What the stored pool says about being disabled, if anything.
fn flag(value: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(value).ok()?;
    value.get("spec")?.get("disabled").cloned()
}

/// Whether the stored pool gives no new address.
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
