//! VXLAN: an Ethernet frame in UDP (RFC 7348). One device for each family, as in Calico
//! (`felix/dataplane/linux/vxlan_mgr.go`).

use std::net::Ipv6Addr;

use sha1::{Digest, Sha1};

use super::{Encapsulation, Frames, TunnelNextHop, TunnelRow};
use crate::link::MacAddress;

pub(super) const ROW: TunnelRow = TunnelRow {
    name: "VXLAN",
    id: "vxlan",
    device: "vxlan.calico",
    link_kind: "vxlan",
    module: "vxlan",
    module_option: "CONFIG_VXLAN",
    module_symbol: "vxlan_setup",
    is_ipv6: false,
    encapsulation: in_udp("vxlanTunnelMACAddr", |node| hardware_address(node, "")),
    // Headers of IPv4 (20), UDP (8), VXLAN (8) and Ethernet (14).
    overhead: 50,
    // As in Calico.
    next_hop: TunnelNextHop::TunnelAddress,
    takes_external: true,
    mode_field: "vxlanMode",
    mtu_field: "vxlanMTU",
    enabled_field: Some("vxlanEnabled"),
    handle_prefix: "vxlan-tunnel-addr-",
    attribute_type: "vxlanTunnelAddress",
    address_field: &["ipv4VXLANTunnelAddr"],
    is_deletable: true,
    needs_peer_address: true,
};

pub(super) const ROW_V6: TunnelRow = TunnelRow {
    name: "VXLAN for IPv6",
    id: "vxlan-v6",
    device: "vxlan-v6.calico",
    is_ipv6: true,
    encapsulation: in_udp("vxlanTunnelMACAddrV6", |node| hardware_address(node, "-v6")),
    // A header of IPv6 is 20 bytes longer.
    overhead: 70,
    next_hop: TunnelNextHop::LinkLocal,
    mtu_field: "vxlanMTUV6",
    handle_prefix: "vxlan-v6-tunnel-addr-",
    attribute_type: "vxlanV6TunnelAddress",
    address_field: &["ipv6VXLANTunnelAddr"],
    ..ROW
};

/// The same port, IANA's, and network identifier for both families.
const fn in_udp(mac_field: &'static str, mac_of: fn(&str) -> MacAddress) -> Encapsulation {
    let frames = Frames { vni: 4096, vni_field: "vxlanVNI", mac_field, mac_of };
    Encapsulation::Udp { port: 4789, port_field: "vxlanPort", frames: Some(frames) }
}

/// The hardware address of a node's device: "f" and the first five bytes of the SHA-1 of the
/// node's name, with `suffix` behind it (Calico: `felix/calc/vxlan_resolver.go`,
/// vtepMACForHost). It stays the same over reboots.
fn hardware_address(node: &str, suffix: &str) -> MacAddress {
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
    use crate::tunnel::TunnelKind;

    /// Made with `printf n1 | sha1sum` and `printf n1-v6 | sha1sum`.
    #[test]
    fn the_hardware_address_follows_from_the_name() {
        assert_eq!(TunnelKind::Vxlan.mac("n1").unwrap().to_string(), "66:40:b3:ea:b6:3f");
        assert_eq!(TunnelKind::VxlanV6.mac("n1").unwrap().to_string(), "66:46:32:55:72:28");
    }

    #[test]
    fn a_link_local_address_has_the_hardware_address_in_it() {
        let mac = MacAddress([0x66, 1, 2, 3, 4, 5]);
        assert_eq!(link_local(mac).to_string(), "fe80::6401:2ff:fe03:405");
    }
}
