//! What to change so that the kernel has what the plan says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::plan::{ClusterPlan, TUNNEL_DEVICE, TunnelPlan, Way};
use super::problem::Problem;
use crate::network::route::ROUTE_PROTOCOL;

/// The alias of a tunnel device that Weir has in service. (The aliases of
/// attachments begin with `weir:`.)
pub const TUNNEL_ALIAS: &str = "weir";

/// What the kernel has of a node's part in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The tunnel device, where there is one.
    pub tunnel: Option<PresentTunnel>,
    /// Weir's routes in the main table that are no container's: those with
    /// [`ROUTE_PROTOCOL`] that have a next hop or are blackholes. `None` for
    /// one that is of no form that Weir makes.
    pub routes: BTreeMap<IpNet, Option<Way>>,
    /// The destinations that other programs' routes in the main table lead to
    /// with the metric that Weir's have (the kernel holds one such route).
    pub foreign: BTreeSet<IpNet>,
    /// The destinations that other programs' unicast routes in the main table lead
    /// to, whatever their metric, with the next hops of the first such route; neither
    /// default routes nor the kernel's own.
    pub led_by_others: BTreeMap<IpNet, BTreeSet<IpAddr>>,
    /// The destinations of other programs' blackholes there.
    pub dropped_by_others: BTreeSet<IpNet>,
    /// The links whose reverse path filter is strict.
    pub strict: BTreeSet<String>,
}

impl Present {
    /// Whether another program's route leads to all of a range.
    pub fn is_led_by_others(&self, range: IpNet) -> bool {
        self.leading(range).is_some()
    }

    /// The narrowest of other programs' routes that leads to all of a range.
    fn leading(&self, range: IpNet) -> Option<(IpNet, &BTreeSet<IpAddr>)> {
        let mut around = std::iter::successors(Some(range.trunc()), IpNet::supernet);
        around.find_map(|net| Some((net, self.led_by_others.get(&net)?)))
    }

    /// Whether another program has a route where Weir's belongs, and keeps it out.
    pub fn is_kept_out(&self, destination: IpNet, way: &Way) -> bool {
        self.foreign.contains(&destination)
            && self.routes.get(&destination).and_then(Option::as_ref) != Some(way)
    }
}

/// What is wrong with another program's route where Weir's would be; nothing where it
/// serves as well: a routing daemon has routes of its own to the blocks.
fn in_the_way(
    plan: &ClusterPlan,
    present: &Present,
    destination: IpNet,
    way: &Way,
) -> Option<Problem> {
    let serves = match way {
        Way::Blackhole => present.dropped_by_others.contains(&destination),
        Way::Direct { .. } => present.led_by_others.contains_key(&destination),
        Way::Tunnel { .. } => false,
    };
    match way {
        Way::Direct { next_hop, .. } if serves => astray(plan, present, destination, *next_hop),
        _ => (!serves).then_some(Problem::ForeignRoute { destination }),
    }
}

/// Whether another program's route sends packets for `range`, which is at the node
/// `wanted`, to another node of the cluster, as a routing daemon's does that has ended:
/// that node has the range no more, and drops them. Routers, and links without next
/// hops, may know the way.
fn astray(plan: &ClusterPlan, present: &Present, range: IpNet, wanted: IpAddr) -> Option<Problem> {
    let (route, next_hops) = present.leading(range)?;
    let others = next_hops.iter().filter(|next_hop| **next_hop != wanted);
    let (next_hop, node) = others.filter_map(|it| plan.nodes.get_key_value(it)).next()?;
    Some(Problem::LedAstray { range, wanted, route, next_hop: *next_hop, node: node.clone() })
}

/// A tunnel device as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresentTunnel {
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
    AddRoute(IpNet, Way),
    /// Put a route in the place of Weir's own one, at once, so that no packet is
    /// lost in between.
    ReplaceRoute(IpNet, Way),
    /// Delete a route of Weir's; one that leads some other way stays.
    DeleteRoute(IpNet, Option<Way>),
}

/// The changes that make `present` what `plan` says, in the order in which no
/// traffic is lost that could be kept; and where another program is in the way, or
/// has no route to what is left to it. Without a difference there are no changes.
///
/// The NAT table and the filter of the tunnel are not compared here: they are
/// replaced as a whole when they are not the wanted ones.
pub fn difference(plan: &ClusterPlan, present: &Present) -> (Vec<Change>, BTreeSet<Problem>) {
    let mut changes = prepare_tunnel(plan, present);
    let mut problems = BTreeSet::new();
    for (&destination, way) in &plan.routes {
        match present.routes.get(&destination) {
            Some(Some(has)) if has == way => {}
            // A replacement could hit the other program's route.
            _ if present.foreign.contains(&destination) => {
                problems.extend(in_the_way(plan, present, destination, way));
            }
            Some(_) => changes.push(Change::ReplaceRoute(destination, way.clone())),
            None => changes.push(Change::AddRoute(destination, way.clone())),
        }
    }
    for (&destination, way) in &present.routes {
        let is_address = destination.prefix_len() == destination.max_prefix_len();
        let stays = plan.routes.contains_key(&destination) || plan.keeps_addresses && is_address;
        if !stays {
            changes.push(Change::DeleteRoute(destination, way.clone()));
        }
    }
    for (&range, problem) in &plan.left_to_others {
        if !present.is_led_by_others(range) {
            problems.insert(problem.clone());
        } else if let Problem::NextHopNotOnLink { next_hop, .. } = problem {
            problems.extend(astray(plan, present, range, *next_hop));
        }
    }
    changes.extend(retire_tunnel(plan.tunnel.as_ref(), present));
    (changes, problems)
}

/// What the tunnel device needs before routes can go by it.
fn prepare_tunnel(plan: &ClusterPlan, present: &Present) -> Vec<Change> {
    let Some(wanted) = &plan.tunnel else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    if present.tunnel.is_none() {
        changes.push(Change::CreateTunnel);
    }
    let fresh = PresentTunnel::default();
    let tunnel = present.tunnel.as_ref().unwrap_or(&fresh);
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
    if present.tunnel.is_none() || present.strict.contains(TUNNEL_DEVICE) {
        changes.push(Change::LoosenReversePath(TUNNEL_DEVICE.to_owned()));
    }
    let strict = wanted.lopsided.iter().filter(|link| present.strict.contains(*link));
    changes.extend(strict.cloned().map(Change::LoosenReversePath));
    changes
}

/// What is taken from the tunnel device once no route needs it: the kernel drops
/// routes that send from an address when that goes. A device that is not wanted
/// any more keeps no address and is down; it is not deleted, since the kernel's
/// own `tunl0` cannot be. One that Weir never had in service is another
/// program's (IPVS has its virtual addresses on `tunl0`) and stays as it is.
fn retire_tunnel(wanted: Option<&TunnelPlan>, present: &Present) -> Vec<Change> {
    let Some(tunnel) = present.tunnel.as_ref().filter(|tunnel| wanted.is_some() || tunnel.claimed)
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

impl fmt::Display for Way {
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
        let route = |formatter: &mut fmt::Formatter<'_>, verb, destination: &IpNet, way: &Way| {
            let protocol = ROUTE_PROTOCOL;
            match way {
                Way::Blackhole => {
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
        }
    }
}
