//! After a reboot the addresses of containers that died with the machine come
//! back without a runtime's help, and those of none that lives.

use serde_json::json;
use weir_tests::{Answer, Call, Cluster, Families, Place, address, assert_consistent, handles};

const SECOND_BOOT: &str = "00000000-0000-4000-8000-000000000002";
const THIRD_BOOT: &str = "00000000-0000-4000-8000-000000000003";

fn stores() -> [Cluster; 2] {
    [Cluster::embedded(), Cluster::etcd()]
}

/// `weir-ipam` alone, as under a main plugin that is not Weir's: there are no
/// links to judge by.
fn under_ptp(cluster: &Cluster, container_id: &str) -> Call {
    cluster.ipam(Families::V4, container_id).configure("/type", "ptp".into())
}

fn held(cluster: &Cluster) -> Vec<String> {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    handles(&entries).into_iter().collect()
}

#[test]
fn the_first_add_of_a_boot_gives_back_what_died() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::Dual);
        let node = &cluster.node;
        for name in ["a", "b", "c"] {
            let container = node.container(name);
            cluster.weir(Families::Dual, &container).add(node);
        }
        let elsewhere = cluster
            .ipam(Families::V4, "elsewhere")
            .configure("/nodename", "n2".into())
            .configure("/ipam_lock_file", "/run/n2.lock".into());
        elsewhere.add(node);
        let other_network = cluster.ipam(Families::V4, "x").configure("/name", "other".into());
        other_network.add(node);
        node.reboot(SECOND_BOOT);
        assert_eq!(held(&cluster).len(), 5, "nothing runs by itself");
        let fresh = node.container("fresh");
        let call = cluster.weir(Families::Dual, &fresh);
        let answer = call.run(node, "ADD");
        assert!(answer.stderr.contains("given back"), "{answer:?}");
        let result = answer.result();
        assert_eq!(held(&cluster), ["other.x", "pods.elsewhere", "pods.fresh"]);
        assert!(node.reaches(address(&result, 0)) && node.reaches(address(&result, 1)));
        // Each network's first ADD looks after its own.
        other_network.clone().with("CNI_CONTAINERID", "y").add(node);
        assert_eq!(held(&cluster), ["other.y", "pods.elsewhere", "pods.fresh"]);
    }
}

#[test]
fn what_lives_is_spared_at_every_add() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::V4);
        let node = &cluster.node;
        cluster.weir(Families::V4, &node.container("dead")).add(node);
        node.reboot(SECOND_BOOT);
        let containers: Vec<_> =
            (0..6).map(|number| node.container(&format!("c{number}"))).collect();
        let calls: Vec<_> =
            containers.iter().map(|container| cluster.weir(Families::V4, container)).collect();
        // All at once: each may be the first.
        let running: Vec<_> = calls.iter().map(|call| call.start(node, "ADD")).collect();
        let results: Vec<_> =
            running.into_iter().map(|running| running.finish().result()).collect();
        let alive = ["pods.c0", "pods.c1", "pods.c2", "pods.c3", "pods.c4", "pods.c5"];
        assert_eq!(held(&cluster), alive);
        // Who lost its reminder looks again, and finds what lives alive.
        node.run(&["rm", "-r", "/run/weir"]);
        let late = node.container("late");
        let answer = cluster.weir(Families::V4, &late).run(node, "ADD");
        answer.result();
        assert!(!answer.stderr.contains("given back"), "{answer:?}");
        assert_eq!(held(&cluster).len(), 7);
        for (call, result) in calls.iter().zip(&results) {
            call.check(node, result).silence();
        }
    }
}

/// Under a foreign main plugin only the boot id tells.
#[test]
fn what_lives_is_spared_where_no_link_is_known() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::V4);
        under_ptp(&cluster, "dead").add(&cluster.node);
        cluster.node.reboot(SECOND_BOOT);
        under_ptp(&cluster, "a").add(&cluster.node);
        cluster.node.run(&["rm", "-r", "/run/weir"]);
        under_ptp(&cluster, "b").add(&cluster.node);
        assert_eq!(held(&cluster), ["pods.a", "pods.b"]);
    }
}

#[test]
fn who_comes_back_under_its_old_id_keeps_its_address() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::V4);
        let node = &cluster.node;
        let before = cluster.weir(Families::V4, &node.container("web")).add(node);
        cluster.weir(Families::V4, &node.container("dead")).add(node);
        node.reboot(SECOND_BOOT);
        let web = node.container("web");
        let call = cluster.weir(Families::V4, &web);
        let after = call.add(node);
        assert_eq!(address(&before, 0), address(&after, 0));
        assert!(node.reaches(address(&after, 0)));
        assert_eq!(held(&cluster), ["pods.web"]);
        // It is of the new boot now: it stays when the next ADD looks again ...
        node.run(&["rm", "-r", "/run/weir"]);
        under_ptp(&cluster, "next").add(node);
        assert_eq!(held(&cluster), ["pods.next", "pods.web"]);
        // ... and goes with the next reboot.
        node.reboot(THIRD_BOOT);
        under_ptp(&cluster, "last").add(node);
        assert_eq!(held(&cluster), ["pods.last"]);
    }
}

/// The addresses that the dead hold are the last ones, some of them borrowed from
/// another host's block.
#[test]
fn a_pool_full_of_dead_is_not_full() {
    for cluster in stores() {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/29", "blockSize": 30}));
        let node = &cluster.node;
        let call = |host: &str, id: &str| {
            cluster
                .ipam(Families::V4, id)
                .configure("/cniVersion", "1.1.0".into())
                .configure("/nodename", host.into())
                .configure("/ipam_lock_file", format!("/run/weir/{host}.lock").into())
        };
        call("n2", "alive").add(node);
        for number in 0..7 {
            call("n1", &format!("dead{number}")).add(node);
        }
        let full = |answer: &Answer| answer.failure().expect(50, &["no ipv4 address"]);
        full(&call("n1", "x").run(node, "STATUS"));
        node.reboot(SECOND_BOOT);
        call("n1", "x").run(node, "STATUS").silence();
        assert_eq!(held(&cluster), ["pods.alive"]);
        for number in 0..7 {
            call("n1", &format!("new{number}")).add(node);
        }
        // In a small cluster borrowed addresses come back without such a need.
        node.reboot(THIRD_BOOT);
        call("n1", "again").add(node);
        assert_eq!(held(&cluster), ["pods.again", "pods.alive"]);
    }
}

/// A node whose kernel tells no boot id gives nothing back, and says so to nobody.
#[test]
fn without_a_boot_id_nothing_is_given_back() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    under_ptp(&cluster, "a").add(&cluster.node);
    cluster.node.reboot("'not an id'");
    under_ptp(&cluster, "b").add(&cluster.node);
    assert_eq!(held(&cluster), ["pods.a", "pods.b"]);
}
