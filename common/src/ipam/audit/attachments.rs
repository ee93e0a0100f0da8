//! Addresses against attachments and hosts: kinds 1, 2 and 12.

use std::collections::HashSet;
use std::net::IpAddr;

use jiff::Timestamp;

use super::allocation::Allocation;
use super::finding::{Finding, handle_of};
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
    let attached: HashSet<(String, &str)> = node
        .attachments
        .iter()
        .map(|attached| (handle_of(&attached.identity), attached.identity.interface()))
        .collect();
    let is_attached = |allocation: &Allocation| {
        let handle = allocation.handle.as_deref().unwrap_or_default().to_owned();
        attached.contains(&(handle, allocation.interface.as_deref().unwrap_or_default()))
    };
    let leaked = listing
        .allocations()
        .filter(|allocation| node.must_be_attached(allocation, now) && !is_attached(allocation));
    leaked.cloned().map(Finding::LeakedAddress).collect()
}

/// Attachments in this node's kernel without their address in the store.
pub(super) fn unrecorded_attachments(listing: &Listing, node: &ThisNode) -> Vec<Finding> {
    let mut held: HashSet<(&str, Option<&str>, IpAddr)> = HashSet::new();
    let mut holders: HashSet<(&str, Option<&str>)> = HashSet::new();
    for allocation in listing.allocations() {
        if let Some(handle) = allocation.handle.as_deref() {
            let interface = allocation.interface.as_deref();
            held.insert((handle, interface, allocation.address));
            holders.insert((handle, interface));
        }
    }
    let dark = listing.unreadable_blocks();
    let judge = |attached: &Attached| {
        let handle = handle_of(&attached.identity);
        let interface = attached.identity.interface();
        // The address may stand in a block that cannot be read.
        let visible = |address: &IpAddr| !dark.iter().any(|block| block.contains(address));
        // An allocation of Calico's names no interface and is anybody's.
        let owns = |address: &IpAddr| {
            held.contains(&(&handle, Some(interface), *address))
                || held.contains(&(&handle, None, *address))
        };
        let owns_any =
            holders.contains(&(&handle, Some(interface))) || holders.contains(&(&handle, None));
        let addresses: Vec<IpAddr> =
            attached.addresses.iter().filter(|it| !owns(it) && visible(it)).copied().collect();
        let unrecorded = if attached.addresses.is_empty() {
            !owns_any && dark.is_empty()
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
