//! VXLAN: an Ethernet frame in UDP (RFC 7348). One device for each family, as in Calico
//! (`felix/dataplane/linux/vxlan_mgr.go`).

use std::net::Ipv6Addr;

use sha1::{Digest, Sha1};

use super::{TunnelKind, TunnelRow};
use crate::link::MacAddress;

/// The network identifier that counts where FelixConfiguration has none (`vxlanVNI`).
pub const VXLAN_VNI: u32 = 4096;

/// The UDP port that counts where FelixConfiguration has none (`vxlanPort`); IANA's.
pub const VXLAN_PORT: u16 = 4789;

pub(super) const ROW: TunnelRow = TunnelRow {
    name: "VXLAN",
    id: "vxlan",
    device: "vxlan.calico",
    link_kind: "vxlan",
    module: "vxlan",
    is_ipv6: false,
    // Headers of IPv4 (20), UDP (8), VXLAN (8) and Ethernet (14).
    overhead: 50,
    mode_field: "vxlanMode",
    handle_prefix: "vxlan-tunnel-addr-",
    attribute_type: "vxlanTunnelAddress",
    address_field: &["ipv4VXLANTunnelAddr"],
    mac_field: Some("vxlanTunnelMACAddr"),
    is_deletable: true,
    needs_peer_address: true,
};

pub(super) const ROW_V6: TunnelRow = TunnelRow {
    name: "VXLAN for IPv6",
    id: "vxlan-v6",
    device: "vxlan-v6.calico",
    is_ipv6: true,
    // A header of IPv6 is 20 bytes longer.
    overhead: 70,
    handle_prefix: "vxlan-v6-tunnel-addr-",
    attribute_type: "vxlanV6TunnelAddress",
    address_field: &["ipv6VXLANTunnelAddr"],
    mac_field: Some("vxlanTunnelMACAddrV6"),
    ..ROW
};

/// The hardware address of a node's device, where its Node says no other: "f" and the first five
/// bytes of the SHA-1 of the node's name, with `-v6` behind it for IPv6 (Calico:
/// `felix/calc/vxlan_resolver.go`, vtepMACForHost). It stays the same over reboots.
///
/// `kind` is one of VXLAN.
pub fn vxlan_mac(kind: TunnelKind, node: &str) -> MacAddress {
    let suffix = if kind.row().is_ipv6 { "-v6" } else { "" };
    let digest = Sha1::digest(format!("{node}{suffix}"));
    MacAddress([b'f', digest[0], digest[1], digest[2], digest[3], digest[4]])
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf n1 | sha1sum` and `printf n1-v6 | sha1sum`.
    #[test]
    fn the_hardware_address_follows_from_the_name() {
        assert_eq!(vxlan_mac(TunnelKind::Vxlan, "n1").to_string(), "66:40:b3:ea:b6:3f");
        assert_eq!(vxlan_mac(TunnelKind::VxlanV6, "n1").to_string(), "66:46:32:55:72:28");
    }

    #[test]
    fn a_link_local_address_has_the_hardware_address_in_it() {
        let mac = MacAddress([0x66, 1, 2, 3, 4, 5]);
        assert_eq!(link_local(mac).to_string(), "fe80::6401:2ff:fe03:405");
    }
}
