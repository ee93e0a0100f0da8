//! The plan: the tunnels, routes and NAT that a node should have.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::bgp::need::bgp_need;
use super::bgp::session::BgpNeed;
use super::cluster_state::{ClusterPool, ClusterState, Peer, PoolTunnel};
use super::problem::Problem;
use super::tunnel_settings::TunnelSettings;
use super::tunnels::{TunnelPlan, needs_tunnel, next_hop, plan_tunnels, pod_mtu, udp_ports};
use super::underlay::Underlay;
use crate::ipam::Family;
use crate::network::nat::{NatPool, NatTable};
use crate::resources::overlap;
use crate::tunnel::TunnelKind;

impl ClusterPlan {
    /// The plan without the tunnels of these kinds, and without the routes that need them. A
    /// route that leads to the same node in another way stays meanwhile.
    pub fn without_tunnels(mut self, kinds: &BTreeSet<TunnelKind>) -> Self {
        let is_lost = |way: &RouteKind| way.tunnel_kind().is_some_and(|kind| kinds.contains(&kind));
        let lost: Vec<(IpNet, BTreeSet<IpAddr>)> = self
            .routes
            .iter()
            .filter(|(_, way)| is_lost(way))
            .map(|(range, way)| (*range, self.next_hops_like(way)))
            .collect();
        self.routes.retain(|_, way| !is_lost(way));
        self.awaited.extend(lost);
        self.tunnels.retain(|kind, _| !kinds.contains(kind));
        self
    }

    /// The next hop of a way, and the address of the node that it leads to.
    fn next_hops_like(&self, way: &RouteKind) -> BTreeSet<IpAddr> {
        let next_hop = way.next_hop();
        let node = || {
            let vxlan = self.tunnels.get(&way.tunnel_kind()?)?.vxlan.as_ref()?;
            vxlan.forwarding.get(vxlan.neighbours.get(&next_hop?)?).copied()
        };
        next_hop.into_iter().chain(node()).collect()
    }
}

/// How packets get to a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// They are dropped: the range is this node's own block, and addresses in
    /// use there have routes of their own.
    Blackhole,
    /// By another node on the same link.
    Direct {
        /// The other node's address.
        next_hop: IpAddr,
        /// The link.
        link: String,
        /// The address that this node itself then sends from.
        source: IpAddr,
    },
    /// Through a tunnel.
    Tunnel {
        /// Its kind.
        kind: TunnelKind,
        /// The next hop beyond the tunnel device: what stands for the other node.
        next_hop: IpAddr,
        /// The address that this node itself then sends from: its tunnel
        /// device's, once it has one.
        source: Option<IpAddr>,
    },
}

impl RouteKind {
    /// The kind of tunnel that it goes through.
    pub fn tunnel_kind(&self) -> Option<TunnelKind> {
        match self {
            Self::Tunnel { kind, .. } => Some(*kind),
            Self::Blackhole | Self::Direct { .. } => None,
        }
    }

    /// The next hop, if it has one.
    pub fn next_hop(&self) -> Option<IpAddr> {
        match self {
            Self::Blackhole => None,
            Self::Direct { next_hop, .. } | Self::Tunnel { next_hop, .. } => Some(*next_hop),
        }
    }
}

/// What a node should have for its part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// The tunnels, by kind.
    pub tunnels: BTreeMap<TunnelKind, TunnelPlan>,
    /// The routes, by destination.
    pub routes: BTreeMap<IpNet, RouteKind>,
    /// Why the node needs BGP; where it needs none, it announces nothing.
    pub bgp_need: Option<BgpNeed>,
    /// Whether a node that announces anything goes on where nothing is known to need BGP, because
    /// it is not known what is configured of BGP.
    pub keeps_announcing: bool,
    /// What the node announces where it needs BGP: its own blocks, and the addresses in use here that lie
    /// in blocks of other nodes.
    pub announced: BTreeSet<IpNet>,
    /// The NAT table, where a pool asks for NAT.
    pub nat: Option<NatTable>,
    /// The MTU in bytes for containers.
    pub pod_mtu: u32,
    /// What could not be done as the pools ask.
    pub problems: BTreeSet<Problem>,
    /// The ranges that `problems` tell of.
    pub with_problems: BTreeSet<IpNet>,
    /// Whether routes of Weir's to single addresses stay although they are not in
    /// the plan, because it is not known which addresses are borrowed.
    pub keeps_addresses: bool,
    /// The ranges that are left to another program's routes (BGP), each with what
    /// is wrong where there are none.
    pub left_to_others: BTreeMap<IpNet, Problem>,
    /// The ranges whose node cannot be reached as the pool asks yet, or is not known to be ready
    /// for it, and those that another program has no route to; each with the next hops that
    /// lead to the node all the same. A route by one of them stays meanwhile.
    pub awaited: BTreeMap<IpNet, BTreeSet<IpAddr>>,
    /// The other nodes by the addresses that they are registered with.
    pub nodes: BTreeMap<IpAddr, String>,
}

impl ClusterPlan {
    /// Whether its tunnels have the addresses that the node, `own`, is registered with, and no
    /// others that their devices keep meanwhile.
    pub fn has_registered_addresses(&self, own: Option<&Peer>) -> bool {
        let registered = |kind: &TunnelKind| own.and_then(|own| own.tunnels.get(kind)).copied();
        self.tunnels.iter().all(|(kind, tunnel)| tunnel.address == registered(kind))
    }

    /// The families in which other nodes have containers and the node itself no address.
    pub fn not_registered(&self) -> BTreeSet<Family> {
        let families = self.problems.iter().filter_map(|problem| match problem {
            Problem::NotRegistered { family, .. } => Some(*family),
            _ => None,
        });
        families.collect()
    }
}

/// Plans `node`'s part in the cluster.
///
/// Routes come from confirmed affinities, and lead to the host that the block names where
/// that is another one; addresses in use away from their
/// block's host get routes of their own. A remote range of a pool without tunnels
/// goes by the other node's address on the link they share; with `Always`
/// through the tunnel; with `CrossSubnet` through the tunnel unless the other
/// node's address lies in this node's own subnet, as this node is registered
/// (Calico: `felix/calc/l3_route_resolver.go`).
pub fn plan_cluster(node: &str, state: &ClusterState, underlay: &Underlay) -> ClusterPlan {
    let planner = Planner::new(node, state, underlay);
    let tunnels = plan_tunnels(node, state, underlay, &planner.settings);
    let tunnel_ports = udp_ports(&tunnels);
    let nat_pools: Vec<NatPool> = state.pools.values().map(NatPool::from).collect();
    let mut plan = ClusterPlan {
        tunnels,
        routes: BTreeMap::new(),
        bgp_need: bgp_need(node, state, underlay),
        keeps_announcing: false,
        announced: BTreeSet::new(),
        nat: NatTable::from_pools(&nat_pools, tunnel_ports),
        pod_mtu: planner.pod_mtu(),
        problems: general_problems(node, state, underlay),
        with_problems: BTreeSet::new(),
        keeps_addresses: false,
        left_to_others: BTreeMap::new(),
        awaited: BTreeMap::new(),
        nodes: addresses_of_peers(node, state),
    };
    planner.plan_ranges(&mut plan);
    plan
}

pub(super) struct Planner<'a> {
    pub(super) node: &'a str,
    own: Option<&'a Peer>,
    pub(super) state: &'a ClusterState,
    pub(super) underlay: &'a Underlay,
    settings: TunnelSettings,
    /// The addresses of all nodes, once many blocks are looked at.
    peers: OnceCell<BTreeSet<IpAddr>>,
}

/// What is planned for one range.
#[derive(Default)]
pub(super) struct RangePlan {
    pub(super) route: Option<RouteKind>,
    /// The range is left to another program's route, with the problem if there is none.
    left_to_others: Option<Problem>,
    problems: BTreeSet<Problem>,
    /// The next hops by which a route stays until this one can be had.
    awaited: Option<BTreeSet<IpAddr>>,
    /// Routes to single addresses of the range, which is not routed as a whole.
    singles: BTreeMap<IpNet, RouteKind>,
}

impl RangePlan {
    /// Whether it is a route, or none, and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        let is_one = self.left_to_others.is_none() && self.awaited.is_none();
        is_one && self.problems.is_empty() && self.singles.is_empty()
    }
}

impl<'a> Planner<'a> {
    pub(super) fn new(node: &'a str, state: &'a ClusterState, underlay: &'a Underlay) -> Self {
        let (own, settings) = (state.nodes.get(node), state.tunnel_settings(node));
        Self { node, own, state, underlay, settings, peers: OnceCell::new() }
    }

    /// The MTU in bytes for containers.
    fn pod_mtu(&self) -> u32 {
        let own = self.own.and_then(|own| own.addresses().next());
        let uplink = self.settings.uplink_mtu(own, self.underlay);
        pod_mtu(uplink, self.state.pools.values(), &self.settings)
    }

    fn plan_ranges(&self, plan: &mut ClusterPlan) {
        let (state, blocks) = (self.state, self.state.blocks.keys());
        let addresses = |peer: &Peer| [peer.ipv4, peer.ipv6].into_iter().flatten();
        self.peers.get_or_init(|| {
            state.nodes.values().flat_map(addresses).map(|address| address.addr()).collect()
        });
        let unclaimed = state.homes.keys().filter(|block| !state.blocks.contains_key(block));
        let borrowed = state.borrowed.values().flat_map(BTreeMap::keys);
        let is_block =
            |range: &IpNet| state.blocks.contains_key(range) || state.homes.contains_key(range);
        let borrowed = borrowed.map(|address| IpNet::from(*address)).filter(|it| !is_block(it));
        let (mut no_pool, mut no_affinity) = (0, 0);
        for range in blocks.chain(unclaimed).copied().chain(borrowed) {
            let RangePlan { route, left_to_others, problems, awaited, singles } = self.range(range);
            plan.announced.extend(self.is_announced(range).then_some(range));
            plan.routes.extend(singles);
            plan.routes.extend(route.map(|route| (range, route)));
            plan.left_to_others.extend(left_to_others.map(|problem| (range, problem)));
            plan.awaited.extend(awaited.map(|next_hops| (range, next_hops)));
            plan.with_problems.extend((!problems.is_empty()).then_some(range));
            for problem in problems {
                match &problem {
                    // One for all of them, which names the first.
                    Problem::NoPool { .. } => no_pool += 1,
                    Problem::NoAffinity { .. } => no_affinity += 1,
                    _ => {}
                }
                plan.problems.insert(problem);
            }
        }
        summarize(&mut plan.problems, no_pool, no_affinity);
    }

    pub(super) fn range(&self, range: IpNet) -> RangePlan {
        let mut plan = self.block(range);
        // A block may be of this one address.
        if let Some((_, host)) = self.borrower(range) {
            (plan.route, plan.left_to_others, plan.awaited) = (None, None, None);
            // An address on this node has the route that ADD made.
            if host != self.node {
                self.route_remote(range, host, &mut plan);
            }
        }
        plan
    }

    fn block(&self, block: IpNet) -> RangePlan {
        let mut plan = RangePlan::default();
        let Some(hosts) = self.state.blocks.get(&block) else {
            let home = self.state.homes.get(&block).cloned();
            plan.problems.extend(home.map(|node| Problem::NoAffinity { block, node, more: 0 }));
            return plan;
        };
        if self.state.pool_of(block).is_none() {
            plan.problems.insert(Problem::NoPool { block, more: 0 });
        }
        let listed = || hosts.iter().cloned().collect::<Vec<_>>().join(", ");
        let Some(host) = host_of(block, hosts, self.state) else {
            plan.problems.insert(Problem::Contested { block, hosts: listed() });
            return plan;
        };
        if !hosts.contains(host) {
            let node = host.to_owned();
            plan.problems.insert(Problem::StaleAffinity { block, node, hosts: listed() });
        }
        if host != self.node {
            self.route_remote(block, host, &mut plan);
            if self.underlay.has_hosts_in(block) || self.has_peer_in(block) {
                self.route_singly(block, &mut plan);
            }
        } else if block.prefix_len() < block.max_prefix_len()
            && !self.underlay.is_hidden_by(block)
            && !self.has_peer_in(block)
        {
            // The blackhole of a block of one address would take the place of the container's
            // own route (Felix, `routeIsLocalBlock`).
            plan.route = Some(RouteKind::Blackhole);
        }
        plan
    }

    /// Whether a node's address lies in a block: a route to the block would take packets from it.
    pub(super) fn has_peer_in(&self, block: IpNet) -> bool {
        match self.peers.get() {
            Some(peers) => peers.range(block.network()..=block.broadcast()).next().is_some(),
            // For one block it is not worth sorting them.
            None => self.state.has_node_in(block),
        }
    }

    /// Routes only the addresses of a block that are in use, as the block would be.
    fn route_singly(&self, block: IpNet, plan: &mut RangePlan) {
        let Some(route) = plan.route.take() else { return };
        if block.prefix_len() == block.max_prefix_len() {
            // Its only address is a node's or a next hop.
            return;
        }
        let Some(used) = self.state.used.get(&block) else {
            plan.problems.insert(Problem::BlockOverHosts { block });
            return;
        };
        let is_block = |range: &IpNet| self.state.blocks.contains_key(range);
        let borrowed = self.state.borrowed.get(&block);
        let is_borrowed = |address: &IpAddr| borrowed.is_some_and(|it| it.contains_key(address));
        let singles = used.of_block(block).filter(|it| !is_borrowed(it)).map(IpNet::from);
        let next_hop = |range: &IpNet| self.underlay.has_hosts_in(*range);
        let singles = singles.filter(|range| !is_block(range) && !next_hop(range));
        plan.singles = singles.map(|range| (range, route.clone())).collect();
    }

    fn route_remote(&self, range: IpNet, host: &str, plan: &mut RangePlan) {
        match self.next_hop(range, host) {
            Ok(Ok(route)) => {
                if route.tunnel_kind().is_some_and(|kind| !self.is_ready(kind, host)) {
                    plan.awaited = self.next_hops_to(range, host);
                }
                plan.route = Some(route);
            }
            Ok(Err(problem)) => {
                plan.left_to_others = Some(problem);
                plan.awaited = self.next_hops_to(range, host);
            }
            Err(problem) => {
                if matches!(problem, Problem::NoPeerTunnelAddress { .. }) {
                    plan.awaited = self.next_hops_to(range, host);
                }
                plan.problems.insert(problem);
            }
        }
    }

    /// Whether a node has the address that tells that it can receive by a kind of tunnel; also
    /// where no pool gives such addresses.
    fn is_ready(&self, kind: TunnelKind, host: &str) -> bool {
        let peer = self.state.nodes.get(host);
        let gives = |pool: &ClusterPool| pool.is_of(kind) && pool.has_tunnel_addresses;
        peer.is_none_or(|peer| peer.tunnels.contains_key(&kind))
            || !self.state.pools.values().any(gives)
    }

    /// The next hops that lead to a node, in whatever way.
    fn next_hops_to(&self, range: IpNet, host: &str) -> Option<BTreeSet<IpAddr>> {
        let peer = self.state.nodes.get(host)?;
        let node = peer.address(range.addr())?.addr();
        let kinds = TunnelKind::ALL.into_iter().filter(|kind| kind.carries(node));
        Some(kinds.filter_map(|kind| next_hop(kind, host, peer)).chain([node]).collect())
    }

    /// The route to a range on another node; or the problem if no other program has one; or
    /// the problem that leaves it without any.
    pub(super) fn next_hop(
        &self,
        range: IpNet,
        host: &str,
    ) -> Result<Result<RouteKind, Problem>, Problem> {
        let Some(own) = self.own.filter(|own| own.address(range.addr()).is_some()) else {
            let family = Family::of(range.addr());
            return Err(Problem::NotRegistered { node: self.node.to_owned(), family });
        };
        let peer = self.state.nodes.get(host);
        let address = peer.and_then(|peer| Some((peer, peer.address(range.addr())?.addr())));
        let Some((peer, next_hop)) = address else {
            return Err(Problem::NoNextHop { node: host.to_owned(), range });
        };
        let tunnel = self.state.pool_of(range).and_then(|(_, pool)| pool.tunnel);
        if let Some(PoolTunnel { kind, .. }) =
            tunnel.filter(|it| it.wraps(own.address(next_hop), next_hop))
        {
            return self.by_tunnel(kind, host, peer).map(Ok);
        }
        Ok(match self.underlay.towards(next_hop, own.address(next_hop)) {
            Some((link, source)) => {
                Ok(RouteKind::Direct { next_hop, link: link.name.clone(), source })
            }
            None => {
                let cross_subnet = tunnel.is_some();
                Err(Problem::NextHopNotOnLink { node: host.to_owned(), next_hop, cross_subnet })
            }
        })
    }

    /// The route to a node through a tunnel.
    fn by_tunnel(&self, kind: TunnelKind, host: &str, peer: &Peer) -> Result<RouteKind, Problem> {
        if self.settings.switches_off(kind) {
            return Err(Problem::TunnelSwitchedOff { kind });
        }
        let source = self.own.and_then(|own| own.tunnels.get(&kind).copied());
        // Who has no address for a kind sends nothing by it: others rely on that.
        if kind.row().needs_peer_address && source.is_none() {
            let node = self.node.to_owned();
            return Err(Problem::NoPeerTunnelAddress { node, kind });
        }
        match next_hop(kind, host, peer) {
            Some(next_hop) => Ok(RouteKind::Tunnel { kind, next_hop, source }),
            None => Err(Problem::NoPeerTunnelAddress { node: host.to_owned(), kind }),
        }
    }
}

/// Leaves one problem for all blocks without a pool, and one for those without an affinity:
/// the first, with the number of the others.
fn summarize(problems: &mut BTreeSet<Problem>, no_pool: usize, no_affinity: usize) {
    let (mut no_pool, mut no_affinity) = (Some(no_pool), Some(no_affinity));
    let all = std::mem::take(problems);
    problems.extend(all.into_iter().filter_map(|problem| match problem {
        Problem::NoPool { block, .. } => {
            no_pool.take().map(|all| Problem::NoPool { block, more: all - 1 })
        }
        Problem::NoAffinity { block, node, .. } => {
            no_affinity.take().map(|all| Problem::NoAffinity { block, node, more: all - 1 })
        }
        problem => Some(problem),
    }));
}

/// The host that a block itself names, as IPAM goes by it: Calico leaves affinities
/// behind. Else the one with a confirmed affinity, if there is only one.
pub(super) fn host_of<'a>(
    block: IpNet,
    hosts: &'a BTreeSet<String>,
    state: &'a ClusterState,
) -> Option<&'a String> {
    let only = hosts.first().filter(|_| hosts.len() == 1);
    state.homes.get(&block).or(only)
}

/// The addresses that other nodes than `node` are registered with, those of their tunnel
/// devices too, each with its node.
pub fn addresses_of_nodes(node: &str, state: &ClusterState) -> BTreeMap<IpAddr, String> {
    let tunnels = state
        .peers_of(node)
        .flat_map(|(name, peer)| peer.tunnels.values().map(|address| (*address, name.clone())));
    addresses_of_peers(node, state).into_iter().chain(tunnels).collect()
}

pub(super) fn addresses_of_peers(node: &str, state: &ClusterState) -> BTreeMap<IpAddr, String> {
    let addresses = |(name, peer): (&String, &Peer)| {
        let both = [peer.ipv4, peer.ipv6].into_iter().flatten();
        both.map(|address| (address.addr(), name.clone())).collect::<Vec<_>>()
    };
    state.peers_of(node).flat_map(addresses).collect()
}

fn general_problems(node: &str, state: &ClusterState, underlay: &Underlay) -> BTreeSet<Problem> {
    let mut problems = BTreeSet::new();
    for (key, reason) in &state.unreadable {
        problems.insert(Problem::Unreadable { key: key.clone(), reason: reason.clone() });
    }
    for (key, reason) in &state.flawed {
        problems.insert(Problem::Flawed { key: key.clone(), reason: reason.clone() });
    }
    let own_addresses: Vec<IpAddr> = state
        .nodes
        .get(node)
        .into_iter()
        .flat_map(|own| [own.ipv4, own.ipv6])
        .filter_map(|address| Some(address?.addr()))
        .collect();
    // Not the bridges of other plugins, whose subnets are the containers'.
    let has_hosts = |subnet: &IpNet| {
        own_addresses.iter().chain(&underlay.next_hops).any(|address| subnet.contains(address))
    };
    for (subnet, link) in underlay.subnets().filter(|(subnet, _)| has_hosts(subnet)) {
        for (name, _) in state.pools.iter().filter(|(_, pool)| overlap(pool.cidr, subnet)) {
            let (pool, link) = (name.clone(), link.name.clone());
            problems.insert(Problem::PoolInSubnet { pool, subnet, link });
        }
    }
    if let Some(own) = state.nodes.get(node) {
        let alone = |address: &IpNet| {
            let is_cross_subnet = |pool: &ClusterPool| {
                pool.is_cross_subnet() && pool.cidr.addr().is_ipv4() == address.addr().is_ipv4()
            };
            address.prefix_len() == address.max_prefix_len()
                && state.pools.values().any(is_cross_subnet)
        };
        for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(alone) {
            problems.insert(Problem::AloneInSubnet { node: node.to_owned(), address });
        }
        let missing = |address: &IpNet| underlay.owner(address.addr()).is_none();
        for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(missing) {
            problems.insert(Problem::AddressNotHere { node: node.to_owned(), address });
        }
        for (other, peer) in state.peers_of(node) {
            let shared =
                |own: &IpNet| peer.address(own.addr()).map(|it| it.addr()) == Some(own.addr());
            for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(shared) {
                let (node, other) = (node.to_owned(), other.clone());
                problems.insert(Problem::AddressShared { node, address, other });
            }
        }
        // A device for frames is told the address to send from, and IPv6 has no primary one.
        let chooses = |kind: &TunnelKind| kind.row().frames().is_none() && !kind.row().is_ipv6;
        let mut kinds = TunnelKind::ALL.into_iter().filter(chooses);
        let registered = own.ipv4.filter(|_| kinds.any(|kind| needs_tunnel(kind, node, state)));
        if let Some((address, primary)) = registered.and_then(|it| underlay.primary_to(it)) {
            let node = node.to_owned();
            problems.insert(Problem::SecondaryAddress { node, address, primary });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::cluster::{ActualState, Change, diff};

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// Two nodes in one subnet, and a pool that VXLAN is for.
    fn state() -> ClusterState {
        let mut state = ClusterState::default();
        for (name, own, tunnel) in
            [("n1", "192.0.2.1/24", "10.0.1.0"), ("n2", "192.0.2.2/24", "10.0.2.0")]
        {
            let tunnels = [(TunnelKind::Vxlan, tunnel.parse().unwrap())].into();
            let peer = Peer { ipv4: Some(net(own)), tunnels, ..Peer::default() };
            state.nodes.insert(name.to_owned(), peer);
            state.blocks.insert(net(&format!("{tunnel}/26")), [name.to_owned()].into());
        }
        let tunnel = Some(PoolTunnel { kind: TunnelKind::Vxlan, cross_subnet: false });
        let pool = ClusterPool {
            cidr: net("10.0.0.0/16"),
            tunnel,
            nat_outgoing: false,
            has_tunnel_addresses: true,
            is_exported: true,
        };
        state.pools.insert("pool".to_owned(), pool);
        state
    }

    /// Where a tunnel cannot be had, what led to the node before is better than nothing.
    #[test]
    fn a_route_to_the_same_node_stays_where_its_tunnel_is_left_out() {
        let plan = plan_cluster("n1", &state(), &Underlay::default());
        let plan = plan.without_tunnels(&[TunnelKind::Vxlan].into());
        assert!(plan.tunnels.is_empty());
        let by = |next_hop: &str| RouteKind::Direct {
            next_hop: next_hop.parse().unwrap(),
            link: "eth0".to_owned(),
            source: "192.0.2.1".parse().unwrap(),
        };
        for (next_hop, goes) in [("192.0.2.2", false), ("192.0.2.3", true)] {
            let routes = [(net("10.0.2.0/26"), Some(by(next_hop)))].into();
            let changes = diff(&plan, &ActualState { routes, ..ActualState::default() }).changes;
            let is_deletion = |change: &Change| matches!(change, Change::DeleteRoute(..));
            assert_eq!(changes.iter().any(is_deletion), goes, "{next_hop}: {changes:?}");
        }
    }
}
