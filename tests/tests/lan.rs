//! A pool over the nodes' own network: containers get what is free there, and nobody loses the
//! way to anybody.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use weir_tests::{Call, Container, Fleet, Place, Subnet, address, merge};

/// The nodes' subnet is 172.31.1.0/24, its router .1, and they are .11 and .12.
const POOL: &str = "172.31.1.0/26";

/// What must never be a container's: the network, the router, the nodes, a virtual address of
/// the first node on another link, a next hop of its own.
const IN_USE: [u8; 6] = [0, 1, 11, 12, 20, 33];

fn fleet() -> Fleet {
    let fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("lan", json!({"cidr": POOL, "blockSize": 28}));
    fleet
}

/// With what only the first node knows of.
fn fleet_with_extras() -> Fleet {
    let fleet = fleet();
    let node = fleet.members[0].node();
    node.run(&["ip", "address", "add", "172.31.1.20/32", "dev", "lo"]);
    node.run(&["ip", "route", "add", "10.99.0.0/16", "via", "172.31.1.33"]);
    fleet
}

fn last_byte(result: &Value) -> u8 {
    let address: Ipv4Addr = address(result, 0).parse().expect("an IPv4 address");
    address.octets()[3]
}

/// Takes addresses on the first node until there are none, and answers which.
fn take_all(fleet: &Fleet, call: impl Fn(&Container) -> Call) -> BTreeSet<u8> {
    let node = fleet.members[0].node();
    let mut taken = BTreeSet::new();
    for number in 0..64 {
        let container = node.container(&format!("c{number}"));
        let answer = call(&container).run(node, "ADD");
        if !answer.succeeded {
            answer.failure().expect(101, &["no IPv4 address is left", "reserved"]);
            break;
        }
        assert!(taken.insert(last_byte(&answer.result())), "{answer:?}");
    }
    taken
}

/// What there is for containers in the pool.
fn free() -> BTreeSet<u8> {
    (0..64).filter(|byte| !IN_USE.contains(byte)).collect()
}

fn reaches_the_others(fleet: &Fleet) {
    for member in 0..2 {
        let node = fleet.members[member].node();
        for other in ["172.31.1.1", "172.31.1.11", "172.31.1.12", "172.31.3.10"] {
            assert!(node.reaches(other), "n{} -> {other}", member + 1);
        }
    }
}

#[test]
fn without_an_agent_containers_get_what_is_free() {
    let fleet = fleet_with_extras();
    fleet.register(0);
    fleet.register(1);
    let taken = take_all(&fleet, |container| fleet.call(0, "lan", container));
    assert_eq!(taken, free());
    reaches_the_others(&fleet);
}

#[test]
fn under_another_main_plugin_too() {
    let fleet = fleet_with_extras();
    fleet.register(1);
    let call = |container: &Container| {
        let mut configuration = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "ptp", "nodename": "n1",
            "ipam": {"type": "weir-ipam", "ipv4_pools": ["lan"]},
        });
        merge(&mut configuration, fleet.store.configuration());
        Call::new("weir-ipam", configuration).container(container)
    };
    assert_eq!(take_all(&fleet, call), free());
}

#[test]
fn beside_agents_containers_of_both_nodes_reach_each_other_and_the_lan() {
    let mut fleet = fleet();
    fleet.start_agents();
    // Enough for blocks with nodes and the router in them, and one without.
    let pods = |member: usize| {
        let name = |number| format!("n{}-{number}", member + 1);
        (0..24).map(|number| fleet.named_pod(member, "lan", &name(number))).collect::<Vec<_>>()
    };
    let both = [pods(0), pods(1)];
    for pod in both.iter().flatten() {
        assert!(!IN_USE[..4].contains(&pod.address.octets()[3]), "{}", pod.address);
    }
    for (one, other) in both[0].iter().zip(&both[1]) {
        fleet.until_connected(one, other);
        assert!(
            one.container.reaches("172.31.1.1") || fleet.members[0].node().reaches("172.31.1.1")
        );
    }
    reaches_the_others(&fleet);
    let status = fleet.weirctl(0, &["node", "status"]);
    assert!(status.stdout.contains("pool lan has addresses of 172.31.1.0/24"), "{status:?}");
    let log = fleet.members[0].agent().log();
    assert!(log.contains("pool lan has addresses of 172.31.1.0/24"), "{log}");
    let health = fleet.members[0].agent().answer("/health").unwrap_or_default();
    assert!(health.contains("note: pool lan has addresses of 172.31.1.0/24"), "{health}");
}

#[test]
fn an_address_in_use_is_refused_by_name_and_explained() {
    let fleet = fleet_with_extras();
    fleet.register(1);
    let node = fleet.members[0].node();
    for (byte, what) in [
        (1, "a next hop"),
        (11, "an address of this node"),
        (12, "an address of node n2"),
        (20, "an address of this node"),
        (0, "the network or broadcast address"),
    ] {
        let address = format!("172.31.1.{byte}");
        let container = node.container(&format!("asks-{byte}"));
        let call = fleet.call(0, "lan", &container);
        let answer = call.configure("/args", json!({"cni": {"ips": [address]}})).run(node, "ADD");
        answer.failure().expect(102, &[&address, what]);
    }
    let explained = fleet.weirctl(0, &["ipam", "explain", "--node", "n2"]);
    assert!(explained.stdout.contains("cannot be seen from here"), "{explained:?}");
}

/// A node behind the router, whose address lies in the pool: it is no neighbour, and no route of
/// this node's tells of it.
#[test]
fn a_node_of_another_subnet_keeps_its_address_and_its_way() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    fleet.apply_pool("far", json!({"cidr": "172.31.2.0/27", "blockSize": 28}));
    fleet.start_agents();
    let far = fleet.members[1].host.address.to_string();
    assert_eq!(far, "172.31.2.12");
    let known = || fleet.members[0].node().read("/run/weir/state.json").contains("172.31.2.12");
    fleet.until("n1 has noted where n2 is", known);
    let taken = take_all(&fleet, |container| fleet.call(0, "far", container));
    assert_eq!(taken.len(), 31, "{taken:?}");
    assert!(!taken.contains(&12));
    assert!(fleet.members[0].node().reaches(&far));
}
