//! Deleting a node together with what it holds.
//!
//! Its tunnel addresses are released, its affinities deleted, and with them
//! the blocks in which no address is in use. Blocks with addresses in use stay
//! without a host (as Calico leaves them): the addresses may still be alive,
//! and whoever releases the last one removes the block. The node itself goes
//! last, together with the record of the machine that had its name, and only if it
//! got no further block meanwhile, so that a deletion that was cut off is finished by
//! deleting again.

use ipnet::IpNet;
use weir_common::datastore::{Compare, Datastore, Entry, Outcome, Selection, Write, keys};
use weir_common::ipam::release::{abandon, forget_full, give_back};
use weir_common::ipam::{Attribute, Block, Stored};
use weir_common::node::TUNNEL_HANDLES;

use super::blocks::{in_use, read_block};
use super::delete::{Deleted, Deletion};
use super::guard::Guard;
use super::{StoreError, release};

/// How many affinities are given up in one transaction: each takes three writes.
const AFFINITIES_AT_ONCE: usize = 40;

/// Tries to delete the node in `entry`.
///
/// # Errors
/// [`StoreError::Unreadable`]; [`StoreError::Datastore`].
pub(super) async fn delete_node(
    deletion: &Deletion<'_>,
    guard: &Guard,
    entry: Entry,
    deleted: &mut Deleted,
) -> Result<Outcome, StoreError> {
    let (datastore, host) = (deletion.datastore, deletion.name);
    if release_tunnel_addresses(datastore, guard, host, deleted).await? == Outcome::Conflict {
        return Ok(Outcome::Conflict);
    }
    let prefix = keys::affinities_of(host);
    let mut snapshot = datastore.read(&[Selection::Prefix(prefix.clone())]).await?;
    let affinities = snapshot.selected.pop().unwrap_or_default();
    for (number, batch) in affinities.chunks(AFFINITIES_AT_ONCE).enumerate() {
        deletion.observer.progress(number * AFFINITIES_AT_ONCE, affinities.len());
        if give_up(datastore, guard, host, batch, deleted).await? == Outcome::Conflict {
            return Ok(Outcome::Conflict);
        }
    }
    let mut transaction = guard.transaction();
    transaction.compares.push(Compare::NoneNewer { prefix, revision: snapshot.revision });
    transaction.delete(entry.key, entry.revision);
    transaction.writes.push(Write::Delete { key: keys::machine(host) });
    Ok(datastore.commit(transaction).await?)
}

/// Releases the addresses of the node's tunnel devices, in one transaction.
async fn release_tunnel_addresses(
    datastore: &dyn Datastore,
    guard: &Guard,
    host: &str,
    deleted: &mut Deleted,
) -> Result<Outcome, StoreError> {
    let ids = TUNNEL_HANDLES.map(|handle| format!("{handle}{host}"));
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut transaction = guard.transaction();
    let mut cidrs: Vec<IpNet> = Vec::new();
    let handles = release::read_handles(datastore, &ids).await?;
    for (id, handle) in ids.iter().zip(handles) {
        let Some(handle) = handle else { continue };
        cidrs.extend(handle.value.blocks());
        transaction.delete(keys::handle(id), handle.revision);
    }
    if transaction.writes.is_empty() {
        return Ok(Outcome::Committed(guard.revision));
    }
    cidrs.sort();
    cidrs.dedup();
    let mut addresses = 0;
    for stored in read_blocks(datastore, &cidrs).await?.into_iter().flatten() {
        let of_tunnel =
            |holder: &Attribute| holder.handle_id.as_deref().is_some_and(|id| ids.contains(&id));
        let ordinals = stored.value.held_by(of_tunnel);
        addresses += ordinals.len();
        if !ordinals.is_empty() {
            give_back(&stored, &ordinals, &mut transaction);
        }
    }
    let outcome = datastore.commit(transaction).await?;
    if let Outcome::Committed(_) = outcome {
        deleted.addresses += addresses;
    }
    Ok(outcome)
}

/// Deletes these affinities of the host, and their blocks or the host's name
/// in them.
async fn give_up(
    datastore: &dyn Datastore,
    guard: &Guard,
    host: &str,
    affinities: &[Entry],
    deleted: &mut Deleted,
) -> Result<Outcome, StoreError> {
    let mut transaction = guard.transaction();
    for affinity in affinities {
        transaction.delete(affinity.key.clone(), affinity.revision);
        if let Some((_, cidr)) = keys::parse_affinity(&affinity.key) {
            forget_full(host, cidr, &mut transaction);
        }
    }
    let cidrs: Vec<IpNet> = affinities
        .iter()
        .filter_map(|affinity| keys::parse_affinity(&affinity.key))
        .map(|(_, cidr)| cidr)
        .collect();
    let (mut removed, mut kept, mut addresses) = (0, 0, 0);
    for stored in read_blocks(datastore, &cidrs).await?.into_iter().flatten() {
        if stored.value.host() != Some(host) {
            continue;
        }
        if abandon(&stored, &mut transaction) {
            removed += 1
        } else {
            kept += 1
        }
        addresses += in_use(&stored.value);
    }
    let outcome = datastore.commit(transaction).await?;
    if let Outcome::Committed(_) = outcome {
        deleted.blocks += removed;
        deleted.blocks_without_host += kept;
        deleted.addresses_without_host += addresses;
    }
    Ok(outcome)
}

async fn read_blocks(
    datastore: &dyn Datastore,
    cidrs: &[IpNet],
) -> Result<Vec<Option<Stored<Block>>>, StoreError> {
    let selections: Vec<_> = cidrs.iter().map(|cidr| Selection::Key(keys::block(*cidr))).collect();
    let snapshot = datastore.read(&selections).await?;
    let entries = snapshot.selected.into_iter().map(|mut entries| entries.pop());
    entries.map(|entry| entry.map(read_block).transpose()).collect()
}
