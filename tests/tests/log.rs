//! What is logged: enough to follow one call through both plugins, and nothing
//! secret.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Cluster, Etcd, EtcdOptions, Families, Node, Place};

const LOG: &str = "/run/log/weir/cni.log";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn logging(call: Call) -> Call {
    call.configure("/log_level", "debug".into()).configure("/log_file_path", LOG.into())
}

fn lines(node: &Node) -> Vec<Value> {
    let text = node.read(LOG);
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn values<'a>(lines: &'a [Value], pointer: &str) -> BTreeSet<&'a str> {
    lines.iter().filter_map(|line| line.pointer(pointer)?.as_str()).collect()
}

#[test]
fn one_call_can_be_followed_through_both_plugins() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let call = logging(cluster.weir(Families::V4, &container))
        .with("TRACEPARENT", &format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .with("TRACESTATE", "vendor=value");
    let answer = call.run(&cluster.node, "ADD");
    answer.result();
    let first = lines(&cluster.node);
    let id = values(&first, "/span/id");
    assert_eq!(id.len(), 1, "{first:?}");
    assert!(answer.stderr.contains(id.first().unwrap()), "{}", answer.stderr);
    assert_eq!(values(&first, "/span/program"), ["weir", "weir-ipam"].into());
    for (key, value) in [
        ("command", "ADD"),
        ("network", "pods"),
        ("container", "web"),
        ("interface", "eth0"),
        ("trace_id", TRACE),
        ("parent_id", "00f067aa0ba902b7"),
    ] {
        assert_eq!(values(&first, &format!("/span/{key}")), [value].into(), "{key}");
    }
    let timed: Vec<&Value> = first.iter().filter(|line| line["step"].is_string()).collect();
    let steps: BTreeSet<&str> = timed.iter().filter_map(|line| line["step"].as_str()).collect();
    for step in ["addresses", "link", "attach", "assign"] {
        assert!(steps.contains(step), "{steps:?}");
    }
    assert!(timed.iter().all(|line| line["microseconds"].is_u64()));
    // The next call is appended, under another id.
    call.without("TRACEPARENT").delete(&cluster.node);
    let both = lines(&cluster.node);
    assert_eq!(both[..first.len()], first);
    assert_eq!(values(&both, "/span/id").len(), 2);
    assert_eq!(values(&both[first.len()..], "/span/trace_id"), [].into());
    let mode = cluster.node.run(&["stat", "-c", "%a", LOG]);
    assert_eq!(mode.trim(), "600");
}

#[test]
fn a_failure_is_in_the_file_too() {
    let cluster = Cluster::embedded();
    let call = logging(cluster.ipam(Families::V4, "web")).configure("/log_level", "error".into());
    let failure = call.run(&cluster.node, "ADD").failure();
    let lines = lines(&cluster.node);
    let told = lines.iter().find(|line| line["level"] == "ERROR").expect("an error");
    assert_eq!(told["code"], 101);
    assert!(failure.text.contains(told["message"].as_str().unwrap()), "{told} {failure:?}");
    assert_eq!(lines.len(), 1, "nothing else at this level: {lines:?}");
}

#[test]
fn no_password_is_ever_told() {
    let node = Node::new("n1");
    let options = EtcdOptions { password: Some("hush-hush".to_owned()), ..Default::default() };
    let etcd = Etcd::start_with(&node, options);
    let keys = |password: &str| {
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "weir", "nodename": "n1",
            "ipam": {"type": "weir-ipam"}, "datastore_type": "etcdv3",
            "etcd_endpoints": etcd.endpoint(), "etcd_username": "root", "etcd_password": password,
        })
    };
    let container = node.container("web");
    let mut told = String::new();
    for (program, password) in
        [("weir", "hush-hush"), ("weir-ipam", "hush-hush"), ("weir", "guess-what")]
    {
        let call = logging(Call::new(program, keys(password)).container(&container));
        for command in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
            let Answer { stdout, stderr, .. } = call.run(&node, command);
            told += &format!("{stdout}{stderr}");
        }
    }
    told += &node.read(LOG);
    assert!(told.len() > 5000, "much is told at this level");
    for secret in ["hush-hush", "guess-what"] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[test]
fn the_file_is_bounded() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let call = logging(cluster.ipam(Families::V4, "web")).configure("/log_file_max_size", 1.into());
    cluster.node.write(LOG, &"old\n".repeat(300_000));
    call.add(&cluster.node);
    assert!(lines(&cluster.node).len() > 1);
    assert!(cluster.node.read(&format!("{LOG}.1")).starts_with("old\n"));
    let relative = call.clone().configure("/log_file_path", "cni.log".into());
    relative.run(&cluster.node, "ADD").failure().expect(7, &["log_file_path", "cni.log"]);
    // A log that cannot be written is no reason not to work.
    let impossible = call.configure("/log_file_path", "/proc/version/cni.log".into());
    let answer = impossible.run(&cluster.node, "DEL");
    answer.silence();
    assert!(answer.stderr.contains("/proc/version/cni.log"), "{}", answer.stderr);
}
