//! Examples of the plan, in the manner of Calico's compiled configurations
//! (`confd/tests/compiled_templates`): inputs and sessions, as a line each.

mod agreement;
mod explain;
mod on_link;
mod properties;
mod sessions;
mod settings;

use std::net::Ipv4Addr;

use super::super::{ClusterPool, ClusterState, Peer, PoolTunnel, Underlay, UnderlayLink};
use super::*;
use crate::resources::EncapsulationMode::{self, Never};
use crate::resources::Selector;
use crate::resources::bgp::{
    BgpConfiguration, BgpPeer, NextHopMode, PeerNodes, PeerTarget, SecretReference,
};
use crate::tunnel::TunnelKind;

/// Nodes `n1`, `n2`, … with these IPv4 addresses in one subnet.
fn nodes(addresses: &[&str]) -> ClusterState {
    let mut state = ClusterState::default();
    for (number, address) in (1..).zip(addresses) {
        let ipv4 = Some(format!("{address}/24").parse().unwrap());
        state.nodes.insert(format!("n{number}"), Peer { ipv4, ..Peer::default() });
    }
    state
}

fn node<'a>(state: &'a mut ClusterState, name: &str) -> &'a mut Peer {
    state.nodes.get_mut(name).unwrap()
}

fn label(state: &mut ClusterState, name: &str, label: &str) {
    node(state, name).labels.insert(label.to_owned(), "yes".to_owned());
}

fn reflector(state: &mut ClusterState, name: &str, cluster_id: &str) {
    label(state, name, "rr");
    node(state, name).route_reflector_cluster_id = Some(cluster_id.parse().unwrap());
}

fn configure(state: &mut ClusterState, name: &str, configuration: BgpConfiguration) {
    state.bgp.configurations.insert(name.to_owned(), configuration);
}

fn without_mesh(state: &mut ClusterState) {
    let node_to_node_mesh = Some(false);
    configure(state, "default", BgpConfiguration { node_to_node_mesh, ..Default::default() });
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

fn selected(text: &str) -> PeerNodes {
    PeerNodes::Selected(selector(text))
}

/// A peering about which nothing else is configured.
fn peering(nodes: PeerNodes, target: PeerTarget, as_number: Option<u32>) -> BgpPeer {
    BgpPeer {
        nodes,
        target,
        as_number,
        local_as_number: None,
        password: None,
        from_node_address: true,
        next_hop: NextHopMode::Auto,
        restart_time: None,
        keepalive_time: None,
        allowed_own_as: None,
        ttl_security: None,
        reachable_by: None,
        filters: Vec::new(),
        is_reversed: true,
        bfd: None,
    }
}

fn address(text: &str, port: Option<u16>) -> PeerTarget {
    PeerTarget::Address { address: text.parse().unwrap(), port }
}

fn add(state: &mut ClusterState, name: &str, peer: BgpPeer) {
    state.bgp.peers.insert(name.to_owned(), peer);
}

fn pool(state: &mut ClusterState, name: &str, cidr: &str, ipip_mode: EncapsulationMode) {
    let cross_subnet = ipip_mode == EncapsulationMode::CrossSubnet;
    let kind = TunnelKind::Ipip;
    let pool = ClusterPool {
        cidr: cidr.parse().unwrap(),
        tunnel: (ipip_mode != Never).then_some(PoolTunnel { kind, cross_subnet }),
        nat_outgoing: false,
        has_tunnel_addresses: false,
        is_exported: true,
    };
    state.pools.insert(name.to_owned(), pool);
}

/// The links of a node in this subnet.
fn underlay(address: &str) -> Underlay {
    let addresses = vec![address.parse().unwrap()];
    let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
    Underlay { links: vec![link], ..Underlay::default() }
}

fn plan(state: &ClusterState, node: &str) -> BgpPlan {
    plan_bgp(node, state, &underlay("10.0.0.250/24"))
}

/// The sessions of a node: name, address, port, AS numbers, and what else there is to say.
fn sessions(state: &ClusterState, node: &str) -> Vec<String> {
    let line = |(name, session): (&String, &BgpSession)| {
        let BgpSession { address, port, as_number, local_as, .. } = session;
        let passive = if session.is_passive { " passive" } else { "" };
        let reflects = session.reflects_as.map(|id| format!(" client-of {id}")).unwrap_or_default();
        let password = session.password.as_ref().map_or("", |_| " password");
        format!("{name} {address}:{port} {local_as}-{as_number}{passive}{reflects}{password}")
    };
    plan(state, node).sessions.iter().map(line).collect()
}

fn problems(state: &ClusterState, node: &str) -> Vec<String> {
    plan(state, node).problems.iter().map(ToString::to_string).collect()
}
