//! The harness for clusters itself: the network beneath them, captures, and an
//! etcd that goes and comes back.

use weir_tests::{Capture, Etcd, Header, ICMP, Place, Subnet, UPLINK, Underlay};

#[test]
fn hosts_of_all_subnets_reach_each_other() {
    let underlay = Underlay::new();
    let nodes = [
        underlay.node(Subnet::First, 1),
        underlay.node(Subnet::First, 2),
        underlay.node(Subnet::Second, 3),
    ];
    let outside = underlay.outside();
    let addresses = nodes.each_ref().map(|host| host.address.to_string());
    assert_eq!(addresses, ["172.31.1.11", "172.31.1.12", "172.31.2.13"]);
    for host in nodes.iter().chain([&outside]) {
        for address in addresses.iter().chain([&outside.address.to_string()]) {
            assert!(host.node.reaches(address), "{} -> {address}", host.node.name());
        }
    }
}

#[test]
fn only_the_underlays_own_addresses_are_routed() {
    let underlay = Underlay::new();
    let (near, far) = (underlay.node(Subnet::First, 1), underlay.node(Subnet::Second, 2));
    far.node.run(&["ip", "address", "add", "10.7.0.1/32", "dev", "lo"]);
    assert!(!near.node.reaches("10.7.0.1"));
    let by_far = far.address.to_string();
    underlay.router().run(&["ip", "route", "add", "10.7.0.0/24", "via", &by_far]);
    assert!(near.node.reaches("10.7.0.1"));
}

#[test]
fn a_packet_as_large_as_the_mtu_passes_and_no_larger_one() {
    let underlay = Underlay::new();
    let (near, far) = (underlay.node(Subnet::First, 1), underlay.node(Subnet::Second, 2));
    let capture = Capture::start(underlay.router(), "n2");
    assert!(near.node.passes(&far.address.to_string(), 1500));
    assert!(!near.node.passes(&far.address.to_string(), 1501));
    assert_eq!(pings(&capture), [(1500, false), (1500, false)]);
    underlay.router().run(&["ip", "link", "set", "n2", "mtu", "1400"]);
    far.node.run(&["ip", "link", "set", UPLINK, "mtu", "1400"]);
    near.node.run(&["ping", "-q", "-c1", "-W2", "-Mdont", "-s1472", &far.address.to_string()]);
    let lengths = [(1396, true), (124, true)];
    assert_eq!(pings(&capture), [lengths, lengths].concat());
}

/// The length of each packet of a ping, and whether it is a fragment. Hosts
/// send others now and then, about groups.
fn pings(capture: &Capture) -> Vec<(usize, bool)> {
    let packets = capture.packets();
    let pings = packets.iter().filter(|packet| packet.outer.protocol == ICMP);
    pings.map(|packet| (packet.length, packet.is_fragment)).collect()
}

#[test]
fn a_capture_sees_a_ping_from_its_start_on() {
    let underlay = Underlay::new();
    let (near, far) = (underlay.node(Subnet::First, 1), underlay.node(Subnet::Second, 2));
    let to_far = Header::new(near.address, far.address, ICMP);
    assert!(near.node.reaches(&far.address.to_string()));
    let captures = [
        Capture::start(&near.node, UPLINK),
        Capture::start(underlay.router(), "n1"),
        Capture::start(underlay.router(), "n2"),
    ];
    let elsewhere = Capture::start(&near.node, "lo");
    for _ in 0..2 {
        assert!(near.node.reaches(&far.address.to_string()));
        for capture in &captures {
            assert_eq!(capture.headers_of(near.address, far.address), [to_far].into());
            assert!(capture.headers_of(near.address, far.address).is_empty());
        }
    }
    assert!(elsewhere.headers_of(near.address, far.address).is_empty());
}

#[test]
fn a_host_that_is_cut_off_comes_back() {
    let underlay = Underlay::new();
    let nodes = [1, 2, 3].map(|number| underlay.node(Subnet::First, number));
    let addresses = nodes.each_ref().map(|host| host.address.to_string());
    underlay.cut(&nodes[0].node);
    assert!(!nodes[0].node.reaches(&addresses[1]));
    assert!(!nodes[1].node.reaches(&addresses[0]));
    assert!(nodes[1].node.reaches(&addresses[2]));
    assert_eq!(nodes[0].node.link(UPLINK)["operstate"], "UP");
    underlay.heal(&nodes[0].node);
    assert!(nodes[0].node.reaches(&addresses[1]));
}

/// The value of a key as a host sees it.
fn get(host: &impl Place, etcd: &Etcd, key: &str) -> String {
    let endpoint = etcd.endpoint();
    host.run(&["etcdctl", "--endpoints", &endpoint, "get", "--print-value-only", key])
}

#[test]
fn etcd_is_stopped_restarted_and_restored() {
    let underlay = Underlay::new();
    let node = underlay.node(Subnet::Second, 1).node;
    let mut etcd = underlay.etcd();
    etcd.put("/calico/a", "old");
    assert_eq!(get(&node, &etcd, "/calico/a"), "old\n");
    etcd.save("/run/snapshot");
    etcd.put("/calico/a", "new");
    etcd.stop();
    assert!(!node.succeeds(&["etcdctl", "--endpoints", &etcd.endpoint(), "get", "/calico/a"]));
    etcd.restart();
    assert_eq!(get(&node, &etcd, "/calico/a"), "new\n");
    etcd.stop();
    etcd.restore("/run/snapshot");
    assert_eq!(get(&node, &etcd, "/calico/a"), "old\n");
    underlay.cut(etcd.node());
    assert!(!node.succeeds(&["etcdctl", "--endpoints", &etcd.endpoint(), "get", "/calico/a"]));
    underlay.heal(etcd.node());
    assert_eq!(get(&node, &etcd, "/calico/a"), "old\n");
}
