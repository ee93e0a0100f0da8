//! IPIP: an IPv4 packet in another one (RFC 2003), protocol 4.

use super::TunnelRow;

pub(super) const ROW: TunnelRow = TunnelRow {
    name: "IPIP",
    id: "ipip",
    // The one that the kernel's module makes by itself in every namespace, and Calico uses
    // (`felix/dataplane/linux/ipip_mgr.go`).
    device: "tunl0",
    link_kind: "ipip",
    module: "ipip",
    is_ipv6: false,
    // An IPv4 header.
    overhead: 20,
    mode_field: "ipipMode",
    handle_prefix: "ipip-tunnel-addr-",
    attribute_type: "ipipTunnelAddress",
    address_field: &["bgp", "ipv4IPIPTunnelAddr"],
    mac_field: None,
    is_deletable: false,
    needs_peer_address: false,
};
