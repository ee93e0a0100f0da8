//! Whether a node needs a BGP daemon at all: a mesh that is merely on by default starts none.

use std::collections::BTreeMap;

use super::super::cluster_state::{ClusterPool, ClusterState};
use super::super::underlay::Underlay;
use super::peering::peerings;
use super::session::{BgpNeed, BgpSession, Origin};
use super::settings::{BgpSettings, is_about};
use crate::resources::bgp::{BgpPeer, PeerTarget};

/// Why `node` needs a BGP daemon; `None` where it needs none.
pub fn bgp_need(node: &str, state: &ClusterState, underlay: &Underlay) -> Option<BgpNeed> {
    need_of(node, state, underlay, &peerings(node, state).sessions)
}

/// Why `node`, which is to have these sessions, needs a daemon.
pub(super) fn need_of(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    sessions: &BTreeMap<String, BgpSession>,
) -> Option<BgpNeed> {
    let peer = sessions.values().find_map(|session| session.origin.peer());
    let peer = peer.map(|name| BgpNeed::Peer(name.to_owned()));
    let mesh: Vec<&BgpSession> =
        sessions.values().filter(|session| session.origin == Origin::Mesh).collect();
    let other_subnet = || other_subnet(node, state, underlay, &mesh);
    peer.or_else(other_subnet)
        .or_else(|| other_speaker(state, &mesh))
        .or_else(|| told_by_others(state, &mesh))
}

/// A BGPPeer that makes a node of the mesh speak to a router: that one tells the router what this
/// node has, and has to hear of it.
fn told_by_others(state: &ClusterState, mesh: &[&BgpSession]) -> Option<BgpNeed> {
    let nodes = mesh.iter().filter_map(|session| session.node.as_ref());
    let nodes =
        nodes.filter_map(|name| state.nodes.get_key_value(name)).collect::<BTreeMap<_, _>>();
    let is_router = |peer: &BgpPeer| matches!(peer.target, PeerTarget::Address { .. });
    state.bgp.peers.iter().filter(|(_, peer)| is_router(peer)).find_map(|(name, peer)| {
        let node = nodes.iter().find(|(node, it)| is_about(&peer.nodes, node, it))?.0;
        Some(BgpNeed::ToldByOthers { peer: name.clone(), node: (*node).clone() })
    })
}

/// The first pool without tunnels that has to reach a node of the mesh beyond this node's links.
fn other_subnet(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    mesh: &[&BgpSession],
) -> Option<BgpNeed> {
    let own = state.nodes.get(node)?;
    let cluster = BgpSettings::new(state).of_cluster();
    let is_bgps = |pool: &ClusterPool| !pool.has_tunnels() && pool.is_exported;
    if cluster.is_some_and(|configuration| configuration.leaves_cluster_routes) {
        return None;
    }
    state.pools.iter().filter(|(_, pool)| is_bgps(pool)).find_map(|(name, pool)| {
        let own = own.address(pool.cidr.addr())?;
        let of_family = mesh.iter().filter(|it| it.address.is_ipv4() == own.addr().is_ipv4());
        let far = of_family
            .filter(|session| underlay.towards(session.address, Some(own)).is_none())
            .find_map(|session| session.node.clone())?;
        Some(BgpNeed::OtherSubnet { pool: name.clone(), node: far })
    })
}

/// A node of the mesh on which Weir does not run, where somebody has asked for the mesh.
fn other_speaker(state: &ClusterState, mesh: &[&BgpSession]) -> Option<BgpNeed> {
    BgpSettings::new(state).mesh().filter(|is_on| *is_on)?;
    let nodes = mesh.iter().filter_map(|session| session.node.as_ref());
    let other = nodes.into_iter().find(|node| !state.machines.contains_key(*node))?;
    Some(BgpNeed::OtherSpeaker(other.clone()))
}
