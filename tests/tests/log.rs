//! The log: lines of one call found together, the time of each step, the trace,
//! and nothing secret.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Cluster, Etcd, EtcdOptions, Families, Node, Place, Store};

const FILE: &str = "/run/log/weir.log";

fn logging(call: Call, level: &str) -> Call {
    call.configure("/log_file_path", FILE.into()).configure("/log_level", level.into())
}

/// All lines of the file so far, which is then removed.
fn lines(node: &Node) -> Vec<Value> {
    let text = node.read(FILE);
    node.run(&["rm", FILE]);
    let line = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in line {line}"))
    };
    text.lines().map(line).collect()
}

fn texts(lines: &[Value], pointer: &str) -> BTreeSet<String> {
    let text = |line: &Value| Some(line.pointer(pointer)?.as_str()?.to_owned());
    lines.iter().filter_map(text).collect()
}

#[test]
fn a_call_has_one_id_and_no_two_calls_the_same() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let call = logging(cluster.weir(Families::V4, &web), "debug");
    let mut ids = BTreeSet::new();
    let mut result = Value::Null;
    for command in ["ADD", "CHECK", "DEL"] {
        match command {
            "ADD" => result = call.add(node),
            "CHECK" => call.check(node, &result).silence(),
            _ => call.delete(node),
        }
        let lines = lines(node);
        let of_call = texts(&lines, "/span/id");
        assert_eq!(of_call.len(), 1, "{command}: {lines:?}");
        assert!(of_call.iter().all(|id| id.len() == 16), "{of_call:?}");
        ids.extend(of_call);
        let every = |pointer: &str| lines.iter().all(|line| line.pointer(pointer).is_some());
        assert!(every("/span/id") && every("/timestamp") && every("/level"), "{lines:?}");
        assert_eq!(texts(&lines, "/span/command"), [command.to_owned()].into());
        assert_eq!(texts(&lines, "/span/container"), ["web".to_owned()].into());
        assert_eq!(texts(&lines, "/span/interface"), ["eth0".to_owned()].into());
        assert_eq!(texts(&lines, "/span/network"), ["pods".to_owned()].into());
        assert_eq!(texts(&lines, "/span/program"), ["weir".to_owned()].into());
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn the_time_of_each_step_is_told_at_debug_only() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let call = |level| logging(cluster.weir(Families::V4, &web), level);
    call("debug").add(node);
    let added = lines(node);
    let steps = texts(&added, "/step");
    for step in ["addresses", "link", "attach", "wait for the host's lock", "assign"] {
        assert!(steps.contains(step), "{step} is missing in {steps:?}");
    }
    let mut timed = added.iter().filter(|line| line.get("step").is_some());
    assert!(timed.all(|line| line["microseconds"].is_u64() && line["level"] == "DEBUG"));
    let whole = |line: &&Value| line["message"] == "done" && line["microseconds"].is_u64();
    assert_eq!(added.iter().filter(whole).count(), 1, "{added:?}");
    call("debug").delete(node);
    assert!(texts(&lines(node), "/step").contains("link"));
    let answer = call("info").run(node, "ADD");
    let told = lines(node);
    assert!(told.iter().all(|line| line["level"] == "INFO"), "{told:?}");
    assert!(texts(&told, "/message").contains("attached"), "{told:?}");
    // Standard error has the same.
    assert!(answer.stderr.contains("attached") && answer.stderr.contains("web"), "{answer:?}");
    call("error").delete(node);
    assert_eq!(node.read(FILE), "");
    assert_eq!(node.run(&["stat", "-c", "%a", FILE]).trim(), "600");
}

#[test]
fn an_error_is_logged_with_its_code() {
    let cluster = Cluster::embedded();
    let web = cluster.node.container("web");
    let call = logging(cluster.weir(Families::V4, &web), "error");
    let failure = call.run(&cluster.node, "ADD").failure();
    let lines = lines(&cluster.node);
    assert!(lines.iter().any(|line| line["code"] == failure.code), "{failure:?}, {lines:?}");
    assert_eq!(texts(&lines, "/span/id").len(), 1);
}

/// Whoever reads the log finds each call that failed, also one that was refused before
/// anything was done.
#[test]
fn a_refused_call_is_logged_wherever_its_log_can_be_found() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let call = logging(cluster.weir(Families::V4, &web), "error");
    let etcd = call.clone().configure("/datastore_type", "etcdv3".into());
    let refused = [
        (6, call.clone().configure("/mtu", "x".into())),
        (4, call.clone().with("CNI_CONTAINERID", "-")),
        (1, call.clone().configure("/cniVersion", "9.9.9".into())),
        (7, call.clone().configure("/ipam/type", "".into())),
        (4, call.clone().with("CNI_ARGS", "IP=a=b")),
        (7, call.clone().configure("/runtimeConfig", json!({"ips": ["x"]}))),
        (7, etcd.configure("/etcd_endpoints", "ftp://x".into())),
    ];
    for (code, call) in refused {
        let answer = call.run(node, "ADD");
        let failure = answer.failure();
        failure.expect(code, &[]);
        let lines = lines(node);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!((lines[0]["level"].as_str(), &lines[0]["code"]), (Some("ERROR"), &json!(code)));
        let told = lines[0]["message"].as_str().unwrap_or_default();
        assert!(!told.is_empty() && failure.text.contains(told), "{failure:?}, {lines:?}");
        assert_eq!(lines[0]["span"]["network"], "pods");
        assert_eq!(answer.stderr.lines().count(), 1, "{answer:?}");
        assert!(answer.stderr.contains("ERROR") && answer.stderr.contains(told), "{answer:?}");
        assert!(answer.stderr.contains(lines[0]["span"]["id"].as_str().unwrap()), "{answer:?}");
    }
    let answer = call.run_with(node, "ADD", "{");
    assert!(answer.stderr.contains("ERROR"), "{answer:?}");
    let relative = call.configure("/log_file_path", "weir.log".into()).run(node, "ADD");
    assert!(relative.stderr.contains("log_file_path"), "{relative:?}");
}

#[test]
fn the_runtimes_trace_is_passed_on() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let call = logging(cluster.weir(Families::V4, &web), "debug");
    let traced = call
        .clone()
        .with("TRACEPARENT", &format!("00-{trace}-{parent}-01"))
        .with("TRACESTATE", "vendor=state");
    traced.add(node);
    let told = lines(node);
    let every = |pointer: &str, text: &str| {
        told.iter().all(|line| line.pointer(pointer).is_some_and(|found| found == text))
    };
    assert!(every("/span/trace_id", trace) && every("/span/parent_id", parent), "{told:?}");
    assert_eq!(texts(&told, "/trace_state"), ["vendor=state".to_owned()].into());
    call.with("TRACEPARENT", "00-nonsense").delete(node);
    let told = lines(node);
    assert!(told.iter().all(|line| line.pointer("/span/trace_id").is_none()), "{told:?}");
}

#[test]
fn a_file_that_cannot_be_written_stops_nothing() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let call = logging(cluster.weir(Families::V4, &web), "debug");
    node.run(&["mkdir", "-p", FILE]);
    let answer = call.run(node, "ADD");
    answer.result();
    assert!(answer.stderr.contains("cannot log to this file"), "{answer:?}");
    call.delete(node);
}

const PASSWORD: &str = "Gr4n4t-4pfel";

/// A password that somebody wrote without quotation marks.
const NUMBER: u64 = 4_711_081_500;

/// All that a call may say, at the most talkative level.
fn said(call: &Call, node: &Node, command: &str) -> Answer {
    call.clone().configure("/cniVersion", "1.1.0".into()).run(node, command)
}

#[test]
fn nothing_secret_is_ever_said() {
    let cluster = Cluster::embedded();
    let node = cluster.node.clone();
    let options = EtcdOptions { password: Some(PASSWORD.to_owned()), ..EtcdOptions::default() };
    let etcd = Etcd::start_with(&node, options);
    let endpoint = etcd.endpoint();
    etcd.put(
        "/calico/resources/v3/projectcalico.org/ippools/blue",
        &json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool",
            "metadata": {"name": "blue"}, "spec": {"cidr": "10.7.0.0/24"},
        })
        .to_string(),
    );
    let cluster = Cluster { node: node.clone(), store: Store::Etcd(etcd) };
    let web = node.container("web");
    let call = logging(cluster.weir(Families::V4, &web), "debug")
        .configure("/etcd_username", "root".into())
        .configure("/etcd_password", PASSWORD.into());
    let mut answers = Vec::new();
    for command in ["STATUS", "ADD", "CHECK", "GC", "DEL"] {
        answers.push(said(&call, &node, command));
    }
    assert!(answers[1].succeeded, "{:?}", answers[1]);
    let wrong = format!("not-{PASSWORD}");
    let in_url = |scheme: &str| endpoint.replace("http://", &format!("{scheme}root:{PASSWORD}@"));
    for (key, value) in [
        ("/etcd_password", json!(wrong)),
        ("/etcd_password", json!([PASSWORD])),
        ("/etcd_password", json!(NUMBER)),
        ("/etcd_password", json!(true)),
        ("/etcd_endpoints", json!(in_url("http://"))),
        ("/etcd_endpoints", json!(in_url(""))),
        ("/etcd_endpoints", json!(in_url("ftp://"))),
        ("/etcd_endpoints", json!("http://127.0.0.1:1")),
        ("/etcd_username", json!(3)),
        ("/ipam/type", json!("nowhere")),
    ] {
        for command in ["ADD", "DEL", "STATUS", "GC"] {
            let answer = said(&call.clone().configure(key, value.clone()), &node, command);
            assert!(!answer.succeeded, "{key} {value} {command}: {answer:?}");
            let secret = key == "/etcd_password" && value == json!(true);
            assert!(!(secret && answer.stdout.contains("true")), "{command}: {answer:?}");
            answers.push(answer);
        }
    }
    let file = node.read(FILE);
    assert!(file.lines().count() > 10, "{file}");
    for text in answers.iter().flat_map(|answer| [&answer.stdout, &answer.stderr]).chain([&file]) {
        assert!(!text.contains(PASSWORD) && !text.contains(&NUMBER.to_string()), "{text}");
    }
}
