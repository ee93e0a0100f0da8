//! Packets in tunnels. `scripts/test.sh` runs this where the kernel has ipip;
//! `cargo test` leaves it out unless it is asked for (`--test ipip`).

mod agentless;
mod article;
mod cluster;
mod move_in;
mod restored;
mod switch;

use std::net::Ipv4Addr;

use weir_tests::{Capture, Header, Host, ICMP, IPIP, Place, Subnet, UPLINK, Underlay};

/// Lets a node have `own` and reach `other` by a tunnel to the node `by`.
fn set_up_tunnel(host: &Host, own: Ipv4Addr, other: Ipv4Addr, by: Ipv4Addr) {
    // It is there already if the module was loaded before, and also when this
    // loads it.
    host.node.succeeds(&["ip", "link", "add", "tunl0", "type", "ipip"]);
    let lines = format!(
        "link set tunl0 mtu 1480 up\n\
         address add {own}/32 dev tunl0\n\
         route add {other}/32 via {by} dev tunl0 onlink src {own}\n"
    );
    host.node.run_with(&["ip", "-batch", "-"], &lines);
}

#[test]
fn a_capture_sees_what_a_tunnel_carries() {
    let underlay = Underlay::new();
    let (near, far) = (underlay.node(Subnet::First, 1), underlay.node(Subnet::Second, 2));
    let (inside_near, inside_far) = (Ipv4Addr::new(10, 7, 1, 1), Ipv4Addr::new(10, 7, 2, 1));
    set_up_tunnel(&near, inside_near, inside_far, far.address);
    set_up_tunnel(&far, inside_far, inside_near, near.address);
    let captures = [Capture::start(&near.node, UPLINK), Capture::start(underlay.router(), "n2")];
    assert!(near.node.passes("10.7.2.1", 1480));
    assert!(!near.node.passes("10.7.2.1", 1481));
    let there = Header::new(near.address, far.address, IPIP);
    let back = Header::new(far.address, near.address, IPIP);
    for capture in &captures {
        let mut packets = capture.packets();
        packets.retain(|packet| packet.original().protocol == ICMP);
        let outer: Vec<_> = packets.iter().map(|packet| packet.outer).collect();
        assert_eq!(outer, [there, back]);
        assert!(packets.iter().all(|packet| packet.length == 1500 && !packet.is_fragment));
    }
    assert!(near.node.reaches("10.7.2.1"));
    assert_eq!(captures[0].headers_of(inside_near, inside_far), [there].into());
}
