//! An etcd of three members, the first of which is dead, hung or unreachable.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::{Agent, Call, Etcd, Families, Node, Place, binaries, until, until_reporting};

/// The ports of the members; the next ones are for their peers.
const PORTS: [u16; 3] = [2379, 2389, 2399];

/// How long a call may take although the first endpoint gives no answer. Waiting for that
/// took 4 s (unreachable) to 7 s (hung). Idle, a call takes less than a tenth of this.
const SOON: Duration = Duration::from_millis(1500);

/// How late health may be, on a busy machine.
const HEALTH: Duration = Duration::from_secs(8);

/// A node with the members of an etcd, and a pool.
struct ThreeMembers {
    node: Node,
    members: Vec<Etcd>,
}

impl ThreeMembers {
    fn start() -> Self {
        let node = Node::bare("n1");
        let cluster = Self { members: Etcd::start_members(&node, &PORTS), node };
        let pool = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "blue"},
            "spec": {"cidr": "10.7.0.0/24", "ipipMode": "Never", "blockSize": 26},
        });
        cluster.node.write("/run/pool.yaml", &pool.to_string());
        cluster.weirctl(&["create", "-f", "/run/pool.yaml"]);
        cluster
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoints = Etcd::endpoints(&self.members);
        vec![("DATASTORE_TYPE", "etcdv3".to_owned()), ("ETCD_ENDPOINTS", endpoints)]
    }

    fn weirctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(binaries().join("weirctl"));
        command.args(arguments).envs(self.environment()).current_dir("/run");
        let output = self.node.output(&mut command, "");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("weirctl writes UTF-8")
    }

    fn call(&self, container: &str) -> Call {
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "weir", "nodename": "n1",
            "datastore_type": "etcdv3", "etcd_endpoints": Etcd::endpoints(&self.members),
            "ipam": Families::V4.ipam(),
        });
        Call::new("weir-ipam", configuration)
            .with("CNI_CONTAINERID", container)
            .with("CNI_NETNS", "/run/netns/none")
    }

    /// ADD and DEL of one container, each within the time limit.
    fn add_and_delete(&self) {
        let call = self.call("web");
        within("ADD", SOON, || call.add(&self.node));
        within("DEL", SOON, || call.delete(&self.node));
    }

    /// The file that tells which endpoint answered last: its path and what it says.
    fn memory(&self) -> Option<(String, String)> {
        let files = self.node.run(&["find", "/run/weir", "-name", "etcd-*"]);
        let path = files.lines().next()?.to_owned();
        let url = self.node.read(&path).trim_end().to_owned();
        Some((path, url))
    }
}

fn within<T>(what: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    assert!(begin.elapsed() < limit, "{what} took {:?}", begin.elapsed());
    done
}

/// What makes the first endpoint fail must cost little, the first time and later, and be
/// learnt once.
fn assert_passed_over(fail: impl FnOnce(&mut ThreeMembers)) {
    let mut cluster = ThreeMembers::start();
    cluster.add_and_delete();
    assert_eq!(cluster.memory(), None, "the first endpoint needs no memory");
    fail(&mut cluster);
    cluster.add_and_delete();
    let (path, url) = cluster.memory().expect("a memory");
    assert!(cluster.members[1..].iter().any(|it| it.endpoint() == url), "{url}");
    let written = || cluster.node.run(&["stat", "-c", "%a %u %i %y", &path]);
    let before = written();
    assert!(before.starts_with("600 0 "), "{before}");
    cluster.add_and_delete();
    within("weirctl", SOON, || cluster.weirctl(&["get", "ippool"]));
    assert_eq!(written(), before, "it is written only when it changes");
    // Whoever remembers nothing learns it at the same price.
    cluster.node.run(&["rm", &path]);
    within("weirctl", SOON, || cluster.weirctl(&["get", "ippool"]));
    assert!(cluster.memory().is_some());
}

#[test]
fn a_dead_first_endpoint_costs_little() {
    assert_passed_over(|cluster| cluster.members[0].stop());
}

#[test]
fn a_hung_first_endpoint_costs_little() {
    assert_passed_over(|cluster| cluster.members[0].freeze());
}

#[test]
fn an_unreachable_first_endpoint_costs_little() {
    assert_passed_over(|cluster| cluster.members[0].cut_off());
}

/// It answers what it can answer by itself.
#[test]
fn a_first_endpoint_that_does_not_reach_its_leader_costs_little() {
    assert_passed_over(|cluster| cluster.members[0].mute());
}

#[test]
fn an_endpoint_that_is_remembered_and_hangs_is_replaced() {
    let cluster = ThreeMembers::start();
    cluster.members[0].freeze();
    cluster.add_and_delete();
    let (_, second) = cluster.memory().expect("a memory");
    cluster.members[0].thaw();
    let position = cluster.members.iter().position(|it| it.endpoint() == second);
    let position = position.expect("one of the members");
    // The cluster elects another leader if this one led.
    cluster.members[position].freeze();
    until("the others have a leader", || cluster.members[0].is_healthy());
    cluster.add_and_delete();
    assert_ne!(cluster.memory().expect("a memory").1, second);
}

#[test]
fn what_is_no_memory_is_none() {
    let cluster = ThreeMembers::start();
    cluster.members[0].freeze();
    cluster.add_and_delete();
    let (path, url) = cluster.memory().expect("a memory");
    for nonsense in ["", "nonsense\n", "http://192.0.2.1:2379\n", &"x".repeat(1 << 20)] {
        cluster.node.write(&path, nonsense);
        cluster.add_and_delete();
        let (_, url) = cluster.memory().expect("a memory");
        assert!(cluster.members[1..].iter().any(|it| it.endpoint() == url), "{url}");
    }
    // Nobody is led elsewhere by a link, and nothing there is changed.
    cluster.node.write("/run/elsewhere", &url);
    cluster.node.run(&["ln", "-sf", "/run/elsewhere", &path]);
    cluster.add_and_delete();
    assert_eq!(cluster.node.read("/run/elsewhere"), url);
    cluster.node.run(&["rm", "-f", &path]);
    cluster.node.run(&["mkfifo", &path]);
    cluster.add_and_delete();
}

/// The host's lock orders them, also those that come while the first one finds out.
#[test]
fn twelve_calls_at_once_pass_a_hung_endpoint_in_turn() {
    let cluster = ThreeMembers::start();
    cluster.members[0].freeze();
    let begin = Instant::now();
    let addresses: BTreeSet<String> = thread::scope(|scope| {
        let add = |number: usize| {
            let call = cluster.call(&format!("web{number}"));
            call.add(&cluster.node)["ips"][0]["address"].to_string()
        };
        let calls: Vec<_> = (0..12).map(|number| scope.spawn(move || add(number))).collect();
        calls.into_iter().map(|call| call.join().expect("an ADD that works")).collect()
    });
    assert_eq!(addresses.len(), 12);
    // Each waited for 7 s, one after the other.
    assert!(begin.elapsed() < 4 * SOON, "{:?}", begin.elapsed());
}

/// A Node as its agent would write it.
fn put_node(etcd: &Etcd, number: u8) {
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": format!("other{number}")},
        "spec": {"bgp": {"ipv4Address": format!("172.31.1.{number}/24")}},
    });
    let key = format!("/calico/resources/v3/projectcalico.org/nodes/other{number}");
    etcd.put(&key, &node.to_string());
}

#[test]
fn the_agent_moves_on_and_health_tells_when_nobody_answers() {
    let cluster = ThreeMembers::start();
    put_node(&cluster.members[1], 100);
    let arguments = ["--log-level", "debug", "--ip-autodetection-method", "none"];
    let environment = cluster.environment();
    let agent = Agent::start_with(&binaries(), &cluster.node, environment, "n1", &arguments);
    let report = || format!("{:?}\n{}", agent.answer("/health"), agent.log());
    let nodes = || agent.metric("weir_node_nodes");
    let up = || agent.metric("weir_node_datastore_up") == Some(1.0);
    // Itself, and the other one.
    until_reporting(|| nodes() == Some(2.0) && up(), report);

    // Where its watch is.
    cluster.members[0].freeze();
    put_node(&cluster.members[1], 101);
    let begin = Instant::now();
    until_reporting(|| nodes() == Some(3.0), report);
    assert!(begin.elapsed() < HEALTH, "the watch moved after {:?}\n{}", begin.elapsed(), report());
    assert!(up(), "{}", report());

    cluster.members.iter().for_each(Etcd::freeze);
    let begin = Instant::now();
    let is_away = || {
        let health = agent.answer("/health").unwrap_or_default();
        health.contains("503") && health.contains("the datastore is away")
    };
    until_reporting(is_away, report);
    assert!(begin.elapsed() < HEALTH, "health told after {:?}", begin.elapsed());
    assert!(!up());
    assert!(agent.answer("/liveness").unwrap_or_default().contains("200"));

    cluster.members.iter().for_each(Etcd::thaw);
    until_reporting(up, report);
    put_node(&cluster.members[1], 102);
    until_reporting(|| nodes() == Some(4.0), report);
    agent.stop();
}
