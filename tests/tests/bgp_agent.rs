//! The agent and its BGP daemon: started where it is needed, and taken down without a trace.

use serde_json::{Value, json};
use weir_tests::{Fleet, Member, Place, Subnet, announced};

const POOL: &str = "10.244.0.0/16";

/// Two nodes in two subnets and a pool without tunnels, with their agents.
fn two_subnets() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    fleet.apply_pool("direct", json!({"cidr": POOL, "ipipMode": "Never"}));
    fleet.start_agents();
    fleet
}

fn is_established(member: &Member) -> bool {
    let sessions = member.sessions();
    !sessions.is_empty() && sessions.len() == member.established().len()
}

fn await_sessions(fleet: &Fleet) {
    fleet.until("the sessions are up", || fleet.members.iter().all(is_established));
}

/// What BIRD has put into a node's main table.
fn learned(member: &Member) -> Vec<String> {
    let routes = member.node().run(&["ip", "route", "show", "proto", "bird"]);
    routes.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A container on each node, once each node has learned the other's block.
fn told(fleet: &Fleet) -> [String; 2] {
    for member in 0..2 {
        let _pod = fleet.pod(member, "direct");
    }
    let block = |member: usize| {
        let node = fleet.members[member].node();
        fleet.until("the block is announced", || announced(node).len() == 1);
        let line = announced(node).remove(0);
        line.split_whitespace().nth(1).expect("a blackhole names its range").to_owned()
    };
    let blocks = [block(0), block(1)];
    for (member, gateway) in [(0, "172.31.1.1"), (1, "172.31.2.1")] {
        let route = format!("{} via {gateway} dev eth0 metric 1024", blocks[1 - member]);
        let has = || learned(&fleet.members[member]).iter().any(|it| it.trim_end() == route);
        fleet.until(&format!("n{} has {route}", member + 1), has);
    }
    blocks
}

#[test]
fn nodes_of_two_subnets_tell_each_other_their_blocks() {
    let fleet = two_subnets();
    await_sessions(&fleet);
    let configured = || fleet.members[0].bgp()["daemon"]["lastReconfiguration"].clone();
    let before = configured();
    let blocks = told(&fleet);
    assert_eq!(configured(), before, "the block comes by the kernel's table");
    let status = fleet.weirctl(0, &["node", "status"]);
    assert!(status.succeeded && status.stdout.contains("IPv4 BGP status"), "{status:?}");
    let answer = fleet.weirctl(0, &["bgp", "peers"]);
    assert!(answer.succeeded, "{answer:?}");
    for words in ["IPv4 BGP status", "172.31.2.12", "node-to-node mesh", "Established"] {
        assert!(answer.stdout.contains(words), "{words}: {answer:?}");
    }
    let routes = fleet.weirctl(0, &["bgp", "routes", "-o", "json"]);
    let routes: Value = serde_json::from_str(&routes.stdout).expect("JSON");
    assert_eq!(routes["announced"], json!([blocks[0]]));
    assert_eq!(routes["learned"], json!([{"prefix": blocks[1], "nextHops": ["172.31.1.1"]}]));
}

#[test]
fn nothing_is_left_where_it_is_not_needed_any_more() {
    let fleet = two_subnets();
    await_sessions(&fleet);
    told(&fleet);
    fleet.apply("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": false}));
    for member in &fleet.members {
        let is_gone = || !member.node().succeeds(&["test", "-e", "/run/weir/bird/bird.conf"]);
        fleet.until("the daemon has ended", is_gone);
        assert_eq!(learned(member), Vec::<String>::new());
        assert_eq!(announced(member.node()), Vec::<String>::new());
    }
}

#[test]
fn another_nodes_sessions_are_seen_by_a_resource() {
    let fleet = two_subnets();
    await_sessions(&fleet);
    let answer = fleet.weirctl(0, &["node", "status", "--node", "n2"]);
    assert!(answer.stdout.contains("create a CalicoNodeStatus"), "{answer:?}");
    let spec =
        json!({"node": "n2", "classes": ["Agent", "BGP", "Routes"], "updatePeriodSeconds": 5});
    fleet.apply("CalicoNodeStatus", "n2", spec);
    let seen = || fleet.weirctl(0, &["node", "status", "--node", "n2"]).stdout;
    fleet.until("n2 has filled it in", || seen().contains("node-to-node mesh"));
    assert!(seen().contains("Established"), "{}", seen());
}
