//! The routes of a container: its next hops, and what lies behind them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::identity::GATEWAY_V6;
use super::plan::{Attachment, GATEWAY_V4};
use crate::network::route::{Route, RouteScope};

/// The main routing table.
const MAIN_TABLE: u32 = 254;

/// The metric that the kernel gives an IPv6 route without one
/// (`linux/ipv6_route.h`, `IP6_RT_PRIO_USER`); an IPv4 route has 0 then.
const DEFAULT_METRIC_V6: u32 = 1024;

impl Attachment {
    /// The same beside these routes of the container by its other interfaces. The
    /// kernel takes one route for each destination, metric and table, by whatever
    /// interface (`net/ipv4/fib_trie.c`, fib_table_insert; `net/ipv6/ip6_fib.c`,
    /// fib6_add_rt2node): a route of this attachment that meets one of them gets the
    /// next metric that is free. So the interface that came first keeps the traffic,
    /// and this one's routes are for who is bound to it and for plugins that route
    /// by source (sbr). A metric that was asked for stays as it is.
    pub fn beside(self, others: Vec<Route>) -> Self {
        Self { others, ..self }
    }

    /// The gateway of an address, for the result of ADD: the one that the IPAM
    /// plugin `named` if the host's end answers for it, else the next hop of the
    /// container's routes.
    pub fn gateway(&self, address: IpAddr, named: Option<IpAddr>) -> IpAddr {
        let named = named.filter(|named| self.request.gateways.contains(named));
        named.unwrap_or_else(|| self.next_hop(address.is_ipv6()))
    }

    /// The next hop of the container's routes of a family: the first gateway that the
    /// IPAM plugin names, so that a later plugin that routes through it (sbr) makes the
    /// same routes; else Weir's own.
    fn next_hop(&self, v6: bool) -> IpAddr {
        let mut gateways = self.request.gateways.iter().copied();
        let own = if v6 { GATEWAY_V6.into() } else { GATEWAY_V4.into() };
        gateways.find(|gateway| gateway.is_ipv6() == v6).unwrap_or(own)
    }

    /// The routes of the container by its interface, in the order in which the
    /// kernel takes them: the next hops themselves, then what lies behind. (An IPv6
    /// next hop of Weir's is on the link as it is.)
    pub fn container_routes(&self) -> Vec<Route> {
        let behind = |v6| self.routes_behind(self.next_hop(v6));
        let v4 = if self.has_v4() { behind(false) } else { Vec::new() };
        let v6 = if self.has_v6() { behind(true) } else { Vec::new() };
        let own = v4.iter().any(|route| route.gateway == Some(GATEWAY_V4.into()));
        let own = own.then_some(IpAddr::V4(GATEWAY_V4));
        let next_hops = own.into_iter().chain(self.request.gateways.iter().copied());
        let next_hops = next_hops.map(|address| Route::on_link(address.into()));
        let routes = next_hops.chain(v4).chain(v6);
        routes.map(|route| with_free_metric(route, &self.others)).collect()
    }

    /// The route by which the container answers the node's ARP requests, whatever it filters.
    pub(super) fn arp_source_route(&self) -> Option<Route> {
        let source = IpAddr::V4(self.identity().arp_source());
        self.has_v4().then(|| Route::on_link(source.into()))
    }

    fn routes_behind(&self, gateway: IpAddr) -> Vec<Route> {
        let mut routes: Vec<Route> = self
            .request
            .routes
            .iter()
            .filter(|route| route.destination.addr().is_ipv4() == gateway.is_ipv4())
            .map(|route| {
                let destination = route.destination.trunc();
                let scope = RouteScope(route.scope.unwrap_or_default());
                let is_near = scope >= RouteScope::LINK;
                let plain = if is_near {
                    Route::on_link(destination)
                } else {
                    Route::via(destination, gateway)
                };
                Route {
                    scope,
                    mtu: route.mtu,
                    advmss: route.advmss,
                    priority: route.priority,
                    table: route.table,
                    ..plain
                }
            })
            .collect();
        let in_main_table =
            |route: &Route| route.table.is_none() || route.table == Some(MAIN_TABLE);
        let has_default =
            routes.iter().any(|route| route.destination.prefix_len() == 0 && in_main_table(route));
        if self.request.default_routes && !has_default {
            routes.push(Route::via(everything(gateway), gateway));
        }
        routes
    }
}

/// Where the kernel keeps a route: no two in one namespace may agree in this.
fn place(route: &Route) -> (IpNet, u32, u32) {
    let metric = match (route.priority, route.destination) {
        (None | Some(0), IpNet::V6(_)) => DEFAULT_METRIC_V6,
        (metric, _) => metric.unwrap_or_default(),
    };
    (route.destination, route.table.unwrap_or(MAIN_TABLE), metric)
}

/// The same route, with the next metric at which none of `others` is in its place.
fn with_free_metric(route: Route, others: &[Route]) -> Route {
    let taken = |route: &Route| others.iter().any(|other| place(other) == place(route));
    if route.priority.is_some() || !taken(&route) {
        return route;
    }
    let (_, _, metric) = place(&route);
    let with = |metric| Route { priority: Some(metric), ..route.clone() };
    (metric + 1..).map(with).find(|route| !taken(route)).unwrap_or(route)
}

fn everything(family_of: IpAddr) -> IpNet {
    match family_of {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::identity::AttachmentIdentity;
    use super::super::mtu::Mtu;
    use super::super::plan::{AttachmentRequest, RequestedRoute};
    use super::*;
    use crate::link::SourceCheck;

    fn attachment(addresses: &[&str], gateways: &[&str], metric: Option<u32>) -> Attachment {
        let route = RequestedRoute {
            destination: "192.0.2.0/24".parse().unwrap(),
            mtu: None,
            advmss: None,
            priority: metric,
            table: None,
            scope: None,
            has_next_hop: false,
        };
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Attachment::new(AttachmentRequest {
            identity: AttachmentIdentity::new("net", "container", "net1").unwrap(),
            addresses: parse(addresses),
            mtu: Mtu::configured(1500),
            mac: None,
            allow_ip_forwarding: Some(false),
            source_check: SourceCheck::Strict,
            allowed_sources: Default::default(),
            routes: vec![route],
            default_routes: true,
            gateways: parse(gateways),
        })
        .unwrap()
    }

    /// As the kernel lists them.
    fn listed(routes: Vec<Route>) -> Vec<Route> {
        let listed = |route: Route| {
            let (_, table, metric) = place(&route);
            Route { table: Some(table), priority: (metric > 0).then_some(metric), ..route }
        };
        routes.into_iter().map(listed).collect()
    }

    fn texts(attachment: &Attachment) -> Vec<String> {
        attachment.container_routes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_later_interface_comes_second() {
        let both = ["10.0.0.1", "fd00::1"];
        let first = listed(attachment(&both, &[], None).container_routes());
        let second = attachment(&both, &[], None).beside(first.clone());
        let expected = [
            "169.254.1.1/32 scope link metric 1",
            "192.0.2.0/24 via 169.254.1.1 metric 1",
            "default via 169.254.1.1 metric 1",
            "default via fe80::ecee:eeff:feee:eeee metric 1025",
        ];
        assert_eq!(texts(&second), expected);
        let others = [first.clone(), listed(second.container_routes())].concat();
        assert!(
            texts(&second.beside(others))
                .iter()
                .all(|route| { route.ends_with(" metric 2") || route.ends_with(" metric 1026") })
        );
        // The metric asked for is the user's: the kernel will refuse it.
        let asked = attachment(&["10.0.0.1"], &[], Some(7));
        let others = listed(asked.container_routes());
        assert_eq!(texts(&asked.beside(others))[1], "192.0.2.0/24 via 169.254.1.1 metric 7");
    }

    #[test]
    fn the_ipam_plugins_gateways_take_the_place_of_the_own() {
        let named = [
            "0.0.0.0",
            "169.254.1.1",
            "10.0.0.1",
            "10.0.0.254",
            "10.0.0.254",
            "10.1.0.254",
            "fd00::ff",
        ];
        let attachment = attachment(&["10.0.0.1"], &named, None);
        let expected = [
            "10.0.0.254/32 scope link",
            "10.1.0.254/32 scope link",
            "192.0.2.0/24 via 10.0.0.254",
            "default via 10.0.0.254",
        ];
        assert_eq!(texts(&attachment), expected);
        let address = "10.0.0.1".parse().unwrap();
        let gateway = |named: &str| attachment.gateway(address, Some(named.parse().unwrap()));
        assert_eq!(gateway("10.1.0.254"), IpAddr::from([10, 1, 0, 254]));
        for not_on_the_link in ["0.0.0.0", "10.0.0.1", "fd00::ff", "10.0.0.253"] {
            assert_eq!(
                gateway(not_on_the_link),
                IpAddr::from([10, 0, 0, 254]),
                "{not_on_the_link}"
            );
        }
        assert_eq!(attachment.gateway("fd00::1".parse().unwrap(), None), GATEWAY_V6);
    }

    proptest! {
        /// Whatever the other interfaces have, the kernel takes every route, and the
        /// more attachments there are the less a route is preferred.
        #[test]
        fn no_route_meets_another(
            dual in prop::collection::vec(any::<bool>(), 1..6),
            metrics in prop::collection::vec(prop::option::of(0u32..4), 0..4),
        ) {
            let destination: IpNet = "0.0.0.0/0".parse().unwrap();
            let foreign = metrics.into_iter().map(|priority| {
                Route { priority, ..Route::via(destination, IpAddr::from([192, 0, 2, 1])) }
            });
            let mut others = listed(foreign.collect());
            for dual in dual {
                let addresses = if dual { &["10.0.0.1", "fd00::1"][..] } else { &["10.0.0.1"] };
                let attachment = attachment(addresses, &["10.0.0.254"], None);
                let plain = attachment.container_routes();
                let routes = listed(attachment.beside(others.clone()).container_routes());
                let taken: BTreeSet<_> = others.iter().map(place).collect();
                for (route, plain) in routes.iter().zip(&plain) {
                    prop_assert!(!taken.contains(&place(route)), "{route}");
                    let same = Route { priority: plain.priority, table: plain.table, ..route.clone() };
                    prop_assert_eq!(&same, plain);
                }
                others.extend(routes);
            }
        }
    }
}
