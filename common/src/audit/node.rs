//! What an audit knows of the node it runs on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::unjudged_reason::{Unjudgeable, UnjudgedReason};
use crate::ipam::collect::may_be_in_progress;
use crate::ipam::docker::{DOCKER_INTERFACE, DOCKER_NETWORK, DockerKnowledge, named_by};
use crate::ipam::{Allocation, Assignee, BlockUse, IpamSnapshot, MachineId, Ownership};
use crate::network::AttachmentIdentity;

/// An attachment in this node's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Which it is.
    pub identity: AttachmentIdentity,
    /// The addresses routed to it; empty where they are not known.
    pub addresses: Vec<IpAddr>,
}

/// What dockerd says of the containers of Docker's on a node: some have no link of Weir's
/// (those of the driver `bridge`), and an address may wait for its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerAnswer {
    /// What it knows.
    Knows(DockerKnowledge),
    /// It does not answer, and why.
    Silent(String),
}

impl Default for DockerAnswer {
    fn default() -> Self {
        Self::Silent("it was not asked".to_owned())
    }
}

/// This node, as its kernel, its CNI configuration and its dockerd have it.
///
/// The kernel must be read after the store: then an ADD in between
/// shows as an attachment without address, which another look at the store
/// refutes, and a DEL in between as an address that is about to be released
/// anyway. For a repair it is read again, while no address is assigned on this
/// host ([`super::engine::RepairRun::repair`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThisNode {
    /// The host name under which it takes addresses.
    pub host: String,
    /// The machine; `None` where it has no identity.
    pub machine: Option<MachineId>,
    /// The attachments in its kernel.
    pub attachments: Vec<Attached>,
    /// Every single address that the node has or has a route to, whoever set
    /// it up.
    pub routed: BTreeSet<IpAddr>,
    /// The networks that `weir` wires with addresses from this store.
    pub networks: BTreeSet<String>,
    /// The other networks configured on it. Their containers' interfaces carry
    /// no mark of Weir's, so that nothing can be said about their addresses.
    pub other_networks: BTreeSet<String>,
    /// Networks of Weir's that are not, or not fully, compared with this store.
    pub unjudged: Vec<Unjudged>,
    /// What dockerd says of its containers; read, like the kernel, after the store.
    pub docker: DockerAnswer,
}

/// A network of Weir's whose attachments are not, or not fully, compared with a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unjudged {
    /// The network's name.
    pub network: String,
    /// The file of the CNI configuration that describes it, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The kinds of damage that were not looked for ([`super::DamageKind::name`]).
    pub kinds: Vec<String>,
    /// Why not, and what to do.
    pub reason: String,
}

impl ThisNode {
    /// How many attachments are compared with this store.
    pub fn judged(&self) -> usize {
        self.attachments.iter().filter(|it| self.takes_addresses(&it.identity)).count()
    }

    fn is_other_machines(&self, allocation: &Allocation, snapshot: &IpamSnapshot) -> bool {
        let ownership = || Ownership::new(self.machine.as_ref(), snapshot.machine(&self.host));
        allocation.node() == Some(self.host.as_str())
            && !ownership().is_own(allocation.holder.machine.as_deref())
    }

    /// Whom the addresses of one of its attachments are assigned to.
    pub(super) fn assignee(&self, identity: &AttachmentIdentity) -> Assignee {
        let (network, container_id) = (identity.network(), identity.container_id());
        Assignee::interface(&self.host, network, container_id, identity.interface())
            .on(self.machine.clone())
    }

    /// Whether this allocation must have an attachment in this node's kernel:
    /// it was made by Weir, on this machine and for a network that `weir` wires, and
    /// its ADD is over.
    pub(super) fn must_be_attached(
        &self,
        allocation: &Allocation,
        snapshot: &IpamSnapshot,
        now: Timestamp,
    ) -> bool {
        allocation.holder.interface.is_some()
            && !allocation.cooling_down
            && !allocation.made.is_some_and(|made| may_be_in_progress(made, now))
            && self.judge(allocation, snapshot).is_ok()
    }

    /// Whether this node's kernel tells if an allocation is in use, or why not. Of Calico's
    /// containers, whose interfaces carry no mark of Weir's, only their routes tell.
    pub(super) fn judge<'a>(
        &'a self,
        allocation: &'a Allocation,
        snapshot: &IpamSnapshot,
    ) -> Result<(), Unjudgeable<'a>> {
        let own_machine = self.machine.as_ref().map(MachineId::as_str);
        let is_made_here =
            own_machine.is_some() && allocation.holder.machine.as_deref() == own_machine;
        let is_routed = self.routed.contains(&allocation.address);
        match (allocation.node(), allocation.handle.as_deref()) {
            (Some(node), _) if node != self.host && is_made_here => {
                Err((UnjudgedReason::FormerName, Some(node)))
            }
            (Some(node), _) if node != self.host => Err((UnjudgedReason::OtherNode, Some(node))),
            (Some(_), _) if self.is_other_machines(allocation, snapshot) => {
                Err((UnjudgedReason::OtherMachine, None))
            }
            _ if is_dockers(allocation) => match &self.docker {
                DockerAnswer::Knows(_) => Ok(()),
                DockerAnswer::Silent(why) => Err((UnjudgedReason::DockerSilent, Some(why))),
            },
            (Some(_), Some(handle)) if allocation.holder.interface.is_some() => {
                self.judge_network(allocation.holder.network.as_deref(), handle)
            }
            _ if is_routed => Ok(()),
            (Some(_), Some(_)) => Err((UnjudgedReason::Calicos, None)),
            _ => Err((UnjudgedReason::Incomplete, None)),
        }
    }

    /// Whether an allocation of Weir's is of a network that is judged; the network's name is
    /// `named`, or else stands in the handle.
    ///
    /// A handle is network, dot, container id, and both may hold dots. No runtime
    /// writes dots into an id, so that the last one ends the network's name; where
    /// a network that is not wired would explain the handle as well, nothing is
    /// said about it.
    fn judge_network<'a>(
        &self,
        named: Option<&'a str>,
        handle: &'a str,
    ) -> Result<(), Unjudgeable<'a>> {
        let Some(network) = named.or_else(|| Some(handle.rsplit_once('.')?.0)) else {
            return Err((UnjudgedReason::UnknownNetwork, Some(handle)));
        };
        let could_be_of =
            |other: &str| handle.strip_prefix(other).is_some_and(|rest| rest.starts_with('.'));
        let is_others = match named {
            Some(network) => self.other_networks.contains(network),
            None => self.other_networks.iter().any(|other| could_be_of(other)),
        };
        if is_others {
            Err((UnjudgedReason::OtherNetwork, Some(network)))
        } else if self.wires(network) {
            Ok(())
        } else {
            Err((UnjudgedReason::UnknownNetwork, Some(network)))
        }
    }

    fn wires(&self, network: &str) -> bool {
        let mut attachments = self.attachments.iter().map(|it| it.identity.network());
        self.networks.contains(network)
            || network != DOCKER_NETWORK && attachments.any(|it| it == network)
    }

    /// Whether dockerd knows who has an allocation of Docker's.
    pub(super) fn is_known_to_docker(&self, allocation: &Allocation) -> bool {
        let DockerAnswer::Knows(known) = &self.docker else { return false };
        let named = allocation.handle.as_deref().and_then(named_by);
        is_dockers(allocation) && named.is_some_and(|named| known.knows(named))
    }

    /// Whether a repair may call an address of this block free that is neither
    /// free nor taken in the store: only in this node's own block, of which no other
    /// machine has a part, and when the node has no route to it.
    pub(super) fn may_free(
        &self,
        block: &BlockUse,
        snapshot: &IpamSnapshot,
        address: IpAddr,
    ) -> bool {
        let ownership = Ownership::new(self.machine.as_ref(), snapshot.machine(&self.host));
        block.owner.host().is_some_and(|host| **host == *self.host)
            && ownership.clash(&self.host).is_none()
            && !block.allocations.iter().any(|it| self.is_other_machines(it, snapshot))
            && !self.routed.contains(&address)
    }

    /// Whether this store should have this attachment's addresses.
    pub(super) fn takes_addresses(&self, identity: &AttachmentIdentity) -> bool {
        self.networks.contains(identity.network())
            && !self.other_networks.contains(identity.network())
    }
}

/// Whether an allocation was made for Docker. (A network of CNI may once have had its name, but
/// has other interfaces.)
pub(super) fn is_dockers(allocation: &Allocation) -> bool {
    allocation.handle.as_deref().is_some_and(|handle| named_by(handle).is_some())
        && allocation.holder.interface.as_deref() == Some(DOCKER_INTERFACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ThisNode {
        fn wires_handle(&self, handle: &str) -> bool {
            self.judge_network(None, handle).is_ok()
        }
    }

    #[test]
    fn networks_are_told_apart_by_their_whole_names() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let node = |own: &[&str], others: &[&str]| ThisNode {
            networks: names(own),
            other_networks: names(others),
            ..ThisNode::default()
        };
        let pods = node(&["pods"], &[]);
        assert!(pods.wires_handle("pods.0a1b"));
        assert!(!pods.wires_handle("pods.edge.0a1b"), "a network that is not configured here");
        assert!(!pods.wires_handle("podsedge.0a1b") && !pods.wires_handle("pods"));
        assert!(node(&["pods", "pods.edge"], &[]).wires_handle("pods.edge.0a1b"));
        assert!(node(&["pods"], &["pods.edge"]).wires_handle("pods.0a1b"));
        // A container `edge.0a1b` of the other network would have this handle, too.
        assert!(!node(&["pods.edge"], &["pods"]).wires_handle("pods.edge.0a1b"));
    }
}
