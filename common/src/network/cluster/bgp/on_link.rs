//! Which peers are on the node's own link, so that their sessions can be of a single hop.
//!
//! The answer goes by what is registered and not by the links alone: a link that is down for a
//! moment must not make another session of the one that it takes down, since that would restart
//! it once more when the link is back.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::cluster_state::ClusterState;
use super::super::underlay::Underlay;
use super::peering::Peerings;
use super::session::BgpSession;

/// Marks the sessions of `node` whose peers are on its link. Two nodes agree about each other.
pub(super) fn mark_on_link(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    made: &mut Peerings,
) {
    let Some(own) = state.nodes.get(node) else { return };
    let Peerings { sessions, static_routes, .. } = made;
    for session in sessions.values_mut() {
        let address = session.address;
        let has_router = static_routes.iter().any(|route| route.peer == address)
            || has_router_there(session, state);
        session.is_on_link = !has_router
            && own.address(address).is_some_and(|own| {
                is_on_link(address, own, underlay) && is_on_link_of_node(own.addr(), session, state)
            });
    }
}

/// Whether `address` is on the link that has this node's registered address; while no link has
/// it, by its prefix length alone.
fn is_on_link(address: IpAddr, registered: IpNet, underlay: &Underlay) -> bool {
    registered.contains(&address)
        && underlay.owner(registered.addr()).is_none_or(|link| {
            let way = underlay.towards(address, Some(registered));
            way.is_some_and(|(way, _)| way.name == link.name)
        })
}

/// Whether the peer, if it is a node, has this node's address on its link, as it is registered.
fn is_on_link_of_node(own: IpAddr, session: &BgpSession, state: &ClusterState) -> bool {
    let peer = session.node.as_ref().and_then(|node| state.nodes.get(node));
    let registered = peer.and_then(|peer| peer.address(session.address));
    registered.is_none_or(|registered| registered.contains(&own))
}

/// Whether the BGPPeer that made the session gives a router (`reachableBy`): one side has the
/// route, and both have to be of one mind.
fn has_router_there(session: &BgpSession, state: &ClusterState) -> bool {
    let peer = session.origin.peer().and_then(|name| state.bgp.peers.get(name));
    peer.is_some_and(|peer| peer.reachable_by.is_some())
}
