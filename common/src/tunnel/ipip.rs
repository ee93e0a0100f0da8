//! IPIP: an IPv4 packet in another one (RFC 2003), protocol 4.

use super::{Encapsulation, TunnelNextHop, TunnelRow};

pub(super) const ROW: TunnelRow = TunnelRow {
    name: "IPIP",
    id: "ipip",
    // The one that the kernel's module makes by itself in every namespace, and Calico uses
    // (`felix/dataplane/linux/ipip_mgr.go`).
    device: "tunl0",
    link_kind: "ipip",
    module: "ipip",
    module_option: "CONFIG_NET_IPIP",
    module_symbol: "ipip_tunnel_setup",
    is_ipv6: false,
    encapsulation: Encapsulation::Protocol(4),
    // An IPv4 header.
    overhead: 20,
    next_hop: TunnelNextHop::Node,
    takes_external: false,
    mode_field: "ipipMode",
    mtu_field: "ipipMTU",
    // Calico's own routes by IPIP are BIRD's, which does not ask for `ipipEnabled`.
    enabled_field: None,
    handle_prefix: "ipip-tunnel-addr-",
    attribute_type: "ipipTunnelAddress",
    address_field: &["bgp", "ipv4IPIPTunnelAddr"],
    is_deletable: false,
    needs_peer_address: false,
};
