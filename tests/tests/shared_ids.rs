//! Hosts that use each other's container ids: the handles are shared, and nothing else.

use std::collections::BTreeSet;

use serde_json::json;
use weir_tests::{
    Call, Cluster, Families, Fleet, Place, Subnet, address, allocations, assert_consistent, handles,
};

/// Two nodes of one etcd with a container `web` each.
#[test]
fn two_nodes_have_a_container_of_one_name() {
    let fleet = Fleet::new(&[Subnet::First; 2]);
    (0..2).for_each(|member| fleet.register(member));
    fleet.apply_pool("blue", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    let nodes = [fleet.members[0].node(), fleet.members[1].node()];
    let containers = nodes.map(|node| node.container("web"));
    let calls = [0, 1].map(|member| fleet.call(member, "blue", &containers[member]));
    let first = calls[0].add(nodes[0]);
    // Neither before nor after its own ADD does n2 free what n1 has.
    calls[1].delete(nodes[1]);
    let second = calls[1].add(nodes[1]);
    assert_ne!(address(&first, 0), address(&second, 0));
    let held = || {
        let entries = fleet.store.entries();
        assert_consistent(&entries);
        assert!(handles(&entries).len() <= 1, "{:?}", handles(&entries));
        allocations(&entries).into_keys().map(|it| it.to_string()).collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from([&first, &second].map(|result| address(result, 0).to_owned()));
    assert_eq!(held(), both);
    calls[0].check(nodes[0], &first).silence();
    calls[1].check(nodes[1], &second).silence();
    for (node, result) in nodes.iter().zip([&first, &second]) {
        assert!(node.reaches(address(result, 0)));
    }
    let checked = fleet.weirctl(0, &["ipam", "check"]);
    assert!(checked.succeeded, "{checked:?}");
    calls[1].check(nodes[1], &first).failure();
    calls[1].delete(nodes[1]);
    assert_eq!(held(), BTreeSet::from([address(&first, 0).to_owned()]));
    calls[0].check(nodes[0], &first).silence();
    assert!(nodes[0].reaches(address(&first, 0)));
    // What n2 stamps is its own: n1's reboot ends what n1 had.
    let second = calls[1].add(nodes[1]);
    nodes[0].reboot("00000000-0000-4000-8000-000000000002");
    let next = fleet.named_pod(0, "blue", "next");
    let alive = [address(&second, 0).to_owned(), next.address.to_string()];
    let entries = fleet.store.entries();
    assert_consistent(&entries);
    let left: BTreeSet<_> = allocations(&entries).into_keys().map(|it| it.to_string()).collect();
    assert_eq!(left, BTreeSet::from(alive));
    calls[1].check(nodes[1], &second).silence();
}

/// All of eight hosts' containers have the same ids, and the last handle goes with the
/// last host.
#[test]
fn eight_hosts_use_the_same_ids_at_once() {
    const HOSTS: usize = 8;
    const EACH: usize = 12;
    let cluster = Cluster::etcd();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/23", "blockSize": 28}));
    let call = |host: usize, number: usize| {
        cluster
            .ipam(Families::V4, &format!("c{number}"))
            .configure("/nodename", format!("h{host}").into())
            .configure("/ipam_lock_file", format!("/run/h{host}.lock").into())
    };
    // Neighbours in the list have the same id.
    let calls: Vec<Call> = (0..EACH)
        .flat_map(|number| (0..HOSTS).map(move |host| (host, number)))
        .map(|(host, number)| call(host, number))
        .collect();
    let at_once = |calls: &[Call], command: &str| {
        let running: Vec<_> = calls.iter().map(|call| call.start(&cluster.node, command)).collect();
        running.into_iter().map(weir_tests::Running::finish).collect::<Vec<_>>()
    };
    let given: BTreeSet<String> = at_once(&calls, "ADD")
        .iter()
        .map(|answer| address(&answer.result(), 0).to_owned())
        .collect();
    assert_eq!(given.len(), HOSTS * EACH, "an address was given twice");
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    assert_eq!(allocations(&entries).len(), HOSTS * EACH);
    assert_eq!(handles(&entries).len(), EACH);
    at_once(&calls, "DEL").iter().for_each(weir_tests::Answer::silence);
    cluster.assert_nothing_allocated();
}
