//! Releasing all addresses of a block, together with the handles that name them.

use std::collections::BTreeSet;

use weir_common::datastore::{Attempts, Datastore, Entry, Selection, keys};
use weir_common::ipam::release::{count_again, give_back};
use weir_common::ipam::{Attribute, Block, Guarded, Handle, Stored, read_block};
use weir_common::node::forget_tunnel_addresses;

use super::error::StoreError;

/// How many handles are changed in one transaction: each may take the node of a
/// tunnel along, and what etcd allows is 128 operations.
const HANDLES_AT_ONCE: usize = 50;

/// Releases all addresses of a block, in as many transactions as its handles need, and
/// answers whether all went through. Each compares `pool`, which is disabled, so that no
/// program takes another address meanwhile. A node whose tunnel has one of the addresses
/// loses it.
///
/// # Errors
/// [`StoreError::Unreadable`] for a handle that is none;
/// [`StoreError::Datastore`].
pub(super) async fn release_all(
    datastore: &dyn Datastore,
    attempts: &mut Attempts,
    guarded: &Guarded,
    pool: &Entry,
    block: &Stored<Block>,
) -> Result<bool, StoreError> {
    let holders = block.value.held_by(|_| true).into_iter();
    let holders: BTreeSet<Option<String>> = holders
        .filter_map(|ordinal| block.value.holder(ordinal))
        .map(|holder| holder.handle_id.clone())
        .collect();
    let holders: Vec<_> = holders.into_iter().collect();
    for holders in holders.chunks(HANDLES_AT_ONCE) {
        let Some(entry) = datastore.get(&block.key).await? else { return Ok(false) };
        let stored = read_block(&entry)?;
        let mut transaction = guarded.transaction();
        transaction.unchanged(pool.key.clone(), pool.revision);
        let ids: Vec<&str> = holders.iter().flatten().map(String::as_str).collect();
        forget_tunnel_addresses(datastore, &ids, &stored.value, &mut transaction).await?;
        let wanted = |holder: &Attribute| holders.contains(&holder.handle_id);
        let block = give_back(&stored, &stored.value.held_by(wanted), &mut transaction);
        for (id, handle) in ids.iter().zip(read_handles(datastore, &ids).await?) {
            count_again(id, handle.as_ref(), &block, &mut transaction);
        }
        if !attempts.commit(datastore, transaction).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// These handles, in the same order.
///
/// # Errors
/// [`StoreError::Unreadable`]; [`StoreError::Datastore`].
pub(super) async fn read_handles(
    datastore: &dyn Datastore,
    ids: &[&str],
) -> Result<Vec<Option<Stored<Handle>>>, StoreError> {
    let selections: Vec<_> = ids.iter().map(|id| Selection::Key(keys::handle(id))).collect();
    let snapshot = datastore.read(&selections).await?;
    let handles = (0..ids.len()).map(|index| snapshot.stored(index, Handle::from_json));
    Ok(handles.collect::<Result<_, _>>()?)
}
