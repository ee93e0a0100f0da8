//! Which of a node's addresses is the one that other nodes reach it by.

mod method;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::IpNet;
use regex_lite::Regex;

use crate::ipam::Family;

pub use method::{AutodetectionMethod, InvalidMethod, NamePatterns};

/// Names of interfaces that `first-found` and `skip-interface` pass over: Calico's
/// (`autodetection_linux.go`), those that docker compose, podman and WireGuard make,
/// and Weir's own.
const INTERNAL: &str = "^docker|^cbr|^dummy|^virbr|^lxcbr|^veth|^lo|^cali|^tunl|^flannel\
    |^kube-ipvs|^cni|^vxlan\\.calico|^vxlan-v6\\.calico|^wireguard\\.cali|^wg-v6\\.cali\
    |^nodelocaldns|^antrea-gw|^br-[0-9a-f]{12}$|^podman[0-9]|^wg[0-9]|^weir";

/// The pattern that matches what is in [`INTERNAL`].
static INTERNAL_NAMES: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(INTERNAL).expect("a constant"));

/// A destination that stands for the rest of the world: of a range for documentation (RFC 5737),
/// to which no node has a route of its own.
pub const OUTSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The same of IPv6 (RFC 3849).
pub const OUTSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// An interface of the node, as far as its address is looked for there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInterface {
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a tunnel's (tun, tap, WireGuard) or a bridge without a physical port: other
    /// nodes are not behind it unless somebody says so.
    pub is_virtual: bool,
    /// Its addresses of both families, with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// Those that it has besides and that are not to be used any more, or by nobody
    /// who is not told to (`preferred_lft 0`, RFC 4862 5.5.4): a prefix that is going
    /// away, and what keepalived moves between hosts.
    pub deprecated: Vec<IpNet>,
}

impl NodeInterface {
    /// One that is up, with these addresses.
    #[cfg(test)]
    pub(crate) fn up(name: &str, addresses: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            up: true,
            is_virtual: false,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            deprecated: Vec::new(),
        }
    }

    /// Why none of its addresses is the one that is looked for.
    fn without_any(&self) -> PassedBy {
        if self.addresses.is_empty() && !self.deprecated.is_empty() {
            return PassedBy::Deprecated(self.deprecated.clone());
        }
        PassedBy::Addresses(self.addresses.clone())
    }

    /// This address as the interface has it, in either way.
    pub fn find(&self, address: IpAddr) -> Option<IpNet> {
        let mut all = self.addresses.iter().chain(&self.deprecated);
        all.find(|own| own.addr() == address).copied()
    }
}

/// An address found for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
    /// The interface that has it; `None` for an address that was given and is
    /// on no interface.
    pub interface: Option<String>,
}

impl Detected {
    /// What the operator should know of an address without a subnet.
    pub fn warning(&self) -> Option<String> {
        let alone = self.address.addr().is_ipv4() && self.address.prefix_len() == 32;
        alone.then(|| {
            let place = self.interface.as_ref().map_or_else(
                || "is on no interface of this node and was given without a prefix length".into(),
                |interface| format!("on {interface} has the prefix length 32"),
            );
            format!(
                "the node's address {} {place}, so no node is in its subnet and cross-subnet \
                 pools tunnel to all of them; if nodes share a subnet, give the address with its \
                 prefix length, as {}/24",
                self.address.addr(),
                self.address.addr()
            )
        })
    }
}

/// No address was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{method} finds no {family} address for this node; looked at: {}; choose by interface=NAME, \
     cidr=CIDR or can-reach=ADDRESS, or give the address itself",
    listed(looked_at)
)]
pub struct NotDetected {
    /// The method, as text.
    pub method: String,
    /// The family wanted.
    pub family: Family,
    /// Each interface that was looked at, and why none of its addresses is it.
    pub looked_at: Vec<(String, PassedBy)>,
}

/// Why an interface's addresses are not the node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassedBy {
    /// It is down.
    Down,
    /// Its name is that of an internal interface, or one to skip.
    Excluded,
    /// It is a tunnel's, or a bridge without a physical port.
    Virtual,
    /// The method is for interfaces of other names.
    OtherName,
    /// These addresses are of the other family, not for other nodes to reach, or
    /// not what the method asks for.
    Addresses(Vec<IpNet>),
    /// It has these only, and they are deprecated.
    Deprecated(Vec<IpNet>),
}

impl fmt::Display for PassedBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => formatter.write_str("down"),
            Self::Excluded => formatter.write_str("excluded by its name"),
            Self::Virtual => formatter.write_str("a tunnel, or a bridge without a physical port"),
            Self::OtherName => formatter.write_str("not asked for"),
            Self::Addresses(addresses) if addresses.is_empty() => {
                formatter.write_str("without address")
            }
            Self::Addresses(addresses) => formatter.write_str(&joined(addresses)),
            Self::Deprecated(addresses) => write!(formatter, "deprecated: {}", joined(addresses)),
        }
    }
}

fn joined(addresses: &[IpNet]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpNet::to_string).collect();
    addresses.join(", ")
}

fn listed(looked_at: &[(String, PassedBy)]) -> String {
    let one = |(name, why): &(String, PassedBy)| format!("{name} ({why})");
    let all: Vec<String> = looked_at.iter().map(one).collect();
    if all.is_empty() { "no interface".to_owned() } else { all.join(", ") }
}

impl AutodetectionMethod {
    /// The address towards which the kernel is to be asked what it sends from: where the method
    /// leaves the choice open, one of the rest of the world, to which the default route leads.
    pub fn destination(&self, family: Family) -> Option<IpAddr> {
        match (self, family) {
            (Self::CanReach(address), _) => Some(*address),
            (Self::FirstFound | Self::SkipInterface(_), Family::V4) => Some(OUTSIDE_V4),
            (Self::FirstFound | Self::SkipInterface(_), Family::V6) => Some(OUTSIDE_V6),
            _ => None,
        }
    }

    /// Finds the node's address of a family.
    ///
    /// `interfaces` are in the order of their indices. Where the method leaves the choice open,
    /// the one with the default route comes first; else they are looked at from the last to the
    /// first, and the addresses of one in their order, so that a
    /// node gets the address that Calico gives it. Only addresses that other
    /// nodes can reach count (global unicast), and only those of interfaces that
    /// are up; deprecated ones do not, and IPv6 ones without a subnet (/128) only if
    /// there are no others. `source` is what the kernel sends from towards
    /// [`AutodetectionMethod::destination`], if it knows a way.
    ///
    /// # Errors
    /// [`NotDetected`].
    pub fn detect(
        &self,
        family: Family,
        interfaces: &[NodeInterface],
        source: Option<IpAddr>,
    ) -> Result<Detected, NotDetected> {
        if let Self::Address(address, length) = self
            && Family::of(*address) == family
        {
            return Ok(given(*address, *length, interfaces));
        }
        let (mut looked_at, mut alone) = (Vec::new(), None);
        let leads_outside = |interface: &&NodeInterface| {
            let is_open = matches!(self, Self::FirstFound | Self::SkipInterface(_));
            is_open && source.is_some_and(|source| interface.find(source).is_some())
        };
        let others = interfaces.iter().rev().filter(|interface| !leads_outside(interface));
        for interface in interfaces.iter().filter(leads_outside).chain(others) {
            if let Some(why) = self.passes_by(interface) {
                looked_at.push((interface.name.clone(), why));
                continue;
            }
            let fits = |address: &&IpNet| {
                let address = address.addr();
                Family::of(address) == family
                    && is_global_unicast(address)
                    && self.accepts(address, source)
            };
            let fitting = interface.addresses.iter().filter(fits);
            match fitting.min_by_key(|address| is_alone(address)) {
                Some(address) => {
                    let interface = Some(interface.name.clone());
                    let found = Detected { address: *address, interface };
                    if !is_alone(address) {
                        return Ok(found);
                    }
                    alone = alone.or(Some(found));
                }
                None => looked_at.push((interface.name.clone(), interface.without_any())),
            }
        }
        alone.ok_or_else(|| NotDetected { method: self.to_string(), family, looked_at })
    }

    /// `registered` as it is to be registered, if this method could still give it:
    /// then a node keeps it, whatever else the method would find first now. It is on
    /// an interface that the method looks at, up or down; with `can-reach` on the one
    /// that the kernel sends by, if it knows a way. Deprecated, it stays as long as
    /// nothing else is found.
    pub fn keep(
        &self,
        registered: IpAddr,
        interfaces: &[NodeInterface],
        source: Option<IpAddr>,
    ) -> Option<Detected> {
        if let Self::Address(wanted, length) = self {
            return (*wanted == registered).then(|| given(*wanted, *length, interfaces));
        }
        let could_give = |interface: &&NodeInterface| {
            !self.excludes(&interface.name)
                && match self {
                    Self::CanReach(_) => {
                        !interface.up || source.is_none_or(|it| interface.find(it).is_some())
                    }
                    Self::Cidr(_) => self.accepts(registered, source),
                    _ => true,
                }
        };
        let holders =
            || interfaces.iter().filter(could_give).filter(|_| is_global_unicast(registered));
        let among =
            |addresses: &[IpNet]| addresses.iter().find(|it| it.addr() == registered).copied();
        let found = |interface: &NodeInterface, address| Detected {
            address,
            interface: Some(interface.name.clone()),
        };
        let kept = holders().find_map(|it| Some(found(it, among(&it.addresses)?)));
        kept.or_else(|| {
            let is_last = self.detect(Family::of(registered), interfaces, source).is_err();
            let mut deprecated = holders().filter(|_| is_last);
            deprecated.find_map(|it| Some(found(it, among(&it.deprecated)?)))
        })
    }

    /// Why no address of an interface counts, whatever it is.
    fn passes_by(&self, interface: &NodeInterface) -> Option<PassedBy> {
        match self {
            _ if !interface.up => Some(PassedBy::Down),
            Self::Interface(_) if self.excludes(&interface.name) => Some(PassedBy::OtherName),
            _ if self.excludes(&interface.name) => Some(PassedBy::Excluded),
            Self::FirstFound | Self::SkipInterface(_) if interface.is_virtual => {
                Some(PassedBy::Virtual)
            }
            _ => None,
        }
    }

    /// Whether the method looks at no interface of this name.
    fn excludes(&self, name: &str) -> bool {
        match self {
            Self::FirstFound => INTERNAL_NAMES.is_match(name),
            Self::SkipInterface(skipped) => INTERNAL_NAMES.is_match(name) || skipped.matches(name),
            Self::Interface(wanted) => !wanted.matches(name),
            Self::CanReach(_) | Self::Cidr(_) | Self::Address(..) => false,
        }
    }

    fn accepts(&self, address: IpAddr, source: Option<IpAddr>) -> bool {
        match self {
            Self::FirstFound | Self::Interface(_) | Self::SkipInterface(_) => true,
            Self::CanReach(_) => source == Some(address),
            Self::Cidr(ranges) => ranges.iter().any(|range| range.contains(&address)),
            Self::Address(wanted, _) => *wanted == address,
        }
    }
}

/// An address that was given: with its own prefix length, else with that of the
/// interface that has it, else alone.
fn given(address: IpAddr, length: Option<u8>, interfaces: &[NodeInterface]) -> Detected {
    let holder = interfaces
        .iter()
        .rev()
        .find_map(|interface| Some((interface.name.clone(), interface.find(address)?)));
    let own = length.and_then(|length| IpNet::new(address, length).ok());
    let found = holder.as_ref().map(|(_, found)| *found);
    Detected {
        address: own.or(found).unwrap_or_else(|| address.into()),
        interface: holder.map(|(name, _)| name),
    }
}

/// Whether an IPv6 address has no subnet: one of a service, as keepalived adds them,
/// or a lease of DHCPv6.
fn is_alone(address: &IpNet) -> bool {
    address.addr().is_ipv6() && address.prefix_len() == address.max_prefix_len()
}

/// Whether other hosts can reach this address (Go, `net.IP.IsGlobalUnicast`):
/// private addresses count.
pub(crate) fn is_global_unicast(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}
