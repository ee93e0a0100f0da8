//! The steps of a plan, as data, each with its undo.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{AttachmentIdentity, NatTable};
use crate::link::MacAddress;

/// The protocol number of every route that Weir makes, so that what is Weir's
/// can be told from the rest: `proto 77` in `ip route`. The kernel leaves
/// numbers above 4 to user space (`linux/rtnetlink.h`); iproute2's `rt_protos`
/// and the routing daemons' own files name no 77, and Calico's Felix uses 80.
pub const ROUTE_PROTOCOL: u8 = 77;

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
    /// Write a kernel parameter.
    SetSysctl(Sysctl),
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

/// A veth pair, born with one end in each namespace.
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
    /// Whether a kernel without it is as good: then its absence is no error.
    pub optional: bool,
}

/// How far the destination of a route is, as the kernel numbers it
/// (`linux/rtnetlink.h`): a route by a next hop is of a lower number than [`Self::LINK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteScope(pub u8);

impl RouteScope {
    /// Behind a next hop.
    pub const UNIVERSE: Self = Self(0);
    /// On the link itself.
    pub const LINK: Self = Self(253);
    /// On this host.
    pub const HOST: Self = Self(254);
}

/// As `ip route` has it.
impl fmt::Display for RouteScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNIVERSE => formatter.write_str("global"),
            Self::LINK => formatter.write_str("link"),
            Self::HOST => formatter.write_str("host"),
            Self(number) => number.fmt(formatter),
        }
    }
}

/// A route, less its link and with [`ROUTE_PROTOCOL`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop, if any.
    pub gateway: Option<IpAddr>,
    /// Its scope; the kernel ignores it for IPv6.
    pub scope: RouteScope,
    /// The path MTU in bytes that it imposes.
    pub mtu: Option<u32>,
    /// The maximum segment size in bytes that it tells TCP to advertise.
    pub advmss: Option<u32>,
    /// Its metric.
    pub priority: Option<u32>,
    /// The routing table; the main one if `None`.
    pub table: Option<u32>,
}

impl Route {
    /// A route to what is on the link itself.
    pub fn on_link(destination: IpNet) -> Self {
        Self {
            destination,
            gateway: None,
            scope: RouteScope::LINK,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
        }
    }

    /// A route by a next hop.
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), scope: RouteScope::UNIVERSE, ..Self::on_link(destination) }
    }
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
            "ip link add {} address {} mtu {mtu} up type veth peer name {} address {} mtu {mtu} \
             in the container",
            self.identity.host_interface(),
            self.host_mac,
            self.identity.interface(),
            self.container_mac,
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
            Self::SetSysctl(sysctl) => sysctl.fmt(formatter),
            Self::SetLinkUp { side, link } => write!(formatter, "ip link set {link} up {side}"),
            Self::AddAddress { side, link, address } => {
                write!(formatter, "ip address add {address} dev {link} nodad {side}")
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
