//! The plan of a node's BGP.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use sha1::{Digest, Sha1};

use super::super::cluster_state::{ClusterPool, ClusterState, Peer};
use super::super::underlay::Underlay;
use super::need::need_of;
use super::on_link::mark_on_link;
use super::peering::{Peerings, peerings};
use super::session::{BgpPlan, BgpProblem, Origin};
use super::settings::{BGP_PORT, BgpSettings};
use crate::tunnel::TunnelKind;

/// A mesh with more nodes is reported.
const LARGE_MESH: usize = 100;

/// Plans `node`'s part in BGP.
///
/// Sessions and their names are Calico's
/// (`confd/pkg/backends/calico/{client,bgp_processor}.go`); `docs/bgp.md` says where the rules
/// differ.
pub fn plan_bgp(node: &str, state: &ClusterState, underlay: &Underlay) -> BgpPlan {
    let settings = BgpSettings::new(state);
    let own = state.nodes.get(node);
    let mut made = peerings(node, state);
    mark_on_link(node, state, underlay, &mut made);
    let Peerings { sessions, static_routes, mut problems } = made;
    let need = need_of(node, state, underlay, &sessions);
    for (name, configuration) in settings.layers(node) {
        let resource = format!("BGPConfiguration {name}");
        let not_served = configuration.not_served.iter().cloned();
        problems.extend(
            not_served.map(|field| BgpProblem::NotServed { resource: resource.clone(), field }),
        );
    }
    let in_mesh = sessions.values().filter(|session| session.origin == Origin::Mesh);
    let nodes = in_mesh.filter_map(|session| session.node.as_ref()).collect::<BTreeSet<_>>().len();
    if need.is_some() && nodes >= LARGE_MESH {
        problems.insert(BgpProblem::LargeMesh { nodes: nodes + 1 });
    }
    let binds = settings.of_node(node, |it| it.binds_to_node_address) == Some(true);
    let advertised = settings.of_node(node, |configuration| {
        let prefixes = &configuration.prefix_advertisements;
        (!prefixes.is_empty()).then(|| prefixes.clone())
    });
    let named: BTreeSet<&String> = sessions.values().flat_map(|it| &it.filters).collect();
    let filters = state.bgp.filters.iter().filter(|(name, _)| named.contains(name));
    let cluster = settings.of_cluster();
    let leaves_all = cluster.is_some_and(|configuration| configuration.leaves_cluster_routes);
    BgpPlan {
        need,
        router_id: router_id(node, state),
        as_number: settings.as_number(own.and_then(|own| own.as_number)),
        listen_port: settings.listen_port(node).unwrap_or(BGP_PORT),
        listen_addresses: own.filter(|_| binds).into_iter().flat_map(Peer::addresses).collect(),
        log_severity: settings.of_node(node, |it| it.log_severity).unwrap_or_default(),
        ignored_interfaces: cluster.map(|it| it.ignored_interfaces.clone()).unwrap_or_default(),
        filters: filters.map(|(name, filter)| (name.clone(), filter.clone())).collect(),
        pools: pools(state, |_| true),
        not_exported: pools(state, |pool| !pool.is_exported),
        of_agent: pools(state, |pool| leaves_all || is_of_agent(pool, node, state)),
        prefix_advertisements: advertised.unwrap_or_default(),
        sessions,
        static_routes,
        problems,
    }
}

/// Whether the routes of a pool are the agent's: it has tunnels, and all nodes can receive by them.
/// Until then those that BGP has learned stay; the agent's are preferred to them.
fn is_of_agent(pool: &ClusterPool, node: &str, state: &ClusterState) -> bool {
    let receives = |kind: TunnelKind, peer: &Peer| {
        !kind.row().needs_peer_address
            || peer.address_for(kind).is_none()
            || peer.tunnels.contains_key(&kind)
    };
    pool.tunnel
        .is_some_and(|tunnel| state.peers_of(node).all(|(_, peer)| receives(tunnel.kind, peer)))
}

fn pools(state: &ClusterState, which: impl Fn(&ClusterPool) -> bool) -> BTreeSet<IpNet> {
    state.pools.values().filter(|pool| which(pool)).map(|pool| pool.cidr).collect()
}

/// The node's IPv4 address, or an address made of its name, which is neither of "this network",
/// nor multicast, nor reserved (Calico's `CALICO_ROUTER_ID=hash`).
fn router_id(node: &str, state: &ClusterState) -> Ipv4Addr {
    let registered = state.nodes.get(node).and_then(|own| own.ipv4);
    if let Some(IpAddr::V4(address)) = registered.map(|address| address.addr()) {
        return address;
    }
    let digest = Sha1::digest(node.as_bytes());
    Ipv4Addr::new(digest[0] % 223 + 1, digest[1], digest[2], digest[3])
}
