//! What is configured of BGP, for the cluster and for single nodes.

use super::super::cluster_state::{ClusterState, Peer};
use crate::resources::DEFAULT_AS_NUMBER;
use crate::resources::bgp::{BGP_DEFAULT_NAME, BgpConfiguration, PeerNodes};

/// The TCP port of BGP (RFC 4271).
pub(super) const BGP_PORT: u16 = 179;

/// The configuration of the cluster, and of nodes over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BgpSettings<'a>(&'a ClusterState);

impl<'a> BgpSettings<'a> {
    pub(super) fn new(state: &'a ClusterState) -> Self {
        Self(state)
    }

    /// The cluster's BGPConfiguration.
    pub(super) fn of_cluster(&self) -> Option<&'a BgpConfiguration> {
        self.0.bgp.configurations.get(BGP_DEFAULT_NAME)
    }

    /// The node's BGPConfiguration, and the cluster's.
    pub(super) fn layers(
        &self,
        node: &str,
    ) -> impl Iterator<Item = (String, &'a BgpConfiguration)> + use<'a> {
        let configurations = &self.0.bgp.configurations;
        let names = [format!("node.{node}"), "default".to_owned()];
        names.into_iter().filter_map(|name| Some((name.clone(), configurations.get(&name)?)))
    }

    /// What the node's configuration says, or else the cluster's.
    pub(super) fn of_node<T>(
        &self,
        node: &str,
        field: impl Fn(&'a BgpConfiguration) -> Option<T>,
    ) -> Option<T> {
        self.layers(node).find_map(|(_, configuration)| field(configuration))
    }

    /// The port that a node listens on, where one is configured.
    pub(super) fn listen_port(&self, node: &str) -> Option<u16> {
        self.of_node(node, |configuration| configuration.listen_port)
    }

    /// The AS number of a node with this one of its own.
    pub(super) fn as_number(&self, own: Option<u32>) -> u32 {
        let of_cluster = || self.of_cluster().and_then(|configuration| configuration.as_number);
        own.or_else(of_cluster).unwrap_or(DEFAULT_AS_NUMBER)
    }

    /// Whether the mesh is on: `None` where nothing says so, which means on.
    pub(super) fn mesh(&self) -> Option<bool> {
        self.of_cluster().and_then(|configuration| configuration.node_to_node_mesh)
    }
}

/// Whether a BGPPeer is about a node.
pub(super) fn is_about(nodes: &PeerNodes, node: &str, peer: &Peer) -> bool {
    match nodes {
        PeerNodes::All => true,
        PeerNodes::Named(name) => name == node,
        PeerNodes::Selected(selector) => selector.matches(&peer.labels),
    }
}
