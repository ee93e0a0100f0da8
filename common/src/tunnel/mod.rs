//! The kinds of tunnels between nodes, as rows of one table.
//!
//! What differs from kind to kind stands in the kind's own file; all else in Weir goes over
//! [`TunnelKind::ALL`] and asks the row. `docs/tunnels.md` gives the table and the reasons.

mod ipip;
mod vxlan;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::link::MacAddress;

pub use vxlan::link_local;

/// A kind of tunnel: its encapsulation, and the family of addresses that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (RFC 2003).
    #[serde(rename = "ipip")]
    Ipip,
    /// IPv4 in VXLAN over IPv4 (RFC 7348).
    #[serde(rename = "vxlan")]
    Vxlan,
    /// IPv6 in VXLAN over IPv6.
    #[serde(rename = "vxlan-v6")]
    VxlanV6,
}

/// What a kind of tunnel is like.
#[derive(Debug)]
pub struct TunnelRow {
    /// What people call it.
    pub name: &'static str,
    /// Its name in metrics and in JSON.
    pub id: &'static str,
    /// The name of its device, which is Calico's.
    pub device: &'static str,
    /// The kernel's name for the kind of device.
    pub link_kind: &'static str,
    /// The kernel module that makes such devices.
    pub module: &'static str,
    /// The option that the kernel is built by with it.
    pub module_option: &'static str,
    /// A function that only it has, as `/proc/kallsyms` lists it.
    pub module_symbol: &'static str,
    /// Whether it carries IPv6, over IPv6; else IPv4 over IPv4.
    pub is_ipv6: bool,
    /// What it puts packets into.
    pub encapsulation: Encapsulation,
    /// How many bytes it adds to a packet.
    pub overhead: u32,
    /// The next hop of routes to a node by it.
    pub next_hop: TunnelNextHop,
    /// Whether it takes packets from other senders than nodes (`externalNodesList`).
    pub takes_external: bool,
    /// The field of a pool that asks for it.
    pub mode_field: &'static str,
    /// The field of FelixConfiguration with the MTU of its device.
    pub mtu_field: &'static str,
    /// The field of FelixConfiguration that switches it off; none where the pools decide alone.
    pub enabled_field: Option<&'static str>,
    /// What the handle of a node's address is called, before the node's name
    /// (`node/pkg/allocateip/allocateip.go`, generateHandleAndAttributes).
    pub handle_prefix: &'static str,
    /// What an allocation's attribute `type` says of it (`libcalico-go/lib/ipam/ipam_types.go`).
    pub attribute_type: &'static str,
    /// The field of a Node that has its address, below `spec`.
    pub address_field: &'static [&'static str],
    /// Whether its device is made and deleted as it is needed. The kernel's own `tunl0` cannot
    /// be deleted.
    pub is_deletable: bool,
    /// Whether another node is reached by it only once that node has an address for it.
    pub needs_peer_address: bool,
}

/// What a kind of tunnel puts packets into.
#[derive(Debug)]
pub enum Encapsulation {
    /// IP packets of this protocol.
    Protocol(u8),
    /// UDP.
    Udp {
        /// The port that counts where FelixConfiguration has none.
        port: u16,
        /// The field of FelixConfiguration with the port.
        port_field: &'static str,
        /// What its device is made with, where it carries Ethernet frames.
        frames: Option<Frames>,
    },
}

/// What a kind of tunnel needs besides that carries Ethernet frames. Its device is told the
/// node's address, and behind which node each hardware address is.
#[derive(Debug)]
pub struct Frames {
    /// The network identifier that counts where FelixConfiguration has none.
    pub vni: u32,
    /// The field of FelixConfiguration with the network identifier.
    pub vni_field: &'static str,
    /// The field of a Node, below `spec`, that has the hardware address of its device, where
    /// that is not the one that follows from its name.
    pub mac_field: &'static str,
    /// The hardware address that follows from a node's name.
    pub mac_of: fn(&str) -> MacAddress,
}

/// The next hop of routes to a node by a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelNextHop {
    /// The node itself.
    Node,
    /// The node's tunnel address.
    TunnelAddress,
    /// The link-local address of the node's device, once the node has a tunnel address: for IPv6
    /// the kernel takes no next hop beyond the link that it knows another way to
    /// (`ip6_route_check_nh_onlink` in `net/ipv6/route.c`).
    LinkLocal,
}

impl TunnelRow {
    /// What it needs besides where it carries Ethernet frames.
    pub const fn frames(&self) -> Option<&Frames> {
        match &self.encapsulation {
            Encapsulation::Udp { frames, .. } => frames.as_ref(),
            Encapsulation::Protocol(_) => None,
        }
    }

    /// What it means for containers that their node needs an address for it and has none, in
    /// words.
    pub const fn without_address(&self) -> &'static str {
        if self.needs_peer_address {
            "until it has one, nothing goes through the tunnel between its containers and other nodes"
        } else {
            "its containers reach those of other nodes all the same"
        }
    }
}

impl TunnelKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Vxlan, Self::VxlanV6];

    /// Its row of the table.
    pub const fn row(self) -> &'static TunnelRow {
        match self {
            Self::Ipip => &ipip::ROW,
            Self::Vxlan => &vxlan::ROW,
            Self::VxlanV6 => &vxlan::ROW_V6,
        }
    }

    /// One kind for each field of a pool that asks for tunnels: the first.
    pub fn of_modes() -> impl Iterator<Item = Self> {
        let first = |kind: &Self| Self::ALL.into_iter().find(|other| other.shares_mode(*kind));
        Self::ALL.into_iter().filter(move |kind| first(kind) == Some(*kind))
    }

    /// Whether pools ask for both by the same field.
    pub fn shares_mode(self, other: Self) -> bool {
        self.row().mode_field == other.row().mode_field
    }

    /// The hardware address of the device of the node of this name, where its Node says no
    /// other; none for a kind that carries no Ethernet frames.
    pub fn mac(self, node: &str) -> Option<MacAddress> {
        self.row().frames().map(|frames| (frames.mac_of)(node))
    }

    /// Whether it carries packets to `address`.
    pub fn carries(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.row().is_ipv6
    }

    /// The name of its device.
    pub fn device(self) -> &'static str {
        self.row().device
    }

    /// The kind whose device has this name.
    pub fn of_device(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.device() == name)
    }

    /// The kind whose addresses have this handle, and the node whose the handle is.
    pub fn of_handle(handle: &str) -> Option<(Self, &str)> {
        let mut kinds = Self::ALL.into_iter();
        kinds.find_map(|kind| Some((kind, handle.strip_prefix(kind.row().handle_prefix)?)))
    }

    /// The handle of `node`'s address.
    pub fn handle_of(self, node: &str) -> String {
        format!("{}{node}", self.row().handle_prefix)
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.row().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handle_is_of_its_own_kind() {
        for kind in TunnelKind::ALL {
            assert_eq!(TunnelKind::of_handle(&kind.handle_of("n1")), Some((kind, "n1")));
        }
        assert_eq!(TunnelKind::of_handle("k8s-pod-network.abc"), None);
    }

    #[test]
    fn kinds_share_no_name() {
        let columns: [fn(&TunnelRow) -> &str; 4] =
            [|row| row.id, |row| row.device, |row| row.attribute_type, |row| row.name];
        for column in columns {
            let all: std::collections::BTreeSet<&str> =
                TunnelKind::ALL.into_iter().map(|kind| column(kind.row())).collect();
            assert_eq!(all.len(), TunnelKind::ALL.len());
        }
        for (one, other) in TunnelKind::ALL.into_iter().flat_map(|one| {
            let others = TunnelKind::ALL.into_iter().filter(move |other| *other != one);
            others.map(move |other| (one, other))
        }) {
            let [one, other] = [one, other].map(|kind| kind.row().handle_prefix);
            assert!(!one.starts_with(other), "{one} {other}: a handle is of one kind");
        }
    }
}
