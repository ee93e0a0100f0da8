//! After a reboot the addresses of what died with the machine are given back
//! without a runtime's help, and none of what lives.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, Container, Families, Place, address, allocations, assert_consistent,
};

/// A node with a pool of four addresses.
fn small(cluster: Cluster) -> Cluster {
    cluster.create_pool("tiny", json!({"cidr": "10.7.0.0/30", "blockSize": 30}));
    cluster
}

fn on_both_stores(test: impl Fn(Cluster)) {
    test(Cluster::embedded());
    test(Cluster::etcd());
}

/// The machine starts anew: containers are gone, and so is what is in `/run`.
fn reboot(cluster: &Cluster, containers: Vec<Container>, boot_id: &str) {
    for container in containers {
        // The kernel takes a namespace away in its own time, and a link at once.
        container.run(&["ip", "link", "delete", "eth0"]);
        container.remove();
    }
    cluster.node.run(&["rm", "-rf", "/run/weir"]);
    cluster.node.set_boot_id(boot_id);
}

fn add(cluster: &Cluster, name: &str) -> (Container, Value) {
    let container = cluster.node.container(name);
    let result = cluster.weir(Families::V4, &container).add(&cluster.node);
    (container, result)
}

fn holders(cluster: &Cluster) -> BTreeSet<String> {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    allocations(&entries).into_values().collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("pods.{name}")).collect()
}

#[test]
fn the_first_container_gets_what_the_dead_had() {
    on_both_stores(|cluster| {
        let cluster = small(cluster);
        let dead = ["a", "b", "c", "d"].map(|name| add(&cluster, name).0);
        reboot(&cluster, dead.into(), "0a0a0a0a-1111-4222-8333-444444444444");
        let (_new, result) = add(&cluster, "new");
        assert!(cluster.node.reaches(address(&result, 0)));
        assert_eq!(holders(&cluster), names(&["new"]));
    });
}

#[test]
fn what_was_made_since_lives_whatever_comes() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let (dead, _) = add(&cluster, "dead");
        reboot(&cluster, vec![dead], "second-boot");
        let (_a, result) = add(&cluster, "a");
        // The reminder that this boot was seen to is lost.
        cluster.node.run(&["rm", "-rf", "/run/weir"]);
        let (_b, _) = add(&cluster, "b");
        assert_eq!(holders(&cluster), names(&["a", "b"]));
        assert!(cluster.node.reaches(address(&result, 0)));
    });
}

/// A container that is restored under its old id keeps its address, and lives on.
#[test]
fn who_comes_back_keeps_the_address() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let (dead, before) = add(&cluster, "restored");
        let (other, _) = add(&cluster, "other");
        reboot(&cluster, vec![dead, other], "second-boot");
        let (_restored, after) = add(&cluster, "restored");
        assert_eq!(before["ips"][0]["address"], after["ips"][0]["address"]);
        assert_eq!(holders(&cluster), names(&["restored"]));
        cluster.node.run(&["rm", "-rf", "/run/weir"]);
        let (_new, _) = add(&cluster, "new");
        assert_eq!(holders(&cluster), names(&["new", "restored"]));
        cluster.weir(Families::V4, &_restored).check(&cluster.node, &after).silence();
    });
}

#[test]
fn others_keep_what_they_have() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let call = |id: &str| cluster.ipam(Families::V4, id);
        call("far").configure("/nodename", "n2".into()).add(&cluster.node);
        call("mine").configure("/name", "other".into()).add(&cluster.node);
        let (dead, _) = add(&cluster, "dead");
        reboot(&cluster, vec![dead], "second-boot");
        let (_new, _) = add(&cluster, "new");
        let mut expected = names(&["far", "new"]);
        expected.insert("other.mine".to_owned());
        assert_eq!(holders(&cluster), expected);
        // The other network's turn comes with its own first container.
        call("next").configure("/name", "other".into()).add(&cluster.node);
        let expected = ["pods.far", "pods.new", "other.next"].map(str::to_owned);
        assert_eq!(holders(&cluster), expected.into());
    });
}

/// A link in the kernel is stronger than what the store says of the boot.
#[test]
fn a_link_proves_life() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (_alive, result) = add(&cluster, "alive");
    reboot(&cluster, Vec::new(), "second-boot");
    let (_new, _) = add(&cluster, "new");
    assert_eq!(holders(&cluster), names(&["alive", "new"]));
    assert!(cluster.node.reaches(address(&result, 0)));
}

#[test]
fn borrowed_addresses_come_back_when_there_is_no_other() {
    on_both_stores(|cluster| {
        let cluster = small(cluster);
        let call = |id: &str| cluster.ipam(Families::V4, id);
        call("far").configure("/nodename", "n2".into()).add(&cluster.node);
        let dead = ["a", "b", "c"].map(|name| add(&cluster, name).0);
        reboot(&cluster, dead.into(), "second-boot");
        let (_new, _) = add(&cluster, "new");
        assert_eq!(holders(&cluster), names(&["far", "new"]));
    });
}

fn current(call: Call) -> Call {
    call.configure("/cniVersion", "1.1.0".into())
}

/// A runtime that goes by STATUS would wait for ever for room that only an ADD
/// makes.
#[test]
fn status_does_not_call_full_what_the_dead_have() {
    on_both_stores(|cluster| {
        let cluster = small(cluster);
        let dead = ["a", "b", "c", "d"].map(|name| add(&cluster, name).0);
        let status = current(cluster.ipam(Families::V4, "x"));
        status.run(&cluster.node, "STATUS").failure().expect(50, &["tiny"]);
        reboot(&cluster, dead.into(), "second-boot");
        status.run(&cluster.node, "STATUS").silence();
    });
}

/// Asked without a list, GC gives it back as well, where no ADD came yet.
#[test]
fn gc_needs_no_list_for_it() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let (dead, _) = add(&cluster, "dead");
        reboot(&cluster, vec![dead], "second-boot");
        let call = current(cluster.ipam(Families::V4, "x")).configure("/type", "bridge".into());
        call.run(&cluster.node, "GC").silence();
        cluster.assert_nothing_allocated();
    });
}
