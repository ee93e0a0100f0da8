//! Ways as routes of the kernel, and back.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RoutePreference,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use weir_common::network::{ANNOUNCE_TABLE, ROUTE_PROTOCOL, RouteKind};
use weir_common::tunnel::TunnelKind;

use crate::message::{all_routes, output};

/// The metric that the kernel gives a route of IPv6 without one
/// (`IP6_RT_PRIO_USER`, `linux/ipv6_route.h`).
pub(crate) const METRIC_V6: u32 = 1024;

/// The number of the loopback in every namespace (`LOOPBACK_IFINDEX`); where the
/// kernel has blackholes of IPv6.
const LOOPBACK: u32 = 1;

/// The route that leads to `destination` by `way`, by the link of the number
/// `index` where it goes by one. As it is for adding, and so exact that deleting
/// it meets no other route but Weir's that leads this way.
pub(super) fn message(destination: IpNet, way: &RouteKind, index: Option<u32>) -> RouteMessage {
    let v6 = destination.addr().is_ipv6();
    let mut message = all_routes(v6);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.destination_prefix_length = destination.prefix_len();
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    if v6 {
        message.attributes.push(RouteAttribute::Priority(METRIC_V6));
    }
    let (next_hop, source) = match way {
        RouteKind::Blackhole => {
            message.header.kind = RouteType::BlackHole;
            message.attributes.extend(v6.then_some(RouteAttribute::Oif(LOOPBACK)));
            return message;
        }
        RouteKind::Direct { next_hop, source, .. } => (*next_hop, Some(*source)),
        RouteKind::Tunnel { next_hop, source, .. } => {
            message.header.flags |= RouteFlags::Onlink;
            (*next_hop, *source)
        }
    };
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(next_hop.into()));
    message.attributes.extend(index.map(RouteAttribute::Oif));
    message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

/// The route by which a range is announced.
pub(super) fn announcement(range: IpNet) -> RouteMessage {
    let mut message = message(range, &RouteKind::Blackhole, None);
    // The header has no room for the number.
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes.push(RouteAttribute::Table(ANNOUNCE_TABLE));
    message
}

/// To delete a route of Weir's by which a range is announced, whatever its form.
pub(super) fn withdrawal(range: IpNet) -> RouteMessage {
    let mut message = announcement(range);
    message.header.kind = RouteType::Unspec;
    message.header.scope = RouteScope::NoWhere;
    let is_of_form =
        |it: &RouteAttribute| matches!(it, RouteAttribute::Priority(_) | RouteAttribute::Oif(_));
    message.attributes.retain(|it| !is_of_form(it));
    message
}

/// The link that a way goes by.
pub(super) fn link_of(way: &RouteKind) -> Option<&str> {
    match way {
        RouteKind::Blackhole => None,
        RouteKind::Direct { link, .. } => Some(link),
        RouteKind::Tunnel { kind, .. } => Some(kind.device()),
    }
}

/// Whether a route of the main table is Weir's and no container's: it has a next
/// hop or is a blackhole.
pub(crate) fn is_of_cluster(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        && (route.header.kind == RouteType::BlackHole || has_next_hop(route))
}

fn has_next_hop(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::MultiPath(_)
                | RouteAttribute::NhId(_)
        )
    })
}

/// The addresses of a route's next hops; none where it goes by a link alone.
pub(crate) fn next_hops(route: &RouteMessage) -> BTreeSet<IpAddr> {
    let via = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => address_in(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
            _ => None,
        })
    };
    let several = route.attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    let several = several.flatten().filter_map(|hop| via(&hop.attributes));
    several.chain(via(&route.attributes)).collect()
}

/// Whether the kernel would take the route for the same as one of Weir's to its
/// destination: same metric and, with IPv4, same type of service; with IPv6,
/// for packets from anywhere (`fib_find_alias` in `net/ipv4/fib_trie.c`,
/// `fib6_add_rt2node` in `net/ipv6/ip6_fib.c`).
pub(super) fn takes_the_place(route: &RouteMessage) -> bool {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    match route.header.address_family {
        AddressFamily::Inet6 => metric == Some(METRIC_V6) && route.header.source_prefix_length == 0,
        _ => metric.unwrap_or(0) == 0 && route.header.tos == 0,
    }
}

/// Whether a route of IPv6 has been joined with others of the same metric. The
/// kernel lists them as one, with the protocol of the first, so they may be of
/// several programs.
pub(super) fn is_joined(route: &RouteMessage) -> bool {
    route.header.address_family == AddressFamily::Inet6
        && route
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, RouteAttribute::MultiPath(_)))
}

/// Of all routes to one destination, that which a new one of Weir's may replace: they
/// are all Weir's own of the cluster, as far as they would keep it out.
pub(crate) fn replaceable(routes: &[RouteMessage]) -> Option<&RouteMessage> {
    let mut in_place = routes.iter().filter(|route| takes_the_place(route));
    let first = in_place.next()?;
    let is_free = |route: &RouteMessage| is_of_cluster(route) && !is_joined(route);
    (is_free(first) && in_place.all(is_free)).then_some(first)
}

/// The way that a route leads, if it is exactly as Weir would make it; `names`
/// are those of the links by number.
pub(super) fn way(route: &RouteMessage, names: &HashMap<u32, String>) -> Option<RouteKind> {
    if !takes_the_place(route) || route.header.scope != RouteScope::Universe {
        return None;
    }
    let (mut next_hop, mut source) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => next_hop = Some(address_in(address)?),
            RouteAttribute::PrefSource(address) => source = Some(address_in(address)?),
            RouteAttribute::Preference(RoutePreference::Medium)
            | RouteAttribute::Destination(_)
            | RouteAttribute::Oif(_)
            | RouteAttribute::Priority(_)
            | RouteAttribute::Table(_) => {}
            RouteAttribute::CacheInfo(info) if info.expires == 0 => {}
            _ => return None,
        }
    }
    let onlink = route.header.flags.contains(RouteFlags::Onlink);
    match (route.header.kind, next_hop) {
        (RouteType::BlackHole, None) if source.is_none() => Some(RouteKind::Blackhole),
        (RouteType::Unicast, Some(next_hop)) => {
            let link = names.get(&output(route)?)?.clone();
            by_link(link, onlink, next_hop, source)
        }
        _ => None,
    }
}

fn by_link(
    link: String,
    onlink: bool,
    next_hop: IpAddr,
    source: Option<IpAddr>,
) -> Option<RouteKind> {
    match TunnelKind::of_device(&link) {
        None => {
            let source = source.filter(|_| !onlink)?;
            Some(RouteKind::Direct { next_hop, link, source })
        }
        Some(kind) => {
            let is_own = onlink && kind.carries(next_hop);
            is_own.then_some(RouteKind::Tunnel { kind, next_hop, source })
        }
    }
}

fn address_in(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
