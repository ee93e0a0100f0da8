//! Releasing all addresses of a block, together with the handles that name them.

use std::collections::BTreeSet;

use weir_common::datastore::{Datastore, Entry, Outcome, Revision, Selection, keys};
use weir_common::ipam::release::{count_again, give_back};
use weir_common::ipam::{Attribute, Block, Handle, Stored};
use weir_common::node::forget_tunnel_addresses;

use super::StoreError;
use super::guard::Guard;

/// How many handles are changed in one transaction: each may take the node of a
/// tunnel along, and what etcd allows is 128 operations.
const HANDLES_AT_ONCE: usize = 50;

/// Releases all addresses of a block, in as many transactions as its handles
/// need. Each compares `pool`, which is disabled, so that nobody takes another
/// address meanwhile. A node whose tunnel has one of the addresses loses it.
///
/// # Errors
/// [`StoreError::Unreadable`] for a handle that is none;
/// [`StoreError::Datastore`].
pub(super) async fn release_all(
    datastore: &dyn Datastore,
    guard: &Guard,
    (pool, pool_revision): (&str, Revision),
    stored: &Stored<Block>,
) -> Result<Outcome, StoreError> {
    let mut stored = stored.clone();
    let holders = stored.value.held_by(|_| true).into_iter();
    let holders: BTreeSet<Option<String>> = holders
        .filter_map(|ordinal| stored.value.holder(ordinal))
        .map(|holder| holder.handle_id.clone())
        .collect();
    let holders: Vec<_> = holders.into_iter().collect();
    for holders in holders.chunks(HANDLES_AT_ONCE) {
        let mut transaction = guard.transaction();
        transaction.unchanged(pool.to_owned(), pool_revision);
        let ids: Vec<&str> = holders.iter().flatten().map(String::as_str).collect();
        forget_tunnel_addresses(datastore, &ids, &stored.value, &mut transaction).await?;
        let wanted = |holder: &Attribute| holders.contains(&holder.handle_id);
        let block = give_back(&stored, &stored.value.held_by(wanted), &mut transaction);
        for (id, handle) in ids.iter().zip(read_handles(datastore, &ids).await?) {
            count_again(id, handle.as_ref(), &block, &mut transaction);
        }
        match datastore.commit(transaction).await? {
            Outcome::Committed(revision) => stored = Stored { value: block, revision, ..stored },
            Outcome::Conflict => return Ok(Outcome::Conflict),
        }
    }
    Ok(Outcome::Committed(stored.revision))
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
    let entries = snapshot.selected.into_iter().map(|mut entries| entries.pop());
    entries.map(|entry| entry.map(read_handle).transpose()).collect()
}

pub(super) fn read_handle(entry: Entry) -> Result<Stored<Handle>, StoreError> {
    let Entry { key, value, revision } = entry;
    match Handle::from_json(&value) {
        Ok(value) => Ok(Stored { key, value, revision }),
        Err(cause) => Err(StoreError::Unreadable { key, cause: Box::new(cause) }),
    }
}
