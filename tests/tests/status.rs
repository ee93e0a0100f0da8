//! STATUS: whether the next ADD would work, and whether what was added works; and
//! what to do where not.

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, CniTool, Etcd, Families, Place, Store, address, host_interface, until,
};

const NOT_AVAILABLE: u64 = 50;
const LIMITED_CONNECTIVITY: u64 = 51;
/// Of CHECK, Weir's own.
const CHECK_FAILED: u64 = 107;

/// STATUS, as libcni asks it: without container, namespace and interface.
fn status(cluster: &Cluster, call: &Call) -> Answer {
    let call = call.clone().configure("/cniVersion", "1.1.0".into());
    let nothing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = nothing.iter().fold(call, |call, variable| call.with(variable, ""));
    call.run(&cluster.node, "STATUS")
}

/// Both plugins, the first of which asks the second.
fn both(cluster: &Cluster) -> [Call; 2] {
    let container = cluster.node.container("asking");
    [cluster.weir(Families::V4, &container), cluster.ipam(Families::V4, "asking")]
}

fn stores() -> [Cluster; 2] {
    [Cluster::embedded(), Cluster::etcd()]
}

#[test]
fn ready_as_soon_as_there_is_a_pool() {
    for cluster in stores() {
        let calls = both(&cluster);
        for call in &calls {
            let failure = status(&cluster, call).failure();
            failure.expect(NOT_AVAILABLE, &["no ipv4 pool", "weirctl create"]);
        }
        let cluster = cluster.with_pools(Families::V4);
        let before = cluster.store.entries();
        for call in &calls {
            status(&cluster, call).silence();
        }
        assert_eq!(before, cluster.store.entries(), "asking changes nothing");
    }
}

#[test]
fn no_pool_serves_the_node() {
    let cluster = Cluster::embedded();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "nodeSelector": "zone == 'far'"}));
    for call in both(&cluster) {
        let failure = status(&cluster, &call).failure();
        failure.expect(NOT_AVAILABLE, &["node n1", "blue", "weirctl get ippool"]);
    }
}

#[test]
fn every_pool_is_exhausted() {
    for cluster in stores() {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/30", "blockSize": 30}));
        let held: Vec<Call> =
            (0..4).map(|number| cluster.ipam(Families::V4, &format!("c{number}"))).collect();
        for call in &held {
            call.add(&cluster.node);
        }
        let calls = both(&cluster);
        for call in &calls {
            let failure = status(&cluster, call).failure();
            failure.expect(NOT_AVAILABLE, &["no ipv4 address", "blue", "weirctl"]);
        }
        // DEL works whatever STATUS says.
        held[0].delete(&cluster.node);
        for call in &calls {
            status(&cluster, call).silence();
        }
    }
}

#[test]
fn the_datastore_is_unreachable() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    let calls = both(&cluster);
    let Cluster { node, store } = cluster;
    drop(store);
    let cluster = Cluster::embedded_on(node);
    for call in &calls {
        let failure = status(&cluster, call).failure();
        failure.expect(NOT_AVAILABLE, &["127.0.0.1:2379"]);
    }
    let again = Cluster { store: Store::Etcd(Etcd::start(&cluster.node)), node: cluster.node };
    for call in &calls {
        status(&again, call).silence();
    }
}

#[test]
fn the_embedded_datastore_cannot_be_used() {
    let cluster = Cluster::embedded();
    cluster.node.write("/var/lib/weir/weir.db", "no database at all, and far too long for none");
    for call in both(&cluster) {
        let failure = status(&cluster, &call).failure();
        failure.expect(NOT_AVAILABLE, &["/var/lib/weir/weir.db"]);
    }
}

#[test]
fn containers_have_lost_their_network() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let (node, web) = (&cluster.node, cluster.node.container("web"));
    let call = cluster.weir(Families::Dual, &web);
    let troubled =
        |words: &[&str]| status(&cluster, &call).failure().expect(LIMITED_CONNECTIVITY, words);
    // A node without containers need not forward.
    status(&cluster, &call).silence();
    let result = call.add(node);
    status(&cluster, &call).silence();
    for parameter in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        let file = format!("/proc/sys/{}", parameter.replace('.', "/"));
        node.write(&file, "0");
        troubled(&["does not forward", &format!("sysctl -w {parameter}=1")]);
        node.write(&file, "1");
    }
    let link = host_interface(&result);
    // One family alone, of a container that has both.
    for (address, which) in
        [(address(&result, 0), "no ipv4 route"), (address(&result, 1), "no ipv6 route")]
    {
        node.run(&["ip", "route", "delete", address, "dev", link]);
        troubled(&[which, "web", link, "delete and add"]);
        node.run(&["ip", "route", "add", address, "dev", link, "proto", "77"]);
        status(&cluster, &call).silence();
    }
    node.run(&["ip", "route", "flush", "dev", link]);
    node.run(&["ip", "-6", "route", "flush", "dev", link, "proto", "77"]);
    troubled(&["no route", "web", link, "delete and add"]);
    node.run(&["ip", "link", "set", link, "down"]);
    troubled(&["is down", "web", link]);
    // ADD works whatever STATUS says, and so does the way out that it names.
    let other = node.container("other");
    cluster.weir(Families::Dual, &other).add(node);
    call.delete(node);
    call.add(node);
    status(&cluster, &call).silence();
}

#[test]
fn containers_have_lost_their_nat() {
    let cluster = Cluster::embedded();
    for (name, cidr, nat) in [("blue", "10.7.0.0/24", true), ("red", "10.8.0.0/24", false)] {
        cluster.create_pool(name, json!({"cidr": cidr, "natOutgoing": nat}));
    }
    let node = &cluster.node;
    let containers = ["blue", "red"].map(|pool| (pool, node.container(pool)));
    let calls = containers.each_ref().map(|(pool, container)| {
        let call = cluster.weir(Families::V4, container);
        call.configure("/name", (*pool).into()).configure("/ipam/ipv4_pools", json!([pool]))
    });
    let results = calls.each_ref().map(|call| call.add(node));
    let healthy = |index: usize| {
        status(&cluster, &calls[index]).silence();
        calls[index].check(node, &results[index]).silence();
    };
    let all_healthy = || [0, 1].into_iter().for_each(healthy);
    let lost = |index: usize| {
        let words = ["natOutgoing", "table inet weir", "weirctl node run --once"];
        status(&cluster, &calls[index]).failure().expect(LIMITED_CONNECTIVITY, &words);
        let failure = calls[index].check(node, &results[index]).failure();
        failure.expect(CHECK_FAILED, &words);
    };
    all_healthy();
    for damage in ["delete table inet weir", "flush table inet weir"] {
        node.run(&["nft", damage]);
        lost(0);
        healthy(1);
        // The way out that the message names.
        let answer = cluster.weirctl(&["node", "run", "--once", "--node=n1"]);
        assert!(answer.succeeded, "{answer:?}");
        assert!(node.run(&["nft", "list", "ruleset"]).contains("masquerade"));
        all_healthy();
        // Who looks next goes by what an ADD knew.
        calls[1].add(node);
        all_healthy();
    }
    // No pool asks any more, and the last ADD knows.
    let answer =
        cluster.weirctl(&["patch", "ippool", "blue", "-p", r#"{"spec":{"natOutgoing":false}}"#]);
    assert!(answer.succeeded, "{answer:?}");
    calls[1].add(node);
    node.run(&["nft", "delete table inet weir"]);
    all_healthy();
    // A pool that asks since then gets NAT with the next ADD, and has lost none.
    let answer =
        cluster.weirctl(&["patch", "ippool", "red", "-p", r#"{"spec":{"natOutgoing":true}}"#]);
    assert!(answer.succeeded, "{answer:?}");
    all_healthy();
}

/// The host's lock, for which ADDs wait with their links made.
const LOCK: &str = "/run/weir/ipam.lock";

#[test]
fn adds_at_work_are_no_trouble() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let node = &cluster.node;
    let containers: Vec<_> = (0..8).map(|number| node.container(&format!("c{number}"))).collect();
    let calls: Vec<Call> = containers.iter().map(|it| cluster.weir(Families::Dual, it)).collect();
    let lock = node.lock(LOCK);
    let adds: Vec<_> = calls.iter().map(|call| call.start(node, "ADD")).collect();
    lock.wait_for_another();
    let links = || cluster.interfaces().iter().filter(|name| name.starts_with("weir")).count();
    until("each container has its link", || links() == calls.len());
    for _ in 0..3 {
        status(&cluster, &calls[0]).silence();
    }
    // And while their addresses come in.
    drop(lock);
    let ask = || status(&cluster, &calls[0]).silence();
    ask();
    for add in adds {
        add.finish().result();
        ask();
    }
}

#[test]
fn no_addresses_and_lost_containers_are_told_together() {
    let cluster = Cluster::embedded();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/32", "blockSize": 32}));
    let web = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &web);
    call.add(&cluster.node);
    cluster.node.write("/proc/sys/net/ipv4/ip_forward", "0");
    let failure = status(&cluster, &call).failure();
    failure.expect(NOT_AVAILABLE, &["no ipv4 address", "net.ipv4.ip_forward"]);
}

#[test]
fn cnitool_asks() {
    let cluster = Cluster::embedded();
    let list = |cluster: &Cluster| -> Value {
        let plugin = cluster.plugin(Families::V4);
        json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [plugin]})
    };
    let tool = CniTool::new(&cluster.node, &list(&cluster));
    let web = cluster.node.container("web");
    let answer = tool.run("status", &web);
    assert!(!answer.succeeded && answer.stderr.contains("weirctl create"), "{answer:?}");
    let cluster = cluster.with_pools(Families::V4);
    tool.run("status", &web).silence();
    tool.add(&web);
    tool.run("status", &web).silence();
    cluster.node.write("/proc/sys/net/ipv4/ip_forward", "0");
    let answer = tool.run("status", &web);
    assert!(!answer.succeeded && answer.stderr.contains("net.ipv4.ip_forward"), "{answer:?}");
    tool.delete(&web);
}
