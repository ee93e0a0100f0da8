//! An etcd that reads and does not write: full, or with a user who may only read.

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, Container, Etcd, EtcdOptions, Families, Node, Snapshot, Store,
    allocations,
};

const NOT_AVAILABLE: u64 = 50;
const LATER: u64 = 11;

/// STATUS, as libcni asks it: without container, namespace and interface.
fn status(cluster: &Cluster, call: &Call) -> Answer {
    let call = call.clone().configure("/cniVersion", "1.1.0".into());
    let nothing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = nothing.iter().fold(call, |call, variable| call.with(variable, ""));
    call.run(&cluster.node, "STATUS")
}

fn etcd(cluster: &Cluster) -> &Etcd {
    match &cluster.store {
        Store::Etcd(etcd) => etcd,
        Store::Embedded(_) => panic!("this cluster has an etcd"),
    }
}

/// STATUS says it before an ADD fails, an ADD leaves nothing, and a DEL takes the node's part
/// away and is to come again.
fn assert_unwritable(
    cluster: &Cluster,
    [attached, new]: [(&Container, &Call); 2],
    alone: &Call,
    words: &[&str],
) {
    for call in [attached.1, new.1, alone] {
        status(cluster, call).failure().expect(NOT_AVAILABLE, words);
    }
    let (node, inside) = (Snapshot::of(&cluster.node), Snapshot::of(new.0));
    let entries = cluster.store.entries();
    new.1.run(&cluster.node, "ADD").failure().expect(LATER, words);
    node.assert_unchanged(&Snapshot::of(&cluster.node));
    inside.assert_unchanged(&Snapshot::of(new.0));
    let links = cluster.interfaces().len();
    for _ in 0..2 {
        attached.1.run(&cluster.node, "DEL").failure().expect(LATER, words);
        assert_eq!(cluster.interfaces().len(), links - 1, "its link is gone");
    }
    assert_eq!(entries, cluster.store.entries(), "nothing is written");
}

/// Once the cure has worked, what was left undone is done.
fn assert_cured(cluster: &Cluster, [attached, new]: [&Call; 2]) {
    status(cluster, new).silence();
    attached.delete(&cluster.node);
    new.add(&cluster.node);
    assert_eq!(allocations(&cluster.store.entries()).len(), 1);
    new.delete(&cluster.node);
    cluster.assert_nothing_allocated();
}

#[test]
fn a_full_etcd() {
    let node = Node::new("n1");
    let options = EtcdOptions { quota: Some(2_000_000), ..EtcdOptions::default() };
    let store = Store::Etcd(Etcd::start_with(&node, options));
    let cluster = Cluster { node, store }.with_pools(Families::V4);
    let containers = ["web", "new"].map(|name| cluster.node.container(name));
    let [attached, new] = [0, 1].map(|index| cluster.weir(Families::V4, &containers[index]));
    attached.add(&cluster.node);
    etcd(&cluster).fill();
    let alone = cluster.ipam(Families::V4, "alone");
    let words = ["it is full", "database space exceeded", "etcdctl alarm list", "disarm"];
    let calls = [(&containers[0], &attached), (&containers[1], &new)];
    assert_unwritable(&cluster, calls, &alone, &words);
    etcd(&cluster).make_room();
    assert_cured(&cluster, [&attached, &new]);
}

#[test]
fn a_user_who_may_only_read() {
    let node = Node::new("n1");
    let options = EtcdOptions { password: Some("of-root".to_owned()), ..EtcdOptions::default() };
    let store = Store::Etcd(Etcd::start_with(&node, options));
    let cluster = Cluster { node, store }.with_pools(Families::V4);
    grant(&cluster, "readwrite");
    let credentials = json!({"etcd_username": "weir", "etcd_password": "s3cret"});
    let with_credentials = |call: Call| {
        let members = credentials.as_object().expect("an object").clone();
        members.into_iter().fold(call, |call, (key, value): (String, Value)| {
            call.configure(&format!("/{key}"), value)
        })
    };
    let containers = ["web", "new"].map(|name| cluster.node.container(name));
    let [attached, new] =
        [0, 1].map(|index| with_credentials(cluster.weir(Families::V4, &containers[index])));
    attached.add(&cluster.node);
    grant(&cluster, "read");
    let alone = with_credentials(cluster.ipam(Families::V4, "alone"));
    let words = ["user \"weir\" may not write", "role grant-permission", "readwrite /calico/"];
    let calls = [(&containers[0], &attached), (&containers[1], &new)];
    assert_unwritable(&cluster, calls, &alone, &words);
    grant(&cluster, "readwrite");
    assert_cured(&cluster, [&attached, &new]);
}

/// Gives user `weir`, made with its role where they are not there, this permission instead of
/// another.
fn grant(cluster: &Cluster, permission: &str) {
    let etcd = etcd(cluster);
    if !etcd.control(&["role", "list"], "").contains("weir") {
        etcd.control(&["role", "add", "weir"], "");
        etcd.control(&["user", "add", "--interactive=false", "weir:s3cret"], "");
        etcd.control(&["user", "grant-role", "weir", "weir"], "");
    }
    etcd.control(
        &["role", "grant-permission", "weir", "--prefix=true", permission, "/calico/"],
        "",
    );
}
