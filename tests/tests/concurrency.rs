//! Many calls at once: no address twice, none lost, and nothing left.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;
use weir_tests::{
    Answer, Call, Cluster, Families, Node, Place, address, allocations, assert_consistent, handles,
};

/// Runs all calls at the same time and waits for them.
fn at_once(node: &Node, calls: &[Call], command: &str) -> Vec<Answer> {
    let running: Vec<_> = calls.iter().map(|call| call.start(node, command)).collect();
    running.into_iter().map(weir_tests::Running::finish).collect()
}

/// Adds all, which must succeed: their IPv4 addresses, all different.
fn add_all(node: &Node, calls: &[Call]) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for answer in at_once(node, calls, "ADD") {
        let result = answer.result();
        let address = address(&result, 0);
        assert!(
            addresses.insert(address.parse().expect("an address")),
            "{address} was given twice"
        );
    }
    addresses
}

fn delete_all(node: &Node, calls: &[Call]) {
    for answer in at_once(node, calls, "DEL") {
        answer.silence();
    }
}

/// What the store says is what the calls were told.
fn assert_recorded(cluster: &Cluster, addresses: &BTreeSet<IpAddr>, expected_handles: usize) {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    assert_eq!(&allocations(&entries).into_keys().collect::<BTreeSet<_>>(), addresses);
    assert_eq!(handles(&entries).len(), expected_handles);
}

fn sixty_four_containers(cluster: Cluster) {
    let cluster = cluster.with_pools(Families::V4);
    let node = &cluster.node;
    let containers: Vec<_> = (0..64).map(|number| node.container(&format!("c{number}"))).collect();
    let calls: Vec<_> =
        containers.iter().map(|container| cluster.weir(Families::V4, container)).collect();
    let addresses = add_all(node, &calls);
    assert_recorded(&cluster, &addresses, 64);
    assert!(addresses.iter().step_by(9).all(|address| node.reaches(&address.to_string())));
    delete_all(node, &calls);
    cluster.assert_nothing_allocated();
    assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
}

#[test]
fn sixty_four_containers_on_the_embedded_store() {
    sixty_four_containers(Cluster::embedded());
}

#[test]
fn sixty_four_containers_on_etcd() {
    sixty_four_containers(Cluster::etcd());
}

/// Calls of weir-ipam as `hosts` hosts would make them, each with its own name
/// and its own lock.
fn calls_of_hosts(cluster: &Cluster, hosts: usize, each: usize) -> Vec<Call> {
    let call = |host: usize, number: usize| {
        cluster
            .ipam(Families::V4, &format!("h{host}-c{number}"))
            .configure("/nodename", format!("h{host}").into())
            .configure("/ipam_lock_file", format!("/run/h{host}.lock").into())
    };
    // Neighbours in the list are on different hosts.
    (0..each).flat_map(|number| (0..hosts).map(move |host| call(host, number))).collect()
}

#[test]
fn eight_hosts_on_one_etcd() {
    let cluster = Cluster::etcd();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/22", "blockSize": 27}));
    let calls = calls_of_hosts(&cluster, 8, 32);
    let addresses = add_all(&cluster.node, &calls);
    assert_eq!(addresses.len(), 256);
    assert_recorded(&cluster, &addresses, 256);
    delete_all(&cluster.node, &calls);
    cluster.assert_nothing_allocated();
}

#[test]
fn hosts_fill_a_pool_to_the_last_address() {
    let cluster = Cluster::etcd();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/26", "blockSize": 28}));
    let calls = calls_of_hosts(&cluster, 8, 8);
    let addresses = add_all(&cluster.node, &calls);
    assert_eq!(addresses.len(), 64);
    assert_recorded(&cluster, &addresses, 64);
    let one_more = cluster.ipam(Families::V4, "one-more").run(&cluster.node, "ADD");
    one_more.failure().expect(101, &["blue"]);
    delete_all(&cluster.node, &calls);
    cluster.assert_nothing_allocated();
}

#[test]
fn adds_and_deletes_of_the_same_container_at_once() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let calls: Vec<_> = (0..16).map(|_| cluster.ipam(Families::V4, "web")).collect();
    let addresses: BTreeSet<String> = at_once(&cluster.node, &calls, "ADD")
        .iter()
        .map(|answer| answer.result()["ips"][0]["address"].to_string())
        .collect();
    assert_eq!(addresses.len(), 1, "one attachment has one address: {addresses:?}");
    delete_all(&cluster.node, &calls);
    cluster.assert_nothing_allocated();
}
