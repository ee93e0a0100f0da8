//! BGPPeer: which nodes peer with whom, besides the mesh.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::values::{Bfd, SecretReference};
use crate::resources::selector::Selector;

/// A BGP peering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpPeer {
    /// The nodes that it is about.
    pub nodes: PeerNodes,
    /// Whom they peer with.
    pub target: PeerTarget,
    /// The peer's AS number; only with an address.
    pub as_number: Option<u32>,
    /// The AS number that the nodes speak as in this peering, where it is not their own.
    pub local_as_number: Option<u32>,
    /// Where the password is.
    pub password: Option<SecretReference>,
    /// Whether connections are made from the node's registered address (`sourceAddress`), or
    /// from the one that the kernel chooses.
    pub from_node_address: bool,
    /// What becomes of next hops.
    pub next_hop: NextHopMode,
    /// How long in seconds the routes of a peer that restarts are kept.
    pub restart_time: Option<u32>,
    /// The interval between keepalives in seconds; a peer is held for three of them.
    pub keepalive_time: Option<u32>,
    /// How often the own AS number may occur in what is received.
    pub allowed_own_as: Option<u8>,
    /// Over how many hops packets may come (GTSM, RFC 5082); 1 to 255.
    pub ttl_security: Option<u8>,
    /// The router through which the peer is reached.
    pub reachable_by: Option<IpAddr>,
    /// The names of the filters, all of which count.
    pub filters: Vec<String>,
    /// Whether the nodes that are meant by the target peer back (`reversePeering`).
    pub is_reversed: bool,
    /// How quickly a lost peer is noticed (annotation `weir/bfd`).
    pub bfd: Option<Bfd>,
}

/// The nodes that a peering is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerNodes {
    /// All of them.
    All,
    /// The one of this name.
    Named(String),
    /// Those that are selected.
    Selected(Selector),
}

/// Whom the nodes peer with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerTarget {
    /// A router or node by its address.
    Address {
        /// The address.
        address: IpAddr,
        /// Its TCP port, where one is given.
        port: Option<u16>,
    },
    /// Nodes that are selected.
    Nodes(Selector),
    /// Workloads (`localWorkloadSelector`), which Weir does not peer with.
    Workloads,
}

/// What becomes of the next hops of what is announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextHopMode {
    /// As BGP has it: a router of another AS is told this node, one of the same AS what was
    /// learned.
    #[default]
    Auto,
    /// This node.
    Itself,
    /// What was learned.
    Keep,
    /// What was learned, to peers of another AS alone (`keepOriginalNextHop`).
    KeepExternal,
}
