//! The steps of a plan, as data, each with its undo.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::identity::AttachmentIdentity;
use crate::link::{MacAddress, SourceCheck};
use crate::network::nat::NatTable;
use crate::network::route::{ROUTE_PROTOCOL, Route, RouteScope};

/// Which network namespace a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The node's: the one that the plugin runs in.
    Host,
    /// The container's: the one that CNI_NETNS names.
    Container,
}

/// One thing to change in the kernel. Its text is the command of iproute2,
/// sysctl or nft that would do the same, which is how errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the veth pair of an attachment.
    CreateVeth(Veth),
    /// Record the attachment in the alias of its host link. (The kernel takes
    /// no alias in the message that creates a link.)
    SetAlias {
        /// The host link's name.
        link: String,
        /// The alias.
        alias: String,
    },
    /// Record what a container may send from besides its addresses, as other names of its
    /// host link.
    AddNames {
        /// The host link's name.
        link: String,
        /// The other names.
        names: Vec<String>,
    },
    /// Write a kernel parameter.
    SetSysctl(Sysctl),
    /// Give a host link its hardware address.
    SetMac {
        /// Its name.
        link: String,
        /// The hardware address.
        mac: MacAddress,
    },
    /// Bring a link up.
    SetLinkUp {
        /// Where the link is.
        side: Side,
        /// Its name.
        link: String,
    },
    /// Give a link an address, usable at once (without duplicate address
    /// detection).
    AddAddress {
        /// Where the link is.
        side: Side,
        /// Its name.
        link: String,
        /// The address and the length of its prefix.
        address: IpNet,
        /// How far it may be used from; the kernel finds that of IPv6 by itself.
        scope: RouteScope,
    },
    /// Give a link's neighbour a permanent hardware address.
    AddNeighbour {
        /// Where the link is.
        side: Side,
        /// Its name.
        link: String,
        /// The neighbour.
        address: IpAddr,
        /// Its hardware address.
        mac: MacAddress,
    },
    /// Add a route by a link.
    AddRoute {
        /// Where the link is.
        side: Side,
        /// Its name.
        link: String,
        /// The route.
        route: Route,
    },
    /// See to it that the node has exactly this NAT of Weir's, or none.
    EnsureNat(Option<NatTable>),
}

/// A veth pair, born with its host's end on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Whose it is; gives the names of both ends.
    pub identity: AttachmentIdentity,
    /// The hardware address of the host's end, which is born up.
    pub host_mac: MacAddress,
    /// The hardware address of the container's end, which is born down: the
    /// kernel cannot bring the peer up in the same message.
    pub container_mac: MacAddress,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// What the container may give as the source of its packets.
    pub source_check: SourceCheck,
    /// Where the container's end is born.
    pub container_end: ContainerEnd,
}

/// Where the container's end of a veth is born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEnd {
    /// In the container, under the identity's interface name.
    InContainer,
    /// On the node under this name, for another program (dockerd) to move and rename.
    OnNode(String),
}

impl Veth {
    /// The name that the container's end is born with.
    pub fn container_end(&self) -> &str {
        match &self.container_end {
            ContainerEnd::InContainer => self.identity.interface(),
            ContainerEnd::OnNode(name) => name,
        }
    }
}

/// A kernel parameter and the value it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Whose parameter it is.
    pub side: Side,
    /// Its path below `/proc/sys`; with slashes, since interface names may hold
    /// dots.
    pub key: String,
    /// The value.
    pub value: String,
    /// Whether it belongs to one of the veth's ends. Such a parameter vanishes
    /// with the link, so its old value is of no interest; any other is written
    /// only where it differs, and restored by the undo.
    pub of_veth: bool,
    /// Whether a kernel without it is as good: then its absence is not an error.
    pub optional: bool,
}

/// What a step changed, as far as its undo needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// Everything was as the step wants it; nothing was changed.
    Same,
    /// There was nothing.
    Absent,
    /// The old state: a sysctl's value, or the NAT table as nft's JSON.
    Was(String),
}

/// What takes a step back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Delete a link of the host, and with it the peer, the addresses, routes,
    /// neighbours and parameters of both.
    DeleteLink {
        /// Its name.
        link: String,
    },
    /// Write a parameter's old value back.
    RestoreSysctl {
        /// Whose it is.
        side: Side,
        /// Its path below `/proc/sys`.
        key: String,
        /// The old value.
        value: String,
    },
    /// Put the NAT table back as it was.
    RestoreNat {
        /// The old table as nft's JSON; none if there was no table.
        listing: Option<String>,
    },
}

impl Undo {
    /// Whether it takes back something that other attachments of the node rely
    /// on as well. It must then be left alone while there are any.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::DeleteLink { .. } => false,
            Self::RestoreSysctl { side, .. } => *side == Side::Host,
            Self::RestoreNat { .. } => true,
        }
    }
}

impl Step {
    /// Sets a parameter that every kernel has and that is not of the veth.
    pub(super) fn sysctl(side: Side, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        Self::SetSysctl(Sysctl { side, key, value, of_veth: false, optional: false })
    }

    /// Which side it changes; a veth counts as the host's.
    pub(super) fn side(&self) -> Side {
        match self {
            Self::SetSysctl(Sysctl { side, .. })
            | Self::SetLinkUp { side, .. }
            | Self::AddAddress { side, .. }
            | Self::AddNeighbour { side, .. }
            | Self::AddRoute { side, .. } => *side,
            Self::CreateVeth(_)
            | Self::SetAlias { .. }
            | Self::AddNames { .. }
            | Self::SetMac { .. }
            | Self::EnsureNat(_) => Side::Host,
        }
    }

    /// What takes this step back, given what was `before` it. Most steps have
    /// none of their own: what they made vanishes with the veth.
    pub fn undo(&self, before: Before) -> Option<Undo> {
        match (self, before) {
            (Self::CreateVeth(veth), _) => {
                Some(Undo::DeleteLink { link: veth.identity.host_interface() })
            }
            (Self::SetSysctl(sysctl), Before::Was(value)) if !sysctl.of_veth => {
                Some(Undo::RestoreSysctl { side: sysctl.side, key: sysctl.key.clone(), value })
            }
            (Self::EnsureNat(_), Before::Absent) => Some(Undo::RestoreNat { listing: None }),
            (Self::EnsureNat(_), Before::Was(listing)) => {
                Some(Undo::RestoreNat { listing: Some(listing) })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Host => "on the node",
            Self::Container => "in the container",
        })
    }
}

/// As `ip route` prints it: `default via 169.254.1.1`.
impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.destination.prefix_len() == 0 {
            formatter.write_str("default")?;
        } else {
            write!(formatter, "{}", self.destination)?;
        }
        if let Some(gateway) = self.gateway {
            write!(formatter, " via {gateway}")?;
        }
        // The kernel knows no scope of IPv6 routes.
        let usual = self.gateway.is_some() && self.scope == RouteScope::UNIVERSE;
        if self.destination.addr().is_ipv4() && !usual {
            write!(formatter, " scope {}", self.scope)?;
        }
        if let Some(source) = self.source {
            write!(formatter, " src {source}")?;
        }
        for (name, value) in [
            ("metric", self.priority),
            ("mtu", self.mtu),
            ("advmss", self.advmss),
            ("table", self.table),
        ] {
            if let Some(value) = value {
                write!(formatter, " {name} {value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sysctl -w {}={} {}", self.key, self.value, self.side)
    }
}

impl fmt::Display for Veth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "ip link add {} address {} mtu {mtu} up type veth peer name {} address {} mtu {mtu} {}",
            self.identity.host_interface(),
            self.host_mac,
            self.container_end(),
            self.container_mac,
            match self.container_end {
                ContainerEnd::InContainer => Side::Container,
                ContainerEnd::OnNode(_) => Side::Host,
            },
            mtu = self.mtu,
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateVeth(veth) => veth.fmt(formatter),
            Self::SetAlias { link, alias } => {
                write!(formatter, "ip link set {link} alias {alias} {}", Side::Host)
            }
            Self::AddNames { link, names } => {
                write!(formatter, "ip link property add dev {link}")?;
                names.iter().try_for_each(|name| write!(formatter, " altname {name}"))?;
                write!(formatter, " {}", Side::Host)
            }
            Self::SetSysctl(sysctl) => sysctl.fmt(formatter),
            Self::SetMac { link, mac } => {
                write!(formatter, "ip link set {link} address {mac} {}", Side::Host)
            }
            Self::SetLinkUp { side, link } => write!(formatter, "ip link set {link} up {side}"),
            Self::AddAddress { side, link, address, scope } => {
                write!(formatter, "ip address add {address} dev {link}")?;
                if *scope != RouteScope::UNIVERSE {
                    write!(formatter, " scope {scope}")?;
                }
                write!(formatter, " nodad {side}")
            }
            Self::AddNeighbour { side, link, address, mac } => {
                write!(formatter, "ip neighbour add {address} lladdr {mac} dev {link} {side}")
            }
            Self::AddRoute { side, link, route } => {
                write!(formatter, "ip route add {route} dev {link} proto {ROUTE_PROTOCOL} {side}")
            }
            Self::EnsureNat(Some(_)) => formatter.write_str("nft replace table inet weir"),
            Self::EnsureNat(None) => formatter.write_str("nft delete table inet weir"),
        }
    }
}
