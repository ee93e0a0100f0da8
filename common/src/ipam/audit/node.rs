//! What an audit knows of the node it runs on, and which hosts are gone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::allocation::Allocation;
use super::listing::Listing;
use crate::network::AttachmentIdentity;

/// The longest that one ADD takes (`docs/ipam.md`): an address that is younger
/// may still be on its way into the kernel.
pub const CALL_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

/// An attachment in this node's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Which it is.
    pub identity: AttachmentIdentity,
    /// The addresses routed to it; empty where they are not known.
    pub addresses: Vec<IpAddr>,
}

/// This node, as its kernel and its CNI configuration have it.
///
/// The kernel must be read after the store was listed: then an ADD in between
/// shows as an attachment without address, which another look at the store
/// refutes, and a DEL in between as an address that is about to be released
/// anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThisNode {
    /// The host name under which it takes addresses.
    pub host: String,
    /// The attachments in its kernel.
    pub attachments: Vec<Attached>,
    /// The networks that `weir` wires with addresses from this store.
    pub networks: BTreeSet<String>,
    /// The other networks configured on it. Their containers' interfaces carry
    /// no mark of Weir's, so that nothing can be said about their addresses.
    pub other_networks: BTreeSet<String>,
}

impl ThisNode {
    /// Whether this allocation must have an attachment in this node's kernel:
    /// it was made by Weir, for this node and a network that `weir` wires, and
    /// its ADD is over.
    pub(super) fn must_be_attached(&self, allocation: &Allocation, now: Timestamp) -> bool {
        let Some(handle) = allocation.handle.as_deref() else { return false };
        let in_progress = |made: Timestamp| now.duration_since(made) < CALL_DEADLINE;
        allocation.node.as_deref() == Some(self.host.as_str())
            && allocation.interface.is_some()
            && !allocation.cooling_down
            && !allocation.made.is_some_and(in_progress)
            && self.is_wired(handle)
    }

    /// Whether the handle is of a network that `weir` wires, and cannot be read
    /// as one of another network (both names may hold dots).
    fn is_wired(&self, handle: &str) -> bool {
        let of =
            |network: &str| handle.strip_prefix(network).is_some_and(|rest| rest.starts_with('.'));
        let seen = || self.attachments.iter().any(|attached| of(attached.identity.network()));
        let wired = self.networks.iter().any(|network| of(network)) || seen();
        wired && !self.other_networks.iter().any(|network| of(network))
    }

    /// Whether this store should have this attachment's addresses.
    pub(super) fn takes_addresses(&self, identity: &AttachmentIdentity) -> bool {
        self.networks.contains(identity.network())
            && !self.other_networks.contains(identity.network())
    }
}

/// Which hosts are gone.
///
/// Only where nodes are registered at all: an embedded store, and a cluster
/// that nobody registers nodes in, has none, and every host in it counts as
/// being there. The host that the audit runs on is there in any case; when it is
/// not registered itself, registration is not complete, and nothing is done to
/// others on its strength.
pub(super) struct Hosts<'a> {
    listing: &'a Listing,
    here: Option<&'a str>,
}

impl<'a> Hosts<'a> {
    pub(super) fn new(listing: &'a Listing, node: Option<&'a ThisNode>) -> Self {
        Self { listing, here: node.map(|node| node.host.as_str()) }
    }

    pub(super) fn is_gone(&self, host: &str) -> bool {
        let nodes = &self.listing.nodes;
        !nodes.is_empty() && !nodes.contains(host) && self.here != Some(host)
    }

    /// Whether the registered nodes can be relied on.
    pub(super) fn certain(&self) -> bool {
        self.here.is_none_or(|here| self.listing.nodes.contains(here))
    }
}
