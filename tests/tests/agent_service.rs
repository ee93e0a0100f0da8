//! The node agent as a service: how it starts, what it says of itself, and how
//! it ends.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::{Fleet, Place, Subnet, binaries, uninterrupted};

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
    for variable in ["NODENAME", "IP", "IP6", "IP_AUTODETECTION_METHOD", "IP6_AUTODETECTION_METHOD"]
    {
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

/// `IP` and `IP6`, each with what the node is registered with then.
#[test]
fn the_variables_of_calicos_node_are_read_as_it_reads_them() {
    let fleet = one_node();
    let node = fleet.members[0].node();
    node.run(&["ip", "address", "add", "172.31.1.99/24", "dev", "eth0"]);
    node.run(&["ip", "-6", "address", "add", "fd00:31::99/64", "dev", "eth0", "nodad"]);
    let registered = |variables: &[(&str, &str)]| {
        let mut command = run(&fleet, &["--once"]);
        command.envs(variables.iter().copied());
        let output = node.output(&mut command, "");
        assert!(output.status.success(), "{variables:?}: {output:?}");
        let json = fleet.weirctl(0, &["get", "nodes", "-o", "json"]).stdout;
        let nodes: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let bgp = nodes["items"][0]["spec"]["bgp"].clone();
        ["ipv4Address", "ipv6Address"].map(|field| bgp[field].as_str().unwrap_or("-").to_owned())
    };
    let (first, second) = ("172.31.1.11/24", "172.31.1.99/24");
    assert_eq!(registered(&[("IP", "172.31.1.99")]), [second, "-"], "without a prefix length");
    assert_eq!(registered(&[("IP", "none"), ("IP6", "none")]), [second, "-"]);
    let method = ("IP_AUTODETECTION_METHOD", "cidr=172.31.1.11/32");
    assert_eq!(registered(&[("IP", "none"), method]), [second, "-"]);
    assert_eq!(registered(&[("IP", "autodetect"), method]), [first, "-"]);
    assert_eq!(registered(&[("IP", "172.31.1.99/24"), method]), [second, "-"]);
    assert_eq!(registered(&[("IP6", "autodetect")]), [second, "fd00:31::99/64"]);
    let wrong = node.output(run(&fleet, &["--once"]).env("IP", "fd00:31::99"), "");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("is not an IPv4 address"), "{said}");
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
            let length = uninterrupted(|| socket.recv(&mut message)).expect("a message");
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
    let _taken = node.enter(|| TcpListener::bind("127.0.0.1:9098")).expect("the port");
    let output = node.output(&mut run(&fleet, &["--once"]), "");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("there are no metrics"), "{said}");
}

#[test]
fn a_metrics_port_that_becomes_free_is_used() {
    let mut fleet = one_node();
    let node = fleet.members[0].node().clone();
    let taken = node.enter(|| TcpListener::bind("127.0.0.1:9098")).expect("the port");
    fleet.start_agent(0);
    fleet.until("it goes on", || node.read("/proc/sys/net/ipv4/ip_forward").trim() == "1");
    let said = || fleet.members[0].agent().log();
    // It has tried more than once by then.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(said().matches("there are no metrics").count(), 1, "{}", said());
    drop(taken);
    fleet.until("it is well", || fleet.members[0].agent().is_well());
    assert_eq!(said().matches("are served now").count(), 1, "{}", said());
}

#[test]
fn requests_that_are_never_finished_hold_nobody_up() {
    let mut fleet = one_node();
    fleet.start_agents();
    let agent = fleet.members[0].agent();
    let half = |text: &'static str| {
        (0..64).map(move |_| {
            let mut stream = agent.connect().expect("a connection");
            stream.write_all(text.as_bytes()).expect("the agent reads");
            stream
        })
    };
    let begin = Instant::now();
    let mut held: Vec<_> = half("GET /liveness HTTP/1.1\r\nHost: ").collect();
    for path in ["/liveness", "/metrics", "/health"] {
        let answer = agent.answer(path).expect("an answer");
        assert!(answer.contains("200 OK"), "{path}: {answer}");
    }
    // More than there is room for, of other sorts.
    held.extend(half(""));
    held.extend(half("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx"));
    held.extend(half("GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx"));
    for _ in 0..3 {
        assert!(agent.answer("/liveness").expect("an answer").contains("200 OK"));
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    // Each is closed in the end.
    for stream in &mut held {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
        let mut rest = Vec::new();
        match std::io::Read::read_to_end(stream, &mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn only_get_and_head_are_answered() {
    let mut fleet = one_node();
    fleet.start_agents();
    let agent = fleet.members[0].agent();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"] {
        let answer = agent.request(method, "/metrics").expect("an answer").to_lowercase();
        assert!(answer.contains("405") && answer.contains("allow: get, head"), "{answer}");
    }
    for (path, status) in [("/liveness", "200"), ("/metrics", "200"), ("/", "404")] {
        let head = agent.request("HEAD", path).expect("an answer");
        assert!(head.contains(status) && head.ends_with("\r\n\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-length: "), "{head}");
        assert!(agent.answer(path).expect("an answer").len() > head.len());
    }
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
