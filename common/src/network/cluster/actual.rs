//! What the kernel has of a node's part in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::RouteKind;
use super::tunnels::VxlanDevice;
use crate::link::MacAddress;
use crate::tunnel::TunnelKind;

/// The number of the routing table that holds what the node announces by BGP, as blackholes
/// with [`ROUTE_PROTOCOL`](crate::network::ROUTE_PROTOCOL). No rule points at the table, so it forwards nothing; the BGP daemon
/// reads it. The number has no meaning: it is far from those that people, VRFs and other
/// programs choose, and within what `ip` and BIRD take.
///
/// [`ROUTE_PROTOCOL`]: crate::network::ROUTE_PROTOCOL
pub const ANNOUNCE_TABLE: u32 = 1_465_207_154;

/// What the kernel has of a node's tunnels and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActualState {
    /// The tunnel devices that there are.
    pub tunnels: BTreeMap<TunnelKind, ActualTunnel>,
    /// Weir's routes in the main table that are no container's: those with
    /// [`ROUTE_PROTOCOL`](crate::network::ROUTE_PROTOCOL) that have a next hop or are blackholes. `None` for
    /// one that is of no form that Weir makes.
    ///
    /// [`ROUTE_PROTOCOL`]: crate::network::ROUTE_PROTOCOL
    pub routes: BTreeMap<IpNet, Option<RouteKind>>,
    /// The destinations of Weir's routes in [`ANNOUNCE_TABLE`], whatever else is in there.
    pub announced: BTreeSet<IpNet>,
    /// The destinations that other programs' routes in the main table lead to
    /// with the metric that Weir's have (the kernel holds one such route).
    pub occupied: BTreeSet<IpNet>,
    /// The destinations that other programs' unicast routes in the main table lead
    /// to, whatever their metric, with the next hops of the first such route; neither
    /// default routes nor the kernel's own.
    pub foreign_routes: BTreeMap<IpNet, BTreeSet<IpAddr>>,
    /// The destinations of other programs' blackholes there.
    pub foreign_blackholes: BTreeSet<IpNet>,
    /// The links whose reverse path filter is strict.
    pub strict: BTreeSet<String>,
}

impl ActualState {
    /// The way of Weir's route to a range, if it is of a form that Weir makes.
    pub(super) fn way(&self, range: &IpNet) -> Option<&RouteKind> {
        self.routes.get(range)?.as_ref()
    }

    /// Whether another program's route leads to all of a range.
    pub fn has_foreign_route(&self, range: IpNet) -> bool {
        self.covering_route(range).is_some()
    }

    /// The narrowest of other programs' routes that leads to all of a range.
    pub(super) fn covering_route(&self, range: IpNet) -> Option<(IpNet, &BTreeSet<IpAddr>)> {
        let mut around = std::iter::successors(Some(range.trunc()), IpNet::supernet);
        around.find_map(|net| Some((net, self.foreign_routes.get(&net)?)))
    }

    /// Whether another program's route takes the place of Weir's.
    pub fn is_occupied(&self, destination: IpNet, way: &RouteKind) -> bool {
        self.occupied.contains(&destination)
            && self.routes.get(&destination).and_then(Option::as_ref) != Some(way)
    }
}

/// A tunnel device as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActualTunnel {
    /// Whether Weir has put it into service, which its alias says: it may be
    /// another program's.
    pub claimed: bool,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, without the link-local ones.
    pub addresses: BTreeSet<IpNet>,
    /// What it has of VXLAN; none for other kinds.
    pub vxlan: Option<ActualVxlan>,
}

/// What a device of VXLAN has in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualVxlan {
    /// What it is made with.
    pub device: VxlanDevice,
    /// Its permanent neighbours.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// Its permanent forwarding entries; of one hardware address there may be several.
    pub forwarding: BTreeSet<(MacAddress, IpAddr)>,
}

impl ActualVxlan {
    /// The nodes that frames for a hardware address are sent to.
    pub(super) fn nodes_behind(&self, mac: MacAddress) -> impl Iterator<Item = IpAddr> {
        self.forwarding.iter().filter(move |(it, _)| *it == mac).map(|(_, node)| *node)
    }
}
