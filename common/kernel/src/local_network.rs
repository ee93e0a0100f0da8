//! The network around the node: which addresses are in use there.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{RouteMessage, RouteType};
use weir_common::ipam::{LocalNetwork, Reserved};
use weir_common::network::{ClusterState, addresses_of_nodes};
use weir_common::resources::is_link_local;

use crate::Kernel;
use crate::cluster::next_hops;
use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, destination, output};
use crate::occupied::subnet;

impl Kernel {
    /// Whether the node's routes know any of these addresses as one that may be in use: it is
    /// local, a link reaches it without a next hop, or it is the next hop itself. One lookup
    /// each and no listing.
    ///
    /// # Errors
    /// The kernel refuses a lookup.
    pub async fn may_be_in_use(&self, addresses: &[IpAddr]) -> Result<bool, Error> {
        for &address in addresses {
            let route = self.route_towards(address, true).await?;
            if route.is_some_and(|route| knows(&route, address)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is reserved around `node`, where `state` has the other nodes. As costly as
    /// [`Kernel::local_network`].
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn reserved_around(
        &self,
        node: &str,
        state: &ClusterState,
    ) -> Result<Vec<Reserved>, Error> {
        Ok(self.local_network().await?.reserved(&addresses_of_nodes(node, state)))
    }

    /// The addresses around the node. Lists all links, addresses and routes.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn local_network(&self) -> Result<LocalNetwork, Error> {
        let links: HashMap<u32, Link> =
            self.host.links().await?.into_iter().map(|link| (link.index, link)).collect();
        let name = |index: u32| {
            let link = links.get(&index);
            link.map_or_else(|| format!("number {index}"), |link| link.name.clone())
        };
        let mut network = LocalNetwork::default();
        for message in self.all_addresses().await? {
            let own = subnet(&message).map(|own| own.addr().into());
            network.own.extend(own.map(|own| (own, name(message.header.index))));
        }
        let mut own: HashSet<IpNet> = network.own.iter().map(|(own, _)| *own).collect();
        for v6 in [false, true] {
            for route in self.host.routes(all_routes(v6)).await? {
                let (range, link) = (destination(&route), output(&route));
                let link_name = || link.map_or_else(|| "none".to_owned(), name);
                let hops = next_hops(&route);
                match route.header.kind {
                    RouteType::Local | RouteType::Anycast if own.insert(range) => {
                        network.own.push((range, link_name()));
                    }
                    RouteType::Broadcast => drop(network.broadcast.insert(range.addr())),
                    RouteType::Unicast if !hops.is_empty() => {
                        network.next_hops.extend(hops.into_iter().map(|hop| (hop, link_name())));
                    }
                    RouteType::Unicast if range.prefix_len() == range.max_prefix_len() => {
                        network.reached.push((range.addr(), link_name()));
                    }
                    RouteType::Unicast if range.prefix_len() > 0 && !is_link_local(range) => {
                        network.connected.insert(range);
                    }
                    _ => {}
                }
            }
        }
        Ok(network)
    }
}

/// Whether a route to `address` says that somebody may have it.
fn knows(route: &RouteMessage, address: IpAddr) -> bool {
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => true,
        RouteType::Unicast => {
            let hops = next_hops(route);
            // A default route without next hops leads anywhere.
            let is_connected = hops.is_empty() && route.header.destination_prefix_length > 0;
            is_connected || hops.contains(&address)
        }
        _ => false,
    }
}
