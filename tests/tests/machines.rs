//! Two machines under one node name: neither frees what the other has.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, Families, Fleet, Place, Subnet, address, allocations, assert_consistent,
    handles,
};

/// Where an administrator gives the machine an identity.
const MACHINE: &str = "/var/lib/weir/machine";
const RECORD: &str = "/calico/weir/v1/machines/n1";
const NODE: &str = "/calico/resources/v3/projectcalico.org/nodes/n1";
/// What says a clash.
const CLASH: &str = "node name n1 belongs to machine";

fn stores() -> [Cluster; 2] {
    [Cluster::embedded(), Cluster::etcd()].map(|cluster| cluster.with_pools(Families::V4))
}

/// Boots the node as this machine: what is on its disk stays, the identity is another one.
fn boot(cluster: &Cluster, machine: &str, boot: u8) {
    cluster.node.reboot(&format!("00000000-0000-4000-8000-0000000000{boot:02}"));
    cluster.node.write(MACHINE, machine);
}

/// `weir-ipam` alone, as under a main plugin that is not Weir's: there are no links to
/// judge by.
fn call(cluster: &Cluster, container_id: &str) -> Call {
    let call = cluster.ipam(Families::V4, container_id).configure("/type", "ptp".into());
    call.configure("/cniVersion", "1.1.0".into())
}

/// GC with this list of containers that live, or without a list.
fn collect(cluster: &Cluster, valid: Option<Value>) -> Answer {
    let mut call = call(cluster, "none");
    if let Some(valid) = valid {
        call = call.configure("/cni.dev~1valid-attachments", valid);
    }
    let call = call.without("CNI_CONTAINERID").without("CNI_NETNS").without("CNI_IFNAME");
    let answer = call.run(&cluster.node, "GC");
    assert!(answer.succeeded, "{answer:?}");
    answer
}

fn add(cluster: &Cluster, container_id: &str) -> (Answer, String) {
    let answer = call(cluster, container_id).run(&cluster.node, "ADD");
    let given = address(&answer.result(), 0).to_owned();
    (answer, given)
}

fn held(cluster: &Cluster) -> BTreeSet<String> {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    allocations(&entries).into_keys().map(|it| it.to_string()).collect()
}

fn set<const N: usize>(addresses: [&String; N]) -> BTreeSet<String> {
    addresses.map(Clone::clone).into()
}

#[test]
fn a_second_machine_of_a_name_gets_and_frees_its_own() {
    for cluster in stores() {
        boot(&cluster, "first", 1);
        let (quiet, a) = add(&cluster, "a");
        assert!(!quiet.stderr.contains(CLASH), "{quiet:?}");
        let (_, b) = add(&cluster, "b");
        call(&cluster, "a").run(&cluster.node, "STATUS").silence();
        boot(&cluster, "second", 2);
        // The first ADD of another boot: what the other machine has did not end with it.
        let (loud, second) = add(&cluster, "a");
        assert!(loud.stderr.contains(CLASH), "{loud:?}");
        assert!(loud.stderr.contains("left alone"), "{loud:?}");
        assert!(!loud.stderr.contains("given back"), "{loud:?}");
        assert_eq!(add(&cluster, "a").1, second, "an ADD again is its own");
        assert_eq!(held(&cluster), set([&a, &b, &second]));
        let status = call(&cluster, "a").run(&cluster.node, "STATUS");
        status.failure().expect(51, &[CLASH, "weirctl node adopt n1"]);
        call(&cluster, "b").delete(&cluster.node);
        call(&cluster, "a").delete(&cluster.node);
        assert_eq!(held(&cluster), set([&a, &b]));
        let (_, second) = add(&cluster, "c");
        for (valid, left) in [(None, set([&a, &b, &second])), (Some(json!([])), set([&a, &b]))] {
            let told = collect(&cluster, valid);
            assert!(told.stderr.contains("left alone"), "{told:?}");
            assert_eq!(held(&cluster), left);
        }
        let (_, third) = add(&cluster, "c");
        assert!(second != a && second != b);
        // The first machine finds what it had; its reboot ends that alone.
        boot(&cluster, "first", 1);
        assert_eq!(add(&cluster, "a").1, a);
        boot(&cluster, "first", 3);
        let (_, fresh) = add(&cluster, "fresh");
        assert_eq!(held(&cluster), set([&third, &fresh]));
        boot(&cluster, "second", 2);
        call(&cluster, "c").delete(&cluster.node);
        assert_eq!(held(&cluster), set([&fresh]));
    }
}

#[test]
fn what_is_taken_over_is_given_back_as_usual() {
    for cluster in stores() {
        boot(&cluster, "first", 1);
        let (_, _a) = add(&cluster, "a");
        let (_, b) = add(&cluster, "b");
        boot(&cluster, "second", 2);
        let (_, c) = add(&cluster, "c");
        let nobody = cluster.weirctl(&["node", "adopt", "n9"]);
        assert!(!nobody.succeeded, "{nobody:?}");
        let adopted = cluster.weirctl(&["node", "adopt", "n1"]);
        assert!(adopted.succeeded, "{adopted:?}");
        assert!(adopted.stdout.contains("Took over 2 addresses"), "{adopted:?}");
        assert_eq!(held(&cluster).len(), 3, "taking over frees nothing");
        // The one who comes back under its old id keeps its address.
        let (quiet, again) = add(&cluster, "b");
        assert_eq!(again, b);
        assert!(!quiet.stderr.contains(CLASH), "{quiet:?}");
        call(&cluster, "a").run(&cluster.node, "STATUS").silence();
        let told = collect(&cluster, Some(json!([])));
        assert!(!told.stderr.contains("left alone"), "{told:?}");
        assert!(held(&cluster).is_empty());
        assert!(handles(&cluster.store.entries()).is_empty());
        // What is left at a takeover ends with the next boot, too.
        let (_, c2) = add(&cluster, "c");
        boot(&cluster, "first", 3);
        assert!(cluster.weirctl(&["node", "adopt", "n1"]).succeeded);
        let (_, d) = add(&cluster, "d");
        assert_eq!(held(&cluster), set([&d]), "{c} {c2}");
    }
}

/// Lets all allocations be as an earlier version made them.
fn forget_machines(cluster: &Cluster) {
    for (key, value) in cluster.store.entries() {
        if key.contains("/assignment/") {
            let mut block: Value = serde_json::from_str(&value).expect("a block is JSON");
            for holder in block["attributes"].as_array_mut().into_iter().flatten() {
                let facts = holder["secondary"].as_object_mut().expect("facts");
                assert!(facts.remove("machine").is_some(), "each names its machine");
            }
            cluster.store.put(&key, &block);
        }
    }
}

#[test]
fn what_an_earlier_version_made_is_of_the_recorded_machine() {
    for cluster in stores() {
        boot(&cluster, "first", 1);
        let (_, a) = add(&cluster, "a");
        forget_machines(&cluster);
        boot(&cluster, "second", 2);
        let (_, other) = add(&cluster, "a");
        assert_eq!(held(&cluster), set([&a, &other]));
        collect(&cluster, Some(json!([])));
        assert_eq!(held(&cluster), set([&a]));
        // Before there was a record it was of whoever asks: the boot decides alone.
        cluster.store.remove(RECORD);
        boot(&cluster, "second", 3);
        let (quiet, b) = add(&cluster, "b");
        assert!(!quiet.stderr.contains(CLASH) && quiet.stderr.contains("given back"), "{quiet:?}");
        assert_eq!(held(&cluster), set([&b]));
        boot(&cluster, "first", 1);
        assert!(add(&cluster, "c").0.stderr.contains(CLASH), "the second is recorded now");
    }
}

/// Two nodes of one etcd that both run as n1.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First; 2]);
    for (member, machine) in fleet.members.iter_mut().zip(["first", "second"]) {
        member.name = "n1".to_owned();
        member.node().write(MACHINE, machine);
        member.node().write("/var/lib/weir/nodename", "n1\n");
    }
    fleet.apply_pool("blue", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.agent_arguments.extend(["--drift-interval", "1"]);
    fleet
}

#[test]
fn two_nodes_of_one_name_have_a_container_of_one_id() {
    let fleet = fleet();
    let nodes = [fleet.members[0].node(), fleet.members[1].node()];
    let containers = nodes.map(|node| node.container("web"));
    let calls = [0, 1].map(|member| fleet.call(member, "blue", &containers[member]));
    let first = calls[0].add(nodes[0]);
    calls[1].delete(nodes[1]);
    let second = calls[1].add(nodes[1]);
    assert_ne!(address(&first, 0), address(&second, 0));
    let held = || {
        let entries = fleet.store.entries();
        assert_consistent(&entries);
        allocations(&entries).into_keys().map(|it| it.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(held().len(), 2);
    for (index, result) in [&first, &second].into_iter().enumerate() {
        calls[index].check(nodes[index], result).silence();
        assert!(nodes[index].reaches(address(result, 0)));
    }
    calls[1].check(nodes[1], &first).failure();
    fleet.status(0, "blue").silence();
    fleet.status(1, "blue").failure().expect(51, &[CLASH]);
    // Each with its own kernel: nothing is leaked, and nothing is repaired away.
    for member in 0..2 {
        let check = fleet.weirctl(member, &["ipam", "check", "--repair"]);
        assert!(check.succeeded, "{check:?}");
    }
    assert_eq!(held().len(), 2);
    calls[1].delete(nodes[1]);
    assert_eq!(held(), [address(&first, 0)]);
    calls[0].check(nodes[0], &first).silence();
}

fn registered(fleet: &Fleet) -> Value {
    let entries = fleet.store.entries();
    let node: Value = entries.get(NODE).map_or(Value::Null, |it| it.parse().expect("JSON"));
    node["spec"]["bgp"]["ipv4Address"].clone()
}

fn until_told(fleet: &Fleet, member: usize) {
    fleet.until("the agent tells the clash", || {
        let health = fleet.members[member].agent().answer("/health").unwrap_or_default();
        health.contains("503") && health.contains(CLASH)
    });
}

fn until_well(fleet: &Fleet, member: usize) {
    fleet.until("the agent is well", || fleet.members[member].agent().is_well());
}

#[test]
fn of_two_agents_of_one_name_one_writes() {
    let mut fleet = fleet();
    fleet.start_agent(0);
    until_well(&fleet, 0);
    let first = registered(&fleet);
    let record = fleet.store.entries()[RECORD].clone();
    fleet.start_agent(1);
    until_told(&fleet, 1);
    // Looked at some times more, it still writes nothing.
    let compared = |fleet: &Fleet| {
        let agent = fleet.members[1].agent();
        agent.metric("weir_node_converge_seconds_count").unwrap_or_default()
    };
    let before = compared(&fleet);
    fleet.until("the agent compares", || compared(&fleet) >= before + 3.0);
    assert_eq!((registered(&fleet), &fleet.store.entries()[RECORD]), (first.clone(), &record));
    until_well(&fleet, 0);
    let log = fleet.members[1].agent().log();
    assert_eq!(log.lines().filter(|it| it.contains("ERROR") && it.contains(CLASH)).count(), 1);
    let status = fleet.weirctl(1, &["node", "status"]);
    assert!(!status.succeeded && status.stdout.contains(CLASH), "{status:?}");
    assert!(!fleet.weirctl(0, &["node", "status"]).stdout.contains(CLASH));
    // The second takes over: now the first one is told, and goes on writing nothing.
    let adopted = fleet.weirctl(1, &["node", "adopt", "n1"]);
    assert!(adopted.succeeded, "{adopted:?}");
    until_well(&fleet, 1);
    until_told(&fleet, 0);
    let second = registered(&fleet);
    assert_ne!(second, first);
    fleet.stop_agent(0);
    let once = ["node", "run", "--node", "n1", "--once", "--adopt", "--metrics-address", "none"];
    let back = fleet.weirctl(0, &once);
    assert!(back.succeeded, "{back:?}");
    assert_eq!(registered(&fleet), first);
    until_told(&fleet, 1);
}

/// It has the name and the address of before, so that there is nothing to write.
#[test]
fn a_host_that_was_installed_again_is_told() {
    let mut fleet = fleet();
    fleet.start_agent(0);
    until_well(&fleet, 0);
    fleet.stop_agent(0);
    fleet.members[0].node().write(MACHINE, "installed again");
    fleet.start_agent(0);
    until_told(&fleet, 0);
    assert!(fleet.weirctl(0, &["node", "adopt", "n1"]).succeeded);
    until_well(&fleet, 0);
}
