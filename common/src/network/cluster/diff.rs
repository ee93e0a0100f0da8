//! The changes from the kernel's actual state to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::plan::{ClusterPlan, RouteKind, TUNNEL_DEVICE, TunnelPlan};
use super::problem::Problem;
use crate::network::route::ROUTE_PROTOCOL;

/// The alias of a tunnel device that Weir has in service. (The aliases of
/// attachments begin with `weir:`.)
pub const TUNNEL_ALIAS: &str = "weir";

/// The number of the routing table that holds what the node announces by BGP, as blackholes
/// with [`ROUTE_PROTOCOL`]. No rule points at the table, so it forwards nothing; the BGP daemon
/// reads it. The number has no meaning: it is far from those that people, VRFs and other
/// programs choose, and within what `ip` and BIRD take.
pub const ANNOUNCE_TABLE: u32 = 1_465_207_154;

/// What the kernel has of a node's tunnel and routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActualState {
    /// The tunnel device, where there is one.
    pub tunnel: Option<ActualTunnel>,
    /// Weir's routes in the main table that are no container's: those with
    /// [`ROUTE_PROTOCOL`] that have a next hop or are blackholes. `None` for
    /// one that is of no form that Weir makes.
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
    /// Whether another program's route leads to all of a range.
    pub fn has_foreign_route(&self, range: IpNet) -> bool {
        self.covering_route(range).is_some()
    }

    /// The narrowest of other programs' routes that leads to all of a range.
    fn covering_route(&self, range: IpNet) -> Option<(IpNet, &BTreeSet<IpAddr>)> {
        let mut around = std::iter::successors(Some(range.trunc()), IpNet::supernet);
        around.find_map(|net| Some((net, self.foreign_routes.get(&net)?)))
    }

    /// Whether another program's route takes the place of Weir's.
    pub fn is_occupied(&self, destination: IpNet, way: &RouteKind) -> bool {
        self.occupied.contains(&destination)
            && self.routes.get(&destination).and_then(Option::as_ref) != Some(way)
    }
}

/// What is wrong with another program's route where Weir's would be; nothing where it
/// serves as well: a routing daemon has routes of its own to the blocks.
fn conflicting_route(
    plan: &ClusterPlan,
    actual: &ActualState,
    destination: IpNet,
    way: &RouteKind,
) -> Option<Problem> {
    let serves = match way {
        RouteKind::Blackhole => actual.foreign_blackholes.contains(&destination),
        RouteKind::Direct { .. } => actual.foreign_routes.contains_key(&destination),
        RouteKind::Tunnel { .. } => false,
    };
    match way {
        RouteKind::Direct { next_hop, .. } if serves => {
            misrouted(plan, actual, destination, *next_hop)
        }
        _ => (!serves).then_some(Problem::ForeignRoute { destination }),
    }
}

/// Whether another program's route sends packets for `range`, which is at the node
/// `wanted`, to another node of the cluster, as a routing daemon's does that has ended:
/// that node has the range no more, and drops them. Routers, and links without next
/// hops, may know the way.
fn misrouted(
    plan: &ClusterPlan,
    actual: &ActualState,
    range: IpNet,
    wanted: IpAddr,
) -> Option<Problem> {
    let (route, next_hops) = actual.covering_route(range)?;
    let others = next_hops.iter().filter(|next_hop| **next_hop != wanted);
    let (next_hop, node) = others.filter_map(|it| plan.nodes.get_key_value(it)).next()?;
    Some(Problem::Misrouted { range, wanted, route, next_hop: *next_hop, node: node.clone() })
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
    /// Its addresses.
    pub addresses: BTreeSet<Ipv4Net>,
}

/// One change. Its text is the command of iproute2 or sysctl that would do the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the tunnel device; the kernel loads its module by itself where it
    /// can.
    CreateTunnel,
    /// Write on the tunnel device that Weir has it in service.
    ClaimTunnel,
    /// Take that back.
    DisclaimTunnel,
    /// Give the tunnel device its MTU in bytes.
    SetTunnelMtu(u32),
    /// Give the tunnel device an address.
    AddTunnelAddress(Ipv4Addr),
    /// Take an address from the tunnel device.
    RemoveTunnelAddress(Ipv4Net),
    /// Bring the tunnel device up.
    SetTunnelUp,
    /// Take the tunnel device out of service.
    SetTunnelDown,
    /// Let packets in on a link that would be answered by another one
    /// (`rp_filter` 2, loose).
    LoosenReversePath(String),
    /// Add a route where there is none.
    AddRoute(IpNet, RouteKind),
    /// Put a route in the place of Weir's own one, at once, so that no packet is
    /// lost in between.
    ReplaceRoute(IpNet, RouteKind),
    /// Delete a route of Weir's; one that leads some other way stays.
    DeleteRoute(IpNet, Option<RouteKind>),
    /// Let others learn by BGP that a range is here.
    Announce(IpNet),
    /// Take that back.
    Withdraw(IpNet),
}

/// The changes from the actual state to the plan, ordered to avoid traffic loss; and the
/// problems with other programs' routes: those that conflict, and those that are missing.
///
/// The NAT table and the filter of the tunnel are not compared here: each is replaced as a
/// whole when its fingerprint differs.
pub fn diff(plan: &ClusterPlan, actual: &ActualState) -> (Vec<Change>, BTreeSet<Problem>) {
    let (withdrawn, announced) = announcements(plan, actual);
    let mut changes = withdrawn;
    changes.extend(prepare_tunnel(plan, actual));
    let mut problems = BTreeSet::new();
    for (&destination, way) in &plan.routes {
        match actual.routes.get(&destination) {
            Some(Some(has)) if has == way => {}
            // A replacement could hit the other program's route.
            _ if actual.occupied.contains(&destination) => {
                problems.extend(conflicting_route(plan, actual, destination, way));
            }
            Some(_) => changes.push(Change::ReplaceRoute(destination, way.clone())),
            None => changes.push(Change::AddRoute(destination, way.clone())),
        }
    }
    changes.extend(announced);
    for (&destination, way) in &actual.routes {
        let is_address = destination.prefix_len() == destination.max_prefix_len();
        let stays = plan.routes.contains_key(&destination) || plan.keeps_addresses && is_address;
        if !stays {
            changes.push(Change::DeleteRoute(destination, way.clone()));
        }
    }
    for (&range, problem) in &plan.left_to_others {
        if !actual.has_foreign_route(range) {
            problems.insert(problem.clone());
        } else if let Problem::NextHopNotOnLink { next_hop, .. } = problem {
            problems.extend(misrouted(plan, actual, range, *next_hop));
        }
    }
    changes.extend(retire_tunnel(plan.tunnel.as_ref(), actual));
    (changes, problems)
}

/// What is announced and should not be, and what is not and should be.
fn announcements(plan: &ClusterPlan, actual: &ActualState) -> (Vec<Change>, Vec<Change>) {
    let goes_on = plan.keeps_announcing && !actual.announced.is_empty();
    let is_needed = plan.bgp_need.is_some() || goes_on;
    let stays = |range: &IpNet| {
        let is_address = range.prefix_len() == range.max_prefix_len();
        is_needed && (plan.announced.contains(range) || plan.keeps_addresses && is_address)
    };
    let superfluous = actual.announced.iter().filter(|range| !stays(range));
    let missing = plan.announced.difference(&actual.announced).filter(|_| is_needed);
    (
        superfluous.copied().map(Change::Withdraw).collect(),
        missing.copied().map(Change::Announce).collect(),
    )
}

/// What the tunnel device needs before routes can go by it.
fn prepare_tunnel(plan: &ClusterPlan, actual: &ActualState) -> Vec<Change> {
    let Some(wanted) = &plan.tunnel else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    if actual.tunnel.is_none() {
        changes.push(Change::CreateTunnel);
    }
    let fresh = ActualTunnel::default();
    let tunnel = actual.tunnel.as_ref().unwrap_or(&fresh);
    if !tunnel.claimed {
        changes.push(Change::ClaimTunnel);
    }
    if tunnel.mtu != wanted.mtu {
        changes.push(Change::SetTunnelMtu(wanted.mtu));
    }
    let address = wanted.address.map(Ipv4Net::from);
    if let Some(address) = address.filter(|address| !tunnel.addresses.contains(address)) {
        changes.push(Change::AddTunnelAddress(address.addr()));
    }
    if !tunnel.up {
        changes.push(Change::SetTunnelUp);
    }
    // A device that is made only now may be born strict.
    if actual.tunnel.is_none() || actual.strict.contains(TUNNEL_DEVICE) {
        changes.push(Change::LoosenReversePath(TUNNEL_DEVICE.to_owned()));
    }
    let strict = wanted.asymmetric.iter().filter(|link| actual.strict.contains(*link));
    changes.extend(strict.cloned().map(Change::LoosenReversePath));
    changes
}

/// What is taken from the tunnel device once no route needs it: the kernel drops
/// routes that send from an address when that goes. A device that is not wanted
/// any more keeps no address and is down; it is not deleted, since the kernel's
/// own `tunl0` cannot be. One that Weir never had in service is another
/// program's (IPVS has its virtual addresses on `tunl0`) and stays as it is.
fn retire_tunnel(wanted: Option<&TunnelPlan>, actual: &ActualState) -> Vec<Change> {
    let Some(tunnel) = actual.tunnel.as_ref().filter(|tunnel| wanted.is_some() || tunnel.claimed)
    else {
        return Vec::new();
    };
    let address = wanted.and_then(|wanted| wanted.address).map(Ipv4Net::from);
    let stale = tunnel.addresses.iter().filter(|has| address != Some(**has));
    let mut changes: Vec<Change> =
        stale.map(|&address| Change::RemoveTunnelAddress(address)).collect();
    if wanted.is_none() {
        if tunnel.up {
            changes.push(Change::SetTunnelDown);
        }
        // Last: what failed before is then tried again.
        changes.push(Change::DisclaimTunnel);
    }
    changes
}

impl fmt::Display for RouteKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blackhole => formatter.write_str("blackhole"),
            Self::Direct { next_hop, link, source } => {
                write!(formatter, "via {next_hop} dev {link} src {source}")
            }
            Self::Tunnel { next_hop, source } => {
                write!(formatter, "via {next_hop} dev {TUNNEL_DEVICE} onlink")?;
                source.map_or(Ok(()), |source| write!(formatter, " src {source}"))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = |formatter: &mut fmt::Formatter<'_>,
                     verb,
                     destination: &IpNet,
                     way: &RouteKind| {
            let protocol = ROUTE_PROTOCOL;
            match way {
                RouteKind::Blackhole => {
                    write!(formatter, "ip route {verb} blackhole {destination} proto {protocol}")
                }
                way => write!(formatter, "ip route {verb} {destination} {way} proto {protocol}"),
            }
        };
        match self {
            Self::CreateTunnel => write!(formatter, "ip link add {TUNNEL_DEVICE} type ipip"),
            Self::ClaimTunnel => {
                write!(formatter, "ip link set {TUNNEL_DEVICE} alias {TUNNEL_ALIAS}")
            }
            Self::DisclaimTunnel => write!(formatter, "ip link set {TUNNEL_DEVICE} alias \"\""),
            Self::SetTunnelMtu(mtu) => write!(formatter, "ip link set {TUNNEL_DEVICE} mtu {mtu}"),
            Self::AddTunnelAddress(address) => {
                write!(formatter, "ip address add {address}/32 dev {TUNNEL_DEVICE}")
            }
            Self::RemoveTunnelAddress(address) => {
                write!(formatter, "ip address delete {address} dev {TUNNEL_DEVICE}")
            }
            Self::SetTunnelUp => write!(formatter, "ip link set {TUNNEL_DEVICE} up"),
            Self::SetTunnelDown => write!(formatter, "ip link set {TUNNEL_DEVICE} down"),
            Self::LoosenReversePath(link) => {
                write!(formatter, "sysctl -w net/ipv4/conf/{link}/rp_filter=2")
            }
            Self::AddRoute(destination, way) => route(formatter, "add", destination, way),
            Self::ReplaceRoute(destination, way) => route(formatter, "replace", destination, way),
            Self::DeleteRoute(destination, Some(way)) => {
                route(formatter, "delete", destination, way)
            }
            Self::DeleteRoute(destination, None) => {
                write!(formatter, "ip route delete {destination} proto {ROUTE_PROTOCOL}")
            }
            Self::Announce(range) => {
                let protocol = ROUTE_PROTOCOL;
                write!(
                    formatter,
                    "ip route add blackhole {range} proto {protocol} table {ANNOUNCE_TABLE}"
                )
            }
            Self::Withdraw(range) => {
                write!(
                    formatter,
                    "ip route delete {range} proto {ROUTE_PROTOCOL} table {ANNOUNCE_TABLE}"
                )
            }
        }
    }
}
