//! Weir's agent and plugins take Calico's place on a node of a recorded cluster
//! with pools that tunnel.

use weir_tests::{Families, Moved};

#[test]
fn weir_takes_calicos_place_among_pools_of_every_mode() {
    let moved = Moved::new("seed");
    let routes = [
        // pool-cross: directly within the subnet.
        ("10.252.0.0/26", "via 172.16.2.13 dev tunl0"),
        ("10.252.0.64/26", "via 172.16.1.12 dev eth0"),
        ("10.252.0.128/26", "blackhole"),
        ("10.252.0.192/26", "via 172.16.2.14 dev tunl0"),
        // pool-always.
        ("10.253.0.0/26", "via 172.16.2.13 dev tunl0"),
        ("10.253.0.64/26", "via 172.16.1.12 dev tunl0"),
        ("10.253.0.128/26", "blackhole"),
        ("10.253.0.192/26", "via 172.16.2.14 dev tunl0"),
        // pool-bgp: what is in another subnet is BGP's.
        ("10.254.0.64/26", "via 172.16.1.12 dev eth0"),
        ("10.254.0.128/26", "blackhole"),
    ];
    moved.assert_routes(&routes);
    moved.assert_containers_disturb_nobody(Families::V4);
    moved.assert_routes(&routes);
}

#[test]
fn weir_takes_calicos_place_among_borrowed_addresses_and_small_blocks() {
    let moved = Moved::new("busy");
    moved.assert_routes(&[
        // blue: cross-subnet; two addresses of this node's last block are in use on n4.
        ("10.7.0.0/30", "via 172.16.1.13 dev eth0"),
        ("10.7.0.4/30", "via 172.16.1.13 dev eth0"),
        ("10.7.0.8/30", "blackhole"),
        ("10.7.0.12/30", "blackhole"),
        ("10.7.0.16/30", "blackhole"),
        ("10.7.0.17", "via 172.16.2.14 dev tunl0"),
        ("10.7.0.18", "via 172.16.2.14 dev tunl0"),
        ("10.7.0.20/30", "via 172.16.1.12 dev eth0"),
        ("10.7.0.24/30", "via 172.16.1.12 dev eth0"),
        ("10.7.0.28/30", "via 172.16.2.14 dev tunl0"),
        // hand: without IPIP.
        ("10.9.0.8/29", "via 172.16.1.12 dev eth0"),
        ("10.9.0.16/29", "via 172.16.1.12 dev eth0"),
        ("10.9.0.24/29", "via 172.16.1.12 dev eth0"),
        // solo: blocks of one address; n4 is in another subnet.
        ("10.10.0.1", "via 172.16.1.13 dev eth0"),
        ("10.10.0.4", "via 172.16.1.12 dev eth0"),
        ("10.10.0.6", "via 172.16.1.13 dev eth0"),
        // six; edge has VXLAN, for which its nodes have no addresses yet.
        ("fd00:7::2ff6:9651:8f4f:40/122", "via 2001:db8::6 dev eth0"),
        ("fd00:7::fc01:3ef3:4b44:f900/122", "via 2001:db8::5 dev eth0"),
    ]);
    moved.assert_containers_disturb_nobody(Families::Dual);
}
