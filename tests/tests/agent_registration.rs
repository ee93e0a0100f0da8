//! What a node is registered with while others write to its Node, links come and go,
//! and addresses of services appear.

use serde_json::{Value, json};
use weir_tests::{Container, Fleet, Place, Subnet, until_reporting};

const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/";

/// Two nodes of one subnet with agents, which look at the kernel each second.
fn two_nodes() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.agent_arguments.extend(["--drift-interval", "1"]);
    fleet.start_agents();
    for member in &fleet.members {
        let knows = || member.agent().metric("weir_node_nodes") == Some(2.0);
        fleet.until("the agents know each other, and themselves", knows);
    }
    fleet
}

/// What the datastore says of a node.
fn stored(fleet: &Fleet, name: &str) -> Value {
    let entries = fleet.store.entries();
    entries
        .get(&format!("{NODE}{name}"))
        .map_or(Value::Null, |node| serde_json::from_str(node).expect("JSON"))
}

/// What a node is registered with, in `ipv4Address` or `ipv6Address`.
fn registered(fleet: &Fleet, name: &str, field: &str) -> Value {
    stored(fleet, name)["spec"]["bgp"][field].clone()
}

fn until_registered(fleet: &Fleet, name: &str, address: &str) {
    let field = if address.contains(':') { "ipv6Address" } else { "ipv4Address" };
    let what = format!("{name} is registered with {address}");
    fleet.until(&what, || registered(fleet, name, field) == address);
}

/// Runs weirctl with a resource, which must succeed.
fn write(fleet: &Fleet, command: &str, node: &Value) {
    fleet.members[0].node().write("/run/node.yaml", &node.to_string());
    let answer = fleet.weirctl(0, &[command, "-f", "/run/node.yaml"]);
    assert!(answer.succeeded, "{answer:?}");
}

fn node(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Node",
        "metadata": {"name": name, "labels": {"zone": "a"}}, "spec": spec,
    })
}

/// Waits until the agent of a node has compared this many times more.
fn compare(fleet: &Fleet, member: usize, times: f64) {
    let count = || {
        let agent = fleet.members[member].agent();
        agent.metric("weir_node_converge_seconds_count").unwrap_or_default()
    };
    let before = count();
    fleet.until("the agent compares", || count() >= before + times);
}

fn until_well(fleet: &Fleet, member: usize) {
    fleet.until("the agent is well", || fleet.members[member].agent().is_well());
}

fn until_ill(fleet: &Fleet, member: usize, words: &[&str]) {
    fleet.until(&format!("the agent says {words:?}"), || {
        let health = fleet.members[member].agent().answer("/health").unwrap_or_default();
        health.contains("503") && words.iter().all(|word| health.contains(word))
    });
}

#[test]
fn a_node_that_lost_its_address_is_put_right() {
    let fleet = two_nodes();
    let pods = fleet.connected_pods("direct");
    // Labels are kept in a file, by which the Node is replaced.
    write(&fleet, "replace", &node("n2", json!({})));
    until_registered(&fleet, "n2", "172.31.1.12/24");
    assert_eq!(stored(&fleet, "n2")["metadata"]["labels"]["zone"], "a");
    // Or it is deleted, and the next one has only labels.
    assert!(fleet.weirctl(0, &["delete", "node", "n2"]).succeeded);
    write(&fleet, "apply", &node("n2", json!({})));
    until_registered(&fleet, "n2", "172.31.1.12/24");
    until_well(&fleet, 1);
    fleet.until_connected(&pods[0], &pods[1]);
    // An address that it does have is its user's choice.
    let n2 = fleet.members[1].node();
    n2.run(&["ip", "address", "add", "172.31.1.77/24", "dev", "eth0"]);
    let other = json!({"bgp": {"ipv4Address": "172.31.1.77/24"}});
    write(&fleet, "apply", &node("n2", other));
    compare(&fleet, 1, 6.0);
    assert_eq!(registered(&fleet, "n2", "ipv4Address"), "172.31.1.77/24");
}

/// The clone's write is the test's: another host of this name and this machine's identity.
#[test]
fn two_hosts_of_one_name_do_not_write_in_turn() {
    let mut fleet = two_nodes();
    let write = |fleet: &Fleet, spec| write(fleet, "apply", &node("n1", spec));
    let clone = json!({"bgp": {"ipv4Address": "172.31.1.101/24"}});
    write(&fleet, clone.clone());
    let told = ["registered with 172.31.1.101/24", "another host or program", "172.31.1.11/24"];
    until_ill(&fleet, 0, &told);
    compare(&fleet, 0, 6.0);
    until_ill(&fleet, 0, &told);
    assert_eq!(registered(&fleet, "n1", "ipv4Address"), "172.31.1.101/24");
    let log = fleet.members[0].agent().log();
    assert_eq!(log.matches("another host or program").count(), 1, "{log}");
    write(&fleet, json!({}));
    until_registered(&fleet, "n1", "172.31.1.11/24");
    until_well(&fleet, 0);
    // An agent that starts takes the registered address for its own machine's old one.
    write(&fleet, clone);
    until_ill(&fleet, 0, &told);
    fleet.stop_agent(0);
    fleet.start_agent(0);
    until_registered(&fleet, "n1", "172.31.1.11/24");
    until_well(&fleet, 0);
}

#[test]
fn a_datastore_of_before_a_change_of_address_learns_it_again() {
    let mut fleet = two_nodes();
    fleet.etcd().save("/run/before.db");
    let n2 = fleet.members[1].node();
    n2.write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1");
    n2.run(&["ip", "address", "add", "172.31.1.82/24", "dev", "eth0"]);
    n2.run(&["ip", "address", "delete", "172.31.1.12/24", "dev", "eth0"]);
    until_registered(&fleet, "n2", "172.31.1.82/24");
    fleet.etcd_mut().stop();
    fleet.etcd_mut().restore("/run/before.db");
    until_registered(&fleet, "n2", "172.31.1.82/24");
    until_well(&fleet, 1);
}

/// Gives a node a second uplink, which would be found first.
fn add_second_link(fleet: &Fleet, member: usize) {
    let node = fleet.members[member].node();
    node.run(&["ip", "link", "add", "zeth1", "type", "veth", "peer", "name", "lan1"]);
    node.run(&["ip", "address", "add", "192.168.7.2/24", "dev", "zeth1"]);
    node.run(&["ip", "link", "set", "lan1", "up"]);
    node.run(&["ip", "link", "set", "zeth1", "up"]);
}

#[test]
fn a_link_that_is_down_for_a_while_moves_no_node() {
    let mut fleet = two_nodes();
    add_second_link(&fleet, 1);
    let set = |fleet: &Fleet, state: &str| {
        fleet.members[1].node().run(&["ip", "link", "set", "eth0", state]);
    };
    set(&fleet, "down");
    until_ill(&fleet, 1, &["172.31.1.12", "none of its links that are up"]);
    compare(&fleet, 1, 8.0);
    set(&fleet, "up");
    fleet.members[1].node().run(&["ip", "route", "add", "default", "via", "172.31.1.1"]);
    until_well(&fleet, 1);
    compare(&fleet, 1, 6.0);
    assert_eq!(registered(&fleet, "n2", "ipv4Address"), "172.31.1.12/24");
    // Nor does one that starts before its link is up.
    fleet.stop_agent(1);
    fleet.members[1].node().run(&["ip", "address", "flush", "dev", "eth0"]);
    fleet.start_agent(1);
    let node = fleet.members[1].node();
    node.run(&["ip", "address", "add", "172.31.3.99/24", "dev", "lo"]);
    node.run(&["ip", "address", "delete", "172.31.3.99/24", "dev", "lo"]);
    node.run(&["ip", "address", "add", "172.31.1.12/24", "dev", "eth0"]);
    node.run(&["ip", "route", "add", "default", "via", "172.31.1.1"]);
    until_well(&fleet, 1);
    assert_eq!(registered(&fleet, "n2", "ipv4Address"), "172.31.1.12/24");
}

#[test]
fn an_address_that_does_not_come_back_is_replaced() {
    let fleet = two_nodes();
    let n2 = fleet.members[1].node();
    add_second_link(&fleet, 1);
    // The datastore is reached from elsewhere.
    n2.run(&["ip", "address", "add", "172.31.1.200/32", "dev", "lo"]);
    n2.run(&["ip", "address", "delete", "172.31.1.12/24", "dev", "eth0"]);
    n2.run(&["ip", "route", "add", "172.31.1.1", "dev", "eth0", "src", "172.31.1.200"]);
    n2.run(&["ip", "route", "add", "default", "via", "172.31.1.1", "src", "172.31.1.200"]);
    until_ill(
        &fleet,
        1,
        &["172.31.1.12/24", "is gone from this machine", "192.168.7.2/24 of zeth1"],
    );
    until_registered(&fleet, "n2", "192.168.7.2/24");
}

#[test]
fn a_family_without_an_address_does_not_keep_the_other_one_from_its_own() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.agent_arguments.extend(["--ip6-autodetection-method", "first-found"]);
    fleet.start_agent(0);
    until_registered(&fleet, "n1", "172.31.1.11/24");
    until_ill(&fleet, 0, &["no IPv6 address", "--ip6-autodetection-method none"]);
    let n1 = fleet.members[0].node();
    n1.write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1");
    n1.run(&["ip", "address", "add", "172.31.1.44/24", "dev", "eth0"]);
    n1.run(&["ip", "address", "delete", "172.31.1.11/24", "dev", "eth0"]);
    until_registered(&fleet, "n1", "172.31.1.44/24");
    n1.run(&["ip", "address", "add", "fd00:31:1::44/64", "dev", "eth0", "nodad"]);
    until_registered(&fleet, "n1", "fd00:31:1::44/64");
    until_well(&fleet, 0);
}

#[test]
fn a_node_of_ipv6_alone_is_registered_and_told_what_to_do() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    let n1 = fleet.members[0].node();
    n1.run(&["ip", "address", "add", "fd00:31:1::11/64", "dev", "eth0", "nodad"]);
    // What the datastore is reached by is none that is looked for.
    n1.run(&["ip", "link", "add", "docker7", "type", "bridge"]);
    n1.run(&["ip", "address", "add", "172.31.1.11/32", "dev", "docker7"]);
    n1.run(&["ip", "link", "set", "docker7", "up"]);
    n1.run(&["ip", "address", "delete", "172.31.1.11/24", "dev", "eth0"]);
    n1.run(&["ip", "route", "add", "172.31.1.1", "dev", "eth0", "src", "172.31.1.11"]);
    n1.run(&["ip", "route", "replace", "default", "via", "172.31.1.1", "src", "172.31.1.11"]);
    fleet.agent_arguments.extend(["--ip6-autodetection-method", "interface=eth0"]);
    fleet.start_agent(0);
    until_registered(&fleet, "n1", "fd00:31:1::11/64");
    until_ill(&fleet, 0, &["no IPv4 address", "--ip-autodetection-method none"]);
    assert_eq!(registered(&fleet, "n1", "ipv4Address"), Value::Null);
}

#[test]
fn addresses_of_services_move_no_node() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    let n1 = fleet.members[0].node();
    let add = |address: &str, more: &[&str]| {
        let command = ["ip", "address", "add", address, "dev", "eth0", "nodad"];
        n1.run(&[&command, more].concat());
    };
    add("fd00:31:1::11/64", &[]);
    add("fd00:31:1::200/128", &["preferred_lft", "0"]);
    add("fd00:31:1::300/128", &[]);
    let method = ["--ip6-autodetection-method", "first-found", "--drift-interval", "1"];
    fleet.agent_arguments.extend(method);
    fleet.start_agents();
    assert_eq!(registered(&fleet, "n1", "ipv6Address"), "fd00:31:1::11/64");
    let n1 = fleet.members[0].node();
    n1.run(&["ip", "address", "add", "fd00:31:1::100/64", "dev", "eth0", "nodad"]);
    compare(&fleet, 0, 6.0);
    fleet.stop_agent(0);
    fleet.start_agents();
    assert_eq!(registered(&fleet, "n1", "ipv6Address"), "fd00:31:1::11/64");
}

#[test]
fn two_nodes_of_one_address_are_ill_until_there_is_one() {
    let fleet = two_nodes();
    write(&fleet, "apply", &node("n9", json!({"bgp": {"ipv4Address": "172.31.1.11/24"}})));
    until_ill(&fleet, 0, &["172.31.1.11, and so is node n9"]);
    compare(&fleet, 0, 6.0);
    until_ill(&fleet, 0, &["172.31.1.11, and so is node n9"]);
    let status = fleet.weirctl(0, &["node", "status", "--node", "n1"]);
    let told = format!("{} {}", status.stdout, status.stderr);
    assert!(told.contains("so is node n9"), "{status:?}");
    assert!(fleet.members[1].agent().is_well(), "another node has nothing to do with it");
    assert!(fleet.weirctl(0, &["delete", "node", "n9"]).succeeded);
    until_well(&fleet, 0);
}

/// Neither is there when the other one looks first.
#[test]
fn of_two_nodes_that_are_given_one_address_at_once_one_gets_it() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.agent_arguments.extend(["--ip-autodetection-method", "172.31.1.91/24"]);
    for member in &fleet.members {
        member.node().run(&["ip", "address", "add", "172.31.1.91/24", "dev", "eth0"]);
    }
    for member in [0, 1] {
        fleet.start_agent(member);
    }
    let is_ill = |member: usize| {
        let health = fleet.members[member].agent().answer("/health").unwrap_or_default();
        health.contains("503") && health.contains("172.31.1.91 of node")
    };
    let holders = || {
        let has = |name: &&str| registered(&fleet, name, "ipv4Address") == "172.31.1.91/24";
        ["n1", "n2"].iter().filter(|name| has(name)).count()
    };
    fleet.until("one has it, and the other one says why it has none", || {
        holders() == 1
            && (0..2).filter(|&member| is_ill(member)).count() == 1
            && (0..2).filter(|&member| fleet.members[member].agent().is_well()).count() == 1
    });
}

/// A pool of an IP version that a node has not is nothing wrong; what the node does not reach
/// is said once.
#[test]
fn a_node_without_ipv6_is_well_beside_ipv6_pools() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.apply_pool("six", json!({"cidr": "fd00:7::/112"}));
    fleet.start_agents();
    fleet.stop_agent(1);
    let n2 = fleet.members[1].node();
    n2.run(&["ip", "address", "add", "fd00:31:1::12/64", "dev", "eth0", "nodad"]);
    fleet.agent_arguments.extend(["--ip6-autodetection-method", "first-found"]);
    fleet.start_agents();
    let with_six = |member: usize, container: &Container| {
        let both = json!({"type": "weir-ipam", "assign_ipv6": "true", "ipv4_pools": ["direct"],
            "ipv6_pools": ["six"]});
        fleet.call(member, "direct", container).configure("/ipam", both)
    };
    let (n1, n2) = (fleet.members[0].node(), fleet.members[1].node());
    with_six(1, &n2.container("six")).add(n2);
    fleet.call(0, "direct", &n1.container("four")).add(n1);
    let status = || fleet.weirctl(0, &["node", "status", "--node", "n1", "-o", "json"]);
    let told = || status().stdout.matches("not registered with an IPv6 address").count();
    until_reporting(|| told() == 1, || format!("{:?}", status()));
    assert!(status().succeeded, "{:?}", status());
    assert!(fleet.members[0].agent().is_well());
    let answer = fleet.status(0, "direct");
    assert!(answer.succeeded, "{answer:?}");
    // Its own containers have addresses of that version that others do not reach.
    with_six(0, &n1.container("both")).add(n1);
    let told = || fleet.status(0, "direct");
    told().failure().expect(51, &["not registered with an IPv6 address"]);
    assert_eq!(told().stdout.matches("not registered").count(), 1);
}
