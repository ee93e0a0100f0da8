//! One change of the kernel's state, and its text.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::actual::ANNOUNCE_TABLE;
use super::plan::RouteKind;
use super::tunnels::VxlanDevice;
use crate::link::MacAddress;
use crate::network::route::ROUTE_PROTOCOL;
use crate::tunnel::TunnelKind;

/// The alias of a tunnel device that Weir has in service. (The aliases of
/// attachments begin with `weir:`.)
pub const TUNNEL_ALIAS: &str = "weir";

/// One change. Its text is the command of iproute2 or sysctl that would do the
/// same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the tunnel device, one of VXLAN as it says; the kernel loads its module by itself
    /// where it can.
    CreateTunnel(TunnelKind, Option<VxlanDevice>),
    /// Delete the tunnel device, with its addresses, its routes and all else that it has.
    DeleteTunnel(TunnelKind),
    /// Write on the tunnel device that Weir has it in service.
    ClaimTunnel(TunnelKind),
    /// Take that back.
    DisclaimTunnel(TunnelKind),
    /// Give the tunnel device its MTU in bytes.
    SetTunnelMtu(TunnelKind, u32),
    /// Give the tunnel device an address.
    AddTunnelAddress(TunnelKind, IpAddr),
    /// Take an address from the tunnel device.
    RemoveTunnelAddress(TunnelKind, IpNet),
    /// Bring the tunnel device up.
    SetTunnelUp(TunnelKind),
    /// Take the tunnel device out of service.
    SetTunnelDown(TunnelKind),
    /// Say behind which node a hardware address is, whatever was said before: the kernel takes a
    /// second node for one hardware address without an error and does not keep it
    /// (`vxlan_fdb_update_existing` in `drivers/net/vxlan/vxlan_core.c`).
    AddForwarding(TunnelKind, MacAddress, IpAddr),
    /// Take that back.
    RemoveForwarding(TunnelKind, MacAddress, IpAddr),
    /// Say which hardware address a next hop has, whatever it had before.
    SetNeighbour(TunnelKind, IpAddr, MacAddress),
    /// Take that back.
    RemoveNeighbour(TunnelKind, IpAddr),
    /// Let packets in on a link that would be answered by another one
    /// (`rp_filter` 2, loose).
    LoosenReversePath(String),
    /// Add a route where there is none.
    AddRoute(IpNet, RouteKind),
    /// Put a route in the place of Weir's own one, at once, so that no packet is
    /// lost in between.
    ReplaceRoute(IpNet, RouteKind),
    /// Delete a route of Weir's; one that leads some other way stays.
    DeleteRoute(IpNet, Option<RouteKind>),
    /// Let others learn by BGP that a range is here.
    Announce(IpNet),
    /// Take that back.
    Withdraw(IpNet),
}

impl fmt::Display for RouteKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blackhole => formatter.write_str("blackhole"),
            Self::Direct { next_hop, link, source } => {
                write!(formatter, "via {next_hop} dev {link} src {source}")
            }
            Self::Tunnel { kind, next_hop, source } => {
                write!(formatter, "via {next_hop} dev {} onlink", kind.device())?;
                source.map_or(Ok(()), |source| write!(formatter, " src {source}"))
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = |formatter: &mut fmt::Formatter<'_>,
                     verb,
                     destination: &IpNet,
                     way: &RouteKind| {
            let protocol = ROUTE_PROTOCOL;
            match way {
                RouteKind::Blackhole => {
                    write!(formatter, "ip route {verb} blackhole {destination} proto {protocol}")
                }
                way => write!(formatter, "ip route {verb} {destination} {way} proto {protocol}"),
            }
        };
        match self {
            Self::CreateTunnel(kind, vxlan) => {
                let row = kind.row();
                write!(formatter, "ip link add {} ", row.device)?;
                let Some(vxlan) = vxlan else {
                    return write!(formatter, "type {}", row.link_kind);
                };
                let VxlanDevice { vni, port, local, parent, mac, is_learning } = vxlan;
                let learning = if *is_learning { "" } else { "no" };
                write!(formatter, "address {mac} type {} id {vni} dstport {port} ", row.link_kind)?;
                write!(formatter, "local {local} {learning}learning")?;
                parent.as_ref().map_or(Ok(()), |parent| write!(formatter, " dev {parent}"))
            }
            Self::DeleteTunnel(kind) => write!(formatter, "ip link delete {}", kind.device()),
            Self::ClaimTunnel(kind) => {
                write!(formatter, "ip link set {} alias {TUNNEL_ALIAS}", kind.device())
            }
            Self::DisclaimTunnel(kind) => {
                write!(formatter, "ip link set {} alias \"\"", kind.device())
            }
            Self::SetTunnelMtu(kind, mtu) => {
                write!(formatter, "ip link set {} mtu {mtu}", kind.device())
            }
            Self::AddTunnelAddress(kind, address) => {
                write!(formatter, "ip address add {} dev {}", IpNet::from(*address), kind.device())
            }
            Self::RemoveTunnelAddress(kind, address) => {
                write!(formatter, "ip address delete {address} dev {}", kind.device())
            }
            Self::SetTunnelUp(kind) => write!(formatter, "ip link set {} up", kind.device()),
            Self::SetTunnelDown(kind) => write!(formatter, "ip link set {} down", kind.device()),
            Self::AddForwarding(kind, mac, node) => {
                write!(
                    formatter,
                    "bridge fdb replace {mac} dev {} dst {node} self permanent",
                    kind.device()
                )
            }
            Self::RemoveForwarding(kind, mac, node) => {
                write!(formatter, "bridge fdb delete {mac} dev {} dst {node} self", kind.device())
            }
            Self::SetNeighbour(kind, address, mac) => {
                let device = kind.device();
                write!(
                    formatter,
                    "ip neighbour replace {address} lladdr {mac} dev {device} nud permanent"
                )
            }
            Self::RemoveNeighbour(kind, address) => {
                write!(formatter, "ip neighbour delete {address} dev {}", kind.device())
            }
            Self::LoosenReversePath(link) => {
                write!(formatter, "sysctl -w net/ipv4/conf/{link}/rp_filter=2")
            }
            Self::AddRoute(destination, way) => route(formatter, "add", destination, way),
            Self::ReplaceRoute(destination, way) => route(formatter, "replace", destination, way),
            Self::DeleteRoute(destination, Some(way)) => {
                route(formatter, "delete", destination, way)
            }
            Self::DeleteRoute(destination, None) => {
                write!(formatter, "ip route delete {destination} proto {ROUTE_PROTOCOL}")
            }
            Self::Announce(range) => {
                let protocol = ROUTE_PROTOCOL;
                write!(
                    formatter,
                    "ip route add blackhole {range} proto {protocol} table {ANNOUNCE_TABLE}"
                )
            }
            Self::Withdraw(range) => {
                write!(
                    formatter,
                    "ip route delete {range} proto {ROUTE_PROTOCOL} table {ANNOUNCE_TABLE}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `append` leaves what was there before, without an error.
    #[test]
    fn a_forwarding_entry_takes_the_place_of_another() {
        let mac = MacAddress([0x66, 0, 0, 0, 0, 1]);
        let change = Change::AddForwarding(TunnelKind::Vxlan, mac, "192.0.2.1".parse().unwrap());
        assert_eq!(
            change.to_string(),
            "bridge fdb replace 66:00:00:00:00:01 dev vxlan.calico dst 192.0.2.1 self permanent"
        );
    }
}
