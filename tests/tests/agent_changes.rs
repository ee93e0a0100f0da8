//! Pools and nodes that change while containers run, where no tunnel is needed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};
use weir_tests::{Entries, Fleet, Place, Pod, Subnet};

/// The pool `direct`, with these additions.
fn direct(additions: Value) -> Value {
    let mut spec = json!({"cidr": "10.7.0.0/24", "blockSize": 28});
    weir_tests::merge(&mut spec, additions);
    spec
}

/// Two nodes in one subnet with agents, and a container on each.
fn two_nodes() -> (Fleet, [Pod; 2]) {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", direct(json!({})));
    fleet.start_agents();
    let pods = fleet.connected_pods("direct");
    fleet.until_routed(2);
    (fleet, pods)
}

/// Lets both agents take in all that the datastore has told until now: what comes
/// later than it makes a route.
fn settle(fleet: &Fleet) {
    fleet.apply_pool("marker", json!({"cidr": "10.9.0.0/24", "blockSize": 28}));
    fleet.pod(0, "marker");
    for member in &fleet.members {
        fleet.until("the marker is routed", || member.routes().join("\n").contains("10.9.0."));
    }
}

/// The nftables rules of a node.
fn rules(fleet: &Fleet, member: usize) -> String {
    fleet.members[member].node().run(&["nft", "list", "ruleset"])
}

#[test]
fn a_pool_that_is_disabled_keeps_its_containers() {
    let (fleet, pods) = two_nodes();
    fleet.apply_pool("direct", direct(json!({"natOutgoing": true})));
    fleet.until("there is NAT", || rules(&fleet, 0).contains("10.7.0.0/24"));
    let (routes, nat) = (fleet.members[0].routes(), rules(&fleet, 0));
    pods[0].without_a_loss(&pods[1], || {
        fleet.apply_pool("direct", direct(json!({"natOutgoing": true, "disabled": true})));
        settle(&fleet);
    });
    let kept: Vec<String> = fleet.members[0].routes();
    let kept: Vec<&String> = kept.iter().filter(|line| !line.contains("10.9.0.")).collect();
    assert_eq!(kept, routes.iter().collect::<Vec<_>>());
    assert!(nat.contains("masquerade") && rules(&fleet, 0).contains("masquerade"), "{nat}");
    let node = fleet.members[0].node();
    let late = node.container("late");
    let answer = fleet.call(0, "direct", &late).run(node, "ADD");
    answer.failure().expect(7, &["direct", "disabled"]);
    fleet.call(0, "direct", &pods[0].container).delete(node);
}

#[test]
fn a_pool_that_only_its_key_is_gone_of_keeps_its_routes() {
    let (fleet, pods) = two_nodes();
    let routes = fleet.members[0].routes();
    // As calicoctl deletes a pool: whatever is in use.
    pods[0].without_a_loss(&pods[1], || {
        fleet.etcd().delete("/calico/resources/v3/projectcalico.org/ippools/direct");
        settle(&fleet);
    });
    let kept: BTreeSet<String> = fleet.members[0].routes().into_iter().collect();
    assert!(kept.is_superset(&routes.into_iter().collect()), "{kept:?}");
}

#[test]
fn a_pool_that_is_deleted_by_force_takes_its_routes_with_it() {
    let (fleet, pods) = two_nodes();
    let neighbour = fleet.named_pod(0, "direct", "neighbour");
    fleet.until_connected(&pods[0], &neighbour);
    let refused = fleet.weirctl(0, &["delete", "ippool", "direct"]);
    assert!(!refused.succeeded && refused.stderr.contains("--force"), "{refused:?}");
    let answer = fleet.weirctl(0, &["delete", "ippool", "direct", "--force"]);
    assert!(answer.succeeded, "{answer:?}");
    for member in &fleet.members {
        fleet.until("no route of the cluster is left", || member.routes().is_empty());
    }
    assert!(pods[0].container.reaches(&neighbour.address.to_string()), "on one node");
    for (member, pod) in [(0, &pods[0]), (1, &pods[1]), (0, &neighbour)] {
        let node = fleet.members[member].node();
        fleet.call(member, "direct", &pod.container).delete(node);
        assert_eq!(node.run(&["ip", "route", "show", &pod.address.to_string()]), "");
    }
}

#[test]
fn nat_is_switched_under_connections() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", direct(json!({"natOutgoing": true})));
    fleet.start_agents();
    let pod = fleet.pod(0, "direct");
    let outside = fleet.underlay.outside();
    let node = fleet.members[0].host.address;
    let way_back = ["ip", "route", "add", "10.7.0.0/24", "via", &node.to_string()];
    fleet.underlay.router().run(&way_back);
    let connect = || pod.connect(&outside.node, outside.address.into());
    let mut old = connect();
    assert_eq!(old.seen, IpAddr::V4(node));
    for (nat, seen) in [(false, pod.address), (true, node), (false, pod.address)] {
        fleet.apply_pool("direct", direct(json!({"natOutgoing": nat})));
        fleet.until("new connections are as the pool says", || connect().seen == seen);
        // The kernel remembers how a connection began.
        old.carries();
    }
}

#[test]
fn a_pool_that_may_tunnel_changes_nothing_within_a_subnet() {
    let (fleet, pods) = two_nodes();
    let routes = fleet.members[0].routes();
    let mut connection = pods[0].connect(&pods[1].container, pods[1].address.into());
    pods[0].without_a_loss(&pods[1], || {
        for (mode, mtu) in [("CrossSubnet", 1480.0), ("Never", 1500.0)] {
            fleet.apply_pool("direct", direct(json!({"ipipMode": mode})));
            for member in &fleet.members {
                fleet.until(&format!("new containers get the MTU of {mode}"), || {
                    member.agent().metric("weir_node_pod_mtu_bytes") == Some(mtu)
                });
                assert_eq!(member.agent().metric("weir_node_changes_total"), Some(2.0));
                assert!(member.has_no_tunnel());
            }
        }
    });
    assert_eq!(fleet.members[0].routes(), routes);
    connection.carries();
}

#[test]
fn a_node_that_changes_its_address_is_followed() {
    let (fleet, pods) = two_nodes();
    let mut connection = pods[0].connect(&pods[1].container, pods[1].address.into());
    let moved = fleet.members[1].node();
    // Without it the new address would go with the first of its subnet.
    moved.write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1");
    moved.run(&["ip", "address", "add", "172.31.1.99/24", "dev", "eth0"]);
    moved.run(&["ip", "address", "delete", "172.31.1.12/24", "dev", "eth0"]);
    let route = || fleet.members[0].routes().join("\n");
    fleet.until("the other node follows", || route().contains("via 172.31.1.99 dev eth0"));
    assert!(!route().contains("172.31.1.12"), "{}", route());
    fleet.until("its own routes are back", || {
        fleet.members[1].routes().join("\n").contains("via 172.31.1.11 dev eth0 src 172.31.1.99")
    });
    fleet.until_connected(&pods[0], &pods[1]);
    connection.carries();
    let table = fleet.weirctl(0, &["get", "node", "n2", "-o", "wide"]);
    assert!(table.stdout.contains("172.31.1.99/24"), "{table:?}");
}

/// The address that a node is registered with.
fn registered(fleet: &Fleet, name: &str) -> Value {
    let key = format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
    let node: Value = serde_json::from_str(&fleet.store.entries()[&key]).expect("JSON");
    node["spec"]["bgp"]["ipv4Address"].clone()
}

/// Containers of another program get a bridge, which is found before the uplink.
#[test]
fn a_node_keeps_its_address_when_another_interface_comes() {
    let (mut fleet, pods) = two_nodes();
    let node = fleet.members[1].node();
    node.run(&["ip", "link", "add", "net7", "type", "bridge"]);
    node.run(&["ip", "address", "add", "192.168.77.1/24", "dev", "net7"]);
    node.run(&["ip", "link", "set", "net7", "up"]);
    settle(&fleet);
    fleet.stop_agent(1);
    fleet.start_agents();
    assert_eq!(registered(&fleet, "n2"), "172.31.1.12/24");
    fleet.until_connected(&pods[0], &pods[1]);
    // Whoever asks for a method gets what it finds.
    fleet.stop_agent(1);
    fleet.agent_arguments.extend(["--ip-autodetection-method", "interface=net7"]);
    fleet.start_agents();
    assert_eq!(registered(&fleet, "n2"), "192.168.77.1/24");
}

#[test]
fn an_own_tunnel_address_that_is_none_is_taken_away() {
    let (fleet, _pods) = two_nodes();
    let key = "/calico/resources/v3/projectcalico.org/nodes/n1";
    let mut node: Value = serde_json::from_str(&fleet.store.entries()[key]).expect("JSON");
    node["spec"]["bgp"]["ipv4IPIPTunnelAddr"] = "nowhere".into();
    node["spec"]["bgp"]["asNumber"] = "of no form".into();
    fleet.store.put(key, &node);
    fleet.until("it is gone", || !fleet.store.entries()[key].contains("nowhere"));
    let routes = fleet.members[1].routes().join("\n");
    assert!(routes.contains("via 172.31.1.11"), "{routes}");
}

#[test]
fn a_hundred_nodes_with_ten_blocks_each_come_and_go() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/16", "blockSize": 28}));
    let wanted = |nodes: usize| -> BTreeSet<String> {
        let blocks = (0..nodes).flat_map(|node| (0..10).map(move |block| (node, block)));
        let line = |(node, block)| {
            let next_hop = 100 + node;
            format!(
                "{} via 172.31.1.{next_hop} dev eth0 src 172.31.1.11",
                range(node, block).replace('-', "/")
            )
        };
        blocks.map(line).collect()
    };
    fleet.store.load(&crowd());
    fleet.start_agents();
    let member = &fleet.members[0];
    let routes = || -> BTreeSet<String> { member.routes().into_iter().collect() };
    fleet.until("all are routed", || routes() == wanted(100));
    for node in 40..100 {
        fleet
            .etcd()
            .control(&["del", "--prefix", &format!("/calico/ipam/v2/host/host{node}/")], "");
    }
    fleet.until("those that are left are routed", || routes() == wanted(40));
    fleet.store.load(&crowd());
    fleet.until("all are routed again", || routes() == wanted(100));
    // As many as there had to be, and no more.
    assert_eq!(member.agent().metric("weir_node_changes_total"), Some(1000.0 + 600.0 + 600.0));
}

/// A block as it stands in a key.
fn range(node: usize, block: usize) -> String {
    let number = node * 10 + block;
    format!("10.7.{}.{}-28", number / 16, number % 16 * 16)
}

/// A hundred nodes of the first subnet, with empty blocks.
fn crowd() -> Entries {
    let mut entries = Entries::new();
    for node in 0..100 {
        let name = format!("host{node}");
        let address = format!("172.31.1.{}/24", 100 + node);
        let resource = json!({
            "kind": "Node",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": name},
            "spec": {"bgp": {"ipv4Address": address}},
        });
        let key = format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
        entries.insert(key, resource.to_string());
        for block in 0..10 {
            let affinity = format!("/calico/ipam/v2/host/{name}/ipv4/block/{}", range(node, block));
            let value = json!({"state": "confirmed", "deleted": false});
            entries.insert(affinity, value.to_string());
        }
    }
    entries
}
