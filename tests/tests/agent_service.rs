//! The node agent as a service: how it starts, what it says of itself, and how
//! it ends.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use weir_tests::{Fleet, Place, Subnet, binaries};

fn one_node() -> Fleet {
    let fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet
}

/// `weirctl node run` of the first node, with these arguments.
fn run(fleet: &Fleet, arguments: &[&str]) -> Command {
    let mut command = Command::new(binaries().join("weirctl"));
    command
        .args(["node", "run", "--node", "n1"])
        .args(arguments)
        .envs(fleet.store.environment())
        .stderr(Stdio::piped());
    command
}

#[test]
fn once_makes_the_node_what_it_should_be_and_ends() {
    let fleet = one_node();
    let member = &fleet.members[0];
    let output = member.node().output(&mut run(&fleet, &["--once"]), "");
    assert!(output.status.success(), "{output:?}");
    assert!(fleet.weirctl(0, &["get", "nodes"]).stdout.contains("n1"));
    assert_eq!(member.node().read("/proc/sys/net/ipv4/ip_forward").trim(), "1");
    assert!(member.routes().is_empty(), "it has no block yet");
}

#[test]
fn once_does_not_wait_for_a_datastore_that_is_away() {
    let mut fleet = one_node();
    fleet.etcd_mut().stop();
    let output = fleet.members[0].node().output(&mut run(&fleet, &["--once"]), "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the datastore is away") && said.contains("refused"), "{said}");
}

/// As in an EnvironmentFile of systemd's that names them all.
#[test]
fn variables_that_are_set_and_empty_count_as_not_set() {
    let fleet = one_node();
    let mut command = Command::new(binaries().join("weirctl"));
    command.args(["node", "run", "--once"]).envs(fleet.store.environment());
    for variable in ["NODENAME", "IP_AUTODETECTION_METHOD", "IP6_AUTODETECTION_METHOD"] {
        command.env(variable, "");
    }
    let output = fleet.members[0].node().output(&mut command, "");
    assert!(output.status.success(), "{output:?}");
    let nodes = fleet.weirctl(0, &["get", "nodes", "-o", "wide"]).stdout;
    assert!(nodes.contains("172.31.1.11/24"), "{nodes}");
    // What is said by a flag is refused as before.
    let empty = ["--ip-autodetection-method", ""];
    let refused = fleet.members[0].node().output(&mut run(&fleet, &empty), "");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
}

#[test]
fn systemd_hears_that_it_is_ready_alive_and_ending() {
    let fleet = one_node();
    let node = fleet.members[0].node();
    let socket = node.enter(|| UnixDatagram::bind("/run/notify")).expect("systemd's socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let mut command = run(&fleet, &[]);
    command.env("NOTIFY_SOCKET", "/run/notify").env("WATCHDOG_USEC", "200000");
    let mut agent = node.spawn(&mut command);
    let mut heard = String::new();
    let mut until = |word: &str| {
        let mut message = [0; 512];
        while !heard.contains(word) {
            let length = socket.recv(&mut message).expect("a message");
            heard.push_str(String::from_utf8_lossy(&message[..length]).trim_end());
            heard.push('\n');
        }
    };
    until("READY=1");
    until("STATUS=1 nodes, 0 problems");
    // Twice, to be sure that it goes on.
    until("WATCHDOG=1");
    until("WATCHDOG=1\nWATCHDOG=1");
    let id = nix::unistd::Pid::from_raw(i32::try_from(agent.id()).expect("a process id"));
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("ending the agent");
    until("STOPPING=1");
    assert!(agent.wait().expect("waiting for the agent").success());
}

#[test]
fn routes_do_not_wait_for_the_metrics_port() {
    let fleet = one_node();
    let node = fleet.members[0].node();
    let _taken = node.enter(|| std::net::TcpListener::bind("127.0.0.1:9098")).expect("the port");
    let output = node.output(&mut run(&fleet, &["--once"]), "");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there are no metrics"), "{said}");
}

#[test]
fn a_second_agent_is_refused() {
    let mut fleet = one_node();
    fleet.start_agents();
    let output = fleet.members[0].node().output(&mut run(&fleet, &[]), "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another agent runs on this node"), "{said}");
}

#[test]
fn a_deleted_node_stays_deleted_and_its_agent_says_so() {
    let mut fleet = one_node();
    fleet.start_agents();
    assert!(fleet.weirctl(0, &["delete", "node", "n1"]).succeeded);
    fleet.until("the agent is not well", || {
        let health = fleet.members[0].agent().answer("/health").unwrap_or_default();
        health.contains("503") && health.contains("n1 was deleted from the datastore")
    });
    fleet.stop_agent(0);
    assert!(!fleet.weirctl(0, &["get", "nodes"]).stdout.contains("n1"));
    fleet.start_agents();
    assert!(fleet.weirctl(0, &["get", "nodes"]).stdout.contains("n1"));
}

/// Another program of the same host may have asked for it by then.
#[test]
fn history_that_is_gone_is_made_up_for_by_a_listing() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.start_agents();
    let _first = fleet.pod(1, "direct");
    let member = &fleet.members[0];
    fleet.until("the block is routed", || member.routes().len() == 1);
    // The agent is stopped while history goes on, and is then thrown away.
    let process = member.agent().process();
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGSTOP).expect("a running agent");
    fleet.etcd_mut().stop();
    fleet.etcd_mut().restart();
    let pods: Vec<_> = (0..20).map(|it| fleet.named_pod(1, "direct", &format!("p{it}"))).collect();
    fleet.etcd().compact();
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGCONT).expect("a stopped agent");
    let member = &fleet.members[0];
    fleet.until("the new block is routed", || member.routes().len() == 2);
    drop(pods);
}
