//! The node agent, as far as it needs no tunnel: routes between the nodes of one
//! subnet, drift, restarts, and a datastore that goes away.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use serde_json::json;
use weir_tests::{Entries, Fleet, Place, Subnet};

/// Two nodes in one subnet with a pool without IPIP and agents.
fn two_nodes() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.start_agents();
    fleet
}

#[test]
fn containers_of_one_subnet_reach_each_other_without_a_tunnel() {
    let fleet = two_nodes();
    let pods = fleet.connected_pods("direct");
    let member = &fleet.members[0];
    fleet.until("both blocks are routed", || member.routes().len() == 2);
    let routes = member.routes().join("\n");
    assert!(routes.contains("via 172.31.1.12 dev eth0"), "{routes}");
    assert!(routes.contains("src 172.31.1.11"), "{routes}");
    assert!(routes.contains("blackhole 10.7.0."), "{routes}");
    assert!(member.has_no_tunnel());
    assert!(pods[0].container.passes(&pods[1].address.to_string(), 1500));
    assert!(!pods[0].container.passes(&pods[1].address.to_string(), 1501));
    assert_eq!(member.agent().metric("weir_node_routes"), Some(2.0));
}

/// There are blocks to be routed, and the datastore has not told of the registration yet.
#[test]
fn a_new_node_does_not_call_itself_unregistered() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.start_agent(0);
    fleet.until("n1 is well", || fleet.members[0].agent().is_well());
    fleet.pod(0, "direct");
    fleet.start_agents();
    fleet.until("n2 has a route", || !fleet.members[1].routes().is_empty());
    let log = fleet.members[1].agent().log();
    assert!(log.contains("registered") && !log.contains("is not registered"), "{log}");
}

#[test]
fn nodes_are_registered_in_calicos_form() {
    let fleet = two_nodes();
    let entries = fleet.store.entries();
    let node = &entries["/calico/resources/v3/projectcalico.org/nodes/n2"];
    let node: serde_json::Value = serde_json::from_str(node).expect("a Node is JSON");
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "172.31.1.12/24");
    let table = fleet.weirctl(0, &["get", "nodes", "-o", "wide"]);
    assert!(table.stdout.contains("172.31.1.12/24"), "{table:?}");
}

/// The agent hears of it: the next look that it takes by itself is an hour away.
#[test]
fn what_somebody_takes_away_comes_back() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    let nat = json!({"cidr": "10.7.0.0/24", "blockSize": 28, "natOutgoing": true});
    fleet.apply_pool("direct", nat);
    fleet.agent_arguments.extend(["--drift-interval", "3600"]);
    fleet.start_agents();
    fleet.connected_pods("direct");
    let member = &fleet.members[0];
    fleet.until("both blocks are routed", || member.routes().len() == 2);
    let before = member.routes();
    for line in &before {
        let destination = line.split(' ').find(|word| word.contains('/')).expect("a destination");
        let kind = if line.starts_with("blackhole") { "blackhole" } else { "unicast" };
        member.node().run(&["ip", "route", "delete", kind, destination, "proto", "77"]);
        fleet.until("the route is back", || member.routes() == before);
    }
    // With its address a link loses the routes that are sent from there.
    let lines = "address delete 172.31.1.11/24 dev eth0\naddress add 172.31.1.11/24 dev eth0\n\
                 route add default via 172.31.1.1\n";
    member.node().run_with(&["ip", "-batch", "-"], lines);
    fleet.until("the routes are back", || member.routes() == before);
    let tables = || member.node().run(&["nft", "list", "tables"]);
    member.node().run(&["nft", "delete", "table", "inet", "weir"]);
    fleet.until("NAT is back", || tables().contains("inet weir"));
}

/// Everything is there already when the agent goes on: it needs as many comparisons
/// as there are twentieths of a second in the time in which it reads that, and some
/// for what the kernel tells of its changes; not one for each write.
#[test]
fn a_burst_of_changes_is_compared_with_once() {
    const BURST: usize = 500;
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/16", "blockSize": 28}));
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "other"}, "spec": {"bgp": {"ipv4Address": "172.31.1.99/24"}},
    });
    let node_key = "/calico/resources/v3/projectcalico.org/nodes/other".to_owned();
    fleet.store.load(&Entries::from([(node_key, node.to_string())]));
    fleet.start_agents();
    let block = |number: usize| format!("10.7.{}.{}-28", number / 16, number % 16 * 16);
    let affinity = |number| format!("/calico/ipam/v2/host/other/ipv4/block/{}", block(number));
    let value = json!({"state": "confirmed", "deleted": false}).to_string();
    let burst: Entries = (0..BURST).map(|number| (affinity(number), value.clone())).collect();
    let process = fleet.members[0].agent().process();
    kill(process, Signal::SIGSTOP).expect("a running agent");
    fleet.etcd_mut().put_each(&burst);
    kill(process, Signal::SIGCONT).expect("a stopped agent");
    let member = &fleet.members[0];
    let comparisons = || member.agent().metric("weir_node_converge_seconds_count");
    let before = comparisons().expect("a metric");
    fleet.until("all are routed", || member.routes().len() == BURST);
    let count = comparisons().expect("a metric") - before;
    assert!((1.0..50.0).contains(&count), "{count} comparisons");
}

#[test]
fn an_agent_that_is_well_has_made_the_routes() {
    let mut fleet = two_nodes();
    fleet.connected_pods("direct");
    let before = fleet.members[0].routes();
    fleet.stop_agent(0);
    let node = fleet.members[0].node();
    node.run(&["ip", "route", "flush", "proto", "77", "scope", "global"]);
    node.run(&["ip", "route", "flush", "proto", "77", "type", "blackhole"]);
    assert!(fleet.members[0].routes().is_empty());
    fleet.start_agents();
    assert_eq!(fleet.members[0].routes(), before, "without waiting");
}

#[test]
fn what_is_not_weirs_stays() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    let foreign = ["10.99.0.0/24", "10.7.0.240/28"];
    for range in foreign {
        let node = fleet.members[0].node();
        node.run(&["ip", "route", "add", range, "via", "172.31.1.1", "proto", "bird"]);
    }
    fleet.start_agents();
    fleet.connected_pods("direct");
    fleet.stop_agent(0);
    fleet.start_agents();
    let kept = fleet.members[0].node().run(&["ip", "route", "show", "proto", "bird"]);
    for range in foreign {
        assert!(kept.contains(range), "{range}: {kept}");
    }
}

#[test]
fn a_restart_changes_nothing() {
    let mut fleet = two_nodes();
    fleet.connected_pods("direct");
    let member = &fleet.members[0];
    fleet.until("both blocks are routed", || member.routes().len() == 2);
    let sourced = || member.node().run(&["ip", "route", "show", "proto", "77", "scope", "link"]);
    fleet.until("the node sends from its address", || sourced().contains(" src 172.31.1.11"));
    let tentative = || member.node().run(&["ip", "-6", "address", "show", "tentative"]);
    fleet.until("the kernel has tried its addresses", || tentative().is_empty());
    let before = member.routes();
    let mut monitor = Command::new("ip");
    monitor.args(["monitor", "route", "address", "link"]).stdout(Stdio::piped());
    let mut monitor = member.node().spawn(&mut monitor);
    fleet.stop_agent(0);
    assert_eq!(fleet.members[0].routes(), before, "the data plane stays without an agent");
    fleet.start_agents();
    let member = &fleet.members[0];
    assert_eq!(member.routes(), before);
    assert!(member.agent().metric("weir_node_converge_seconds_count") >= Some(1.0));
    // It has heard nothing before this.
    member.node().run(&["ip", "route", "add", "blackhole", "10.99.0.0/24"]);
    let mut first = String::new();
    let output = monitor.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut first).expect("what the monitor saw");
    assert!(first.contains("blackhole 10.99.0.0/24"), "{first}");
    monitor.kill().expect("ending the monitor");
    monitor.wait().expect("waiting for the monitor");
}

#[test]
fn a_node_that_is_deleted_takes_its_routes_with_it() {
    let mut fleet = two_nodes();
    let pods = fleet.connected_pods("direct");
    fleet.stop_agent(1);
    let container = &pods[1].container;
    fleet.call(1, "direct", container).delete(fleet.members[1].node());
    let answer = fleet.weirctl(0, &["delete", "node", "n2"]);
    assert!(answer.succeeded, "{answer:?}");
    let member = &fleet.members[0];
    fleet.until("its routes are gone", || !member.routes().join("\n").contains("via 172.31.1.12"));
}

/// The tunnel address that each node names.
fn tunnel_addresses(fleet: &Fleet) -> Vec<Option<String>> {
    let entries = fleet.store.entries();
    let nodes = entries.iter().filter(|(key, _)| key.contains("/projectcalico.org/nodes/"));
    nodes
        .map(|(_, node)| {
            let node: serde_json::Value = serde_json::from_str(node).expect("a Node is JSON");
            Some(node["spec"]["bgp"]["ipv4IPIPTunnelAddr"].as_str()?.to_owned())
        })
        .collect()
}

/// Whether all nodes have a tunnel address that begins like this.
fn all_tunnel_from(fleet: &Fleet, prefix: &str) -> bool {
    tunnel_addresses(fleet).iter().all(|it| it.as_ref().is_some_and(|it| it.starts_with(prefix)))
}

/// A pool is replaced by another one as the article does it, with agents running.
#[test]
fn an_emptied_pool_is_deleted_and_tunnels_move_to_another() {
    let fleet = two_nodes();
    fleet.apply_pool("old", json!({"cidr": "10.8.0.0/24", "ipipMode": "Always"}));
    fleet.until("tunnels have addresses", || all_tunnel_from(&fleet, "10.8."));
    fleet.apply_pool("young", json!({"cidr": "10.9.0.0/24", "ipipMode": "Always"}));
    let answer = fleet.weirctl(0, &["delete", "ippool", "old"]);
    assert!(answer.succeeded, "{answer:?}");
    assert!(answer.stdout.contains("released 2 tunnel address(es)"), "{answer:?}");
    fleet.until("tunnels have other addresses", || all_tunnel_from(&fleet, "10.9."));
}

/// Waits until every agent says of the datastore that it is there, or away.
fn until_datastore(fleet: &Fleet, up: bool) {
    let value = if up { 1.0 } else { 0.0 };
    for member in &fleet.members {
        fleet.until(&format!("{}: the datastore is up: {up}", member.name), || {
            member.agent().metric("weir_node_datastore_up") == Some(value)
        });
    }
}

/// How often the agents of a fleet have read the whole datastore.
fn listings(fleet: &Fleet) -> usize {
    let read = |log: String| log.matches("the datastore was read").count();
    fleet.members.iter().map(|member| read(member.agent().log())).sum()
}

/// Takes the route that keeps the block of `n1` away, and waits until it is back.
fn a_route_comes_back(fleet: &Fleet) {
    let member = &fleet.members[0];
    let before = member.routes();
    // No packet needs this one while it is gone.
    let line = before.iter().find(|line| line.starts_with("blackhole")).expect("a blackhole");
    let range = line.split(' ').nth(1).expect("a destination");
    member.node().run(&["ip", "route", "delete", "blackhole", range, "proto", "77"]);
    fleet.until("the route is back", || member.routes() == before);
}

/// A block of a new pool on `n2`, which `n1` must come to know of.
fn a_new_block_arrives(fleet: &Fleet) {
    fleet.apply_pool("late", json!({"cidr": "10.9.0.0/24", "blockSize": 28}));
    fleet.pod(1, "late");
    let routes = || fleet.members[0].routes().join("\n");
    fleet.until("the new block is routed", || routes().contains("10.9.0."));
}

#[test]
fn no_packet_is_lost_while_the_datastore_is_away() {
    let mut fleet = two_nodes();
    let pods = fleet.connected_pods("direct");
    let listings_before = listings(&fleet);
    pods[0].without_a_loss(&pods[1], || {
        fleet.etcd_mut().stop();
        until_datastore(&fleet, false);
        // Longer than any time limit of the agent's.
        std::thread::sleep(std::time::Duration::from_secs(30));
        fleet.etcd_mut().restart();
        until_datastore(&fleet, true);
        assert_eq!(listings(&fleet), listings_before + 2, "each has read it once more");
        a_new_block_arrives(&fleet);
    });
}

#[test]
fn no_packet_is_lost_in_a_partition() {
    let mut fleet = two_nodes();
    let pods = fleet.connected_pods("direct");
    let listings_before = listings(&fleet);
    let server = fleet.etcd_mut().node().clone();
    pods[0].without_a_loss(&pods[1], || {
        fleet.underlay.cut(&server);
        until_datastore(&fleet, false);
        // That long, the watch does not survive either.
        for member in &fleet.members {
            let losses = || member.agent().metric("weir_node_datastore_losses_total");
            fleet.until("the watch is lost", || losses() >= Some(1.0));
        }
        let says = |path: &str| fleet.members[0].agent().answer(path).unwrap_or_default();
        assert!(says("/readiness").contains("503") && says("/health").contains("503"));
        assert!(says("/liveness").contains("200"), "nothing to restart the agent for");
        // This needs no datastore: what was read counts.
        a_route_comes_back(&fleet);
        fleet.underlay.heal(&server);
        until_datastore(&fleet, true);
        assert_eq!(listings(&fleet), listings_before + 2, "each has read it once more");
        // The nodes may have given the server's hardware address up.
        for member in &fleet.members {
            fleet.until("etcd is reached", || member.node().reaches("172.31.3.10"));
        }
        a_new_block_arrives(&fleet);
    });
}
