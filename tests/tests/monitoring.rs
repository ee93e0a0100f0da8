//! What the agent tells Prometheus, and what is asked of it by the alerts and the dashboard
//! in conf/, with the real promtool and Prometheus.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use weir_common::datastore::keys;
use weir_tests::{Fleet, Place, Subnet};

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf").join(name)
}

fn promtool(arguments: &[&str], file: &Path) -> Output {
    let output = Command::new("promtool").args(arguments).arg(file).output();
    output.expect("running promtool, of the package prometheus")
}

#[test]
fn each_alert_fires_and_is_quiet() {
    let rules = conf("prometheus/weir.rules.yaml");
    let checked = promtool(&["check", "rules"], &rules);
    assert!(checked.status.success(), "{checked:?}");
    let tests = conf("prometheus/weir.rules.test.yaml");
    let tested = promtool(&["test", "rules"], &tests);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    let text = |path: &Path| fs::read_to_string(path).expect("a file of conf/");
    let (rules, tests) = (text(&rules), text(&tests));
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 12, "{alerts:?}");
    for alert in alerts {
        for case in ["fires", "is quiet"] {
            assert!(tests.contains(&format!("- name: {alert} {case}\n")), "{alert} {case}");
        }
    }
}

/// A node with an agent and a pool of 16 addresses.
fn one_node() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.agent_arguments.extend(["--audit", "1s"]);
    fleet.apply_pool("small", json!({"cidr": "10.7.0.0/28", "blockSize": 30}));
    fleet.start_agents();
    fleet
}

/// The value of a series of the pool's; its labels may come in any order.
fn of_pool(fleet: &Fleet, name: &str, state: &str) -> Option<f64> {
    let labels = match state {
        "" => "pool=\"small\"".to_owned(),
        _ => format!("pool=\"small\",state=\"{state}\""),
    };
    fleet.members[0].agent().metric(&format!("weir_pool_{name}{{{labels}}}"))
}

fn use_of_pool(fleet: &Fleet) -> [Option<f64>; 4] {
    ["used", "cooling", "reserved", "free"].map(|state| of_pool(fleet, "addresses", state))
}

#[test]
fn pools_are_counted_as_they_change() {
    let fleet = one_node();
    fleet.until("the pool is empty", || {
        use_of_pool(&fleet) == [0.0, 0.0, 0.0, 16.0].map(Some)
            && of_pool(&fleet, "size_addresses", "") == Some(16.0)
            && of_pool(&fleet, "exhaustion_seconds", "") == Some(f64::INFINITY)
    });
    let pods = ["a", "b"].map(|name| fleet.named_pod(0, "small", name));
    fleet.until("two addresses are used", || {
        use_of_pool(&fleet) == [2.0, 0.0, 0.0, 14.0].map(Some)
            && of_pool(&fleet, "blocks", "") == Some(1.0)
            && of_pool(&fleet, "borrowed_addresses", "") == Some(0.0)
            // Two an hour.
            && of_pool(&fleet, "exhaustion_seconds", "") == Some(7.0 * 3600.0)
    });
    fleet.apply("IPReservation", "kept", json!({"reservedCIDRs": ["10.7.0.0/29"]}));
    fleet.until("six more are reserved", || {
        let [used, _, reserved, free] = use_of_pool(&fleet);
        let in_range = pods.iter().filter(|pod| pod.address.octets()[3] < 8).count() as f64;
        used == Some(2.0) && reserved == Some(8.0 - in_range) && free == Some(6.0 + in_range)
    });
    for pod in &pods {
        fleet.call(0, "small", &pod.container).delete(fleet.members[0].node());
    }
    fleet.until("none is used any more", || {
        use_of_pool(&fleet) == [0.0, 0.0, 8.0, 8.0].map(Some)
            && of_pool(&fleet, "exhaustion_seconds", "") == Some(f64::INFINITY)
    });
}

#[test]
fn calls_are_counted_also_when_the_agent_was_started_again() {
    let mut fleet = one_node();
    let count = |fleet: &Fleet, series: &str| fleet.members[0].agent().metric(series);
    let adds = "weir_cni_call_seconds_count{verb=\"ADD\"}";
    let pod = fleet.pod(0, "small");
    fleet.until("an ADD is counted", || count(&fleet, adds) == Some(1.0));
    let seconds = count(&fleet, "weir_cni_call_seconds_sum{verb=\"ADD\"}").expect("a sum");
    assert!(seconds > 0.0, "{seconds}");
    let node = fleet.members[0].node();
    let mode = node.run(&["stat", "-c", "%a %F", "/run/weir/calls.sock"]);
    assert_eq!(mode.trim(), "600 socket");
    let container = node.container("lost");
    fleet.call(0, "none", &container).run(node, "ADD").failure();
    fleet.until("a failure is counted", || {
        let text = fleet.members[0].agent().answer("/metrics").unwrap_or_default();
        let failures = text.lines().filter(|line| line.starts_with("weir_cni_call_failures_total"));
        let failures: Vec<&str> = failures.collect();
        failures.len() == 1 && failures[0].contains("verb=\"ADD\"") && failures[0].ends_with(" 1")
    });
    // Without an agent a call is as before, and the next agent takes the place of its socket.
    fleet.kill_agent(0);
    fleet.call(0, "small", &pod.container).delete(fleet.members[0].node());
    fleet.start_agents();
    let _pod = fleet.named_pod(0, "small", "again");
    fleet.until("an ADD is counted again", || count(&fleet, adds) == Some(1.0));
}

/// How many findings of a kind a node's agent tells of; `None` where it does not judge them.
fn damage(fleet: &Fleet, member: usize, kind: &str) -> Option<f64> {
    fleet.members[member].agent().metric(&format!("weir_audit_findings{{kind=\"{kind}\"}}"))
}

/// The first three nodes look at the whole datastore, the fourth at its own containers.
#[test]
fn damage_is_counted_until_it_is_repaired() {
    let (of_store, of_kernel) = ("handle-without-address", "attachment-without-address");
    let mut fleet = Fleet::new(&[Subnet::First; 4]);
    fleet.agent_arguments.extend(["--audit", "1s"]);
    fleet.apply_pool("small", json!({"cidr": "10.7.0.0/28", "blockSize": 30}));
    let pod = fleet.pod(3, "small");
    let network = fleet.call(3, "small", &pod.container).configuration().clone();
    let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [network]});
    fleet.members[3].node().write("/etc/cni/net.d/10-pods.conflist", &list.to_string());
    fleet.start_agents();
    let of_all = |kind: &str| [0, 1, 2, 3].map(|member| damage(&fleet, member, kind));
    let well = |kind: &str, found: f64, of_last: Option<f64>| {
        fleet.until(&format!("{kind}: {found}"), || {
            of_all(kind) == [Some(found), Some(found), Some(found), of_last]
        });
    };
    well(of_store, 0.0, None);
    well(of_kernel, 0.0, Some(0.0));
    fleet.store.put(&keys::handle("pods.ghost"), &json!({"handleID": "pods.ghost", "block": {}}));
    well(of_store, 1.0, None);
    let release = ["ipam", "release", &format!("--ip={}", pod.address), "--force"];
    let succeeds = |arguments: &[&str]| {
        let answer = fleet.weirctl(3, arguments);
        assert!(answer.succeeded, "{answer:?}");
    };
    succeeds(&release);
    well(of_kernel, 0.0, Some(1.0));
    let log = fleet.members[3].agent().log();
    assert!(log.contains("damage: [attachment-without-address] eth0 of container"), "{log}");
    succeeds(&["ipam", "check", "--repair"]);
    well(of_store, 0.0, None);
    well(of_kernel, 0.0, Some(0.0));
    let looked = |member: usize, scope: &str| {
        let series = format!("weir_audit_last_timestamp_seconds{{scope=\"{scope}\"}}");
        fleet.members[member].agent().metric(&series)
    };
    assert!(looked(0, "datastore") > Some(1e9) && looked(3, "node") > Some(1e9));
    assert_eq!(looked(3, "datastore"), None);
}

/// What the dashboard asks for, with its variables set to everything.
fn queries() -> Vec<String> {
    let text = fs::read_to_string(conf("grafana/weir.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let query = |target: &Value| target["expr"].as_str().expect("a query").to_owned();
    let all = targets.map(query);
    all.map(|query| query.replace("$instance", ".*").replace("$pool", ".*")).collect()
}

#[test]
fn every_query_of_the_dashboard_has_an_answer() {
    let fleet = one_node();
    let node = fleet.members[0].node();
    fleet.pod(0, "small");
    fleet.call(0, "none", &node.container("lost")).run(node, "ADD").failure();
    let rules = conf("prometheus/weir.rules.yaml").canonicalize().expect("the rules");
    let scraped = json!([{"targets": ["127.0.0.1:9098"]}]);
    let configuration = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "scrape_configs": [{"job_name": "weir", "static_configs": scraped}],
    });
    node.write("/run/prometheus.yaml", &configuration.to_string());
    let mut prometheus = Command::new("prometheus");
    prometheus
        .args(["--config.file=/run/prometheus.yaml", "--storage.tsdb.path=/run/prometheus"])
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut prometheus = node.spawn(&mut prometheus);
    let answer = |query: &str| {
        let mut ask = Command::new("promtool");
        ask.args(["query", "instant", "http://127.0.0.1:9090", query]);
        String::from_utf8_lossy(&node.output(&mut ask, "").stdout).into_owned()
    };
    let queries = queries();
    assert!(queries.len() > 20, "{queries:?}");
    for query in &queries {
        // A node without peers.
        if !query.contains("weir_node_bgp_received") {
            fleet.until(query, || answer(query).contains("=>"));
        }
    }
    let firing = answer("ALERTS{alertstate=\"firing\"}");
    assert!(firing.trim().is_empty(), "all is well: {firing}");
    prometheus.kill().expect("ending Prometheus");
    prometheus.wait().expect("waiting for Prometheus");
}
