//! Devices of VXLAN: what they are made with, and the entries in their tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::link::{InfoVxlan, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};
use weir_common::link::MacAddress;
use weir_common::network::{ActualVxlan, Side, VxlanDevice};
use weir_common::tunnel::TunnelKind;

use crate::Kernel;
use crate::error::Error;
use crate::link::Link;
use crate::netlink::Netlink;
use crate::route::nothing_there;

/// The state of what nobody but a program changes (`NUD_PERMANENT`, `linux/neighbour.h`).
const PERMANENT: u16 = 0x80;

impl Kernel {
    /// What a tunnel device has of VXLAN; none for one of another kind.
    pub(super) async fn vxlan(
        &self,
        kind: TunnelKind,
        link: &Link,
        links: &[Link],
    ) -> Result<Option<ActualVxlan>, Error> {
        let Some(infos) = link.vxlan.as_ref().filter(|_| kind.row().frames().is_some()) else {
            return Ok(None);
        };
        let neighbours = self.host.permanent_neighbours(link.index).await?.into_iter();
        Ok(Some(ActualVxlan {
            device: device(link, infos, links),
            neighbours: neighbours.filter(|(address, _)| kind.carries(*address)).collect(),
            forwarding: self.host.forwarding(link.index).await?,
        }))
    }

    /// The request that makes a device of VXLAN. Of checksums it says nothing: the kernel's own
    /// choice is to send them, over IPv6 too, where they are not optional (RFC 8200, section 8.1).
    pub(super) fn vxlan_request(
        &self,
        kind: TunnelKind,
        device: &VxlanDevice,
    ) -> Result<LinkMessage, Error> {
        let VxlanDevice { vni, port, local, parent, mac, is_learning } = device;
        let builder = LinkMessageBuilder::<LinkVxlan>::new(kind.device())
            .id(*vni)
            .port(*port)
            .learning(*is_learning)
            .address(mac.0.to_vec());
        let builder = match local {
            IpAddr::V4(local) => builder.local(*local),
            IpAddr::V6(local) => builder.local6(*local),
        };
        Ok(match parent {
            Some(parent) => builder.dev(self.index(Side::Host, parent)?).build(),
            None => builder.build(),
        })
    }

    /// Another device of VXLAN than that of `kind`, for the same family, that has this port and
    /// network identifier; without one, that is up and so takes packets on this port.
    pub(super) async fn vxlan_holder(
        &self,
        kind: TunnelKind,
        port: u16,
        vni: Option<u32>,
    ) -> Result<Option<String>, Error> {
        let has = |link: &Link| {
            link.vxlan.as_ref().is_some_and(|infos| {
                link.name != kind.device()
                    && port_of(infos) == port
                    && vni.map_or(link.up, |vni| vni_of(infos) == vni)
                    && is_of_family(infos, kind.row().is_ipv6)
            })
        };
        Ok(self.host.links().await?.into_iter().find(has).map(|link| link.name))
    }
}

impl Netlink {
    /// The permanent forwarding entries of the device of that number: which hardware address is
    /// behind which node. What has another port or network identifier than the device is left
    /// out: it leads elsewhere.
    async fn forwarding(&self, index: u32) -> Result<BTreeSet<(MacAddress, IpAddr)>, Error> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        request.header.ifindex = index;
        let listing = match self.dump(RouteNetlinkMessage::GetNeighbour(request)).await {
            Err(cause) if nothing_there(&cause) => Vec::new(),
            outcome => outcome.map_err(|cause| Error::refused("bridge fdb show", cause))?,
        };
        let entries = listing.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(entry) => forwarding(&entry, index),
            _ => None,
        });
        Ok(entries.collect())
    }
}

/// What a listed device was made with. An address that it lacks is the unspecified one, which no
/// plan has.
fn device(link: &Link, infos: &[InfoVxlan], links: &[Link]) -> VxlanDevice {
    let parent = infos.iter().find_map(|info| match info {
        InfoVxlan::Link(index) => Some(*index),
        _ => None,
    });
    let parent = parent.and_then(|index| links.iter().find(|link| link.index == index));
    let local = infos.iter().find_map(|info| match info {
        InfoVxlan::Local(address) => Some((*address).into()),
        InfoVxlan::Local6(address) => Some((*address).into()),
        _ => None,
    });
    VxlanDevice {
        vni: vni_of(infos),
        port: port_of(infos),
        local: local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        parent: parent.map(|link| link.name.clone()),
        mac: link.mac.unwrap_or(MacAddress([0; 6])),
        is_learning: infos.contains(&InfoVxlan::Learning(true)),
    }
}

fn vni_of(infos: &[InfoVxlan]) -> u32 {
    let vni = infos.iter().find_map(|info| match info {
        InfoVxlan::Id(vni) => Some(*vni),
        _ => None,
    });
    vni.unwrap_or_default()
}

/// The UDP port that a device of VXLAN takes packets on.
pub(super) fn port_of(infos: &[InfoVxlan]) -> u16 {
    let port = infos.iter().find_map(|info| match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    });
    port.unwrap_or_default()
}

/// Whether a device of VXLAN is for a family. One that is told by routes where to send is for
/// both.
fn is_of_family(infos: &[InfoVxlan], is_ipv6: bool) -> bool {
    let has_ipv6 = |info: &InfoVxlan| matches!(info, InfoVxlan::Local6(_) | InfoVxlan::Group6(_));
    infos.contains(&InfoVxlan::CollectMetadata(true)) || infos.iter().any(has_ipv6) == is_ipv6
}

/// The hardware address of a forwarding entry and the node behind it, if it is a permanent one
/// of this device.
fn forwarding(entry: &NeighbourMessage, index: u32) -> Option<(MacAddress, IpAddr)> {
    let header = &entry.header;
    let is_meant = header.family == AddressFamily::Bridge
        && header.ifindex == index
        && u16::from(header.state) & PERMANENT != 0;
    let (mut mac, mut node) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::Destination(address) => node = address_in(address),
            NeighbourAttribute::Port(_) | NeighbourAttribute::Vni(_) => return None,
            _ => {}
        }
    }
    Some((MacAddress(mac.filter(|_| is_meant)?), node?))
}

/// The library does not know the family of what a forwarding entry leads to.
fn address_in(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some((*address).into()),
        NeighbourAddress::Inet6(address) => Some((*address).into()),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|it| Ipv4Addr::from(it).into());
            v4.or_else(|_| {
                <[u8; 16]>::try_from(bytes.as_slice()).map(|it| Ipv6Addr::from(it).into())
            })
            .ok()
        }
        _ => None,
    }
}

/// The message that names a forwarding entry of the device of that number.
pub(super) fn forwarding_entry(index: u32, mac: MacAddress, node: IpAddr) -> NeighbourMessage {
    let mut entry = permanent(AddressFamily::Bridge, index);
    entry.header.flags = NeighbourFlags::Own;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    entry.attributes.push(NeighbourAttribute::Destination(node.into()));
    entry
}

/// The message that names a neighbour by the device of that number, with its hardware address
/// where it is to get one.
pub(super) fn neighbour(index: u32, address: IpAddr, mac: Option<MacAddress>) -> NeighbourMessage {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let mut neighbour = permanent(family, index);
    neighbour.attributes.push(NeighbourAttribute::Destination(address.into()));
    let mac = mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    neighbour.attributes.extend(mac);
    neighbour
}

fn permanent(family: AddressFamily, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message
}
