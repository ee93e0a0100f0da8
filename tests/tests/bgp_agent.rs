//! The agent and its BGP daemon: started where it is needed, and taken down without a trace; or in a
//! container of its own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
fn a_need_that_goes_for_a_moment_takes_nothing_down() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    fleet.apply_pool("direct", json!({"cidr": POOL, "ipipMode": "Never"}));
    fleet.apply("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": false}));
    fleet.start_agents();
    let write = |name: &str, spec| fleet.apply("BGPPeer", name, spec);
    let all = || json!({"nodeSelector": "all()", "peerSelector": "all()"});
    write("all", all());
    await_sessions(&fleet);
    let blocks = told(&fleet);
    let holds = |count| {
        let said = |member: &Member| member.agent().log().matches("goes on for a minute").count();
        fleet.until("each agent holds it", || fleet.members.iter().all(|it| said(it) == count));
    };
    let remove = || {
        let answer = fleet.weirctl(0, &["delete", "bgppeer", "all"]);
        assert!(answer.succeeded, "{answer:?}");
    };
    let daemons = || fleet.members.iter().map(|it| it.bird().unwrap()).collect::<Vec<_>>();
    let since =
        || fleet.members.iter().map(|it| it.sessions()[0]["since"].clone()).collect::<Vec<_>>();
    let before = (daemons(), since());
    remove();
    holds(1);
    for (member, other) in [(0, 1), (1, 0)] {
        let (member, route) = (&fleet.members[member], &blocks[other]);
        assert!(learned(member)[0].starts_with(route), "{:?}", learned(member));
        assert_eq!(announced(member.node()).len(), 1);
    }
    write("all", all());
    // What is written later shows that this was read.
    write("odd", json!({"peerIP": "192.0.2.1"}));
    let is_read = |it: &Member| it.bgp()["problems"].to_string().contains("odd");
    fleet.until("it is read", || fleet.members.iter().all(is_read));
    assert_eq!((daemons(), since()), before, "neither daemon nor session began again");
    // Where it does not come back, nothing is left after a minute.
    let removed = Instant::now();
    remove();
    holds(2);
    assert!(fleet.members.iter().all(|member| announced(member.node()).len() == 1));
    for member in &fleet.members {
        let is_gone = || !member.node().succeeds(&["test", "-e", "/run/weir/bird/bird.conf"]);
        fleet.until("the daemon has ended", is_gone);
        assert!(removed.elapsed() >= Duration::from_secs(59), "{:?}", removed.elapsed());
        assert_eq!(learned(member), Vec::<String>::new());
        assert_eq!(announced(member.node()), Vec::<String>::new());
    }
}

/// The command line of a BIRD in a container of its own, as both documents give it.
fn documented() -> String {
    let lines = ["bgp.md", "agent.md"].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        let document = fs::read_to_string(path).expect("a document");
        let mut lines =
            document.lines().map(str::trim_start).filter(|line| line.starts_with("bird -f "));
        lines.next().unwrap_or_else(|| panic!("no command line in {name}")).to_owned()
    });
    assert_eq!(lines[0], lines[1]);
    lines[0].clone()
}

/// Starts this on a node as a container runtime does: with processes of its own, and of the
/// agent's files the folder `/run/weir/bird` alone.
fn in_container(member: &Member, line: &str) -> Child {
    let script = "set -e; mount --bind /run/weir/bird /mnt; mount -t tmpfs tmpfs /run; \
                  mkdir -p /run/weir/bird; mount --move /mnt /run/weir/bird; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", script, "sh"]).args(line.split(' '));
    member.node().spawn(&mut command)
}

#[test]
fn a_daemon_in_a_container_of_its_own_is_configured_and_never_ended() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    fleet.apply_pool("direct", json!({"cidr": POOL, "ipipMode": "Never"}));
    fleet.agent_arguments.extend(["--bgp", "external"]);
    fleet.start_agent(0);
    fleet.start_agent(1);
    let line = documented();
    let tells = |member: &Member| member.bgp()["problems"].to_string().contains(&line);
    fleet.until("the command line is told", || fleet.members.iter().all(tells));
    assert!(fleet.members[0].agent().is_unwell());
    let mut containers: Vec<Child> =
        fleet.members.iter().map(|member| in_container(member, &line)).collect();
    await_sessions(&fleet);
    fleet.until("both are well", || fleet.members.iter().all(|it| it.agent().is_well()));
    let blocks = told(&fleet);
    // Its runtime starts it again: no route is lost meanwhile, and the agent finds it.
    containers[0].kill().expect("killing a container");
    containers[0].wait().expect("waiting for it");
    assert!(learned(&fleet.members[0])[0].starts_with(&blocks[1]));
    containers[0] = in_container(&fleet.members[0], &line);
    fleet.until("the agent sees another one", || fleet.members[0].bgp()["restarts"] == 1);
    await_sessions(&fleet);
    assert!(learned(&fleet.members[0])[0].starts_with(&blocks[1]));
    fleet.apply("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": false}));
    for member in &fleet.members {
        fleet.until("no route is left", || learned(member).is_empty());
        fleet.until("nothing is announced", || announced(member.node()).is_empty());
        assert!(member.birdc("show status").contains("Daemon is up and running"));
    }
    for container in &mut containers {
        assert!(container.try_wait().expect("asking for it").is_none(), "it goes on");
    }
}

#[test]
fn another_nodes_sessions_are_seen_by_a_resource() {
    let fleet = two_subnets();
    await_sessions(&fleet);
    let answer = fleet.weirctl(0, &["node", "status", "--node", "n2"]);
    assert!(answer.stdout.contains("create a CalicoNodeStatus"), "{answer:?}");
    // An hour: what is filled in before is so because the resource is new or was changed.
    let spec = |classes| json!({"node": "n2", "classes": classes, "updatePeriodSeconds": 3600});
    fleet.apply("CalicoNodeStatus", "n2", spec(json!(["Agent"])));
    let stored = || {
        let answer = fleet.weirctl(0, &["get", "caliconodestatus", "n2", "-o", "json"]);
        serde_json::from_str::<Value>(&answer.stdout).expect("JSON")["status"].clone()
    };
    fleet.until("n2 has filled it in", || stored()["agent"]["birdV4"]["state"] == "Ready");
    assert_eq!(stored()["bgp"]["peersV4"], Value::Null);
    fleet.apply("CalicoNodeStatus", "n2", spec(json!(["Agent", "BGP", "Routes"])));
    let seen = || fleet.weirctl(0, &["node", "status", "--node", "n2"]).stdout;
    fleet.until("n2 has filled in more", || seen().contains("node-to-node mesh"));
    assert!(seen().contains("Established"), "{}", seen());
}
