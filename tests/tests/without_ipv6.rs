//! A node whose kernel has no IPv6. Needs such a kernel: `scripts/guest-kernel.sh --emulate` with
//! `WEIR_GUEST_KERNEL=ipv6.disable=1`.

use std::path::Path;

use serde_json::json;
use weir_tests::{Call, Fleet, Place, Subnet, merge};

#[test]
fn a_node_without_ipv6_is_well_beside_ipv6_pools() {
    assert!(!Path::new("/proc/sys/net/ipv6").exists(), "run this as its head says");
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("four", json!({"cidr": "10.7.0.0/16", "natOutgoing": true}));
    fleet.apply_pool("six", json!({"cidr": "fd00:7::/48", "blockSize": 122}));
    fleet.start_agents();
    let pods = [0, 1].map(|member| fleet.pod(member, "four"));
    fleet.until_connected(&pods[0], &pods[1]);
    // Another node has both, and containers with IPv6.
    let bgp = json!({"ipv4Address": "172.31.1.13/24", "ipv6Address": "fd31:1::13/64"});
    fleet.apply("Node", "n3", json!({ "bgp": bgp }));
    let container = fleet.members[0].node().container("far");
    let ipam = json!({"type": "weir-ipam", "assign_ipv6": "true"});
    let mut configuration =
        json!({"cniVersion": "1.0.0", "name": "pods", "nodename": "n3", "ipam": ipam});
    merge(&mut configuration, fleet.store.configuration());
    let call = Call::new("weir-ipam", configuration).container(&container);
    let result = call.add(fleet.members[0].node());
    assert!(result.to_string().contains("fd00:7:"), "{result}");
    let status = || fleet.weirctl(0, &["node", "status"]);
    let lack = "is not registered with an IPv6 address";
    fleet.until("the other node's block is known", || status().stdout.contains(lack));
    let status = status();
    assert_eq!(status.stdout.matches(lack).count(), 1, "{status:?}");
    assert!(status.succeeded, "{status:?}");
    let agent = fleet.members[0].agent();
    fleet.until("the agent is well", || agent.is_well());
    // What is right is not changed again and again.
    let changes = || agent.metric("weir_node_changes_total");
    let (before, looks) = (changes(), agent.metric("weir_node_converge_seconds_count"));
    fleet.members[0].node().run(&["ip", "route", "add", "blackhole", "198.51.100.0/24"]);
    fleet.until("it has compared", || agent.metric("weir_node_converge_seconds_count") > looks);
    assert_eq!(changes(), before);
    let answer = fleet.status(0, "four");
    assert!(answer.succeeded, "{answer:?}");
}
