//! What an attachment should look like against what the kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::identity::{AttachmentIdentity, GATEWAY_V6};
use super::plan::{Attachment, HOST_MAC};
use super::step::{Side, Sysctl};
use crate::link::{MacAddress, SourceCheck};
use crate::network::route::{ROUTE_PROTOCOL, Route};

/// What should be there. Anything beside it (a later plugin's work) is fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whose it is.
    pub identity: AttachmentIdentity,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// The hardware address of the container's end, where it matters.
    pub mac: Option<MacAddress>,
    /// The MTU of the container's end in bytes, where it matters. Where it does not, it
    /// must not be larger than that of the host's end, which drops what is.
    pub mtu: Option<u32>,
    /// The MTU of the host's end in bytes, where it matters.
    pub host_mtu: Option<u32>,
    /// Whether what it sends is checked.
    pub source_check: SourceCheck,
    /// What the container may send from besides its addresses.
    pub allowed_sources: BTreeSet<IpNet>,
    /// The kernel's parameters of the host's end.
    pub host_parameters: Vec<Sysctl>,
    /// The neighbours of the container by its end.
    pub neighbours: Vec<(IpAddr, MacAddress)>,
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
    /// Whether its group says that what the container sends is checked.
    pub source_check: SourceCheck,
    /// What its names say that the container may send from besides its addresses.
    pub allowed_sources: BTreeSet<IpNet>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The routes by it.
    pub routes: Vec<Route>,
    /// The permanent neighbours by it.
    pub neighbours: Vec<(IpAddr, MacAddress)>,
}

/// What the kernel has of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The link with the name of the host's end.
    pub host: Option<FoundLink>,
    /// The link with the name of the container's end.
    pub container: Option<FoundLink>,
    /// The values of the parameters that are expected of the host's end, by their paths
    /// below `/proc/sys`; those that there are.
    pub host_parameters: BTreeMap<String, String>,
}

/// One way in which what is there is not what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
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
    /// A link has another MTU.
    Mtu {
        /// Where it is.
        side: Side,
        /// Its name.
        link: String,
        /// The MTU that it should have, in bytes.
        expected: u32,
        /// The MTU that it has, in bytes.
        found: u32,
    },
    /// The container sends larger packets than the host's end takes.
    MtuAboveHost {
        /// The container link's name.
        link: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The host link's name.
        host: String,
        /// Its MTU in bytes.
        host_mtu: u32,
    },
    /// A parameter of the host's end has another value.
    Parameter {
        /// The parameter and the value that it should have.
        expected: Sysctl,
        /// The value that it has, if there is such a parameter.
        found: Option<String>,
    },
    /// What the container sends is checked and should not be, or the other way round.
    SourceCheck {
        /// The host link's name.
        link: String,
        /// How it should be.
        expected: SourceCheck,
    },
    /// The container may send from other prefixes.
    AllowedSources {
        /// The host link's name.
        link: String,
        /// The prefixes that it should be allowed.
        expected: BTreeSet<IpNet>,
        /// The prefixes that it is allowed.
        found: BTreeSet<IpNet>,
    },
    /// A neighbour of the container has not its permanent hardware address.
    Neighbour {
        /// The link's name.
        link: String,
        /// The neighbour.
        address: IpAddr,
        /// The hardware address that it should have.
        expected: MacAddress,
        /// The permanent one that it has.
        found: Option<MacAddress>,
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
            host_mtu: Some(attachment.mtu()),
            source_check: attachment.source_check(),
            allowed_sources: attachment.allowed_sources().clone(),
            host_parameters: attachment.host_parameters(),
            neighbours: attachment.neighbours(),
            container_routes: attachment.container_routes(),
            host_routes: attachment.host_routes(),
        }
    }
}

/// Everything in which `found` falls short of `expected`: of both links, their
/// kinship, MTU, parameters, addresses, neighbours and routes. What hangs on a link that
/// is missing is not listed again.
pub fn compare(expected: &Expected, found: &Found) -> Vec<Mismatch> {
    let host = expected.identity.host_interface();
    let container = expected.identity.interface();
    let mut differences = Vec::new();
    match &found.host {
        Some(link) => {
            differences.extend(compare_host(expected, link, &found.host_parameters));
        }
        None => differences.push(Mismatch::LinkMissing { side: Side::Host, link: host.clone() }),
    }
    match &found.container {
        Some(link) => differences.extend(compare_container(expected, link)),
        None => differences
            .push(Mismatch::LinkMissing { side: Side::Container, link: container.to_owned() }),
    }
    if let (Some(host_link), Some(container_link)) = (&found.host, &found.container)
        && (host_link.peer_index != Some(container_link.index)
            || container_link.peer_index != Some(host_link.index))
    {
        differences.push(Mismatch::NotPeers { host, container: container.to_owned() });
    }
    differences.extend(mtu_above_host(expected, found));
    differences
}

/// Where neither end's MTU is known a later plugin of the chain (tuning) may have given the
/// container a smaller one.
fn mtu_above_host(expected: &Expected, found: &Found) -> Option<Mismatch> {
    let (host, container) = (found.host.as_ref()?, found.container.as_ref()?);
    (expected.mtu.is_none() && container.mtu > host.mtu).then(|| Mismatch::MtuAboveHost {
        link: container.name.clone(),
        mtu: container.mtu,
        host: host.name.clone(),
        host_mtu: host.mtu,
    })
}

fn compare_host(
    expected: &Expected,
    found: &FoundLink,
    parameters: &BTreeMap<String, String>,
) -> Vec<Mismatch> {
    let alias = expected.identity.alias();
    if found.alias.as_ref() != Some(&alias) {
        let (link, found) = (found.name.clone(), found.alias.clone());
        return vec![Mismatch::Foreign { link, expected: alias, found }];
    }
    let mut differences = compare_link(Side::Host, found, Some(HOST_MAC));
    differences.extend(compare_mtu(Side::Host, found, expected.host_mtu));
    differences.extend(compare_parameters(&expected.host_parameters, parameters));
    if found.source_check != expected.source_check {
        let (link, expected) = (found.name.clone(), expected.source_check);
        differences.push(Mismatch::SourceCheck { link, expected });
    }
    if found.allowed_sources != expected.allowed_sources {
        differences.push(Mismatch::AllowedSources {
            link: found.name.clone(),
            expected: expected.allowed_sources.clone(),
            found: found.allowed_sources.clone(),
        });
    }
    if expected.addresses.iter().any(IpAddr::is_ipv6) {
        differences.extend(compare_addresses(Side::Host, found, &[GATEWAY_V6.into()]));
    }
    differences.extend(compare_routes(Side::Host, found, &expected.host_routes));
    differences
}

fn compare_container(expected: &Expected, found: &FoundLink) -> Vec<Mismatch> {
    let mut differences = compare_link(Side::Container, found, expected.mac);
    differences.extend(compare_mtu(Side::Container, found, expected.mtu));
    differences.extend(compare_addresses(Side::Container, found, &expected.addresses));
    differences.extend(compare_neighbours(found, &expected.neighbours));
    differences.extend(compare_routes(Side::Container, found, &expected.container_routes));
    differences
}

fn compare_link(side: Side, found: &FoundLink, mac: Option<MacAddress>) -> Vec<Mismatch> {
    let mut differences = Vec::new();
    if !found.up {
        differences.push(Mismatch::LinkDown { side, link: found.name.clone() });
    }
    if let Some(expected) = mac.filter(|&mac| found.mac != Some(mac)) {
        let (link, found) = (found.name.clone(), found.mac);
        differences.push(Mismatch::Mac { side, link, expected, found });
    }
    differences
}

fn compare_mtu(side: Side, found: &FoundLink, expected: Option<u32>) -> Option<Mismatch> {
    let expected = expected.filter(|&mtu| mtu != found.mtu)?;
    Some(Mismatch::Mtu { side, link: found.name.clone(), expected, found: found.mtu })
}

fn compare_parameters(expected: &[Sysctl], found: &BTreeMap<String, String>) -> Vec<Mismatch> {
    let is_good = |sysctl: &&Sysctl| match found.get(&sysctl.key) {
        Some(value) => *value == sysctl.value,
        None => sysctl.optional,
    };
    let differs = |sysctl: &Sysctl| Mismatch::Parameter {
        expected: sysctl.clone(),
        found: found.get(&sysctl.key).cloned(),
    };
    expected.iter().filter(|sysctl| !is_good(sysctl)).map(differs).collect()
}

fn compare_neighbours(found: &FoundLink, expected: &[(IpAddr, MacAddress)]) -> Vec<Mismatch> {
    let differs = |&(address, mac): &(IpAddr, MacAddress)| {
        let has = found.neighbours.iter().find(|(neighbour, _)| *neighbour == address);
        let has = has.map(|(_, mac)| *mac);
        let link = found.name.clone();
        (has != Some(mac)).then_some(Mismatch::Neighbour {
            link,
            address,
            expected: mac,
            found: has,
        })
    };
    expected.iter().filter_map(differs).collect()
}

fn compare_addresses(side: Side, found: &FoundLink, expected: &[IpAddr]) -> Vec<Mismatch> {
    let missing = expected.iter().filter(|address| !found.addresses.contains(address));
    missing
        .map(|&address| Mismatch::AddressMissing { side, link: found.name.clone(), address })
        .collect()
}

fn compare_routes(side: Side, found: &FoundLink, expected: &[Route]) -> Vec<Mismatch> {
    let missing = expected
        .iter()
        .filter(|route| !found.routes.iter().any(|found| same_route(side, route, found)));
    missing
        .map(|route| Mismatch::RouteMissing {
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
    // Earlier versions gave the node's routes the scope of the link.
    let on_node = side == Side::Host;
    let main = |table: Option<u32>| table.unwrap_or(254);
    expected.destination == found.destination
        && expected.gateway == found.gateway
        && (expected.scope == found.scope || expected.destination.addr().is_ipv6() || on_node)
        && asked(expected.mtu, found.mtu)
        && asked(expected.advmss, found.advmss)
        && asked(expected.priority, found.priority)
        && (!on_node || main(expected.table) == main(found.table))
}

/// The hardware address that was found, or `none`, and the one that should be.
fn write_mac(
    formatter: &mut fmt::Formatter<'_>,
    found: Option<MacAddress>,
    none: &str,
    expected: &MacAddress,
) -> fmt::Result {
    match found {
        Some(found) => write!(formatter, "the MAC address {found}")?,
        None => formatter.write_str(none)?,
    }
    write!(formatter, " and not {expected}")
}

impl fmt::Display for Mismatch {
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
                write_mac(formatter, *found, "no MAC address", expected)
            }
            Self::Mtu { side, link, expected, found } => {
                write!(formatter, "link {link} {side} has mtu {found} and not {expected}")
            }
            Self::MtuAboveHost { link, mtu, host, host_mtu } => write!(
                formatter,
                "link {link} in the container has mtu {mtu}, more than the {host_mtu} of link \
                 {host} on the node"
            ),
            Self::Parameter { expected, found } => {
                let Sysctl { side, key, value, .. } = expected;
                match found {
                    Some(found) => write!(formatter, "{key} is {found} and not {value} {side}"),
                    None => write!(formatter, "{key} is missing and not {value} {side}"),
                }
            }
            Self::SourceCheck { link, expected } => {
                let (is, not) = match expected {
                    SourceCheck::Strict => ("not checked", "strict"),
                    SourceCheck::Off => ("checked", "off"),
                };
                write!(
                    formatter,
                    "what comes from link {link} on the node is {is}, and source_check is {not}"
                )
            }
            Self::AllowedSources { link, expected, found } => {
                let list = |prefixes: &BTreeSet<IpNet>| {
                    let prefixes: Vec<String> = prefixes.iter().map(IpNet::to_string).collect();
                    format!("[{}]", prefixes.join(", "))
                };
                let (expected, found) = (list(expected), list(found));
                write!(
                    formatter,
                    "link {link} on the node lets the container send from {found} besides its \
                     addresses and not from {expected}"
                )
            }
            Self::Neighbour { link, address, expected, found } => {
                write!(formatter, "neighbour {address} on link {link} in the container has ")?;
                write_mac(formatter, *found, "no permanent MAC address", expected)
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
