//! Which addresses a node uses already.

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};

use weir_common::network::ROUTE_PROTOCOL;
use weir_common::resources::is_link_local;
use weir_common::tunnel::TunnelKind;

use crate::Kernel;
use crate::error::Error;
use crate::link::Link;
use crate::message::{all_routes, destination, output, table_of};

/// The kernel's main routing table, as an attribute of a route has it.
pub(crate) const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Addresses that a node has, or has a route to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// The addresses: of an interface's address its whole subnet.
    pub range: IpNet,
    /// What they are, for messages (`address 172.16.1.11/24 of eth0`).
    pub what: String,
    /// Whether it is an address of the node, and not a route.
    pub is_address: bool,
    /// Whether Weir put it there.
    pub by_weir: bool,
}

impl Kernel {
    /// The ranges that the node's own addresses and the routes in its main
    /// table take up. Default routes, and the kernel's own routes to multicast
    /// and link-local ranges, take up nothing.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn occupied(&self) -> Result<Vec<Occupied>, Error> {
        let links = self.host.links().await?;
        let name = |index: u32| {
            let link = links.iter().find(|link: &&Link| link.index == index);
            link.map_or_else(|| format!("link number {index}"), |link| link.name.clone())
        };
        let mut occupied = Vec::new();
        for message in self.all_addresses().await? {
            if let Some(address) = subnet(&message) {
                let link = name(message.header.index);
                let by_weir = TunnelKind::of_device(&link).is_some();
                let what = format!("address {address} of {link}");
                let range = address.trunc();
                occupied.push(Occupied { range, what, is_address: true, by_weir });
            }
        }
        for v6 in [false, true] {
            for route in self.host.routes(all_routes(v6)).await? {
                if takes_up(&route) {
                    let range = destination(&route);
                    let by = output(&route).map(name).unwrap_or_else(|| "no link".to_owned());
                    let what = format!("route {range} by {by}");
                    // The kernel makes a route to the address of IPv6 that a tunnel device has.
                    let by_weir = route.header.protocol == ROUTE_PROTOCOL.into()
                        || TunnelKind::of_device(&by).is_some();
                    occupied.push(Occupied { range, what, is_address: false, by_weir });
                }
            }
        }
        Ok(occupied)
    }

    pub(crate) async fn all_addresses(&self) -> Result<Vec<AddressMessage>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listing = self
            .host
            .dump(request)
            .await
            .map_err(|cause| Error::refused("ip address show", cause))?;
        let address = |message| match message {
            RouteNetlinkMessage::NewAddress(address) => Some(address),
            _ => None,
        };
        Ok(listing.into_iter().filter_map(address).collect())
    }
}

/// The address with its prefix length: of a point-to-point link its own end.
pub(crate) fn subnet(message: &AddressMessage) -> Option<IpNet> {
    let find = |wanted: fn(&AddressAttribute) -> Option<std::net::IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}

/// Whether a pool must not overlap the route's destination.
fn takes_up(route: &RouteMessage) -> bool {
    let range = destination(route);
    let address = range.addr();
    let of_kernel = route.header.protocol == RouteProtocol::Kernel;
    table_of(route) == MAIN_TABLE
        && range.prefix_len() > 0
        && route.header.kind != RouteType::Multicast
        && !address.is_multicast()
        && !(of_kernel && is_link_local(range))
}
