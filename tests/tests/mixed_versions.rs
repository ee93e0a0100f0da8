//! An upgrade under way: programs of an earlier version beside those of this one, on nodes
//! of one cluster. `scripts/mixed-versions.sh` builds the earlier ones.

use std::path::PathBuf;

use serde_json::json;
use weir_tests::{Call, Fleet, Place, Pod, Subnet, address, allocations, assert_consistent};

/// How many containers each version makes on a node.
const EACH: usize = 8;

/// The directory with the programs of the earlier version.
fn earlier() -> PathBuf {
    let directory = std::env::var_os("WEIR_EARLIER_PROGRAMS");
    directory.expect("scripts/mixed-versions.sh names the earlier programs").into()
}

/// Two registered nodes in one subnet, the second of which has an agent of this version
/// and a container.
fn fleet(natted: bool) -> (Fleet, Pod) {
    let mut fleet = Fleet::new(&[Subnet::First; 2]);
    (0..2).for_each(|member| fleet.register(member));
    let pool = json!({"cidr": "10.7.0.0/24", "blockSize": 29, "natOutgoing": natted});
    fleet.apply_pool("blue", pool);
    fleet.start_agent(1);
    let far = fleet.pod(1, "blue");
    (fleet, far)
}

/// Containers of both versions by turns on the first node, each added by one version,
/// checked by the other, and deleted by either. All reach the other node's container.
fn turns(fleet: &Fleet, far: &Pod) {
    let node = fleet.members[0].node();
    let mut calls: Vec<(Call, Call)> = Vec::new();
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..2 * EACH {
        let container = node.container(&format!("c{number}"));
        let new = fleet.call(0, "blue", &container);
        let old = new.clone().from(&earlier());
        let (adding, checking) = if number % 2 == 0 { (old, new) } else { (new, old) };
        let result = adding.add(node);
        assert!(addresses.insert(address(&result, 0).to_owned()), "an address was given twice");
        checking.check(node, &result).silence();
        // Asked again by the other version, the attachment is as it was.
        let again = checking.add(node);
        assert_eq!(address(&again, 0), address(&result, 0));
        let far = far.address.to_string();
        fleet.until("the other node is reached", || container.reaches(&far));
        calls.push((adding, checking));
    }
    // Two at the same moment, one of each version.
    let container = node.container("both");
    let new = fleet.call(0, "blue", &container);
    let old = new.clone().from(&earlier());
    let both = [new.start(node, "ADD"), old.start(node, "ADD")].map(|running| running.finish());
    assert!(both.iter().any(|answer| answer.succeeded), "{both:?}");
    calls.push((new.clone(), old));
    assert!(node.reaches(address(&new.add(node), 0)));
    let entries = fleet.etcd().entries();
    assert_consistent(&entries);
    for (number, (adding, checking)) in calls.iter().enumerate() {
        if number % 4 < 2 { adding.delete(node) } else { checking.delete(node) }
    }
    let entries = fleet.etcd().entries();
    assert_consistent(&entries);
    let left: Vec<_> = allocations(&entries).into_keys().collect();
    assert_eq!(left, [std::net::IpAddr::V4(far.address)], "what is left");
}

#[test]
fn the_earlier_agent_beside_both_versions_of_the_plugins() {
    for natted in [false, true] {
        let (mut fleet, far) = fleet(natted);
        fleet.start_agent_from(&earlier(), 0);
        fleet.until("the agent is well", || fleet.members[0].agent().is_well());
        turns(&fleet, &far);
    }
}

#[test]
fn this_agent_beside_both_versions_of_the_plugins() {
    for natted in [false, true] {
        let (mut fleet, far) = fleet(natted);
        fleet.start_agent(0);
        fleet.until("the agent is well", || fleet.members[0].agent().is_well());
        turns(&fleet, &far);
    }
}

#[test]
fn both_versions_of_the_plugins_without_an_agent() {
    for natted in [false, true] {
        let (fleet, far) = fleet(natted);
        turns(&fleet, &far);
    }
}

/// The agents of both versions take turns, under a container that stays.
#[test]
fn the_agent_is_upgraded_and_downgraded() {
    let (mut fleet, far) = fleet(true);
    let near = fleet.pod(0, "blue");
    for programs in [earlier(), weir_tests::binaries(), earlier(), weir_tests::binaries()] {
        fleet.start_agent_from(&programs, 0);
        fleet.until("the agent is well", || fleet.members[0].agent().is_well());
        fleet.until_connected(&near, &far);
        assert!(fleet.members[0].agent().metric("weir_node_changes_total").is_some());
        fleet.stop_agent(0);
        assert!(near.container.reaches(&far.address.to_string()));
    }
}
