//! A route of the kernel, as plans and comparisons have it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The protocol number of every route that Weir makes, so that what is Weir's
/// can be told from the rest: `proto 77` in `ip route`. The kernel leaves
/// numbers above 4 to user space (`linux/rtnetlink.h`); iproute2's `rt_protos`
/// and the routing daemons' own files name no 77, and Calico's Felix uses 80.
pub const ROUTE_PROTOCOL: u8 = 77;

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
    /// The address that the node itself sends from by it, if not of the kernel's choice.
    pub source: Option<IpAddr>,
}

/// The addresses that a node is registered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAddresses {
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

impl SourceAddresses {
    /// That of the family of `like`.
    pub(super) fn of_family(self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.ipv4.map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
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
            source: None,
        }
    }

    /// A route by a next hop.
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), scope: RouteScope::UNIVERSE, ..Self::on_link(destination) }
    }
}
