//! The node agent and a datastore that is restored from a snapshot: what it has
//! forgotten goes on, whatever revisions it has come to since.

use serde_json::json;
use weir_tests::{Entries, Etcd, Fleet, Place, Pod, Subnet};

/// Where the snapshot is that a datastore is restored from.
const SNAPSHOT: &str = "/run/before.db";

/// A cluster whose etcd has a snapshot from before its pool, its two nodes and their
/// blocks.
fn two_nodes() -> (Fleet, [Pod; 2]) {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("first", json!({"cidr": "10.6.0.0/24", "blockSize": 28}));
    fleet.etcd().save(SNAPSHOT);
    // Its raft term is now higher than that of a datastore that has just been
    // restored, as it usually is.
    fleet.etcd_mut().stop();
    fleet.etcd_mut().restart();
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.start_agents();
    let pods = fleet.connected_pods("direct");
    fleet.until_routed(2);
    (fleet, pods)
}

fn nodes(entries: &Entries) -> Vec<&str> {
    let prefix = "/calico/resources/v3/projectcalico.org/nodes/";
    entries.keys().filter_map(|key| key.strip_prefix(prefix)).collect()
}

/// Restores the datastore, lets others `carry_on` with it before the nodes reach it
/// again, and requires that pings go on until the agents have both nodes registered
/// again and hold the pool and both blocks.
fn survives(fleet: &mut Fleet, pods: &[Pod; 2], carry_on: impl FnOnce(&mut Etcd)) {
    let routes: Vec<_> = fleet.members.iter().map(|member| member.routes()).collect();
    let server = fleet.etcd().node().clone();
    pods[0].without_a_loss(&pods[1], || {
        fleet.etcd_mut().stop();
        fleet.underlay.cut(&server);
        fleet.etcd_mut().restore(SNAPSHOT);
        carry_on(fleet.etcd_mut());
        assert!(!nodes(&fleet.store.entries()).contains(&"n1"), "it is lost");
        fleet.underlay.heal(&server);
        for member in &fleet.members {
            let held = || member.agent().metric("weir_node_held");
            fleet.until("the pool and both blocks are held", || held() == Some(3.0));
        }
        fleet.until("both nodes are registered", || {
            let entries = fleet.store.entries();
            ["n1", "n2"].iter().all(|name| nodes(&entries).contains(name))
        });
    });
    let now: Vec<_> = fleet.members.iter().map(|member| member.routes()).collect();
    assert_eq!(now, routes);
    for member in &fleet.members {
        fleet.until("the agent is well", || member.agent().is_well());
        assert!(member.agent().log().contains("has gone back in time"));
    }
}

/// Writes what no agent reads until the revision is `revision` at least.
fn carry_past(etcd: &Etcd, revision: i64) {
    while etcd.revision() <= revision {
        etcd.put("/somewhere/else", "{}");
    }
}

#[test]
fn what_was_forgotten_goes_on_and_the_next_agent_holds_it() {
    let (mut fleet, pods) = two_nodes();
    survives(&mut fleet, &pods, |_| ());
    let routes = fleet.members[0].routes();
    pods[0].without_a_loss(&pods[1], || {
        fleet.stop_agent(0);
        fleet.start_agents();
        assert_eq!(fleet.members[0].routes(), routes);
    });
    assert_eq!(fleet.members[0].agent().metric("weir_node_held"), Some(3.0));
    // The datastore has another word: the blocks are somebody's again.
    for (member, address) in [(0, pods[0].address), (1, pods[1].address)] {
        let block = ipnet::Ipv4Net::new(address, 28).expect("a block").trunc();
        let range = block.to_string().replace('/', "-");
        let key = format!("/calico/ipam/v2/host/n{}/ipv4/block/{range}", member + 1);
        fleet.etcd_mut().put(&key, r#"{"state":"confirmed","deleted":false}"#);
    }
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    for member in &fleet.members {
        let held = || member.agent().metric("weir_node_held");
        fleet.until("nothing is held", || held() == Some(0.0));
    }
    assert_eq!(fleet.members[0].routes(), routes);
}

#[test]
fn a_restored_datastore_that_others_have_written_to_is_noticed() {
    let (mut fleet, pods) = two_nodes();
    let before = fleet.etcd_mut().revision();
    survives(&mut fleet, &pods, |etcd| {
        // Each start raises the raft term, so that it tells nothing any more.
        for _ in 0..2 {
            etcd.stop();
            etcd.restart();
        }
        let node = json!({
            "kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "n9"}, "spec": {"bgp": {"ipv4Address": "172.31.1.99/24"}},
        });
        etcd.put("/calico/resources/v3/projectcalico.org/nodes/n9", &node.to_string());
        carry_past(etcd, before);
    });
}

/// As `etcdutl snapshot restore --bump-revision --mark-compacted` leaves it.
#[test]
fn a_restored_datastore_whose_history_is_compacted_is_noticed() {
    let (mut fleet, pods) = two_nodes();
    let before = fleet.etcd_mut().revision();
    survives(&mut fleet, &pods, |etcd| {
        carry_past(etcd, before);
        etcd.compact();
    });
}

/// Agents look for no IPv6 address unless they are told to.
#[test]
fn a_forgotten_node_keeps_the_address_that_is_not_looked_for() {
    let (mut fleet, pods) = two_nodes();
    let key = |name| format!("/calico/resources/v3/projectcalico.org/nodes/{name}");
    let problems = |fleet: &Fleet| fleet.members[0].agent().metric("weir_node_problems");
    let before = problems(&fleet);
    for (name, address) in [("n1", "fd00:9::1/64"), ("n2", "fd00:9::2/64")] {
        let etcd = fleet.etcd_mut();
        let mut node: serde_json::Value =
            serde_json::from_str(&etcd.entries()[&key(name)]).expect("a Node is JSON");
        node["spec"]["bgp"]["ipv6Address"] = json!(address);
        etcd.put(&key(name), &node.to_string());
    }
    // No link has it, which the agent tells when it has seen it.
    fleet.until("the agent knows the address", || problems(&fleet) > before);
    for (member, address) in fleet.members.iter().zip(["fd00:9::1/64", "fd00:9::2/64"]) {
        member.node().run(&["ip", "address", "add", address, "dev", "eth0", "nodad"]);
    }
    survives(&mut fleet, &pods, |_| ());
    let entries = fleet.etcd_mut().entries();
    assert!(entries[&key("n1")].contains("fd00:9::1/64"), "{}", entries[&key("n1")]);
}
