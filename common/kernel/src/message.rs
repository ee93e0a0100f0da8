//! Route messages of the kernel: filters for a dump, and what one says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

/// A filter that lets every route of a family through.
pub(crate) fn all_routes(v6: bool) -> RouteMessage {
    let mut filter = RouteMessage::default();
    filter.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    filter
}

/// A filter for the routes of a family by the link of that number.
pub(crate) fn routes_by(v6: bool, index: u32) -> RouteMessage {
    let mut filter = all_routes(v6);
    filter.attributes.push(RouteAttribute::Oif(index));
    filter
}

pub(crate) fn destination(message: &RouteMessage) -> IpNet {
    let everything: IpAddr = match message.header.address_family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let address = address.unwrap_or(everything);
    IpNet::new(address, message.header.destination_prefix_length).unwrap_or(address.into())
}

/// The address, if a route is to one only.
pub(crate) fn single_address(message: &RouteMessage) -> Option<IpAddr> {
    let range = destination(message);
    (range.prefix_len() == range.max_prefix_len()).then(|| range.addr())
}

pub(crate) fn table_of(message: &RouteMessage) -> u32 {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(message.header.table.into())
}

/// The number of the link that a route goes by: its own, or its first next
/// hop's.
pub(crate) fn output(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}
