//! The plan: the tunnel device, routes and NAT that a node should have.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::bgp::need::bgp_need;
use super::bgp::session::BgpNeed;
use super::cluster_state::{ClusterPool, ClusterState, Peer};
use super::problem::Problem;
use super::underlay::Underlay;
use crate::ipam::Family;
use crate::network::nat::{NatPool, NatTable};
use crate::resources::{EncapsulationMode, overlap};

/// The tunnel device's name: the one that the kernel's module makes by itself
/// in every namespace, and Calico uses (`felix/dataplane/linux/ipip_mgr.go`).
pub const TUNNEL_DEVICE: &str = "tunl0";

/// How many bytes IPIP adds to a packet: an IPv4 header (RFC 2003).
pub const TUNNEL_OVERHEAD: u32 = 20;

impl ClusterPlan {
    /// The plan without its tunnel, and without the routes that need it.
    pub fn without_tunnel(mut self) -> Self {
        self.tunnel = None;
        self.routes.retain(|_, way| !matches!(way, RouteKind::Tunnel { .. }));
        self
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
    /// Wrapped in IPIP.
    Tunnel {
        /// The other node's address.
        next_hop: Ipv4Addr,
        /// The address that this node itself then sends from: its tunnel
        /// device's, once it has one.
        source: Option<Ipv4Addr>,
    },
}

/// What the tunnel device should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Its only address, as /32; none until one is assigned.
    pub address: Option<Ipv4Addr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The nodes from which IPIP is accepted.
    pub peers: BTreeSet<Ipv4Addr>,
    /// The underlay links on which packets may come in that this node would
    /// answer through the tunnel, because the other node sees both in one
    /// subnet and this one does not.
    pub asymmetric: BTreeSet<String>,
}

/// What a node should have for its part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// The tunnel device, where one is needed.
    pub tunnel: Option<TunnelPlan>,
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
    /// The other nodes by the addresses that they are registered with.
    pub nodes: BTreeMap<IpAddr, String>,
}

impl ClusterPlan {
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
/// block's host get routes of their own. A remote range of a pool without IPIP
/// goes by the other node's address on the link they share; with `Always`
/// through the tunnel; with `CrossSubnet` through the tunnel unless the other
/// node's address lies in this node's own subnet, as this node is registered
/// (Calico: `felix/calc/l3_route_resolver.go`).
pub fn plan_cluster(node: &str, state: &ClusterState, underlay: &Underlay) -> ClusterPlan {
    let planner = Planner::new(node, state, underlay);
    let own = planner.own;
    let parent = own.and_then(|own| underlay.owner(own.ipv4?.addr()));
    let mtu = parent.map_or_else(|| underlay.smallest_mtu(), |link| link.mtu);
    let tunnel = own.filter(|_| needs_tunnel(node, state)).map(|own| TunnelPlan {
        address: own.tunnel,
        mtu: mtu.saturating_sub(TUNNEL_OVERHEAD),
        peers: peers(node, state).filter_map(|(_, peer)| v4(peer.ipv4)).collect(),
        asymmetric: asymmetric(node, own, state, underlay),
    });
    let nat_pools: Vec<NatPool> = state.pools.values().map(NatPool::from).collect();
    let mut plan = ClusterPlan {
        tunnel,
        routes: BTreeMap::new(),
        bgp_need: bgp_need(node, state, underlay),
        keeps_announcing: false,
        announced: BTreeSet::new(),
        nat: NatTable::from_pools(&nat_pools),
        pod_mtu: pod_mtu(mtu, state.pools.values().map(|pool| pool.ipip_mode)),
        problems: general_problems(node, state, underlay),
        with_problems: BTreeSet::new(),
        keeps_addresses: false,
        left_to_others: BTreeMap::new(),
        nodes: addresses_of_peers(node, state),
    };
    planner.plan_ranges(&mut plan);
    plan
}

/// The MTU in bytes for containers on a node whose uplink has `uplink_mtu`, with
/// pools of these modes: as soon as any of them tunnels, room for the outer
/// header is kept free.
pub fn pod_mtu(uplink_mtu: u32, modes: impl IntoIterator<Item = EncapsulationMode>) -> u32 {
    uplink_mtu.saturating_sub(if any_tunnels(modes) { TUNNEL_OVERHEAD } else { 0 })
}

/// Whether a pool of any of these modes may tunnel.
pub fn any_tunnels(modes: impl IntoIterator<Item = EncapsulationMode>) -> bool {
    modes.into_iter().any(|mode| mode != EncapsulationMode::Never)
}

/// Whether `node` tunnels to another node or another one to it, were there a
/// block of every pool on both. In a cluster whose IPIP pools are all
/// `CrossSubnet`, nodes whose peers share their subnet need no tunnel.
pub fn needs_tunnel(node: &str, state: &ClusterState) -> bool {
    let Some(own) = state.nodes.get(node) else {
        return false;
    };
    let modes: BTreeSet<bool> = state
        .pools
        .values()
        .filter(|pool| pool.ipip_mode != EncapsulationMode::Never && pool.cidr.addr().is_ipv4())
        .map(|pool| pool.ipip_mode == EncapsulationMode::CrossSubnet)
        .collect();
    let tunnels = |from: &Peer, to: &Peer| match (from.ipv4, to.ipv4) {
        (Some(from), Some(to)) => {
            modes.iter().any(|&cross_subnet| !cross_subnet || !from.contains(&to.addr()))
        }
        _ => false,
    };
    peers(node, state).any(|(_, peer)| tunnels(own, peer) || tunnels(peer, own))
}

/// Whether `node` is registered with a tunnel address that it can keep if it needs
/// one, and with none if it does not. Of a node that is not registered nothing is
/// asked.
pub fn has_settled_tunnel(node: &str, state: &ClusterState) -> bool {
    if needs_tunnel(node, state) {
        has_tunnel_address(node, state)
    } else {
        state.nodes.get(node).is_none_or(|own| own.tunnel.is_none())
    }
}

/// Whether `node` is registered with a tunnel address that it can keep: one of a
/// pool that has such addresses.
fn has_tunnel_address(node: &str, state: &ClusterState) -> bool {
    let address = state.nodes.get(node).and_then(|own| own.tunnel);
    let pool = address.and_then(|address| state.pool_of(IpAddr::V4(address).into()));
    pool.is_some_and(|(_, pool)| pool.has_tunnel_addresses)
}

pub(super) struct Planner<'a> {
    pub(super) node: &'a str,
    own: Option<&'a Peer>,
    pub(super) state: &'a ClusterState,
    pub(super) underlay: &'a Underlay,
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
    /// Routes to single addresses of the range, which is not routed as a whole.
    singles: BTreeMap<IpNet, RouteKind>,
}

impl RangePlan {
    /// Whether it is a route, or none, and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        self.left_to_others.is_none() && self.problems.is_empty() && self.singles.is_empty()
    }
}

impl<'a> Planner<'a> {
    pub(super) fn new(node: &'a str, state: &'a ClusterState, underlay: &'a Underlay) -> Self {
        Self { node, own: state.nodes.get(node), state, underlay, peers: OnceCell::new() }
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
            let RangePlan { route, left_to_others, problems, singles } = self.range(range);
            plan.announced.extend(self.is_announced(range).then_some(range));
            plan.routes.extend(singles);
            plan.routes.extend(route.map(|route| (range, route)));
            plan.left_to_others.extend(left_to_others.map(|problem| (range, problem)));
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
            (plan.route, plan.left_to_others) = (None, None);
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
            Ok(Ok(route)) => plan.route = Some(route),
            Ok(Err(problem)) => plan.left_to_others = Some(problem),
            Err(problem) => drop(plan.problems.insert(problem)),
        }
    }

    /// The route to a range on another node; or the problem if no other program has one; or
    /// the problem that leaves it without any.
    fn next_hop(&self, range: IpNet, host: &str) -> Result<Result<RouteKind, Problem>, Problem> {
        let Some(own) = self.own.filter(|own| own.address(range.addr()).is_some()) else {
            let family = Family::of(range.addr());
            return Err(Problem::NotRegistered { node: self.node.to_owned(), family });
        };
        let next_hop = self.state.nodes.get(host).and_then(|peer| peer.address(range.addr()));
        let Some(next_hop) = next_hop.map(|address| address.addr()) else {
            return Err(Problem::NoNextHop { node: host.to_owned(), range });
        };
        let pool = self.state.pool_of(range);
        if let Some((name, _)) = pool.filter(|(_, pool)| pool.vxlan) {
            return Err(Problem::Vxlan { pool: name.to_owned() });
        }
        let mode = pool.map_or(EncapsulationMode::Never, |(_, pool)| pool.ipip_mode);
        if let IpAddr::V4(next_hop) = next_hop
            && is_tunnelled(mode, own, next_hop)
        {
            return Ok(Ok(RouteKind::Tunnel { next_hop, source: own.tunnel }));
        }
        Ok(match self.underlay.towards(next_hop, own.address(next_hop)) {
            Some((link, source)) => {
                Ok(RouteKind::Direct { next_hop, link: link.name.clone(), source })
            }
            None => {
                let cross_subnet = mode == EncapsulationMode::CrossSubnet;
                Err(Problem::NextHopNotOnLink { node: host.to_owned(), next_hop, cross_subnet })
            }
        })
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

/// Whether packets to a node at `next_hop` are wrapped.
fn is_tunnelled(mode: EncapsulationMode, own: &Peer, next_hop: Ipv4Addr) -> bool {
    match mode {
        EncapsulationMode::Never => false,
        EncapsulationMode::Always => true,
        EncapsulationMode::CrossSubnet => {
            !own.ipv4.is_some_and(|subnet| subnet.contains(&IpAddr::V4(next_hop)))
        }
    }
}

/// The other nodes.
fn peers<'a>(
    node: &'a str,
    state: &'a ClusterState,
) -> impl Iterator<Item = (&'a String, &'a Peer)> {
    state.nodes.iter().filter(move |(name, _)| *name != node)
}

/// The addresses that other nodes than `node` are registered with, those of their tunnel
/// devices too, each with its node.
pub fn addresses_of_nodes(node: &str, state: &ClusterState) -> BTreeMap<IpAddr, String> {
    let tunnels = peers(node, state)
        .filter_map(|(name, peer)| Some((IpAddr::V4(peer.tunnel?), name.clone())));
    addresses_of_peers(node, state).into_iter().chain(tunnels).collect()
}

pub(super) fn addresses_of_peers(node: &str, state: &ClusterState) -> BTreeMap<IpAddr, String> {
    let addresses = |(name, peer): (&String, &Peer)| {
        let both = [peer.ipv4, peer.ipv6].into_iter().flatten();
        both.map(|address| (address.addr(), name.clone())).collect::<Vec<_>>()
    };
    peers(node, state).flat_map(addresses).collect()
}

/// The links by which a node is near that sees this one in its subnet, while
/// this one does not see it in its own.
fn asymmetric(
    node: &str,
    own: &Peer,
    state: &ClusterState,
    underlay: &Underlay,
) -> BTreeSet<String> {
    let Some(own_address) = own.ipv4 else {
        return BTreeSet::new();
    };
    let sees_only_us = |peer: &Peer| {
        peer.ipv4.is_some_and(|theirs| {
            theirs.contains(&own_address.addr()) && !own_address.contains(&theirs.addr())
        })
    };
    let is_any = peers(node, state).any(|(_, peer)| sees_only_us(peer));
    let parent = underlay.owner(own_address.addr()).filter(|_| is_any);
    parent.map(|link| link.name.clone()).into_iter().collect()
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
        let is_cross_subnet = |pool: &ClusterPool| pool.ipip_mode == EncapsulationMode::CrossSubnet;
        let alone = own.ipv4.filter(|address| address.prefix_len() == 32);
        if let Some(address) = alone.filter(|_| state.pools.values().any(is_cross_subnet)) {
            problems.insert(Problem::AloneInSubnet { node: node.to_owned(), address });
        }
        let missing = |address: &IpNet| underlay.owner(address.addr()).is_none();
        for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(missing) {
            problems.insert(Problem::AddressNotHere { node: node.to_owned(), address });
        }
        for (other, peer) in peers(node, state) {
            let shared =
                |own: &IpNet| peer.address(own.addr()).map(|it| it.addr()) == Some(own.addr());
            for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(shared) {
                let (node, other) = (node.to_owned(), other.clone());
                problems.insert(Problem::AddressShared { node, address, other });
            }
        }
        let registered = own.ipv4.filter(|_| needs_tunnel(node, state));
        if let Some((address, primary)) = registered.and_then(|it| underlay.primary_to(it)) {
            let node = node.to_owned();
            problems.insert(Problem::SecondaryAddress { node, address, primary });
        }
    }
    problems
}

fn v4(address: Option<IpNet>) -> Option<Ipv4Addr> {
    match address?.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
