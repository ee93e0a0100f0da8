//! VXLAN without a running agent: each node's ADDs alone make it.

use weir_tests::{Capture, Fleet, Header, Place, Pod, Subnet, UDP, UPLINK};

use crate::{DEVICE, pool, registered};

const LIMITED_CONNECTIVITY: u64 = 51;

/// Registered nodes in these subnets, and a pool `blue` that tunnels between them.
fn fleet(subnets: &[Subnet]) -> Fleet {
    let fleet = Fleet::new(subnets);
    (0..subnets.len()).for_each(|member| fleet.register(member));
    pool(&fleet, "blue", 61, "Always");
    fleet
}

/// An ADD on each node, by which it learns what the others have done.
fn round(fleet: &Fleet, name: &str) {
    for member in 0..fleet.members.len() {
        fleet.named_pod(member, "blue", &format!("{name}-{member}"));
    }
}

fn tunnel_address(fleet: &Fleet, member: usize) -> Option<String> {
    registered(fleet, member)["spec"]["ipv4VXLANTunnelAddr"].as_str().map(str::to_owned)
}

/// Whether the device is there in whatever state.
fn has_link(fleet: &Fleet, member: usize) -> bool {
    fleet.members[member].node().run(&["ip", "-brief", "link"]).contains(DEVICE)
}

fn assert_connected(pods: &[Pod], when: &str) {
    for (from, to) in (0..pods.len()).flat_map(|from| (0..pods.len()).map(move |to| (from, to))) {
        let address = pods[to].address.to_string();
        assert!(from == to || pods[from].container.reaches(&address), "{when}: n{from} to n{to}");
    }
}

#[test]
fn adds_alone_make_the_tunnel() {
    let fleet = fleet(&[Subnet::First, Subnet::Second]);
    let pods = [0, 1].map(|member| fleet.pod(member, "blue"));
    // Each learns of the other, and tries again what took longer than an ADD waits for on a busy
    // machine: its tunnel address.
    round(&fleet, "next");
    for (member, it) in fleet.members.iter().enumerate() {
        assert!(it.has_device(DEVICE), "{}", it.name);
        let address = tunnel_address(&fleet, member).expect("it is in the Node");
        let shown = it.node().run(&["ip", "-brief", "-4", "address", "show", DEVICE]);
        assert!(shown.contains(&format!(" {address}/32")), "{address}: {shown}");
        fleet.status(member, "blue").silence();
    }
    assert_eq!(pods[0].container.link("eth0")["mtu"], 1450);
    let capture = Capture::start(fleet.members[0].node(), UPLINK);
    let hosts = [0, 1].map(|member: usize| fleet.members[member].host.address);
    for (from, to) in [(0, 1), (1, 0)] {
        let address = pods[to].address.to_string();
        assert!(pods[from].container.passes(&address, 1450), "n{} to {address}", from + 1);
        assert!(!pods[from].container.passes(&address, 1451), "n{} to {address}", from + 1);
        let seen = capture.headers_of(pods[from].address, pods[to].address);
        assert_eq!(seen, [Header::new(hosts[from], hosts[to], UDP)].into());
        // The node's own packets, too.
        assert!(fleet.members[from].node().reaches(&address), "n{} itself", from + 1);
    }
}

#[test]
fn status_tells_of_a_device_out_of_service() {
    let fleet = fleet(&[Subnet::First, Subnet::Second]);
    let node = fleet.members[0].node();
    let pod = fleet.pod(0, "blue");
    fleet.status(0, "blue").silence();
    let told = |lines: &[&str], words: &[&str]| {
        lines.iter().for_each(|line| drop(node.run(&line.split(' ').collect::<Vec<_>>())));
        fleet.status(0, "blue").failure().expect(LIMITED_CONNECTIVITY, words);
    };
    let repaired = || {
        let answer = fleet.weirctl(0, &["node", "run", "--once", "--node", "n1"]);
        assert!(answer.succeeded, "{answer:?}");
        fleet.status(0, "blue").silence();
    };
    let words = ["vxlan.calico is down", "ip link set vxlan.calico up"];
    told(&["ip link set vxlan.calico down"], &words);
    repaired();
    let words = ["vxlan.calico", "without its address 10.61.0.", "weirctl node run --once"];
    told(&["ip address flush dev vxlan.calico"], &words);
    repaired();
    told(&["ip link delete vxlan.calico"], &["vxlan.calico", "weirctl node run --once"]);
    repaired();
    assert!(fleet.members[0].has_device(DEVICE));
    // A node without containers has nothing to lose.
    node.run(&["ip", "link", "set", DEVICE, "down"]);
    fleet.call(0, "blue", &pod.container).delete(node);
    fleet.status(0, "blue").silence();
}

/// In one subnet no router needs to know the containers.
#[test]
fn a_pool_that_stops_to_tunnel_leaves_no_device_behind() {
    let fleet = fleet(&[Subnet::First; 3]);
    let pods: Vec<Pod> = (0..3).map(|member| fleet.pod(member, "blue")).collect();
    round(&fleet, "next");
    assert_connected(&pods, "by VXLAN");
    assert!((0..3).all(|member| fleet.members[member].has_device(DEVICE)));
    pool(&fleet, "blue", 61, "Never");
    // First each moves its routes and gives its address back, then each sees that none has one.
    for name in ["learns", "sees"] {
        round(&fleet, name);
        assert_connected(&pods, name);
    }
    for (member, it) in fleet.members.iter().enumerate() {
        let links = it.node().run(&["ip", "-brief", "link"]);
        assert!(!has_link(&fleet, member), "{}: {links}", it.name);
        assert_eq!(tunnel_address(&fleet, member), None, "{}", it.name);
        assert!(!it.node().run(&["nft", "list", "tables"]).contains("weir-tunnel"), "{}", it.name);
        fleet.status(member, "blue").silence();
    }
    // And back again.
    pool(&fleet, "blue", 61, "Always");
    for name in ["returns", "is-back"] {
        round(&fleet, name);
        assert_connected(&pods, name);
    }
    assert!((0..3).all(|member| fleet.members[member].has_device(DEVICE)));
}
