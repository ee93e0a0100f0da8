//! Releasing all addresses of a block, or all of one holder, together with
//! the handles that name them.

use std::collections::BTreeSet;

use weir_common::datastore::{Datastore, Entry, Outcome, Revision, Selection, Transaction, keys};
use weir_common::ipam::{Block, Handle};

use super::StoreError;
use super::blocks::StoredBlock;
use super::guard::Guard;

/// How many handles are changed in one transaction: well below what etcd
/// allows, for the comparisons that come with them.
const HANDLES_AT_ONCE: usize = 50;

/// Releases all addresses of a block, in as many transactions as its handles
/// need. Each compares `pool`, which is disabled, so that nobody takes another
/// address meanwhile. The block stays, empty.
///
/// # Errors
/// [`StoreError::Unreadable`] for a handle that is none;
/// [`StoreError::Datastore`].
pub(super) async fn release_all(
    datastore: &dyn Datastore,
    guard: &Guard,
    (pool, pool_revision): (&str, Revision),
    stored: &StoredBlock,
) -> Result<Outcome, StoreError> {
    let (mut block, mut revision) = (stored.block.clone(), stored.revision);
    let holders: BTreeSet<Option<String>> = block
        .allocations
        .iter()
        .flatten()
        .map(|index| block.attributes[*index].handle_id.clone())
        .collect();
    let holders: Vec<_> = holders.into_iter().collect();
    for holders in holders.chunks(HANDLES_AT_ONCE) {
        let mut transaction = guard.transaction();
        transaction.unchanged(pool.to_owned(), pool_revision);
        let ids: Vec<&str> = holders.iter().flatten().map(String::as_str).collect();
        for (id, entry) in ids.iter().zip(read_handles(datastore, &ids).await?) {
            forget_block(id, entry, &block, &mut transaction)?;
        }
        block = without(block, |handle| holders.iter().any(|holder| holder.as_deref() == handle));
        transaction.update(stored.key.clone(), revision, block.to_json());
        match datastore.commit(transaction).await? {
            Outcome::Committed(now) => revision = now,
            Outcome::Conflict => return Ok(Outcome::Conflict),
        }
    }
    Ok(Outcome::Committed(revision))
}

/// The block, one version later, without the addresses of the handles that are
/// `wanted`.
pub(super) fn without(mut block: Block, wanted: impl Fn(Option<&str>) -> bool) -> Block {
    let ordinals = block.held_by(|holder| wanted(holder.handle_id.as_deref()));
    block.release(&ordinals);
    block.advance();
    block
}

/// Takes the block out of a handle, which goes when it was its last one. A
/// handle that is missing must stay so.
fn forget_block(
    id: &str,
    entry: Option<Entry>,
    block: &Block,
    transaction: &mut Transaction,
) -> Result<(), StoreError> {
    let Some(Entry { key, value, revision }) = entry else {
        transaction.absent(keys::handle(id));
        return Ok(());
    };
    let mut handle = read_handle(&key, &value)?;
    handle.set(block.cidr, 0);
    if handle.is_empty() {
        transaction.delete(key, revision);
    } else {
        transaction.update(key, revision, handle.to_json());
    }
    Ok(())
}

/// Reads a stored handle.
///
/// # Errors
/// [`StoreError::Unreadable`].
pub(super) fn read_handle(key: &str, value: &[u8]) -> Result<Handle, StoreError> {
    Handle::from_json(value)
        .map_err(|cause| StoreError::Unreadable { key: key.to_owned(), cause: Box::new(cause) })
}

/// The entries of these handles, in the same order.
pub(super) async fn read_handles(
    datastore: &dyn Datastore,
    ids: &[&str],
) -> Result<Vec<Option<Entry>>, StoreError> {
    let selections: Vec<_> = ids.iter().map(|id| Selection::Key(keys::handle(id))).collect();
    let snapshot = datastore.read(&selections).await?;
    Ok(snapshot.selected.into_iter().map(|mut entries| entries.pop()).collect())
}
