//! Blocks against pools and against one another: kinds 9, 10 and 11.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::block::nth_address;
use super::finding::Finding;
use super::listing::{BlockUse, Listing};
use super::node::ThisNode;
use crate::resources::IpPool;

/// Blocks in no pool, blocks that do not fit, and blocks that are not sound in
/// themselves.
pub(super) fn check(listing: &Listing, node: Option<&ThisNode>) -> Vec<Finding> {
    let unsound = |(block, content): (&IpNet, &BlockUse)| {
        let may_free = |it: &IpAddr| node.is_some_and(|node| node.may_free(content, listing, *it));
        unsound(*block, content, may_free)
    };
    let mut findings: Vec<Finding> = listing.blocks.iter().filter_map(unsound).collect();
    if listing.pools_are_known() {
        let overlaps = overlaps(listing);
        for (block, content) in &listing.blocks {
            findings.extend(homeless(&listing.pools, *block, content));
            findings.extend(misfit(&listing.pools, *block, content, overlaps.get(block)));
        }
    }
    findings
}

fn unsound(
    block: IpNet,
    content: &BlockUse,
    may_free: impl Fn(&IpAddr) -> bool,
) -> Option<Finding> {
    let addresses = |ordinals: &[usize]| -> Vec<IpAddr> {
        ordinals.iter().map(|ordinal| nth_address(block, *ordinal as u128)).collect()
    };
    let (both, neither) = (addresses(&content.both), addresses(&content.neither));
    let (neither, doubtful) = neither.into_iter().partition(may_free);
    let finding = Finding::UnsoundBlock {
        block,
        host: content.owner.host().cloned(),
        both,
        neither,
        doubtful,
    };
    let sound = content.both.is_empty() && content.neither.is_empty();
    (!sound).then_some(finding)
}

fn homeless(pools: &[IpPool], block: IpNet, content: &BlockUse) -> Option<Finding> {
    pools_around(pools, block).next().is_none().then(|| Finding::BlockWithoutPool {
        block,
        host: content.owner.host().cloned(),
        in_use: content.allocations.len(),
    })
}

fn misfit(
    pools: &[IpPool],
    block: IpNet,
    content: &BlockUse,
    overlaps: Option<&Vec<IpNet>>,
) -> Option<Finding> {
    let size = |pool: &IpPool| (pool.name.clone(), pool.block_size);
    let pool = if has_right_size(pools, block) { None } else { pools_around(pools, block).next() };
    let overlaps = overlaps.cloned().unwrap_or_default();
    (pool.is_some() || !overlaps.is_empty()).then(|| Finding::MisfitBlock {
        block,
        host: content.owner.host().cloned(),
        in_use: content.allocations.len(),
        pool: pool.map(size),
        overlaps,
    })
}

fn pools_around(pools: &[IpPool], block: IpNet) -> impl Iterator<Item = &IpPool> {
    pools.iter().filter(move |pool| pool.cidr.contains(&block))
}

fn has_right_size(pools: &[IpPool], block: IpNet) -> bool {
    pools_around(pools, block).any(|pool| pool.block_size == block.prefix_len())
}

/// The blocks that overlap others, each with those it overlaps. Of two, the one
/// that does not fit its pool is at fault, else the smaller one.
fn overlaps(listing: &Listing) -> BTreeMap<IpNet, Vec<IpNet>> {
    let fits = |block| has_right_size(&listing.pools, block);
    let mut found: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
    // In key order a block comes right after those that contain it.
    let mut around: Vec<IpNet> = Vec::new();
    for inner in listing.blocks.keys().copied() {
        while around.last().is_some_and(|outer| !outer.contains(&inner)) {
            around.pop();
        }
        for outer in around.iter().copied() {
            let (at_fault, other) =
                if fits(inner) && !fits(outer) { (outer, inner) } else { (inner, outer) };
            found.entry(at_fault).or_default().push(other);
        }
        around.push(inner);
    }
    found
}
