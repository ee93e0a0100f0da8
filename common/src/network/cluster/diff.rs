//! The changes from the kernel's actual state to the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::actual::ActualState;
use super::change::Change;
use super::plan::{ClusterPlan, RouteKind};
use super::problem::Problem;
use super::tunnel_diff::{TunnelDiff, kinds_of_others};
use crate::tunnel::TunnelKind;

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

/// What comes of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The changes, ordered to avoid traffic loss.
    pub changes: Vec<Change>,
    /// The problems with other programs' routes: those that conflict, and those that are missing.
    pub problems: BTreeSet<Problem>,
    /// The kinds of tunnels that routes go by which stay until the planned ones can be had.
    pub still_used: BTreeSet<TunnelKind>,
}

/// The changes from the actual state to the plan, and the
/// problems with other programs' routes.
///
/// The NAT table and the filter of the tunnels are not compared here: each is replaced as a
/// whole when its fingerprint differs.
pub fn diff(plan: &ClusterPlan, actual: &ActualState) -> Difference {
    let of_others = kinds_of_others(plan, actual);
    if !of_others.is_empty() {
        let mut difference = diff(&plan.clone().without_tunnels(&of_others), actual);
        let told = of_others.into_iter().map(|kind| Problem::ForeignTunnelDevice { kind });
        difference.problems.extend(told);
        return difference;
    }
    let meanwhile = routes_meanwhile(plan, actual);
    let tunnels = TunnelDiff::all(plan, actual, &next_hops_in_use(&meanwhile, actual));
    let (withdrawn, announced) = announcements(plan, actual);
    let mut changes = withdrawn;
    changes.extend(tunnels.iter().flat_map(TunnelDiff::prepare));
    // Routes through a device that is made again have gone with the old one.
    let remade: BTreeSet<TunnelKind> =
        tunnels.iter().filter(|tunnel| tunnel.is_remade()).map(|tunnel| tunnel.kind).collect();
    let is_gone = |way: &Option<RouteKind>| {
        way.as_ref().and_then(RouteKind::tunnel_kind).is_some_and(|kind| remade.contains(&kind))
    };
    let mut problems = BTreeSet::new();
    let planned = plan.routes.iter().filter(|(range, _)| !meanwhile.contains(range));
    for (&destination, way) in planned {
        match actual.routes.get(&destination).filter(|way| !is_gone(way)) {
            Some(Some(has)) if has == way => {}
            // A replacement could hit the other program's route.
            _ if actual.occupied.contains(&destination) => {
                problems.extend(conflicting_route(plan, actual, destination, way));
            }
            Some(_) => changes.push(Change::ReplaceRoute(destination, way.clone())),
            None => changes.push(Change::AddRoute(destination, way.clone())),
        }
    }
    for (destination, way) in meanwhile.iter().filter_map(|range| Some((range, actual.way(range)?)))
    {
        let meant = at_present(&tunnels, way);
        if is_gone(&Some(way.clone())) {
            changes.push(Change::AddRoute(*destination, meant));
        } else if meant != *way {
            changes.push(Change::ReplaceRoute(*destination, meant));
        }
    }
    changes.extend(announced);
    for (&destination, way) in actual.routes.iter().filter(|(_, way)| !is_gone(way)) {
        let is_address = destination.prefix_len() == destination.max_prefix_len();
        let stays = plan.routes.contains_key(&destination)
            || meanwhile.contains(&destination)
            || plan.keeps_addresses && is_address;
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
    changes.extend(tunnels.iter().flat_map(TunnelDiff::retire));
    let still_used = tunnels.iter().filter(|tunnel| tunnel.is_still_used());
    let still_used = still_used.map(|tunnel| tunnel.kind).collect();
    Difference { changes, problems, still_used }
}

/// The ranges whose routes stay as they are until the planned ones can be had: as long as the
/// other node cannot be reached as the pool asks, or, where a tunnel led there, as long as no
/// other program has a route. They have to lead to the node still.
fn routes_meanwhile(plan: &ClusterPlan, actual: &ActualState) -> BTreeSet<IpNet> {
    let stays = |(range, next_hops): &(&IpNet, &BTreeSet<IpAddr>)| {
        let Some(way) = actual.way(range) else { return false };
        let leads_there = way.next_hop().is_some_and(|next_hop| match way.tunnel_kind() {
            Some(kind) => leads_to(next_hops, kind, next_hop, plan, actual),
            None => next_hops.contains(&next_hop),
        });
        let planned = plan.routes.get(range);
        let is_another = planned.is_none_or(|it| it.tunnel_kind() != way.tunnel_kind());
        let is_missing = !plan.left_to_others.contains_key(*range)
            || way.tunnel_kind().is_some() && !actual.has_foreign_route(**range);
        leads_there && is_missing && is_another
    };
    plan.awaited.iter().filter(stays).map(|(range, _)| *range).collect()
}

/// Whether a route by a tunnel with this next hop leads to the node that `next_hops` lead to. That
/// node may have given its tunnel address back before the planned route can be had: it is still
/// where the device's own entries say, unless something else is planned for them.
fn leads_to(
    next_hops: &BTreeSet<IpAddr>,
    kind: TunnelKind,
    next_hop: IpAddr,
    plan: &ClusterPlan,
    actual: &ActualState,
) -> bool {
    let planned = plan.tunnels.get(&kind).and_then(|tunnel| tunnel.vxlan.as_ref());
    let has = actual.tunnels.get(&kind).and_then(|tunnel| tunnel.vxlan.as_ref());
    let is_planned = planned.is_some_and(|it| it.neighbours.contains_key(&next_hop));
    let Some(has) = has.filter(|_| !is_planned) else {
        return next_hops.contains(&next_hop);
    };
    let Some(mac) = has.neighbours.get(&next_hop) else { return false };
    let planned = planned.and_then(|it| it.forwarding.get(mac));
    let nodes: Vec<IpAddr> =
        planned.map_or_else(|| has.nodes_behind(*mac).collect(), |node| vec![*node]);
    !nodes.is_empty() && nodes.iter().all(|node| next_hops.contains(node))
}

/// The next hops of these ranges' routes, by the tunnel that they are beyond.
fn next_hops_in_use(
    ranges: &BTreeSet<IpNet>,
    actual: &ActualState,
) -> BTreeMap<TunnelKind, BTreeSet<IpAddr>> {
    let mut used: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for way in ranges.iter().filter_map(|range| actual.way(range)) {
        if let RouteKind::Tunnel { kind, next_hop, .. } = way {
            used.entry(*kind).or_default().insert(*next_hop);
        }
    }
    used
}

/// A route that stays, from the address that its tunnel device has from now on: the kernel drops
/// a route with the address that it sends from.
fn at_present(tunnels: &[TunnelDiff<'_>], way: &RouteKind) -> RouteKind {
    match way {
        RouteKind::Tunnel { kind, next_hop, source } => {
            let mut of_kind = tunnels.iter().filter(|tunnel| tunnel.kind == *kind);
            // One that is not planned keeps its addresses as long as it is used.
            let wanted = of_kind.find_map(|tunnel| tunnel.wanted);
            let source = wanted.map_or(*source, |wanted| wanted.address);
            RouteKind::Tunnel { kind: *kind, next_hop: *next_hop, source }
        }
        other => other.clone(),
    }
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
