//! What the kernel has of the node's part in the cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use weir_common::network::{
    ANNOUNCE_TABLE, ActualState, ActualTunnel, ROUTE_PROTOCOL, RouteKind, TUNNEL_ALIAS, Underlay,
};
use weir_common::tunnel::TunnelKind;

use super::interface::LinksAndAddresses;
use super::route_message::{is_joined, is_of_cluster, next_hops, takes_the_place, way};
use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, destination, table_of};
use crate::occupied::{MAIN_TABLE, subnet};
use crate::{Kernel, sysctl};

impl Kernel {
    /// What `weir_common::network::diff` compares a plan with: the tunnel devices, Weir's
    /// routes of the main table except those to containers, what is announced, the destinations of other
    /// programs' routes, and which links have a strict reverse path filter. A link that has the
    /// name of a tunnel device and is of another kind counts as none.
    ///
    /// # Errors
    /// The kernel refuses a list, or `/proc/sys` cannot be read.
    pub async fn actual_state(&self) -> Result<ActualState, Error> {
        let links = self.links_and_addresses().await?;
        let routes = self.main_table(&links.links).await?;
        self.actual_state_with(&links, &routes).await
    }

    /// The same, with the links and routes that were listed already.
    pub(super) async fn actual_state_with(
        &self,
        links: &LinksAndAddresses,
        routes: &ListedTable,
    ) -> Result<ActualState, Error> {
        let tunnels = self.tunnels(links).await?;
        let devices = tunnels.keys().filter(|kind| !kind.row().is_ipv6);
        let devices: Vec<_> = devices.map(|kind| kind.device().to_owned()).collect();
        Ok(ActualState {
            tunnels,
            routes: routes.ways(),
            announced: self.announced(&links.links).await?.all_of_weir(),
            occupied: routes.occupied(),
            foreign_routes: routes
                .of_others(RouteType::Unicast)
                .map(|(range, route)| (range, next_hops(route)))
                .collect(),
            foreign_blackholes: routes
                .of_others(RouteType::BlackHole)
                .map(|(range, _)| range)
                .collect(),
            strict: strict(devices, links.underlay())?,
        })
    }

    /// The tunnel devices that there are.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn tunnel_devices(&self) -> Result<BTreeMap<TunnelKind, ActualTunnel>, Error> {
        self.tunnels(&self.links_and_addresses().await?).await
    }

    async fn tunnels(
        &self,
        links: &LinksAndAddresses,
    ) -> Result<BTreeMap<TunnelKind, ActualTunnel>, Error> {
        let mut tunnels = BTreeMap::new();
        for (kind, link) in tunnel_links(links) {
            let tunnel = ActualTunnel {
                claimed: link.alias.as_deref() == Some(TUNNEL_ALIAS),
                up: link.up,
                mtu: link.mtu,
                addresses: links.tunnel_addresses(link),
                vxlan: self.vxlan(kind, link, &links.links).await?,
            };
            tunnels.insert(kind, tunnel);
        }
        Ok(tunnels)
    }

    /// The main table, of both families.
    pub(super) async fn main_table(&self, links: &[Link]) -> Result<ListedTable, Error> {
        self.table(MAIN_TABLE, links).await
    }

    /// The table of what is announced, of both families.
    pub(super) async fn announced(&self, links: &[Link]) -> Result<ListedTable, Error> {
        self.table(ANNOUNCE_TABLE, links).await
    }

    async fn table(&self, number: u32, links: &[Link]) -> Result<ListedTable, Error> {
        let mut routes: BTreeMap<IpNet, Vec<RouteMessage>> = BTreeMap::new();
        for v6 in [false, true] {
            let mut filter = all_routes(v6);
            filter.attributes.push(RouteAttribute::Table(number));
            let listed = self.host.routes(filter).await?;
            // Looked at again: not every kernel filters as it is asked to.
            for route in listed.into_iter().filter(|route| table_of(route) == number) {
                routes.entry(destination(&route)).or_default().push(route);
            }
        }
        let names = links.iter().map(|link| (link.index, link.name.clone())).collect();
        Ok(ListedTable { routes, names })
    }
}

/// The routes of one table.
pub(super) struct ListedTable {
    /// By destination, in the kernel's order.
    routes: BTreeMap<IpNet, Vec<RouteMessage>>,
    names: HashMap<u32, String>,
}

impl ListedTable {
    /// The destinations of all of Weir's routes.
    pub(super) fn all_of_weir(&self) -> BTreeSet<IpNet> {
        let is_own = |route: &RouteMessage| route.header.protocol == ROUTE_PROTOCOL.into();
        let own = self.routes.iter().filter(|(_, routes)| routes.iter().any(is_own));
        own.map(|(range, _)| *range).collect()
    }

    /// The destinations of Weir's routes with the ways that they lead: `None`
    /// also where there are several.
    fn ways(&self) -> BTreeMap<IpNet, Option<RouteKind>> {
        let way = |&range: &IpNet| {
            let mut own = self.own(range);
            let way = self.way(own.next()?);
            Some((range, way.filter(|_| own.next().is_none())))
        };
        self.routes.keys().filter_map(way).collect()
    }

    /// The destinations at which other programs have what a route of Weir's
    /// would collide with.
    pub(super) fn occupied(&self) -> BTreeSet<IpNet> {
        let is_foreign = |route: &RouteMessage| {
            let own = route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
            is_joined(route) || (!own && takes_the_place(route))
        };
        let foreign = self.routes.iter().filter(|(_, routes)| routes.iter().any(is_foreign));
        foreign.map(|(range, _)| *range).collect()
    }

    /// The next hops of other programs' routes.
    pub(super) fn next_hops(&self) -> BTreeSet<IpAddr> {
        let own = RouteProtocol::Other(ROUTE_PROTOCOL);
        let others = self.routes.values().flatten().filter(|it| it.header.protocol != own);
        others.flat_map(next_hops).collect()
    }

    /// The first of other programs' routes of this type to each destination; neither
    /// default routes nor the kernel's own, for the subnets of links.
    fn of_others(&self, kind: RouteType) -> impl Iterator<Item = (IpNet, &RouteMessage)> {
        let is_others = move |route: &&RouteMessage| {
            let not = [RouteProtocol::Other(ROUTE_PROTOCOL), RouteProtocol::Kernel];
            route.header.kind == kind && !not.contains(&route.header.protocol)
        };
        let others = self.routes.iter().filter(|(range, _)| range.prefix_len() > 0);
        others.filter_map(move |(range, routes)| Some((*range, routes.iter().find(is_others)?)))
    }

    /// The first of this protocol's routes to each destination.
    pub(super) fn of_protocol(
        &self,
        protocol: RouteProtocol,
    ) -> impl Iterator<Item = (IpNet, &RouteMessage)> {
        let is_of = move |route: &&RouteMessage| route.header.protocol == protocol;
        self.routes
            .iter()
            .filter_map(move |(range, routes)| Some((*range, routes.iter().find(is_of)?)))
    }

    /// Weir's routes, those of containers aside, that lead to `range`.
    pub(super) fn own(&self, range: IpNet) -> impl Iterator<Item = &RouteMessage> {
        self.to(range).iter().filter(|route| is_of_cluster(route))
    }

    /// The routes to `range`, whoever's, of which the kernel holds one.
    pub(super) fn in_place_of(&self, range: IpNet) -> Vec<&RouteMessage> {
        self.to(range).iter().filter(|route| takes_the_place(route)).collect()
    }

    /// The way that a route leads, if it is exactly as Weir would make it.
    pub(super) fn way(&self, route: &RouteMessage) -> Option<RouteKind> {
        way(route, &self.names)
    }

    fn to(&self, range: IpNet) -> &[RouteMessage] {
        self.routes.get(&range).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The links that are tunnel devices.
pub(super) fn tunnel_links(links: &LinksAndAddresses) -> impl Iterator<Item = (TunnelKind, &Link)> {
    links.links.iter().filter_map(|link| {
        let kind = TunnelKind::of_device(&link.name)?;
        (link.kind.as_deref() == Some(kind.row().link_kind)).then_some((kind, link))
    })
}

impl LinksAndAddresses {
    /// The addresses of a tunnel device, without those that the kernel itself gives every link.
    pub(super) fn tunnel_addresses(&self, link: &Link) -> BTreeSet<IpNet> {
        let of_device = self.addresses.iter().filter(|it| it.header.index == link.index);
        let of_kernel = |address: &IpNet| match address {
            IpNet::V4(_) => false,
            IpNet::V6(address) => address.addr().is_unicast_link_local(),
        };
        of_device.filter_map(subnet).filter(|address| !of_kernel(address)).collect()
    }
}

/// The links whose reverse path filter is strict: of the value for all links
/// and its own the greater one counts (`Documentation/networking/ip-sysctl.rst`).
fn strict(tunnels: Vec<String>, underlay: Underlay) -> Result<BTreeSet<String>, Error> {
    let all = reverse_path_filter("all")?;
    let names = underlay.links.into_iter().map(|link| link.name).chain(tunnels);
    let mut strict = BTreeSet::new();
    for name in names {
        if all.max(reverse_path_filter(&name)?) == Some(1) {
            strict.insert(name);
        }
    }
    Ok(strict)
}

/// A link's value; none for a link that has gone meanwhile.
fn reverse_path_filter(link: &str) -> Result<Option<u8>, Error> {
    let key = format!("net/ipv4/conf/{link}/rp_filter");
    match sysctl::read(&key) {
        Ok(value) => Ok(value.parse().ok()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::refused(format!("sysctl {key}"), cause)),
    }
}
