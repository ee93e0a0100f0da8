//! The plan of a node's BGP, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::resources::bgp::{
    Bfd, BgpFilter, FilterRule, LogSeverity, PrefixAdvertisement, SecretReference,
};

/// What a node should do by BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpPlan {
    /// Why a daemon is needed; none where nothing asks for one.
    pub need: Option<BgpNeed>,
    /// The router id: the node's IPv4 address, or one made of its name.
    pub router_id: Ipv4Addr,
    /// The node's AS number.
    pub as_number: u32,
    /// The TCP port that it listens on.
    pub listen_port: u16,
    /// The addresses to listen on; none for all.
    pub listen_addresses: BTreeSet<IpAddr>,
    /// What the daemon logs.
    pub log_severity: LogSeverity,
    /// Interfaces whose subnets are not looked at.
    pub ignored_interfaces: Vec<String>,
    /// The sessions, by the name of their protocol (Calico's: `Mesh_10_0_1_12`).
    pub sessions: BTreeMap<String, BgpSession>,
    /// The filters that sessions name, by name.
    pub filters: BTreeMap<String, BgpFilter>,
    /// The pools, all of them.
    pub pools: BTreeSet<IpNet>,
    /// The pools that are not announced (`disableBGPExport`).
    pub not_exported: BTreeSet<IpNet>,
    /// The pools whose routes the daemon leaves to the agent: those with tunnels.
    pub of_agent: BTreeSet<IpNet>,
    /// The communities by prefix, as configured.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// Routes to peers that are reached through a router (`reachableBy`).
    pub static_routes: BTreeSet<StaticRoute>,
    /// What could not be done as configured.
    pub problems: BTreeSet<BgpProblem>,
}

/// Why a BGP daemon is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BgpNeed {
    /// A peering that is not the mesh's concerns this node, made by this BGPPeer.
    Peer(String),
    /// A pool without tunnels, and a node of the mesh that is not on this node's link.
    OtherSubnet {
        /// The pool's name.
        pool: String,
        /// The node's.
        node: String,
    },
    /// A node of the mesh on which Weir does not run.
    OtherSpeaker(String),
    /// A BGPPeer makes another node of the mesh speak to a router, and tell it what this node has.
    ToldByOthers {
        /// The BGPPeer.
        peer: String,
        /// The node.
        node: String,
    },
}

impl std::fmt::Display for BgpNeed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(name) => write!(formatter, "BGPPeer {name} concerns this node"),
            Self::OtherSubnet { pool, node } => write!(
                formatter,
                "pool {pool} has no tunnel, and node {node} is not on a link of this node"
            ),
            Self::OtherSpeaker(node) => {
                write!(formatter, "node {node} is in the mesh, and Weir does not run there")
            }
            Self::ToldByOthers { peer, node } => write!(
                formatter,
                "node {node} speaks to a router by BGPPeer {peer}, and tells it what this node has"
            ),
        }
    }
}

/// A route to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticRoute {
    /// The peer.
    pub peer: IpAddr,
    /// The router.
    pub via: IpAddr,
}

/// A session with one peer, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BgpSession {
    /// What made it.
    pub origin: Origin,
    /// The node that the peer is, where it is one.
    pub node: Option<String>,
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The peer's AS number.
    pub as_number: u32,
    /// The own AS number in this session.
    pub local_as: u32,
    /// The address that connections are made from; none for the one that the kernel chooses.
    pub local_address: Option<IpAddr>,
    /// Whether this side waits to be connected to.
    pub is_passive: bool,
    /// The cluster id of this route reflector, where the peer is its client.
    pub reflects_as: Option<Ipv4Addr>,
    /// What becomes of next hops.
    pub next_hop: NextHop,
    /// Over how many hops packets may come (GTSM).
    pub ttl_security: Option<u8>,
    /// How long in seconds the peer's routes are kept while it restarts.
    pub restart_time: Option<u32>,
    /// The interval between keepalives in seconds.
    pub keepalive_time: Option<u32>,
    /// How often the own AS number may occur in what is received.
    pub allowed_own_as: Option<u8>,
    /// Where the password is.
    pub password: Option<SecretReference>,
    /// How quickly a lost peer is noticed.
    pub bfd: Option<Bfd>,
    /// Whether the peer is on the link of the address that this node is registered with, and
    /// reached without a router.
    pub is_on_link: bool,
    /// The filters, in their order.
    pub filters: Vec<String>,
    /// Which ranges of other nodes the peer is told, besides this node's own.
    pub exports_others: ExportedOthers,
}

impl BgpSession {
    /// A session about which nothing is configured: with a peer of this address and AS number, on
    /// this port, speaking as `local_as`.
    pub fn plain(
        origin: Origin,
        (address, port): (IpAddr, u16),
        as_number: u32,
        local_as: u32,
    ) -> Self {
        Self {
            origin,
            node: None,
            address,
            port,
            as_number,
            local_as,
            local_address: None,
            is_passive: false,
            reflects_as: None,
            next_hop: NextHop::Auto,
            ttl_security: None,
            restart_time: None,
            keepalive_time: None,
            allowed_own_as: None,
            password: None,
            bfd: None,
            is_on_link: false,
            filters: Vec::new(),
            exports_others: ExportedOthers::None,
        }
    }

    /// Whether the peer is of another AS.
    pub fn is_external(&self) -> bool {
        self.as_number != self.local_as
    }
}

/// Which ranges of other nodes a peer is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExportedOthers {
    /// None.
    #[default]
    None,
    /// All that this node learns.
    All,
    /// Those that are reached by one of these addresses (`bgp_next_hop`): the nodes that peer
    /// with no router themselves.
    Of(BTreeSet<IpAddr>),
}

/// What made a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The mesh of all nodes.
    Mesh,
    /// A BGPPeer for all nodes, of this name.
    Global(String),
    /// A BGPPeer for this node or for selected ones, of this name.
    Node(String),
    /// The other side of the BGPPeer of this name.
    Reverse(String),
}

impl Origin {
    /// The BGPPeer that made the session; none for the mesh.
    pub fn peer(&self) -> Option<&str> {
        match self {
            Self::Mesh => None,
            Self::Global(name) | Self::Node(name) | Self::Reverse(name) => Some(name),
        }
    }
}

/// Whether routes are told or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// They are told to a peer.
    Export,
    /// They are taken from a peer.
    Import,
}

impl BgpFilter {
    /// The rules for routes of one family.
    pub fn rules(&self, flow: Flow, is_v4: bool) -> &[FilterRule] {
        match (flow, is_v4) {
            (Flow::Export, true) => &self.export_v4,
            (Flow::Import, true) => &self.import_v4,
            (Flow::Export, false) => &self.export_v6,
            (Flow::Import, false) => &self.import_v6,
        }
    }
}

/// What becomes of the next hops of what a session announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextHop {
    /// As BGP has it.
    #[default]
    Auto,
    /// This node.
    Itself,
    /// What was learned.
    Keep,
}

/// Something that could not be done as configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BgpProblem {
    /// A peering names a filter that does not exist.
    #[error(
        "BGPPeer {peer} names the filter {filter}, which does not exist; nothing is told to the \
         peer or taken from it until it does"
    )]
    NoFilter {
        /// The peering.
        peer: String,
        /// The filter.
        filter: String,
    },
    /// Two peerings want different sessions with one address.
    #[error("BGPPeer {peer} is passed over: BGPPeer {first} has a session with {address} already")]
    AlreadyPeered {
        /// The one that is passed over.
        peer: String,
        /// The one that counts.
        first: String,
        /// The address.
        address: IpAddr,
    },
    /// A peering that needs an AS number and has none.
    #[error("BGPPeer {peer} has no asNumber for {address}, which is not a node's; set it")]
    NoAsNumber {
        /// The peering.
        peer: String,
        /// The peer's address.
        address: IpAddr,
    },
    /// Something that Weir keeps and does not serve.
    #[error("{resource} sets {field}, which Weir does not serve")]
    NotServed {
        /// The kind and name.
        resource: String,
        /// The field.
        field: String,
    },
    /// The node has no address of a peer's family.
    #[error("BGPPeer {peer} is passed over: this node is registered without an {family} address")]
    NoAddress {
        /// The peering.
        peer: String,
        /// The family: `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A mesh that has become large.
    #[error(
        "the mesh has {nodes} nodes, and each speaks to all others; choose route reflectors \
         (docs/bgp.md, \"Recipe 2\")"
    )]
    LargeMesh {
        /// How many.
        nodes: usize,
    },
}
