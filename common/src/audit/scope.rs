//! What an audit compares: the store, and what is known besides it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::node::ThisNode;
use crate::datastore::keys;
use crate::ipam::{AffinityState, BlockUse, Counts, IpamSnapshot, Owner};

/// What an audit knows besides the store.
#[derive(Clone, Copy, Debug)]
pub struct AuditContext<'a> {
    /// The node that it runs on; attachments are compared only when it is given.
    pub node: Option<&'a ThisNode>,
    /// The hosts that were named as gone for good.
    pub gone: &'a BTreeSet<String>,
    /// The time, no later than that at which the node's kernel was read.
    pub now: Timestamp,
}

/// The hosts that are gone when none is named.
static NO_HOSTS: BTreeSet<String> = BTreeSet::new();

impl<'a> AuditContext<'a> {
    /// No host is named as gone.
    pub fn new(node: Option<&'a ThisNode>, now: Timestamp) -> Self {
        Self { node, gone: &NO_HOSTS, now }
    }
}

/// The hosts that are gone, of those that hold blocks.
pub fn hosts_gone<'a>(
    snapshot: &'a IpamSnapshot,
    context: &'a AuditContext<'_>,
) -> BTreeSet<&'a str> {
    let scope = Scope { snapshot, context };
    let owners = snapshot.blocks.values().filter_map(|block| block.owner.host());
    owners.map(AsRef::as_ref).filter(|host| scope.is_gone(host)).collect()
}

/// All that the kinds of damage are found in.
pub(super) struct Scope<'a> {
    pub snapshot: &'a IpamSnapshot,
    pub context: &'a AuditContext<'a>,
}

/// One host's affinity to one block.
pub(super) struct AffinityUse<'a> {
    pub host: &'a Arc<str>,
    pub block: IpNet,
    pub state: AffinityState,
    /// The block; `None` when it is not there.
    pub content: Option<&'a BlockUse>,
}

impl AffinityUse<'_> {
    /// Whether the block is there and the host's.
    pub fn is_owned(&self) -> bool {
        self.content.is_some_and(|it| it.owner == Owner::Host(Arc::clone(self.host)))
    }
}

impl<'a> Scope<'a> {
    /// Whether a host is gone: it is not registered while others are, or it is named as
    /// gone. In an embedded store, and in a cluster where nodes are not registered, every
    /// host counts as being there. The host that the audit runs on is there in any case,
    /// and so is every registered one.
    ///
    /// That a host is not registered does not prove that it is gone: only what
    /// belongs to one that was named is given to others.
    pub fn is_gone(&self, host: &str) -> bool {
        let nodes = &self.snapshot.nodes;
        let here = self.context.node.is_some_and(|node| node.host == host);
        !here
            && !nodes.contains_key(host)
            && (!nodes.is_empty() || self.context.gone.contains(host))
    }

    /// The node that the audit runs on; `None` as well in a network namespace without the
    /// address under which the node is registered: the containers that would be missing there
    /// are elsewhere.
    pub fn node(&self) -> Option<&'a ThisNode> {
        let node = self.context.node?;
        let registered = self.snapshot.nodes.get(&node.host).and_then(Option::as_ref);
        let addresses = registered.map_or(&[][..], |it| &it.addresses);
        let is_here = addresses.is_empty() || addresses.iter().any(|it| node.routed.contains(it));
        is_here.then_some(node)
    }

    /// The affinities, but for those to blocks that cannot be read: nothing can be said of
    /// them. That a host is gone says more than that an affinity is unsettled, and this
    /// more than that its block is not there: each affinity has one finding at the most.
    pub fn affinities(&self) -> impl Iterator<Item = AffinityUse<'a>> {
        let snapshot = self.snapshot;
        let readable = |block: &IpNet| !snapshot.unreadable.contains_key(&keys::block(*block));
        let blocks = snapshot.affinities.iter().filter(move |(block, _)| readable(block));
        blocks.flat_map(move |(block, hosts)| {
            let content = snapshot.blocks.get(block);
            hosts.iter().map(move |(host, state)| AffinityUse {
                host,
                block: *block,
                state: *state,
                content,
            })
        })
    }

    /// The affinities of hosts that are not gone.
    pub fn affinities_of_living(&self) -> impl Iterator<Item = AffinityUse<'a>> {
        self.affinities().filter(|it| !self.is_gone(it.host))
    }

    /// Hosts with a block to which they have no affinity.
    pub fn missing_affinities(&self) -> impl Iterator<Item = (&'a Arc<str>, IpNet)> {
        let snapshot = self.snapshot;
        let owned = snapshot.blocks.iter();
        let owned = owned.filter_map(|(block, content)| Some((content.owner.host()?, *block)));
        owned.filter(move |(host, block)| {
            let hosts = snapshot.affinities.get(block).map_or(&[][..], Vec::as_slice);
            !hosts.iter().any(|(other, _)| other == *host)
                && !snapshot.unreadable.contains_key(&keys::affinity(host, *block))
        })
    }

    /// How many addresses handles have in which blocks, as the blocks say: of the handles
    /// that say something else, or that are not there.
    pub fn held_by_handle(&self) -> BTreeMap<&'a str, Counts> {
        let mut held: BTreeMap<&str, Counts> = BTreeMap::new();
        for (allocation, handle) in self.snapshot.unmatched() {
            let counts = held.entry(handle).or_default();
            match counts.last_mut().filter(|(block, _)| *block == allocation.block) {
                Some((_, count)) => *count += 1,
                None => counts.push((allocation.block, 1)),
            }
        }
        held
    }

    /// The handles that say something else than the blocks, each with what it says. What a
    /// handle has in a block that cannot be read is not known.
    pub fn handles(&self) -> impl Iterator<Item = (&'a str, &'a Counts)> {
        let unreadable = self.snapshot.unreadable_blocks();
        let handles = self.snapshot.handles.iter().map(|(id, says)| (id.as_str(), says));
        handles.filter(move |(_, says)| !says.iter().any(|(it, _)| unreadable.contains(it)))
    }
}
