//! The plan: which tunnel device, routes and NAT a node should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::inventory::{ClusterPool, Inventory, Peer};
use super::problem::Problem;
use super::underlay::Underlay;
use crate::ipam::Family;
use crate::network::nat::{NatPool, NatTable};
use crate::resources::EncapsulationMode;

/// The tunnel device's name: the one that the kernel's module makes by itself
/// in every namespace, and Calico uses (`felix/dataplane/linux/ipip_mgr.go`).
pub const TUNNEL_DEVICE: &str = "tunl0";

/// How many bytes IPIP adds to a packet: an IPv4 header (RFC 2003).
pub const TUNNEL_OVERHEAD: u32 = 20;

impl ClusterPlan {
    /// The plan without its tunnel, and without the routes that need it.
    pub fn without_tunnel(mut self) -> Self {
        self.tunnel = None;
        self.routes.retain(|_, way| !matches!(way, Way::Tunnel { .. }));
        self
    }
}

/// How packets get to a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
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
    pub lopsided: BTreeSet<String>,
}

/// What a node should have for its part in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// The tunnel device, where one is needed.
    pub tunnel: Option<TunnelPlan>,
    /// The routes, by destination.
    pub routes: BTreeMap<IpNet, Way>,
    /// The NAT table, where a pool asks for NAT.
    pub nat: Option<NatTable>,
    /// The MTU in bytes for containers.
    pub pod_mtu: u32,
    /// What could not be done as the pools ask.
    pub problems: BTreeSet<Problem>,
    /// Whether routes of Weir's to single addresses stay although they are not in
    /// the plan, because it is not known which addresses are borrowed.
    pub keeps_addresses: bool,
    /// The ranges that are left to another program's routes (BGP), each with what
    /// is wrong where there are none.
    pub left_to_others: BTreeMap<IpNet, Problem>,
    /// The other nodes by the addresses that they are registered with.
    pub nodes: BTreeMap<IpAddr, String>,
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
pub fn plan_cluster(node: &str, inventory: &Inventory, underlay: &Underlay) -> ClusterPlan {
    let own = inventory.nodes.get(node);
    let parent = own.and_then(|own| underlay.owner(own.ipv4?.addr()));
    let mut planner = Planner {
        node,
        own,
        inventory,
        underlay,
        tunnel_source: own.and_then(|own| own.tunnel),
        routes: BTreeMap::new(),
        left_to_others: BTreeMap::new(),
        problems: general_problems(node, inventory, underlay),
    };
    planner.route_blocks();
    planner.route_borrowed();
    let mtu = parent.map_or_else(|| underlay.smallest_mtu(), |link| link.mtu);
    let tunnel = own.filter(|_| needs_tunnel(node, inventory)).map(|own| TunnelPlan {
        address: own.tunnel,
        mtu: mtu.saturating_sub(TUNNEL_OVERHEAD),
        peers: peers(node, inventory).filter_map(|(_, peer)| v4(peer.ipv4)).collect(),
        lopsided: lopsided(node, own, inventory, underlay),
    });
    let nat_pool =
        |pool: &ClusterPool| NatPool { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing };
    let nat_pools: Vec<NatPool> = inventory.pools.values().map(nat_pool).collect();
    ClusterPlan {
        tunnel,
        routes: planner.routes,
        nat: NatTable::from_pools(&nat_pools),
        pod_mtu: pod_mtu(mtu, inventory.pools.values().map(|pool| pool.ipip_mode)),
        problems: planner.problems,
        keeps_addresses: false,
        left_to_others: planner.left_to_others,
        nodes: addresses_of_peers(node, inventory),
    }
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
pub fn needs_tunnel(node: &str, inventory: &Inventory) -> bool {
    let Some(own) = inventory.nodes.get(node) else {
        return false;
    };
    let modes: BTreeSet<bool> = inventory
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
    peers(node, inventory).any(|(_, peer)| tunnels(own, peer) || tunnels(peer, own))
}

/// Whether `node` is registered with a tunnel address that it can keep if it needs
/// one, and with none if it does not. Of a node that is not registered nothing is
/// asked.
pub fn has_settled_tunnel(node: &str, inventory: &Inventory) -> bool {
    if needs_tunnel(node, inventory) {
        has_tunnel_address(node, inventory)
    } else {
        inventory.nodes.get(node).is_none_or(|own| own.tunnel.is_none())
    }
}

/// Whether `node` is registered with a tunnel address that it can keep: one of a
/// pool that has such addresses.
fn has_tunnel_address(node: &str, inventory: &Inventory) -> bool {
    let address = inventory.nodes.get(node).and_then(|own| own.tunnel);
    let pool = address.and_then(|address| inventory.pool_of(IpAddr::V4(address).into()));
    pool.is_some_and(|(_, pool)| pool.has_tunnel_addresses)
}

struct Planner<'a> {
    node: &'a str,
    own: Option<&'a Peer>,
    inventory: &'a Inventory,
    underlay: &'a Underlay,
    tunnel_source: Option<Ipv4Addr>,
    routes: BTreeMap<IpNet, Way>,
    left_to_others: BTreeMap<IpNet, Problem>,
    problems: BTreeSet<Problem>,
}

impl Planner<'_> {
    fn route_blocks(&mut self) {
        for (&block, hosts) in &self.inventory.blocks {
            let listed = || hosts.iter().cloned().collect::<Vec<_>>().join(", ");
            let Some(host) = host_of(block, hosts, self.inventory) else {
                self.problems.insert(Problem::Contested { block, hosts: listed() });
                continue;
            };
            if !hosts.contains(host) {
                let node = host.to_owned();
                self.problems.insert(Problem::StaleAffinity { block, node, hosts: listed() });
            }
            if host == self.node {
                self.route_own(block);
            } else {
                self.route_remote(block, host);
            }
        }
    }

    /// A block of one address has no blackhole: it would take the place of the
    /// container's own route (Felix, `routeIsLocalBlock`).
    fn route_own(&mut self, block: IpNet) {
        if block.prefix_len() < block.max_prefix_len() {
            self.routes.insert(block, Way::Blackhole);
        }
    }

    fn route_borrowed(&mut self) {
        for (&address, host) in self.inventory.borrowed.values().flatten() {
            // Its block may be of this one address.
            let range = address.into();
            self.routes.remove(&range);
            self.left_to_others.remove(&range);
            // An address on this node has the route that ADD made.
            if host != self.node {
                self.route_remote(range, host);
            }
        }
    }

    fn route_remote(&mut self, range: IpNet, host: &str) {
        let Some(own) = self.own.filter(|own| own.address(range.addr()).is_some()) else {
            let family = Family::of(range.addr());
            self.problems.insert(Problem::NotRegistered { node: self.node.to_owned(), family });
            return;
        };
        let next_hop = self.inventory.nodes.get(host).and_then(|peer| peer.address(range.addr()));
        let Some(next_hop) = next_hop.map(|address| address.addr()) else {
            self.problems.insert(Problem::NoNextHop { node: host.to_owned(), range });
            return;
        };
        let pool = self.inventory.pool_of(range);
        if let Some((name, _)) = pool.filter(|(_, pool)| pool.vxlan) {
            self.problems.insert(Problem::Vxlan { pool: name.to_owned() });
            return;
        }
        let mode = pool.map_or(EncapsulationMode::Never, |(_, pool)| pool.ipip_mode);
        let way = match next_hop {
            IpAddr::V4(next_hop) if is_tunnelled(mode, own, next_hop) => {
                Some(Way::Tunnel { next_hop, source: self.tunnel_source })
            }
            _ => {
                let towards = self.underlay.towards(next_hop, own.address(next_hop));
                towards.map(|(link, source)| Way::Direct {
                    next_hop,
                    link: link.name.clone(),
                    source,
                })
            }
        };
        match way {
            Some(way) => {
                self.routes.insert(range, way);
            }
            None => {
                let node = host.to_owned();
                let cross_subnet = mode == EncapsulationMode::CrossSubnet;
                let problem = Problem::NextHopNotOnLink { node, next_hop, cross_subnet };
                self.left_to_others.insert(range, problem);
            }
        }
    }
}

/// The host that a block itself names, as IPAM goes by it: Calico leaves affinities
/// behind. Else the one with a confirmed affinity, if there is only one.
fn host_of<'a>(
    block: IpNet,
    hosts: &'a BTreeSet<String>,
    inventory: &'a Inventory,
) -> Option<&'a String> {
    let only = hosts.first().filter(|_| hosts.len() == 1);
    inventory.homes.get(&block).or(only)
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
    inventory: &'a Inventory,
) -> impl Iterator<Item = (&'a String, &'a Peer)> {
    inventory.nodes.iter().filter(move |(name, _)| *name != node)
}

fn addresses_of_peers(node: &str, inventory: &Inventory) -> BTreeMap<IpAddr, String> {
    let addresses = |(name, peer): (&String, &Peer)| {
        let both = [peer.ipv4, peer.ipv6].into_iter().flatten();
        both.map(|address| (address.addr(), name.clone())).collect::<Vec<_>>()
    };
    peers(node, inventory).flat_map(addresses).collect()
}

/// The links by which a node is near that sees this one in its subnet, while
/// this one does not see it in its own.
fn lopsided(
    node: &str,
    own: &Peer,
    inventory: &Inventory,
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
    let is_any = peers(node, inventory).any(|(_, peer)| sees_only_us(peer));
    let parent = underlay.owner(own_address.addr()).filter(|_| is_any);
    parent.map(|link| link.name.clone()).into_iter().collect()
}

fn general_problems(node: &str, inventory: &Inventory, underlay: &Underlay) -> BTreeSet<Problem> {
    let mut problems = BTreeSet::new();
    for (key, reason) in &inventory.unreadable {
        problems.insert(Problem::Unreadable { key: key.clone(), reason: reason.clone() });
    }
    problems.extend(without_pool(inventory));
    problems.extend(without_affinity(inventory));
    for (key, reason) in &inventory.flawed {
        problems.insert(Problem::Flawed { key: key.clone(), reason: reason.clone() });
    }
    if let Some(own) = inventory.nodes.get(node) {
        let is_cross_subnet = |pool: &ClusterPool| pool.ipip_mode == EncapsulationMode::CrossSubnet;
        let alone = own.ipv4.filter(|address| address.prefix_len() == 32);
        if let Some(address) = alone.filter(|_| inventory.pools.values().any(is_cross_subnet)) {
            problems.insert(Problem::AloneInSubnet { node: node.to_owned(), address });
        }
        let missing = |address: &IpNet| underlay.owner(address.addr()).is_none();
        for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(missing) {
            problems.insert(Problem::AddressNotHere { node: node.to_owned(), address });
        }
        for (other, peer) in peers(node, inventory) {
            let shared =
                |own: &IpNet| peer.address(own.addr()).map(|it| it.addr()) == Some(own.addr());
            for address in [own.ipv4, own.ipv6].into_iter().flatten().filter(shared) {
                let (node, other) = (node.to_owned(), other.clone());
                problems.insert(Problem::AddressShared { node, address, other });
            }
        }
        let registered = own.ipv4.filter(|_| needs_tunnel(node, inventory));
        if let Some((address, primary)) = registered.and_then(|it| underlay.primary_to(it)) {
            let node = node.to_owned();
            problems.insert(Problem::SecondaryAddress { node, address, primary });
        }
    }
    problems
}

/// That blocks lie in no pool; once for all of them.
fn without_pool(inventory: &Inventory) -> Option<Problem> {
    let mut blocks = inventory.blocks.keys().filter(|block| inventory.pool_of(**block).is_none());
    let block = *blocks.next()?;
    Some(Problem::NoPool { block, more: blocks.count() })
}

/// That blocks name hosts that have no confirmed affinity to them, nor has any other; once
/// for all of them. Such a block may have been claimed or given up only half, so nobody is
/// sent there.
fn without_affinity(inventory: &Inventory) -> Option<Problem> {
    let is_claimed = |block: &&IpNet| inventory.blocks.contains_key(*block);
    let mut homes = inventory.homes.iter().filter(|(block, _)| !is_claimed(block));
    let (block, node) = homes.next()?;
    Some(Problem::NoAffinity { block: *block, node: node.clone(), more: homes.count() })
}

fn v4(address: Option<IpNet>) -> Option<Ipv4Addr> {
    match address?.addr() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
