//! The node's links and addresses: its underlay, and what its own address can
//! be found by.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteAddress, RouteAttribute};
use weir_common::network::{NodeInterface, Underlay, UnderlayLink};
use weir_common::tunnel::TunnelKind;

use crate::Kernel;
use crate::error::Error;
use crate::link::Link;
use crate::occupied::subnet;

impl Kernel {
    /// All of the node's links in the order in which they were made, with their
    /// addresses of global scope, the deprecated ones apart. Left out are addresses that the kernel does
    /// not let be used as a source (tentative ones, duplicates) or that it
    /// replaces by and by (temporary ones, RFC 8981).
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn interfaces(&self) -> Result<Vec<NodeInterface>, Error> {
        let all = self.links_and_addresses().await?;
        let deprecated: HashSet<(u32, IpNet)> = all
            .addresses
            .iter()
            .filter(|message| flags(message).contains(AddressFlags::Deprecated))
            .filter_map(|message| Some((message.header.index, subnet(message)?)))
            .collect();
        let interface = |(link, addresses): (&Link, Vec<IpNet>)| {
            let is_deprecated = |address: &IpNet| deprecated.contains(&(link.index, *address));
            let (deprecated, addresses) = addresses.into_iter().partition(is_deprecated);
            let (name, is_virtual) = (link.name.clone(), is_virtual(link, &all.links));
            NodeInterface { name, up: link.up, is_virtual, addresses, deprecated }
        };
        Ok(all.usable().map(interface).collect())
    }

    /// The links by which the node may reach others: those that are up and have
    /// an address, less the loopback, the tunnel devices and the host ends of
    /// attachments. Lists all links, so it takes longer the more containers
    /// there are.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn underlay(&self) -> Result<Underlay, Error> {
        let links = self.links_and_addresses().await?;
        let next_hops = self.main_table(&links.links).await?.next_hops();
        Ok(Underlay { next_hops, ..links.underlay() })
    }

    /// The address that the node would send from to `destination`, with the
    /// prefix length of its subnet; `None` if there is no way there. One
    /// lookup, as `ip route get` does it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn source_towards(&self, destination: IpAddr) -> Result<Option<IpNet>, Error> {
        let Some(route) = self.route_towards(destination, false).await? else {
            return Ok(None);
        };
        let source = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some((*address).into()),
            _ => None,
        });
        let addresses = self.all_addresses().await?;
        let of_source = |address: &IpNet| Some(address.addr()) == source;
        Ok(addresses.iter().filter_map(subnet).find(of_source))
    }

    /// The links in the order in which they were made, and all addresses.
    pub(super) async fn links_and_addresses(&self) -> Result<LinksAndAddresses, Error> {
        let mut links = self.host.links().await?;
        links.sort_by_key(|link| link.index);
        Ok(LinksAndAddresses { links, addresses: self.all_addresses().await? })
    }
}

/// What the node's links are like.
pub(super) struct LinksAndAddresses {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<AddressMessage>,
}

impl LinksAndAddresses {
    /// Every link with its usable addresses of global scope.
    fn usable(&self) -> impl Iterator<Item = (&Link, Vec<IpNet>)> {
        let mut by_link: HashMap<u32, Vec<IpNet>> = HashMap::new();
        for message in self.addresses.iter().filter(|message| is_usable(message)) {
            by_link.entry(message.header.index).or_default().extend(subnet(message));
        }
        self.links.iter().map(move |link| {
            let addresses = by_link.remove(&link.index).unwrap_or_default();
            (link, addresses)
        })
    }

    /// The underlay among them, without next hops.
    pub(super) fn underlay(&self) -> Underlay {
        let links = self.usable().filter(|(link, addresses)| {
            link.up
                && !addresses.is_empty()
                && !link.loopback
                && TunnelKind::of_device(&link.name).is_none()
                && !link.is_host_end()
        });
        let part = |(link, addresses): (&Link, _)| UnderlayLink {
            name: link.name.clone(),
            mtu: link.mtu,
            addresses,
        };
        Underlay { links: links.map(part).collect(), next_hops: BTreeSet::new() }
    }
}

/// Whether a link is a tunnel's or a bridge without a physical port. Hardware has no kind;
/// bonds, teams and VLANs lead to some.
fn is_virtual(link: &Link, links: &[Link]) -> bool {
    let is_physical =
        |port: &Link| matches!(port.kind.as_deref(), None | Some("bond" | "team" | "vlan"));
    match link.kind.as_deref() {
        Some("tun" | "wireguard") => true,
        Some("bridge") => {
            let mut ports = links.iter().filter(|port| port.master == Some(link.index));
            !ports.any(is_physical)
        }
        _ => false,
    }
}

pub(crate) fn is_usable(message: &AddressMessage) -> bool {
    let mut unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    if message.header.family == AddressFamily::Inet6 {
        // IFA_F_TEMPORARY; with IPv4 the same bit is for the second address of
        // a subnet.
        unusable |= AddressFlags::Secondary;
    }
    message.header.scope == AddressScope::Universe && !flags(message).intersects(unusable)
}

fn flags(message: &AddressMessage) -> AddressFlags {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or_else(AddressFlags::empty)
}
