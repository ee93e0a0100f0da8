//! Addresses against attachments and hosts: kinds 1, 2 and 12.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;

use super::super::assignee::Assignee;
use super::allocation::Allocation;
use super::finding::Finding;
use super::listing::Listing;
use super::node::{Attached, Hosts, ThisNode};

/// Addresses of hosts that are gone.
pub(super) fn addresses_of_gone_hosts(listing: &Listing, hosts: &Hosts<'_>) -> Vec<Finding> {
    let concerned = |allocation: &Allocation| {
        let host = allocation.node.clone().filter(|host| hosts.is_gone(host))?;
        let (allocation, named) = (allocation.clone(), hosts.is_named(&host));
        Some(Finding::AddressOfGoneHost { allocation, host, named })
    };
    listing.allocations().filter_map(concerned).collect()
}

/// Addresses of this node without an attachment in its kernel.
pub(super) fn leaked_addresses(listing: &Listing, node: &ThisNode, now: Timestamp) -> Vec<Finding> {
    let mut attached: HashMap<String, Vec<Assignee>> = HashMap::new();
    for attachment in &node.attachments {
        let assignee = node.assignee(&attachment.identity);
        attached.entry(assignee.handle_id.clone()).or_default().push(assignee);
    }
    let recorded = listing.machine(&node.host);
    let is_attached = |allocation: &Allocation| {
        let assignees = attached.get(allocation.handle.as_deref().unwrap_or_default());
        assignees
            .is_some_and(|them| them.iter().any(|assignee| allocation.is_of(assignee, recorded)))
    };
    let leaked = listing
        .allocations()
        .filter(|it| node.must_be_attached(it, listing, now) && !is_attached(it));
    leaked.cloned().map(Finding::LeakedAddress).collect()
}

/// Attachments in this node's kernel without their address in the store.
pub(super) fn unrecorded_attachments(listing: &Listing, node: &ThisNode) -> Vec<Finding> {
    let mut by_handle: HashMap<&str, Vec<&Allocation>> = HashMap::new();
    for allocation in listing.allocations() {
        if let Some(handle) = allocation.handle.as_deref() {
            by_handle.entry(handle).or_default().push(allocation);
        }
    }
    let dark = listing.unreadable_blocks();
    let recorded = listing.machine(&node.host);
    let judge = |attached: &Attached| {
        let assignee = node.assignee(&attached.identity);
        let of_handle = by_handle.get(assignee.handle_id.as_str()).map_or(&[][..], Vec::as_slice);
        let held = || of_handle.iter().filter(|allocation| allocation.is_of(&assignee, recorded));
        // The address may stand in a block that cannot be read.
        let visible = |address: &IpAddr| !dark.iter().any(|block| block.contains(address));
        let owns = |address: &IpAddr| held().any(|allocation| allocation.address == *address);
        let addresses: Vec<IpAddr> =
            attached.addresses.iter().filter(|it| !owns(it) && visible(it)).copied().collect();
        let unrecorded = if attached.addresses.is_empty() {
            held().next().is_none() && dark.is_empty()
        } else {
            !addresses.is_empty()
        };
        unrecorded.then(|| Finding::UnrecordedAttachment {
            identity: attached.identity.clone(),
            host: node.host.as_str().into(),
            addresses,
        })
    };
    let concerned = |attached: &&Attached| node.takes_addresses(&attached.identity);
    node.attachments.iter().filter(concerned).filter_map(judge).collect()
}
