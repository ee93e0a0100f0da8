//! The node's routes to its containers.

use std::net::IpAddr;

use crate::network::route::{Route, RouteScope, SourceAddresses};

/// The metric of the second route to an IPv4 address: any that comes after the first one's 0.
const FALLBACK_METRIC: u32 = 1;

/// The node's routes to a container's `address`, by which the node sends from its own one among
/// `sources`.
///
/// The kernel deletes every IPv4 route whose source the node loses (`net/ipv4/fib_semantics.c`,
/// fib_sync_down_addr), and of an IPv6 route only the source. So there is a second IPv4 route
/// without source, and the container can be reached all the time. A route without source has
/// the global scope: with a narrower one the kernel would send from the host end's own address
/// (`AttachmentIdentity::arp_source`).
pub(super) fn routes_to(address: IpAddr, sources: SourceAddresses) -> Vec<Route> {
    let on_link = Route::on_link(address.into());
    let plain = Route { scope: RouteScope::UNIVERSE, ..on_link.clone() };
    match (sources.of_family(address), address) {
        (None, _) => vec![plain],
        (source, IpAddr::V6(_)) => vec![Route { source, ..on_link }],
        (source, IpAddr::V4(_)) => {
            let fallback = Route { priority: Some(FALLBACK_METRIC), ..plain };
            vec![Route { source, ..on_link }, fallback]
        }
    }
}

/// Whether `found` does what one of [`routes_to`] is for.
pub(super) fn serves(found: &Route, wanted: &Route) -> bool {
    let metric = |route: &Route| route.priority.unwrap_or_default();
    // A source that nobody knows of any more does no harm.
    let is_of_scope =
        wanted.scope == found.scope || wanted.source.is_none() && found.source.is_some();
    wanted.destination == found.destination
        && (wanted.destination.addr().is_ipv6() || metric(wanted) == metric(found) && is_of_scope)
        && (wanted.source.is_none() || wanted.source == found.source)
}
