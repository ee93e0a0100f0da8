//! Handles against blocks: kinds 3, 4 and 5.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::allocation::Allocation;
use super::finding::Finding;
use super::listing::{Counts, Listing};

/// Handles that name no address, addresses without their handle, and handles
/// with wrong counts.
pub(super) fn check(listing: &Listing) -> Vec<Finding> {
    let held = listing.held_by_handle();
    let mut findings = miscounted(listing, &held);
    findings.extend(missing(listing));
    findings.extend(of_nobody(listing));
    findings
}

fn miscounted(listing: &Listing, held: &HashMap<&str, Counts>) -> Vec<Finding> {
    // What a handle has in a block that cannot be read is not known.
    let dark = listing.unreadable_blocks();
    let in_sight = |(_, says): &(&Arc<str>, &Counts)| {
        !says.iter().any(|(block, _)| dark.contains(&block.trunc()))
    };
    let judge = |(handle, says): (&Arc<str>, &Counts)| match held.get(handle.as_ref()) {
        None => {
            let named = says.iter().map(|(block, _)| *block).collect();
            Some(Finding::EmptyHandle { handle: Arc::clone(handle), named })
        }
        Some(has) if has == says => None,
        Some(has) => Some(Finding::WrongCount {
            handle: Arc::clone(handle),
            counts: side_by_side(says, has),
        }),
    };
    listing.handles.iter().filter(in_sight).filter_map(judge).collect()
}

/// What a handle says and what the blocks hold, block by block.
fn side_by_side(says: &Counts, has: &Counts) -> Vec<(IpNet, u64, u64)> {
    let mut counts: BTreeMap<IpNet, (u64, u64)> = BTreeMap::new();
    for (block, count) in says {
        counts.entry(block.trunc()).or_default().0 += count;
    }
    for (block, count) in has {
        counts.entry(*block).or_default().1 += count;
    }
    counts.into_iter().map(|(block, (says, has))| (block, says, has)).collect()
}

fn missing(listing: &Listing) -> Vec<Finding> {
    let mut addresses: BTreeMap<Arc<str>, Vec<Allocation>> = BTreeMap::new();
    for allocation in listing.allocations().filter(|allocation| allocation.needs_handle()) {
        if let Some(handle) = &allocation.handle
            && !listing.handles.contains_key(handle)
            && !listing.unreadable.contains_key(&crate::datastore::keys::handle(handle))
        {
            addresses.entry(Arc::clone(handle)).or_default().push(allocation.clone());
        }
    }
    addresses
        .into_iter()
        .map(|(handle, addresses)| Finding::MissingHandle { handle, addresses })
        .collect()
}

fn of_nobody(listing: &Listing) -> impl Iterator<Item = Finding> {
    let nobodys =
        |allocation: &&Allocation| allocation.needs_handle() && allocation.handle.is_none();
    listing.allocations().filter(nobodys).cloned().map(Finding::NobodysAddress)
}
