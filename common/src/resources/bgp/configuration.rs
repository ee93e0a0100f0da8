//! BGPConfiguration: what all nodes do (`default`), or one (`node.NAME`).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::community::Community;
use super::values::{Bfd, LogSeverity, SecretReference};

/// The BGP configuration of a cluster or of one node. A field that is not set is `None`, so
/// that the one of a node may leave it to the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpConfiguration {
    /// What BIRD logs.
    pub log_severity: Option<LogSeverity>,
    /// Whether every node peers with every other one. Of the cluster alone.
    pub node_to_node_mesh: Option<bool>,
    /// The AS number of nodes without one of their own. Of the cluster alone.
    pub as_number: Option<u32>,
    /// The TCP port that BGP is spoken on.
    pub listen_port: Option<u16>,
    /// Whether BIRD listens on the node's own address alone (`bindMode: NodeIP`).
    pub binds_to_node_address: bool,
    /// The password of the mesh. Of the cluster alone.
    pub mesh_password: Option<SecretReference>,
    /// How long in seconds nodes of the mesh keep the routes of one that restarts.
    pub mesh_restart_time: Option<u32>,
    /// Interfaces whose subnets BIRD does not look at, as shell patterns of letters, digits and
    /// `_ . - : @ *`.
    pub ignored_interfaces: Vec<String>,
    /// What prefixes are announced with, names resolved.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// How quickly lost nodes of the mesh are noticed (annotation `weir/bfd`).
    pub bfd: Option<Bfd>,
    /// Whether nodes tell other nodes' blocks to routers too (annotation `weir/re-export`).
    pub re_exports: bool,
    /// Whether `Never` pools are left to BGP on the node's own link too (annotation
    /// `weir/bgp-first`).
    pub bgp_first: bool,
    /// Whether BGP programs no routes to the cluster's own blocks (`programClusterRoutes:
    /// Disabled`).
    pub leaves_cluster_routes: bool,
    /// Fields that are set and that Weir keeps and does not serve, as `serviceClusterIPs`.
    pub not_served: Vec<String>,
}

/// The communities that a prefix, and what lies in it, is announced with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: IpNet,
    /// Its communities.
    pub communities: Vec<Community>,
}
