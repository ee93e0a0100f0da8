//! The node agent and values that cannot be read: what they were before counts, for the
//! next agent as well.

use serde_json::{Value, json};
use weir_tests::{Fleet, Place, Subnet};

const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/n2";
const POOL: &str = "/calico/resources/v3/projectcalico.org/ippools/direct";

/// Two nodes with a route each to the other's block.
fn two_nodes() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    let spec = json!({"cidr": "10.7.0.0/24", "blockSize": 28, "natOutgoing": true});
    fleet.apply_pool("direct", spec);
    fleet.start_agents();
    fleet.connected_pods("direct");
    fleet.until_routed(2);
    fleet
}

/// Writes what cannot be read any more, once in the node and once in the pool.
fn damage(fleet: &Fleet) {
    let entries = fleet.etcd().entries();
    let spoil = |key: &str, field: &str, value: &str| {
        let mut stored: Value = serde_json::from_str(&entries[key]).expect("it is JSON");
        *stored.pointer_mut(field).expect("the field is there") = json!(value);
        fleet.etcd().put(key, &stored.to_string());
    };
    spoil(NODE, "/spec/bgp/ipv4Address", "172.31.1.2/33");
    spoil(POOL, "/spec/cidr", "10.7.0.0/99");
}

fn until_told(fleet: &Fleet) {
    let problems = || fleet.members[0].agent().metric("weir_node_problems");
    fleet.until("n1 tells of both", || problems().is_some_and(|number| number >= 2.0));
}

fn nat(fleet: &Fleet) -> String {
    fleet.members[0].node().run(&["nft", "list", "ruleset"])
}

/// Requires that n1 has all that it had after its agent was restarted among damage.
fn nothing_is_withdrawn(begin_anew: impl FnOnce(&mut Fleet)) {
    let mut fleet = two_nodes();
    let before = (fleet.members[0].routes(), nat(&fleet));
    begin_anew(&mut fleet);
    until_told(&fleet);
    assert_eq!((fleet.members[0].routes(), nat(&fleet)), before);
}

#[test]
fn the_next_agent_goes_on_with_what_they_were() {
    nothing_is_withdrawn(|fleet| {
        damage(fleet);
        until_told(fleet);
        fleet.stop_agent(0);
        fleet.start_agents();
    });
}

#[test]
fn so_does_one_that_comes_after_the_last_was_killed() {
    nothing_is_withdrawn(|fleet| {
        let state = || fleet.members[0].node().run(&["cat", "/run/weir/state.json"]);
        fleet.until("n1 has noted where n2 is", || state().contains("172.31.1.12"));
        let agent = fleet.members[0].agent().process();
        nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        // No agent of this node has seen them fail.
        damage(fleet);
        fleet.start_agent(0);
        fleet.start_agents();
    });
}
