//! BGP of one node in a large cluster, and of a node with very many blocks.

#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use serde_json::json;
use weir_common::datastore::{Entry, Revision};
use weir_common::network::{BirdConfiguration, ClusterState, Underlay, plan_bgp};
use weir_tests::{Entries, Fleet, Node, Place, Routed, Subnet, rounds};

const NODES: u32 = 500;
const BURST: u32 = 100;

/// The key and value of a node beyond the router.
fn node(number: u32) -> (String, String) {
    let name = format!("far-{number}");
    let address = Ipv4Addr::from(0x0a64_0000 + number);
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": {"bgp": {"ipv4Address": format!("{address}/16")}},
    });
    (format!("/calico/resources/v3/projectcalico.org/nodes/{name}"), node.to_string())
}

/// Prints how long plan and configuration take with what the store has.
fn measure(fleet: &Fleet) {
    let mut state = ClusterState::default();
    for (key, value) in fleet.store.entries() {
        state.put(&Entry { key, value: value.into_bytes(), revision: Revision(1) });
    }
    let begin = Instant::now();
    let plan = plan_bgp("n1", &state, &Underlay::default());
    let planned = begin.elapsed();
    let configuration = BirdConfiguration::of(&plan, &BTreeMap::new());
    let printed = begin.elapsed() - planned;
    let optimised = if cfg!(debug_assertions) { "without" } else { "with" };
    println!(
        "{} sessions, {optimised} optimisation: plan {planned:?}, configuration {printed:?}, {} bytes",
        plan.sessions.len(),
        configuration.text.len()
    );
}

#[test]
fn five_hundred_nodes_are_planned_printed_and_taken_and_a_burst_is_gathered() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.244.0.0/16", "ipipMode": "Never"}));
    fleet.apply("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": true}));
    fleet.etcd().load(&(1..NODES).map(node).collect::<Entries>());
    fleet.start_agents();
    let host = fleet.members[0].node();
    let sessions = |wanted: u32| {
        let is_there = host.succeeds(&["test", "-e", "/run/weir/bird/bird.conf"]);
        is_there
            && host.read("/run/weir/bird/bird.conf").matches("protocol bgp ").count()
                == wanted as usize
    };
    fleet.until("BIRD is configured", || sessions(NODES - 1));
    measure(&fleet);
    let size = host.read("/run/weir/bird/bird.conf").len();
    let begin = Instant::now();
    host.run(&["bird", "-p", "-c", "/run/weir/bird/bird.conf"]);
    println!("the agent's configuration has {size} bytes; bird -p takes {:?}", begin.elapsed());

    let configured =
        || fleet.members[0].agent().log().matches("BIRD runs a new configuration").count();
    let (before, begin) = (configured(), Instant::now());
    fleet.etcd().put_each(&(NODES..NODES + BURST).map(node).collect());
    fleet.until("BIRD knows the new nodes", || {
        let known = fleet.members[0].birdc("show protocols").matches("\nMesh_").count();
        known == (NODES + BURST - 1) as usize
    });
    let (given, elapsed) = (configured() - before, begin.elapsed());
    println!("{BURST} nodes joined within {elapsed:?}: {given} configurations");
    assert!(given <= usize::try_from(elapsed.as_secs()).expect("a short time") + 2, "{elapsed:?}");
}

/// The range of a block, of 30 bits.
fn block(number: u32) -> String {
    format!("{}/30", Ipv4Addr::from(0x0a40_0000 + number * 4))
}

/// Blocks of 30 bits in the store, all of the node in the other subnet; 10,000 in the long form.
#[test]
fn very_many_blocks_are_told() {
    let blocks = u32::try_from(rounds(100, 10_000)).expect("few");
    let lab = Routed::new(&[Subnet::First, Subnet::Second], "10.64.0.0/12", 30, |_| ());
    let entry = |number: u32| {
        let (range, host) = (block(number), "n2");
        let key = range.replace('/', "-");
        let claim = json!({"state": "confirmed", "deleted": false}).to_string();
        let content = json!({
            "cidr": range, "affinity": format!("host:{host}"), "allocations": [null, null, null, null],
            "unallocated": [0, 1, 2, 3], "attributes": [], "deleted": false,
        });
        [
            (format!("/calico/ipam/v2/host/{host}/ipv4/block/{key}"), claim),
            (format!("/calico/ipam/v2/assignment/ipv4/block/{key}"), content.to_string()),
        ]
    };
    let entries: Entries = (0..blocks).flat_map(entry).collect();
    let routes = |node: &Node| node.run(&["ip", "route", "show", "proto", "bird"]).lines().count();
    let begin = Instant::now();
    lab.fleet.etcd().load(&entries);
    let loaded = begin.elapsed();
    let [peer, owner] = [&lab.fleet.members[0], &lab.fleet.members[1]];
    let router = lab.fleet.underlay.router();
    lab.until("the owner announces all", || owner.announced().len() == blocks as usize);
    let announced = begin.elapsed();
    lab.until("the peer has all", || routes(peer.node()) == blocks as usize);
    lab.until("the router has all", || routes(router) == blocks as usize);
    let known = begin.elapsed();
    println!(
        "{}: {blocks} blocks in etcd after {loaded:?}, announced after {announced:?}, in the \
         kernels of peer and router after {known:?}",
        lab.router.version()
    );
    for member in [owner, peer] {
        let status =
            member.node().read(&format!("/proc/{}/status", member.bird().expect("BIRD runs")));
        let memory = status.lines().find(|line| line.starts_with("VmRSS"));
        println!("BIRD of {}: {}", member.name, memory.unwrap_or_default());
    }
}
