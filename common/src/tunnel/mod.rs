//! The kinds of tunnels between nodes, as rows of one table.
//!
//! What differs from kind to kind in the datastore and in names stands in the kind's own file;
//! all else in Weir goes over [`TunnelKind::ALL`] and asks the row. `docs/tunnels.md` gives the
//! table and the reasons.

mod ipip;
mod vxlan;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use vxlan::{VXLAN_PORT, VXLAN_VNI, link_local, vxlan_mac};

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
    /// Whether it carries IPv6, over IPv6; else IPv4 over IPv4.
    pub is_ipv6: bool,
    /// How many bytes it adds to a packet.
    pub overhead: u32,
    /// The field of a pool that asks for it.
    pub mode_field: &'static str,
    /// What the handle of a node's address is called, before the node's name
    /// (`node/pkg/allocateip/allocateip.go`, generateHandleAndAttributes).
    pub handle_prefix: &'static str,
    /// What an allocation's attribute `type` says of it (`libcalico-go/lib/ipam/ipam_types.go`).
    pub attribute_type: &'static str,
    /// The field of a Node that has its address, below `spec`.
    pub address_field: &'static [&'static str],
    /// The field of a Node, below `spec`, that has the hardware address of its device, where
    /// that is not the one that follows from its name.
    pub mac_field: Option<&'static str>,
    /// Whether its device is made and deleted as it is needed. The kernel's own `tunl0` cannot
    /// be deleted.
    pub is_deletable: bool,
    /// Whether another node is reached by it only once that node has an address for it.
    pub needs_peer_address: bool,
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

    /// Whether it is one of VXLAN.
    pub fn is_vxlan(self) -> bool {
        matches!(self, Self::Vxlan | Self::VxlanV6)
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
