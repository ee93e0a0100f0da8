//! The tunnels that a node should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::cluster_state::{ClusterPool, ClusterState, Peer, PoolTunnel};
use super::tunnel_settings::TunnelSettings;
use super::underlay::Underlay;
use crate::link::MacAddress;
use crate::tunnel::{TunnelKind, TunnelNextHop, link_local};

/// What a tunnel device should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPlan {
    /// Whether a pool needs it. One that no pool needs stays as long as other nodes may send by
    /// it; it is not made.
    pub is_needed: bool,
    /// Its address, as that of one host; none until one is assigned.
    pub address: Option<IpAddr>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whose packets it takes: the nodes, and what else is allowed.
    pub senders: BTreeSet<IpNet>,
    /// The underlay links on which packets may come in that this node would
    /// answer through the tunnel, because the other node sees both in one
    /// subnet and this one does not.
    pub asymmetric: BTreeSet<String>,
    /// The UDP port that it is spoken on, if it is one in UDP.
    pub port: Option<u16>,
    /// What a kind needs besides that carries Ethernet frames, as VXLAN; none for other kinds.
    pub vxlan: Option<VxlanPlan>,
}

/// An address of scope link that every tunnel device for IPv4 has, also before it has its own and
/// after it has given that back: with a loose reverse path filter the kernel drops what comes by
/// a device without any (`__fib_validate_source` in `net/ipv4/fib_frontend.c`).
pub(super) const LINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 191, 1);

impl TunnelPlan {
    /// The addresses that the device of this kind should have.
    pub fn addresses(&self, kind: TunnelKind) -> BTreeSet<IpNet> {
        let of_link = (!kind.row().is_ipv6).then_some(IpAddr::V4(LINK_ADDRESS));
        of_link.into_iter().chain(self.address).map(IpNet::from).collect()
    }
}

/// What a device of VXLAN should be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanPlan {
    /// What it is made with.
    pub device: VxlanDevice,
    /// The hardware addresses behind the next hops of its routes.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// The nodes behind hardware addresses.
    pub forwarding: BTreeMap<MacAddress, IpAddr>,
}

/// What a device of VXLAN is made with; where anything of it differs, it is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanDevice {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port.
    pub port: u16,
    /// The node's address, from which it sends.
    pub local: IpAddr,
    /// The link that has this address.
    pub parent: Option<String>,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Whether it learns from what it receives where hardware addresses are.
    pub is_learning: bool,
}

/// The tunnels that a pool needs, and those that other nodes may still send by: they are
/// registered with addresses for them.
pub(super) fn plan_tunnels(
    node: &str,
    state: &ClusterState,
    underlay: &Underlay,
    settings: &TunnelSettings,
) -> BTreeMap<TunnelKind, TunnelPlan> {
    let planner = TunnelPlanner { node, state, underlay, settings };
    let kinds = TunnelKind::ALL.into_iter();
    kinds.filter_map(|kind| Some((kind, planner.plan(kind)?))).collect()
}

struct TunnelPlanner<'a> {
    node: &'a str,
    state: &'a ClusterState,
    underlay: &'a Underlay,
    settings: &'a TunnelSettings,
}

impl TunnelPlanner<'_> {
    fn plan(&self, kind: TunnelKind) -> Option<TunnelPlan> {
        let own = self.state.nodes.get(self.node)?;
        let address = own.address_for(kind)?;
        let is_needed = needs_tunnel(kind, self.node, self.state);
        let may_receive = || self.peers().any(|(_, peer)| peer.tunnels.contains_key(&kind));
        if !is_needed && !may_receive() {
            return None;
        }
        let uplink = self.settings.uplink_mtu(Some(address.addr()), self.underlay);
        Some(TunnelPlan {
            is_needed,
            address: own.tunnels.get(&kind).copied(),
            mtu: self.settings.mtu(kind, self.narrowest(uplink, address.addr())),
            senders: self.senders(kind),
            asymmetric: self.asymmetric(address),
            port: self.settings.port(kind),
            vxlan: self.vxlan(kind, own, address.addr()),
        })
    }

    /// The kernel gives a device no larger packets than fit into those of its link.
    fn narrowest(&self, uplink_mtu: u32, own: IpAddr) -> u32 {
        self.underlay.owner(own).map_or(uplink_mtu, |link| link.mtu.min(uplink_mtu))
    }

    fn peers(&self) -> impl Iterator<Item = (&String, &Peer)> {
        self.state.peers_of(self.node)
    }

    fn senders(&self, kind: TunnelKind) -> BTreeSet<IpNet> {
        let peers = self.peers().filter_map(|(_, peer)| peer.address_for(kind));
        let external = self.settings.external_nodes(kind);
        peers.map(|address| address.addr().into()).chain(external).collect()
    }

    fn vxlan(&self, kind: TunnelKind, own: &Peer, local: IpAddr) -> Option<VxlanPlan> {
        let frames = kind.row().frames()?;
        let (mut neighbours, mut forwarding) = (BTreeMap::new(), BTreeMap::new());
        for (name, peer) in self.peers() {
            let (node, next_hop) = (peer.address_for(kind), next_hop(kind, name, peer));
            let mac = peer.mac(kind, name);
            if let (Some(node), Some(next_hop), Some(mac)) = (node, next_hop, mac) {
                neighbours.insert(next_hop, mac);
                forwarding.insert(mac, node.addr());
            }
        }
        let device = VxlanDevice {
            vni: self.settings.vni(frames),
            port: self.settings.port(kind)?,
            local,
            parent: self.underlay.owner(local).map(|link| link.name.clone()),
            mac: own.mac(kind, self.node)?,
            is_learning: false,
        };
        Some(VxlanPlan { device, neighbours, forwarding })
    }

    /// The links by which a node is near that sees this one in its subnet, while
    /// this one does not see it in its own.
    fn asymmetric(&self, own: IpNet) -> BTreeSet<String> {
        let sees_only_us = |peer: &Peer| {
            peer.address(own.addr())
                .is_some_and(|theirs| theirs.contains(&own.addr()) && !own.contains(&theirs.addr()))
        };
        let is_any = own.addr().is_ipv4() && self.peers().any(|(_, peer)| sees_only_us(peer));
        let parent = self.underlay.owner(own.addr()).filter(|_| is_any);
        parent.map(|link| link.name.clone()).into_iter().collect()
    }
}

/// The UDP ports of these tunnels.
pub(super) fn udp_ports(tunnels: &BTreeMap<TunnelKind, TunnelPlan>) -> BTreeSet<u16> {
    tunnels.values().filter_map(|tunnel| tunnel.port).collect()
}

/// The next hop of routes to a node by a tunnel of this kind; none where the node has no address
/// for it yet. `name` is the node's.
pub(super) fn next_hop(kind: TunnelKind, name: &str, peer: &Peer) -> Option<IpAddr> {
    let address = peer.tunnels.get(&kind).copied();
    match kind.row().next_hop {
        TunnelNextHop::Node => peer.address_for(kind).map(|node| node.addr()),
        TunnelNextHop::TunnelAddress => address,
        TunnelNextHop::LinkLocal => {
            address.and_then(|_| peer.mac(kind, name)).map(|mac| link_local(mac).into())
        }
    }
}

/// The MTU in bytes for containers on a node whose uplink has `uplink_mtu`, with these pools:
/// it fits into each of the tunnels that they ask for.
pub fn pod_mtu<'a>(
    uplink_mtu: u32,
    pools: impl IntoIterator<Item = &'a ClusterPool>,
    settings: &TunnelSettings,
) -> u32 {
    let kinds: BTreeSet<TunnelKind> =
        pools.into_iter().filter_map(|pool| Some(pool.tunnel?.kind)).collect();
    let mtus = kinds.into_iter().map(|kind| settings.mtu(kind, uplink_mtu));
    mtus.chain([uplink_mtu]).min().unwrap_or(uplink_mtu)
}

/// Whether a pool may tunnel.
pub fn any_tunnels<'a>(pools: impl IntoIterator<Item = &'a ClusterPool>) -> bool {
    pools.into_iter().any(ClusterPool::has_tunnels)
}

/// Whether `node` tunnels by this kind to another node or another one to it, were there a
/// block of every pool on both. In a cluster whose pools of the kind are all
/// `CrossSubnet`, nodes whose peers share their subnet need no tunnel.
pub fn needs_tunnel(kind: TunnelKind, node: &str, state: &ClusterState) -> bool {
    let Some(own) = state.nodes.get(node) else {
        return false;
    };
    if state.tunnel_settings(node).switches_off(kind) {
        return false;
    }
    let tunnels: BTreeSet<PoolTunnel> = state
        .pools
        .values()
        .filter(|pool| pool.is_of(kind))
        .filter_map(|pool| pool.tunnel)
        .collect();
    let tunnels = |from: &Peer, to: &Peer| match (from.address_for(kind), to.address_for(kind)) {
        (Some(from), Some(to)) => tunnels.iter().any(|tunnel| tunnel.wraps(Some(from), to.addr())),
        _ => false,
    };
    state.peers_of(node).any(|(_, peer)| tunnels(own, peer) || tunnels(peer, own))
}

/// Whether `node` is registered with a tunnel address of each kind that it can keep if it needs
/// one, and with none if it does not. Of a node that is not registered nothing is
/// asked.
pub fn has_settled_tunnels(node: &str, state: &ClusterState) -> bool {
    TunnelKind::ALL.into_iter().all(|kind| has_settled_tunnel(kind, node, state))
}

/// The same of one kind.
pub fn has_settled_tunnel(kind: TunnelKind, node: &str, state: &ClusterState) -> bool {
    let address = state.nodes.get(node).and_then(|own| own.tunnels.get(&kind));
    if needs_tunnel(kind, node, state) {
        let pool = address.and_then(|address| state.pool_of((*address).into()));
        pool.is_some_and(|(_, pool)| pool.is_of(kind) && pool.has_tunnel_addresses)
    } else {
        address.is_none()
    }
}
