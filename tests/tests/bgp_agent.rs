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

/// The sessions that a node's agent tells of.
fn sessions(member: &Member) -> Vec<Value> {
    let answer = member.agent().answer("/bgp").unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    status["sessions"].as_array().cloned().unwrap_or_default()
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

    /// All that came before this call, without what Weir did.
    fn events(mut self, member: &Member) -> Vec<String> {
        member.node().run(&["ip", "route", "add", "blackhole", "198.51.100.0/24"]);
        let output = self.0.stdout.take().expect("a pipe");
        let lines = BufReader::new(output).lines().map(|line| line.expect("text"));
        let before = lines.take_while(|line| !line.contains("198.51.100.0/24"));
        let events = before.filter(|line| line.contains("proto bird")).collect();
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
    let blocks = told(&fleet);
    let answer = fleet.weirctl(0, &["bgp", "peers"]);
    assert!(answer.succeeded, "{answer:?}");
    for words in ["IPv4 BGP status", "172.31.2.12", "node-to-node mesh", "Established"] {
        assert!(answer.stdout.contains(words), "{words}: {answer:?}");
    }
    let routes = fleet.weirctl(0, &["bgp", "routes", "-o", "json"]);
    let routes: Value = serde_json::from_str(&routes.stdout).expect("JSON");
    assert_eq!(routes["announced"], json!([blocks[0]]));
    assert_eq!(routes["learned"], json!([{"prefix": blocks[1], "nextHops": ["172.31.1.1"]}]));
    // BIRD's configuration is as it was: the block came by the kernel's table.
    let log = fleet.members[0].agent().log();
    let configured = log.matches("BIRD runs a new configuration").count();
    assert!(configured <= 1, "{log}");
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
    fleet.apply_pool("direct", json!({"cidr": POOL, "ipipMode": "Never", "disabled": true}));
    let configuration = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {"nodeToNodeMeshEnabled": false},
    });
    fleet.members[0].node().write("/run/bgp.json", &configuration.to_string());
    let answer = fleet.weirctl(0, &["apply", "-f", "/run/bgp.json"]);
    assert!(answer.succeeded, "{answer:?}");
    for member in &fleet.members {
        let is_gone = || !member.node().succeeds(&["test", "-e", "/run/weir/bird/bird.conf"]);
        fleet.until("the daemon has ended", is_gone);
        assert_eq!(learned(member), Vec::<String>::new());
        assert_eq!(announced(member.node()), Vec::<String>::new());
    }
}
