//! The next hops from one node to the others, pool by pool, whether there are blocks yet or not.

use std::net::IpAddr;

use super::bgp::need::bgp_need;
use super::cluster_state::{ClusterState, Peer};
use super::plan::{Planner, RouteKind};
use super::problem::Problem;
use super::underlay::{Underlay, UnderlayLink};
use crate::ipam::Family;
use crate::link::DEFAULT_MTU;

/// How packets to a pool's addresses get from one node to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNextHop<'a> {
    /// The other node.
    pub node: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// Its family.
    pub family: Family,
    /// What leads there.
    pub kind: NextHopKind,
}

/// Where packets to another node go first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopKind {
    /// A route of Weir's.
    Route(RouteKind),
    /// The other node's address, of a route that the node learns by BGP.
    Bgp(IpAddr),
    /// There is none, and why.
    None(Problem),
}

impl Underlay {
    /// The links of a node as far as the address tells that it is registered with: the node is
    /// in that subnet. The link has no name.
    pub fn registered(peer: &Peer) -> Self {
        let addresses = [peer.ipv4, peer.ipv6].into_iter().flatten().collect();
        let link = UnderlayLink { name: String::new(), mtu: DEFAULT_MTU, addresses };
        Self { links: vec![link], ..Self::default() }
    }
}

/// The next hops from `node` to all others, by node, then pool: the routes that
/// [`plan_cluster`](super::plan_cluster) plans to a block of that pool there.
pub fn next_hops_from<'a>(
    node: &str,
    state: &'a ClusterState,
    underlay: &Underlay,
) -> Vec<NodeNextHop<'a>> {
    let planner = Planner::new(node, state, underlay);
    let speaks_bgp = bgp_need(node, state, underlay).is_some();
    let others = state.nodes.iter().filter(|(name, _)| *name != node);
    let next_hops = others.flat_map(|(name, peer)| {
        let (planner, pools) = (&planner, state.pools.iter());
        pools.map(move |(pool, of_pool)| NodeNextHop {
            node: name,
            pool,
            family: Family::of(of_pool.cidr.addr()),
            kind: match planner.next_hop(of_pool.cidr, name) {
                Ok(Ok(route)) => NextHopKind::Route(route),
                Ok(Err(problem)) => match peer.address(of_pool.cidr.addr()) {
                    Some(address) if speaks_bgp => NextHopKind::Bgp(address.addr()),
                    _ => NextHopKind::None(problem),
                },
                Err(problem) => NextHopKind::None(problem),
            },
        })
    });
    next_hops.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::network::cluster::{ClusterPool, PoolTunnel, plan_cluster};
    use crate::tunnel::TunnelKind;

    /// Nodes with these addresses, each with a block of each of these pools.
    fn state(nodes: &[(Option<&str>, bool)], pools: &[Option<PoolTunnel>]) -> ClusterState {
        let mut state = ClusterState::default();
        for (index, (address, has_tunnels)) in nodes.iter().enumerate() {
            let tunnels =
                TunnelKind::ALL.into_iter().filter(|it| *has_tunnels && !it.row().is_ipv6);
            let of_tunnel = |kind| (kind, format!("10.255.0.{index}").parse().unwrap());
            let ipv4 = address.map(|address| address.parse().unwrap());
            let tunnels: BTreeMap<_, _> = tunnels.map(of_tunnel).collect();
            let peer = Peer { ipv4, tunnels, ..Peer::default() };
            state.nodes.insert(format!("n{index}"), peer);
        }
        for (index, tunnel) in pools.iter().enumerate() {
            let pool = ClusterPool {
                cidr: format!("10.{index}.0.0/16").parse().unwrap(),
                tunnel: *tunnel,
                nat_outgoing: false,
                has_tunnel_addresses: true,
                is_exported: true,
            };
            state.pools.insert(format!("p{index}"), pool);
            for node in 0..nodes.len() {
                let block: IpNet = format!("10.{index}.{node}.0/26").parse().unwrap();
                state.blocks.insert(block, [format!("n{node}")].into());
                state.homes.insert(block, format!("n{node}"));
            }
        }
        state
    }

    proptest! {
        /// For every node, pool and mode the next hop is that of the route that the agent plans.
        #[test]
        fn next_hops_are_those_of_the_agents_routes(
            nodes in prop::collection::vec((prop::option::of(prop::sample::select(vec![
                "192.0.2.1/24", "192.0.2.2/24", "198.51.100.1/24", "203.0.113.1/32",
            ])), any::<bool>()), 1..5),
            pools in prop::collection::vec(prop::option::of((0usize..2, any::<bool>())), 1..4),
        ) {
            let tunnel = |(kind, cross_subnet): (usize, bool)| {
                PoolTunnel { kind: TunnelKind::ALL[kind], cross_subnet }
            };
            let pools: Vec<_> = pools.into_iter().map(|it| it.map(tunnel)).collect();
            let state = state(&nodes, &pools);
            for from in state.nodes.keys() {
                let underlay = Underlay::registered(&state.nodes[from]);
                let plan = plan_cluster(from, &state, &underlay);
                let next_hops = next_hops_from(from, &state, &underlay);
                prop_assert_eq!(next_hops.len(), (nodes.len() - 1) * pools.len());
                for NodeNextHop { node, pool, kind, .. } in next_hops {
                    let block: IpNet = format!("10.{}.{}.0/26", &pool[1..], &node[1..]).parse().unwrap();
                    let planned = plan.routes.get(&block);
                    match kind {
                        NextHopKind::Route(route) => prop_assert_eq!(planned, Some(&route)),
                        NextHopKind::Bgp(address) => {
                            prop_assert!(plan.left_to_others.contains_key(&block));
                            prop_assert!(plan.bgp_need.is_some());
                            prop_assert_eq!(state.nodes[node].ipv4.unwrap().addr(), address);
                        }
                        NextHopKind::None(_) => prop_assert_eq!(planned, None),
                    }
                }
            }
        }
    }
}
