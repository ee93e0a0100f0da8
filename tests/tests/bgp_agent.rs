//! The agent and its BGP daemon: started where it is needed, kept over the ends of both, and taken
//! down without a trace.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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

/// What a node's agent tells of its BGP.
fn bgp(member: &Member) -> Value {
    let answer = member.agent().answer("/bgp").unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}

fn sessions(member: &Member) -> Vec<Value> {
    bgp(member)["sessions"].as_array().cloned().unwrap_or_default()
}

fn is_established(member: &Member) -> bool {
    let sessions = sessions(member);
    !sessions.is_empty() && sessions.iter().all(|session| session["bgpState"] == "Established")
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

/// What `ip monitor` says of other programs' routes on a node, from now on.
struct RouteMonitor(std::process::Child);

impl RouteMonitor {
    fn start(member: &Member) -> Self {
        let mut command = Command::new("ip");
        command.args(["monitor", "route"]).stdout(Stdio::piped());
        Self(member.node().spawn(&mut command))
    }

    /// What came before this call of BIRD's routes.
    fn events(mut self, member: &Member) -> Vec<String> {
        let last = ["blackhole", "198.51.100.0/24", "proto", "bird"];
        member.node().run(&[&["ip", "route", "add"][..], &last].concat());
        let output = self.0.stdout.take().expect("a pipe");
        let lines = BufReader::new(output).lines().map(|line| line.expect("text"));
        let of_bird = lines.filter(|line| line.contains("proto bird"));
        let events = of_bird.take_while(|line| !line.contains("198.51.100.0/24")).collect();
        self.0.kill().expect("ending the monitor");
        self.0.wait().expect("waiting for the monitor");
        member.node().run(&["ip", "route", "delete", "198.51.100.0/24"]);
        events
    }
}

fn bird_of(member: &Member) -> String {
    member.node().read("/run/weir/bird/bird.pid").trim().to_owned()
}

#[test]
fn nodes_of_two_subnets_tell_each_other_their_blocks() {
    let fleet = two_subnets();
    await_sessions(&fleet);
    let configured = || bgp(&fleet.members[0])["daemon"]["lastReconfiguration"].clone();
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
fn the_daemon_outlives_the_agent_and_its_own_death() {
    let mut fleet = two_subnets();
    await_sessions(&fleet);
    told(&fleet);
    let bird = bird_of(&fleet.members[0]);
    let monitors = [0, 1].map(|member| RouteMonitor::start(&fleet.members[member]));
    fleet.stop_agent(0);
    assert_eq!(bird_of(&fleet.members[0]), bird);
    fleet.start_agents();
    fleet.until("the next agent adopts it", || is_established(&fleet.members[0]));
    assert_eq!(bird_of(&fleet.members[0]), bird);
    fleet.members[0].node().run(&["kill", "-9", &bird]);
    fleet.until("another one is started", || bird_of(&fleet.members[0]) != bird);
    await_sessions(&fleet);
    for (member, monitor) in fleet.members.iter().zip(monitors) {
        assert_eq!(monitor.events(member), Vec::<String>::new(), "{}", member.name);
    }
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
    fleet.apply("CalicoNodeStatus", "n2", json!({"node": "n2", "updatePeriodSeconds": 0}));
}
