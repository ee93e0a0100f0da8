//! Which ranges of other nodes a peer is told.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::cluster_state::{ClusterState, Peer};
use super::session::ExportedOthers;
use super::settings::{BgpSettings, is_about};
use crate::resources::bgp::{BgpPeer, PeerTarget};

/// What one node tells of the others.
pub(super) struct Exports<'a> {
    node: &'a str,
    state: &'a ClusterState,
    /// Whether it tells routers all that it learns.
    re_exports: bool,
    /// Whether it reflects.
    is_reflector: bool,
    /// The addresses of the nodes that no router peers with.
    alone: OnceCell<BTreeSet<IpAddr>>,
}

impl<'a> Exports<'a> {
    pub(super) fn new(node: &'a str, state: &'a ClusterState) -> Self {
        let own = state.nodes.get(node);
        let is_reflector = own.is_some_and(|own| own.route_reflector_cluster_id.is_some());
        let cluster = BgpSettings::new(state).of_cluster();
        let re_exports = cluster.is_some_and(|configuration| configuration.re_exports);
        Self { node, state, re_exports, is_reflector, alone: OnceCell::new() }
    }

    /// Which ranges of other nodes a BGPPeer's session with a peer tells.
    ///
    /// A router hears each node's ranges of that node itself. A node without a router of its
    /// own depends on others to tell: Calico's nodes tell everything for its sake. A reflector
    /// that did so would be the way to nodes with a router, and they would be lost with it.
    pub(super) fn others(&self, is_external: bool, peer: IpAddr) -> ExportedOthers {
        let tells_all = if is_external { self.re_exports } else { self.is_reflector };
        if tells_all {
            return ExportedOthers::All;
        }
        if !is_external {
            return ExportedOthers::None;
        }
        let alone = self.alone.get_or_init(|| self.nodes_without_router()).iter();
        let of_family = alone.filter(|it| it.is_ipv4() == peer.is_ipv4() && **it != peer);
        let of_family: BTreeSet<IpAddr> = of_family.copied().collect();
        match of_family.is_empty() {
            true => ExportedOthers::None,
            false => ExportedOthers::Of(of_family),
        }
    }

    fn nodes_without_router(&self) -> BTreeSet<IpAddr> {
        let settings = BgpSettings::new(self.state);
        let nodes: BTreeSet<IpAddr> = self.state.nodes.values().flat_map(Peer::addresses).collect();
        let is_router = |target: &PeerTarget| match target {
            PeerTarget::Address { address, .. } => (!nodes.contains(address)).then_some(*address),
            PeerTarget::Nodes(_) | PeerTarget::Workloads => None,
        };
        let routers: Vec<(IpAddr, &BgpPeer)> = self
            .state
            .bgp
            .peers
            .values()
            .filter_map(|peer| Some((is_router(&peer.target)?, peer)))
            .collect();
        let has_router = |node: &str, it: &Peer, address: IpAddr| {
            routers.iter().any(|(router, peer)| {
                let local_as = peer.local_as_number.unwrap_or(settings.as_number(it.as_number));
                router.is_ipv4() == address.is_ipv4()
                    && peer.as_number.is_some_and(|number| number != local_as)
                    && is_about(&peer.nodes, node, it)
            })
        };
        let others = self.state.nodes.iter().filter(|(node, _)| *node != self.node);
        let alone = others.flat_map(|(node, it)| {
            it.addresses().filter(move |address| !has_router(node, it, *address))
        });
        alone.collect()
    }
}
