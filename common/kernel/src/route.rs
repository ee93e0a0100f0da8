//! Routes, addresses and neighbours.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope as KernelScope, RouteType,
};
use nix::errno::Errno;
use weir_common::link::MacAddress;
use weir_common::network::{ROUTE_PROTOCOL, Route, RouteScope, Side, Step};

use crate::Kernel;
use crate::cluster::{METRIC_V6, is_of_cluster, replaceable};
use crate::error::Error;
use crate::link::is;
use crate::message::{all_routes, destination, output, table_of};
use crate::netlink::{Netlink, into_io};
use crate::occupied::{MAIN_TABLE, subnet};
use crate::remove::is_own_by;

/// Whether a listing failed because there can be nothing: no IPv6 in the kernel,
/// a routing table that was never used, or a link that is gone by now.
pub(crate) fn nothing_there(cause: &io::Error) -> bool {
    [Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT, Errno::ENOENT, Errno::ENODEV]
        .into_iter()
        .any(|errno| is(cause, errno))
}

impl Netlink {
    /// The routes of one family that `filter` lets through. Without IPv6 in the
    /// kernel there are none of that family: asked for them, it lists those of all others
    /// (`rtnl_dump_all` in `net/core/rtnetlink.c`).
    pub(crate) async fn routes(&self, filter: RouteMessage) -> Result<Vec<RouteMessage>, Error> {
        let family = filter.header.address_family;
        let listing = match self.dump(RouteNetlinkMessage::GetRoute(filter)).await {
            Err(cause) if nothing_there(&cause) => Vec::new(),
            outcome => outcome.map_err(|cause| Error::refused("ip route show", cause))?,
        };
        let routes = listing.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(routes.filter(|route| route.header.address_family == family).collect())
    }

    /// The neighbours by a link that are entered permanently.
    pub(crate) async fn permanent_neighbours(
        &self,
        index: u32,
    ) -> Result<Vec<(IpAddr, MacAddress)>, Error> {
        let mut request = NeighbourMessage::default();
        request.attributes.push(NeighbourAttribute::IfIndex(index));
        let listing = match self.dump(RouteNetlinkMessage::GetNeighbour(request)).await {
            Err(cause) if nothing_there(&cause) => Vec::new(),
            outcome => outcome.map_err(|cause| Error::refused("ip neighbour show", cause))?,
        };
        let neighbours = listing.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(neighbour) => permanent(&neighbour, index),
            _ => None,
        });
        Ok(neighbours.collect())
    }

    /// Deletes a route as it was listed; one that is gone is not an error.
    pub(crate) async fn delete_route(&self, route: RouteMessage) -> Result<(), Error> {
        let action = format!("ip route delete {}", destination(&route));
        match self.handle().route().del(route).execute().await.map_err(into_io) {
            Err(cause) if !is(&cause, Errno::ESRCH) && !is(&cause, Errno::ENODEV) => {
                Err(Error::refused(action, cause))
            }
            _ => Ok(()),
        }
    }

    /// Puts back what [`Kernel::add_route`] returned, unless another route has the
    /// place by now.
    pub(crate) async fn put_back(&self, route: &RouteMessage) -> Result<(), Error> {
        let mut route = route.clone();
        // The others say what the link is like, and are not taken.
        route.header.flags &= RouteFlags::Onlink;
        let action = format!("ip route add {}", destination(&route));
        match self.handle().route().add(route).execute().await.map_err(into_io) {
            Err(cause) if !is(&cause, Errno::EEXIST) => Err(Error::refused(action, cause)),
            _ => Ok(()),
        }
    }

    /// Who has a route: its link's name and alias, else its type. Without a
    /// route, because it has gone meanwhile, it was a link's that is gone.
    pub(crate) async fn owner(&self, route: Option<&RouteMessage>) -> Result<String, Error> {
        let Some(route) = route else {
            return Ok("a link that is gone by now".to_owned());
        };
        let Some(index) = output(route) else {
            return Ok(format!("a route of type {:?}", route.header.kind).to_lowercase());
        };
        Ok(match self.link_by_index(index).await? {
            Some(link) => match link.alias {
                Some(alias) => format!("link {} (alias {alias:?})", link.name),
                None => format!("link {}", link.name),
            },
            None => format!("link number {index}"),
        })
    }

    /// The addresses of the link of that number.
    pub(crate) async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, Error> {
        let mut filter = AddressMessage::default();
        filter.header.index = index;
        let listing = self
            .dump(RouteNetlinkMessage::GetAddress(filter))
            .await
            .map_err(|cause| Error::refused("ip address show", cause))?;
        let address = |message| match message {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
                subnet(&message).map(|subnet| subnet.addr())
            }
            _ => None,
        };
        Ok(listing.into_iter().filter_map(address).collect())
    }
}

impl Kernel {
    pub(crate) async fn add_address(
        &self,
        step: &Step,
        side: Side,
        index: u32,
        (address, scope): (IpNet, RouteScope),
    ) -> Result<(), Error> {
        let mut request =
            self.netlink(side)?.handle().address().add(index, address.addr(), address.prefix_len());
        let message = request.message_mut();
        // Usable at once: nobody else on a veth could have it.
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.header.scope = AddressScope::from(scope.0);
        // The library gives a single address itself as broadcast address.
        message.attributes.retain(|it| !matches!(it, AddressAttribute::Broadcast(_)));
        request.execute().await.map_err(|error| Error::refused(step, into_io(error)))
    }

    pub(crate) async fn add_neighbour(
        &self,
        step: &Step,
        (side, index): (Side, u32),
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), Error> {
        let request = self.netlink(side)?.handle().neighbours().add(index, address);
        let outcome = request.link_layer_address(&mac.0).execute().await;
        outcome.map_err(|error| Error::refused(step, into_io(error)))
    }

    /// Adds a route; without its source where the node has that address no more. On the node,
    /// a route of the cluster to the same destination is a stale one, of when another node had
    /// the address: it makes room, and is returned for [`Netlink::put_back`]. A route of
    /// Weir's by the same link is replaced.
    pub(crate) async fn add_route(
        &self,
        step: &Step,
        (side, index): (Side, u32),
        route: &Route,
    ) -> Result<Option<RouteMessage>, Error> {
        let netlink = self.netlink(side)?;
        let mut route = Cow::Borrowed(route);
        let add = |route: &Route| netlink.handle().route().add(message(route, index));
        let mut outcome = add(&route).execute().await.map_err(into_io);
        if route.source.is_some() && outcome.as_ref().is_err_and(|cause| is(cause, Errno::EINVAL)) {
            route.to_mut().source = None;
            outcome = add(&route).execute().await.map_err(into_io);
        }
        match outcome {
            Err(cause) if is(&cause, Errno::EEXIST) => {}
            outcome => {
                return outcome.map(|()| None).map_err(|cause| Error::refused(step, cause));
            }
        }
        let others = routes_to(netlink, &route).await?;
        let is_own = |other: &RouteMessage| is_own_by(other, index) && !is_of_cluster(other);
        let stale = replaceable(&others);
        let in_place = others.iter().find(|other| is_of_metric(other, &route));
        if side == Side::Host && (stale.is_some() || in_place.is_some_and(is_own)) {
            let replaced = add(&route).replace().execute().await;
            return replaced
                .map(|()| stale.cloned())
                .map_err(|error| Error::refused(step, into_io(error)));
        }
        Err(Error::RouteExists {
            action: step.to_string(),
            destination: route.destination.to_string(),
            owner: netlink.owner(others.first()).await?,
        })
    }
}

/// The routes to the destination of `route` in its table, in the kernel's order.
async fn routes_to(netlink: &Netlink, route: &Route) -> Result<Vec<RouteMessage>, Error> {
    let mut routes = netlink.routes(all_routes(route.destination.addr().is_ipv6())).await?;
    let table = route.table.unwrap_or(MAIN_TABLE);
    routes.retain(|other| destination(other) == route.destination && table_of(other) == table);
    Ok(routes)
}

/// Whether the kernel would take a route to the same destination for `route` itself.
fn is_of_metric(other: &RouteMessage, route: &Route) -> bool {
    let usual = if route.destination.addr().is_ipv6() { METRIC_V6 } else { 0 };
    let metric = in_plan_terms(other).and_then(|other| other.priority);
    metric.unwrap_or(usual) == route.priority.unwrap_or(usual) && other.header.tos == 0
}

/// The same in Weir's terms; `None` for what Weir never makes (blackholes,
/// local and multicast routes).
pub(crate) fn in_plan_terms(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        scope: RouteScope(message.header.scope.into()),
        table: Some(table_of(message)),
        ..Route::on_link(destination(message))
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                route.gateway = Some((*address).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                route.gateway = Some((*address).into());
            }
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                route.source = Some((*address).into());
            }
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => {
                route.source = Some((*address).into());
            }
            RouteAttribute::Priority(priority) => route.priority = Some(*priority),
            RouteAttribute::Metrics(metrics) => read_metrics(&mut route, metrics),
            _ => {}
        }
    }
    Some(route)
}

fn read_metrics(route: &mut Route, metrics: &[RouteMetric]) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => route.advmss = Some(*advmss),
            _ => {}
        }
    }
}

fn message(route: &Route, index: u32) -> RouteMessage {
    let mut message = all_routes(route.destination.addr().is_ipv6());
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = KernelScope::from(route.scope.0);
    message.header.destination_prefix_length = route.destination.prefix_len();
    let table = route.table.unwrap_or(MAIN_TABLE);
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    let metrics: Vec<RouteMetric> =
        [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
            .into_iter()
            .flatten()
            .collect();
    message.attributes = [
        Some(RouteAttribute::Destination(route.destination.addr().into())),
        Some(RouteAttribute::Oif(index)),
        Some(RouteAttribute::Table(table)),
        route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())),
        route.source.map(|source| RouteAttribute::PrefSource(source.into())),
        route.priority.map(RouteAttribute::Priority),
        (!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)),
    ]
    .into_iter()
    .flatten()
    .collect();
    message
}

/// A neighbour's addresses, if it is entered permanently on this link.
fn permanent(message: &NeighbourMessage, index: u32) -> Option<(IpAddr, MacAddress)> {
    let is_meant =
        message.header.ifindex == index && message.header.state == NeighbourState::Permanent;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(IpAddr::V4(*address))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some(IpAddr::V6(*address))
        }
        _ => None,
    });
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok().map(MacAddress),
        _ => None,
    });
    Some((address.filter(|_| is_meant)?, mac?))
}

/// What an I/O error of a route lookup means: no route, or a failure.
pub(crate) fn is_unreachable(cause: &io::Error) -> bool {
    [
        Errno::ENETUNREACH,
        Errno::EHOSTUNREACH,
        Errno::EINVAL,
        Errno::EACCES,
        Errno::EOPNOTSUPP,
        Errno::EAFNOSUPPORT,
    ]
    .into_iter()
    .any(|errno| is(cause, errno))
}
