//! The agent's log while the cluster changes all the time: each warning is in it, and the same again
//! is counted.

use serde_json::{Value, json};
use weir_tests::{Entries, Fleet, Subnet};

/// Blocks of a host that has claimed none of them, which is a problem.
const BLOCKS: usize = 1000;

/// As much as the agent may write about them, in bytes.
const MOST: usize = 8_000;

fn unclaimed_blocks() -> Entries {
    let block = |number: usize| {
        let (third, fourth) = (number / 16, number % 16 * 16);
        let free: Vec<usize> = (0..16).collect();
        let block = json!({
            "cidr": format!("10.7.{third}.{fourth}/28"),
            "affinity": "host:nobody",
            "strictAffinity": false,
            "allocations": vec![Value::Null; 16],
            "unallocated": free,
            "attributes": [],
            "deleted": false,
        });
        let key = format!("/calico/ipam/v2/assignment/ipv4/block/10.7.{third}.{fourth}-28");
        (key, block.to_string())
    };
    (0..BLOCKS).map(block).collect()
}

#[test]
fn thousands_of_changes_are_counted_and_each_warning_is_told() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/16", "blockSize": 28}));
    // As it is without an argument.
    fleet.agent_arguments = vec!["--log-level", "info"];
    fleet.start_agents();
    let metric = |fleet: &Fleet, name: &str| fleet.members[0].agent().metric(name).unwrap_or(0.0);
    let before = metric(&fleet, "weir_node_converge_seconds_count");
    let written = fleet.members[0].agent().log().len();
    fleet.etcd().put_each(&unclaimed_blocks());
    let key = "/calico/resources/v3/projectcalico.org/nodes/broken";
    fleet.store.put(key, &json!({"spec": {"bgp": {"ipv4Address": "172.31.1.2/33"}}}));
    fleet.until("both are known", || metric(&fleet, "weir_node_problems") >= 2.0);
    let reconciled = metric(&fleet, "weir_node_converge_seconds_count") - before;
    assert!(reconciled > 100.0, "each is an occasion to warn: {reconciled}");
    // What was counted is told at its end at the latest.
    fleet.stop_agent(0);
    let log = fleet.members[0].node().read("/run/agent.log").split_off(written);
    for told in ["no confirmed affinity", key, "more like this"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(log.len() < MOST, "{} bytes for {reconciled} reconciles: {log}", log.len());
}
