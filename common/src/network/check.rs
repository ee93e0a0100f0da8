//! What an attachment should look like against what the kernel has.

use std::fmt;
use std::net::IpAddr;

use super::step::{ROUTE_PROTOCOL, Route, Side};
use super::{Attachment, AttachmentIdentity, GATEWAY_V6, HOST_MAC, MacAddress};

/// What should be there. Anything beside it (a later plugin's work) is fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whose it is.
    pub identity: AttachmentIdentity,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// The hardware address of the container's end, where it matters.
    pub mac: Option<MacAddress>,
    /// The MTU of the container's end in bytes, where it matters.
    pub mtu: Option<u32>,
    /// The routes of the container by its end.
    pub container_routes: Vec<Route>,
    /// The routes of the node by the host's end.
    pub host_routes: Vec<Route>,
}

/// A link and what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLink {
    /// Its name.
    pub name: String,
    /// Its number in its namespace.
    pub index: u32,
    /// The number of its peer in the peer's namespace, if it has a peer.
    pub peer_index: Option<u32>,
    /// Its kind as `ip -details link` shows it; `None` for hardware.
    pub kind: Option<String>,
    /// Its alias.
    pub alias: Option<String>,
    /// Its hardware address, if it is an Ethernet one.
    pub mac: Option<MacAddress>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The routes by it.
    pub routes: Vec<Route>,
}

/// What the kernel has of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The link with the name of the host's end.
    pub host: Option<FoundLink>,
    /// The link with the name of the container's end.
    pub container: Option<FoundLink>,
}

/// One way in which what is there is not what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A link is not there.
    LinkMissing {
        /// Where it should be.
        side: Side,
        /// Its name.
        link: String,
    },
    /// A link is administratively down.
    LinkDown {
        /// Where it is.
        side: Side,
        /// Its name.
        link: String,
    },
    /// The link with the host end's name belongs to something else.
    Foreign {
        /// Its name.
        link: String,
        /// The alias that it should have.
        expected: String,
        /// The alias that it has.
        found: Option<String>,
    },
    /// The two ends do not belong together.
    NotPeers {
        /// The host link's name.
        host: String,
        /// The container link's name.
        container: String,
    },
    /// A link's hardware address is another.
    Mac {
        /// Where it is.
        side: Side,
        /// Its name.
        link: String,
        /// The address that it should have.
        expected: MacAddress,
        /// The address that it has.
        found: Option<MacAddress>,
    },
    /// The container's link has another MTU.
    Mtu {
        /// Its name.
        link: String,
        /// The MTU that it should have, in bytes.
        expected: u32,
        /// The MTU that it has, in bytes.
        found: u32,
    },
    /// An address is not there.
    AddressMissing {
        /// Where it should be.
        side: Side,
        /// The link's name.
        link: String,
        /// The address.
        address: IpAddr,
    },
    /// A route is not there.
    RouteMissing {
        /// Where it should be.
        side: Side,
        /// The link that it should go by.
        link: String,
        /// The route.
        route: Route,
    },
}

impl Expected {
    /// What `attachment` looks like right after it is made.
    pub fn of(attachment: &Attachment) -> Self {
        Self {
            identity: attachment.identity().clone(),
            addresses: attachment.addresses().to_vec(),
            mac: Some(attachment.container_mac()),
            mtu: Some(attachment.mtu()),
            container_routes: attachment.container_routes(),
            host_routes: attachment.host_routes(),
        }
    }
}

/// Everything in which `found` falls short of `expected`: of both links, their
/// kinship, addresses and routes. What hangs on a link that is missing is not
/// listed again.
pub fn compare(expected: &Expected, found: &Found) -> Vec<Difference> {
    let host = expected.identity.host_interface();
    let container = expected.identity.interface();
    let mut differences = Vec::new();
    match &found.host {
        Some(link) => differences.extend(compare_host(expected, link)),
        None => differences.push(Difference::LinkMissing { side: Side::Host, link: host.clone() }),
    }
    match &found.container {
        Some(link) => differences.extend(compare_container(expected, link)),
        None => differences
            .push(Difference::LinkMissing { side: Side::Container, link: container.to_owned() }),
    }
    if let (Some(host_link), Some(container_link)) = (&found.host, &found.container)
        && (host_link.peer_index != Some(container_link.index)
            || container_link.peer_index != Some(host_link.index))
    {
        differences.push(Difference::NotPeers { host, container: container.to_owned() });
    }
    differences
}

fn compare_host(expected: &Expected, found: &FoundLink) -> Vec<Difference> {
    let alias = expected.identity.alias();
    if found.alias.as_ref() != Some(&alias) {
        let (link, found) = (found.name.clone(), found.alias.clone());
        return vec![Difference::Foreign { link, expected: alias, found }];
    }
    let mut differences = compare_link(Side::Host, found, Some(HOST_MAC));
    if expected.addresses.iter().any(IpAddr::is_ipv6) {
        differences.extend(compare_addresses(Side::Host, found, &[GATEWAY_V6.into()]));
    }
    differences.extend(compare_routes(Side::Host, found, &expected.host_routes));
    differences
}

fn compare_container(expected: &Expected, found: &FoundLink) -> Vec<Difference> {
    let mut differences = compare_link(Side::Container, found, expected.mac);
    if let Some(mtu) = expected.mtu.filter(|&mtu| mtu != found.mtu) {
        let link = found.name.clone();
        differences.push(Difference::Mtu { link, expected: mtu, found: found.mtu });
    }
    differences.extend(compare_addresses(Side::Container, found, &expected.addresses));
    differences.extend(compare_routes(Side::Container, found, &expected.container_routes));
    differences
}

fn compare_link(side: Side, found: &FoundLink, mac: Option<MacAddress>) -> Vec<Difference> {
    let mut differences = Vec::new();
    if !found.up {
        differences.push(Difference::LinkDown { side, link: found.name.clone() });
    }
    if let Some(expected) = mac.filter(|&mac| found.mac != Some(mac)) {
        let (link, found) = (found.name.clone(), found.mac);
        differences.push(Difference::Mac { side, link, expected, found });
    }
    differences
}

fn compare_addresses(side: Side, found: &FoundLink, expected: &[IpAddr]) -> Vec<Difference> {
    let missing = expected.iter().filter(|address| !found.addresses.contains(address));
    missing
        .map(|&address| Difference::AddressMissing { side, link: found.name.clone(), address })
        .collect()
}

fn compare_routes(side: Side, found: &FoundLink, expected: &[Route]) -> Vec<Difference> {
    let missing = expected
        .iter()
        .filter(|route| !found.routes.iter().any(|found| same_route(side, route, found)));
    missing
        .map(|route| Difference::RouteMissing {
            side,
            link: found.name.clone(),
            route: route.clone(),
        })
        .collect()
}

/// Whether the kernel's `found` is what `expected` asks for. What was not asked
/// for (the metric and the scope that the kernel gives IPv6 routes) does not count, and
/// neither does the container's table: a later plugin of the chain (sbr) may have
/// moved the route, which CHECK has to allow (spec, "CHECK").
fn same_route(side: Side, expected: &Route, found: &Route) -> bool {
    let asked = |expected: Option<u32>, found| expected.is_none() || expected == found;
    let main = |table: Option<u32>| table.unwrap_or(254);
    expected.destination == found.destination
        && expected.gateway == found.gateway
        && (expected.scope == found.scope || expected.destination.addr().is_ipv6())
        && asked(expected.mtu, found.mtu)
        && asked(expected.advmss, found.advmss)
        && asked(expected.priority, found.priority)
        && (side == Side::Container || main(expected.table) == main(found.table))
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkMissing { side, link } => write!(formatter, "link {link} is missing {side}"),
            Self::LinkDown { side, link } => write!(formatter, "link {link} is down {side}"),
            Self::Foreign { link, expected, found } => write!(
                formatter,
                "link {link} on the node has the alias {:?} and not {expected:?}",
                found.as_deref().unwrap_or_default()
            ),
            Self::NotPeers { host, container } => write!(
                formatter,
                "link {host} on the node and link {container} in the container are not the two \
                 ends of one veth"
            ),
            Self::Mac { side, link, expected, found } => {
                write!(formatter, "link {link} {side} has ")?;
                match found {
                    Some(found) => write!(formatter, "the MAC address {found}")?,
                    None => formatter.write_str("no MAC address")?,
                }
                write!(formatter, " and not {expected}")
            }
            Self::Mtu { link, expected, found } => {
                write!(formatter, "link {link} in the container has mtu {found} and not {expected}")
            }
            Self::AddressMissing { side, link, address } => {
                write!(formatter, "address {address} is missing on link {link} {side}")
            }
            Self::RouteMissing { side, link, route } => write!(
                formatter,
                "route \"{route} dev {link} proto {ROUTE_PROTOCOL}\" is missing {side}"
            ),
        }
    }
}
