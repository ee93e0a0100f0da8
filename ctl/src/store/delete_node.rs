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
use weir_common::datastore::{Attempts, Datastore, Entry, Selection, Transaction, Write, keys};
use weir_common::ipam::release::{abandon, forget_full, give_back};
use weir_common::ipam::{Attribute, Block, Blocks, Guarded, Stored, read_block};
use weir_common::node::TUNNEL_HANDLES;

use super::blocks::in_use;
use super::deletion::{Deleted, Deletion};
use super::error::StoreError;
use super::release::read_handles;

/// How many affinities are given up in one transaction: each takes three writes.
const AFFINITIES_AT_ONCE: usize = 40;

/// Tries to delete the node in `entry`; answers whether it is gone.
///
/// # Errors
/// [`StoreError::Unreadable`]; [`StoreError::Datastore`].
pub(super) async fn delete_node(
    deletion: &Deletion<'_>,
    attempts: &mut Attempts,
    guarded: &Guarded,
    entry: Entry,
    deleted: &mut Deleted,
) -> Result<bool, StoreError> {
    let (datastore, host) = (deletion.datastore, deletion.name);
    let (transaction, addresses) = release_tunnel_addresses(datastore, guarded, host).await?;
    if !transaction.writes.is_empty() {
        if !attempts.commit(datastore, transaction).await? {
            return Ok(false);
        }
        deleted.addresses += addresses;
    }
    let prefix = keys::affinities_of(host);
    let snapshot = datastore.read(&[Selection::Prefix(prefix.clone())]).await?;
    let affinities = snapshot.entries(0);
    for (number, batch) in affinities.chunks(AFFINITIES_AT_ONCE).enumerate() {
        deletion.observer.progress(number * AFFINITIES_AT_ONCE, affinities.len());
        let (transaction, given_up) = give_up(datastore, guarded, host, batch).await?;
        if !attempts.commit(datastore, transaction).await? {
            return Ok(false);
        }
        deleted.blocks += given_up.blocks;
        deleted.blocks_without_host += given_up.blocks_without_host;
        deleted.addresses_without_host += given_up.addresses_without_host;
    }
    let mut transaction = guarded.transaction();
    transaction.none_newer(prefix, snapshot.revision);
    transaction.delete(entry.key, entry.revision);
    transaction.writes.push(Write::Delete { key: keys::machine(host) });
    Ok(attempts.commit(datastore, transaction).await?)
}

/// The transaction that releases the addresses of the node's tunnel devices, and how many
/// these are; without writes when it has none.
async fn release_tunnel_addresses(
    datastore: &dyn Datastore,
    guarded: &Guarded,
    host: &str,
) -> Result<(Transaction, usize), StoreError> {
    let ids = TUNNEL_HANDLES.map(|handle| format!("{handle}{host}"));
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (mut transaction, mut addresses) = (guarded.transaction(), 0);
    let mut cidrs: Vec<IpNet> = Vec::new();
    for handle in read_handles(datastore, &ids).await?.into_iter().flatten() {
        cidrs.extend(handle.value.blocks());
        transaction.delete(handle.key, handle.revision);
    }
    cidrs.sort();
    cidrs.dedup();
    for stored in read_blocks(datastore, &cidrs).await?.into_iter().flatten() {
        let of_tunnel =
            |holder: &Attribute| holder.handle_id.as_deref().is_some_and(|id| ids.contains(&id));
        let ordinals = stored.value.held_by(of_tunnel);
        addresses += ordinals.len();
        if !ordinals.is_empty() {
            give_back(&stored, &ordinals, &mut transaction);
        }
    }
    Ok((transaction, addresses))
}

/// The transaction that deletes these affinities of the host, and their blocks or the
/// host's name in them; and what went by it.
async fn give_up(
    datastore: &dyn Datastore,
    guarded: &Guarded,
    host: &str,
    affinities: &[Entry],
) -> Result<(Transaction, Deleted), StoreError> {
    let (mut transaction, mut deleted) = (guarded.transaction(), Deleted::default());
    let mut cidrs: Vec<IpNet> = Vec::new();
    for affinity in affinities {
        transaction.delete(affinity.key.clone(), affinity.revision);
        if let Some((_, cidr)) = keys::parse_affinity(&affinity.key) {
            forget_full(host, cidr, &mut transaction);
            cidrs.push(cidr);
        }
    }
    let of_host = |stored: &Stored<Block>| stored.value.host() == Some(host);
    for stored in read_blocks(datastore, &cidrs).await?.into_iter().flatten().filter(of_host) {
        if abandon(&stored, &mut transaction) {
            deleted.blocks += 1;
        } else {
            deleted.blocks_without_host += 1;
        }
        deleted.addresses_without_host += in_use(&stored.value);
    }
    Ok((transaction, deleted))
}

async fn read_blocks(
    datastore: &dyn Datastore,
    cidrs: &[IpNet],
) -> Result<Vec<Option<Stored<Block>>>, StoreError> {
    let snapshot = datastore.read(&Blocks::selections(cidrs)).await?;
    let blocks = snapshot.selected.iter().map(|found| found.first().map(read_block).transpose());
    Ok(blocks.collect::<Result<_, _>>()?)
}
