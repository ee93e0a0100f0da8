//! Affinities against blocks and hosts: kinds 6, 7, 8 and 12.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::affinity::AffinityState;
use super::finding::{Claim, Finding};
use super::listing::{BlockUse, Listing, Owner};
use super::node::Hosts;
use crate::datastore::keys;

/// Affinities that do not go with a block, and blocks whose affinity is not
/// there. One finding for each claim: that its host is gone says more than that
/// it was left halfway, and this more than that the block is not there.
pub(super) fn check(listing: &Listing, hosts: &Hosts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut claims: BTreeSet<Claim> = BTreeSet::new();
    for (block, affinities) in &listing.affinities {
        for (host, state) in affinities {
            let claim = Claim { block: *block, host: Arc::clone(host) };
            findings.extend(check_affinity(listing, hosts, &claim, *state));
            claims.insert(claim);
        }
    }
    for (block, content) in &listing.blocks {
        findings.extend(check_block(listing, hosts, &claims, *block, content));
    }
    findings
}

fn check_affinity(
    listing: &Listing,
    hosts: &Hosts<'_>,
    claim: &Claim,
    state: AffinityState,
) -> Option<Finding> {
    // Nothing can be said of an affinity to a block that cannot be read.
    if listing.unreadable.contains_key(&keys::block(claim.block)) {
        return None;
    }
    let claim = claim.clone();
    let block = listing.blocks.get(&claim.block);
    if hosts.is_gone(&claim.host) {
        let named = hosts.is_named(&claim.host);
        return Some(Finding::BlockOfGoneHost { claim, named });
    }
    if state != AffinityState::Confirmed {
        let in_use = block.map_or(0, |block| block.allocations.len());
        let owner = block.map(|block| block.owner.clone());
        return Some(Finding::UnsettledAffinity { claim, state, owner, in_use });
    }
    match block.map(|block| &block.owner) {
        None => Some(Finding::AffinityWithoutBlock(claim)),
        Some(Owner::Host(host)) if *host == claim.host => None,
        Some(owner) => Some(Finding::ForeignAffinity { claim, owner: owner.clone() }),
    }
}

/// A block of a host that has no affinity to it.
fn check_block(
    listing: &Listing,
    hosts: &Hosts<'_>,
    claims: &BTreeSet<Claim>,
    block: IpNet,
    content: &BlockUse,
) -> Option<Finding> {
    let claim = Claim { block, host: Arc::clone(content.owner.host()?) };
    if claims.contains(&claim) || listing.unreadable.contains_key(&claim.key()) {
        None
    } else if hosts.is_gone(&claim.host) {
        let named = hosts.is_named(&claim.host);
        Some(Finding::BlockOfGoneHost { claim, named })
    } else {
        Some(Finding::MissingAffinity(claim))
    }
}
