//! GC removes what no attachment needs, and nothing else: of this network and this
//! host, past errors.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, CniTool, Container, Families, Place, Snapshot, address, allocations,
    assert_consistent, host_interface,
};

/// The error code of a list that cannot be read.
const DECODE: u64 = 6;
/// Weir's own, of a stored value that cannot be used.
const MALFORMED: u64 = 103;

/// A call in CNI 1.1.0, in which GC exists.
fn current(call: Call) -> Call {
    call.configure("/cniVersion", "1.1.0".into())
}

/// GC with these living; `None` to send no list.
fn collect(cluster: &Cluster, call: &Call, living: Option<&[&str]>) -> Answer {
    let entry = |id: &&str| json!({"containerID": id, "ifname": "eth0"});
    let list = living.map(|living| living.iter().map(entry).collect::<Value>());
    collect_at(&cluster.node, call, list)
}

/// GC as libcni calls it: without a container.
fn collect_at(place: &impl Place, call: &Call, list: Option<Value>) -> Answer {
    let none = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = none.iter().fold(call.clone(), |call, variable| call.with(variable, ""));
    let mut configuration = call.configuration().clone();
    if let Some(list) = list {
        configuration["cni.dev/valid-attachments"] = list;
    }
    call.run_with(place, "GC", &configuration.to_string())
}

/// Containers of one network, each attached.
struct Attached {
    cluster: Cluster,
    containers: Vec<Container>,
    call: Call,
}

impl Attached {
    fn new(cluster: Cluster, families: Families, names: &[&str]) -> Self {
        let cluster = cluster.with_pools(families);
        let mut containers = Vec::new();
        for name in names {
            let container = cluster.node.container(name);
            current(cluster.weir(families, &container)).add(&cluster.node);
            containers.push(container);
        }
        let call = current(cluster.weir(families, &containers[0]));
        Self { cluster, containers, call }
    }

    fn collect(&self, living: Option<&[&str]>) -> Answer {
        collect(&self.cluster, &self.call, living)
    }

    /// Exactly these containers have their link and their addresses.
    fn assert_left(&self, names: &[&str]) {
        let entries = self.cluster.store.entries();
        assert_consistent(&entries);
        let holders: BTreeSet<String> = allocations(&entries).into_values().collect();
        let expected = names.iter().map(|name| format!("pods.{name}")).collect();
        assert_eq!(holders, expected);
        for container in &self.containers {
            let has_link = container.succeeds(&["ip", "link", "show", "dev", "eth0"]);
            assert_eq!(has_link, names.contains(&container.name()), "{}", container.name());
        }
    }
}

fn on_both_stores(test: impl Fn(Cluster)) {
    test(Cluster::embedded());
    test(Cluster::etcd());
}

#[test]
fn what_is_not_listed_goes() {
    on_both_stores(|cluster| {
        let attached = Attached::new(cluster, Families::Dual, &["a", "b", "c", "d"]);
        attached.collect(Some(&["b", "elsewhere"])).silence();
        attached.assert_left(&["b"]);
        let result = attached.call.clone().container(&attached.containers[1]);
        let again = result.add(&attached.cluster.node);
        assert!(attached.cluster.node.reaches(address(&again, 0)));
        // Twice is as good as once.
        attached.collect(Some(&["b"])).silence();
        attached.assert_left(&["b"]);
    });
}

#[test]
fn an_empty_list_leaves_nothing_of_the_network() {
    on_both_stores(|cluster| {
        let names: Vec<String> = (0..24).map(|number| format!("c{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        cluster.create_pool("nat", json!({"cidr": "10.8.0.0/24", "natOutgoing": true}));
        let attached = Attached::new(cluster, Families::V4, &names);
        assert!(Snapshot::of(&attached.cluster.node).mentions(&["nft", "weir"]));
        attached.collect(Some(&[])).silence();
        attached.assert_left(&[]);
        attached.cluster.assert_nothing_allocated();
        assert_eq!(attached.cluster.interfaces(), ["lo", "eth0"]);
        let left = Snapshot::of(&attached.cluster.node);
        assert!(!left.mentions(&["nft", "weir"]), "NAT is left");
        assert!(!left.mentions(&["route", "10.7."]), "a route is left");
    });
}

/// What Go makes of an empty list.
#[test]
fn a_list_that_is_null_is_empty() {
    let attached = Attached::new(Cluster::embedded(), Families::V4, &["a"]);
    collect_at(&attached.cluster.node, &attached.call, Some(Value::Null)).silence();
    attached.assert_left(&[]);
}

#[test]
fn a_list_that_cannot_be_read_removes_nothing() {
    let attached = Attached::new(Cluster::embedded(), Families::V4, &["a"]);
    for list in [json!("a"), json!([{"containerID": "a"}]), json!({"a": "eth0"})] {
        let failure = collect_at(&attached.cluster.node, &attached.call, Some(list)).failure();
        failure.expect(DECODE, &["cni.dev/valid-attachments"]);
        attached.assert_left(&["a"]);
    }
}

/// Says that all allocations were made long ago.
fn age(cluster: &Cluster) {
    let mut entries = cluster.store.entries();
    entries.retain(|key, _| key.starts_with("/calico/ipam/v2/assignment/"));
    for value in entries.values_mut() {
        let mut block: Value = serde_json::from_str(value).expect("a block is JSON");
        for holder in block["attributes"].as_array_mut().expect("a block has holders") {
            holder["secondary"]["timestamp"] = "2020-01-02 03:04:05.6 +0000 UTC".into();
        }
        *value = block.to_string();
    }
    cluster.store.load(&entries);
}

#[test]
fn without_a_list_only_what_is_proved_dead_goes() {
    on_both_stores(|cluster| {
        let attached = Attached::new(cluster, Families::V4, &["a", "lost", "b"]);
        let cluster = &attached.cluster;
        attached.collect(None).silence();
        attached.assert_left(&["a", "b", "lost"]);
        let lost = &attached.containers[1];
        lost.run(&["ip", "link", "delete", "eth0"]);
        // It might be on its way: it is younger than a call takes.
        attached.collect(None).silence();
        assert_eq!(allocations(&cluster.store.entries()).len(), 3);
        age(cluster);
        // Only `weir` gives each attachment a link that tells.
        let bridge = attached.call.clone().configure("/type", "bridge".into());
        collect(cluster, &bridge, None).silence();
        assert_eq!(allocations(&cluster.store.entries()).len(), 3);
        attached.collect(None).silence();
        attached.assert_left(&["a", "b"]);
    });
}

#[test]
fn in_another_network_namespace_a_missing_link_proves_nothing() {
    let attached = Attached::new(Cluster::embedded(), Families::V4, &["a"]);
    let elsewhere = attached.cluster.node.container("elsewhere");
    age(&attached.cluster);
    collect_at(&elsewhere, &attached.call, None).silence();
    attached.assert_left(&["a"]);
}

#[test]
fn other_networks_and_other_hosts_keep_what_they_have() {
    on_both_stores(|cluster| {
        cluster.create_pool("nat", json!({"cidr": "10.8.0.0/24", "natOutgoing": true}));
        let attached = Attached::new(cluster, Families::V4, &["a"]);
        let cluster = &attached.cluster;
        let container = cluster.node.container("other");
        let other = current(cluster.weir(Families::V4, &container));
        // A handle that begins like one of the network's.
        let other = other.configure("/name", "pods.edge".into());
        let result = other.add(&cluster.node);
        let elsewhere = cluster.ipam(Families::V4, "far").configure("/nodename", "n2".into());
        elsewhere.add(&cluster.node);
        attached.collect(Some(&[])).silence();
        let holders: BTreeSet<String> =
            allocations(&cluster.store.entries()).into_values().collect();
        assert_eq!(holders, ["pods.edge.other", "pods.far"].map(str::to_owned).into());
        assert!(cluster.node.reaches(address(&result, 0)));
        // Its node's NAT stays for it.
        assert!(Snapshot::of(&cluster.node).mentions(&["nft", "weir"]));
        let far = current(elsewhere);
        collect(cluster, &far, Some(&[])).silence();
        collect(cluster, &other, Some(&[])).silence();
        cluster.assert_nothing_allocated();
        assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
    });
}

#[test]
fn errors_do_not_keep_the_rest_and_are_told_together() {
    on_both_stores(|cluster| {
        let attached = Attached::new(cluster, Families::V4, &["a", "b"]);
        let cluster = &attached.cluster;
        let nonsense = "/calico/ipam/v2/assignment/ipv4/block/10.7.0.192-26";
        cluster.store.put(nonsense, &json!({"cidr": "no"}));
        cluster.store.put("/calico/ipam/v2/handle/pods.b", &json!({"block": {"no": 1}}));
        let failure = attached.collect(Some(&[])).failure();
        failure.expect(MALFORMED, &[nonsense, "/calico/ipam/v2/handle/pods.b"]);
        assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
        let mut entries = cluster.store.entries();
        entries.remove(nonsense);
        let left: Vec<String> = allocations(&entries).into_values().collect();
        assert_eq!(left, ["pods.b"]);
    });
}

#[test]
fn links_go_also_when_the_addresses_cannot() {
    let attached = Attached::new(Cluster::embedded(), Families::V4, &["a"]);
    let cluster = &attached.cluster;
    let call = attached.call.clone().configure("/ipam/type", "nowhere".into());
    let failure = collect(cluster, &call, Some(&[])).failure();
    assert!(failure.text.contains("nowhere"), "{failure:?}");
    assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
    let away = json!("http://127.0.0.1:1");
    let call = attached.call.clone().configure("/datastore_type", "etcdv3".into());
    let failure = collect(cluster, &call.configure("/etcd_endpoints", away), Some(&[])).failure();
    failure.expect(11, &["127.0.0.1:1"]);
}

#[test]
fn a_half_made_link_goes_but_not_one_that_is_listed() {
    let attached = Attached::new(Cluster::embedded(), Families::V4, &["a", "b"]);
    let cluster = &attached.cluster;
    for container in &attached.containers {
        let call = attached.call.clone().container(container);
        let link = host_interface(&call.add(&cluster.node)).to_owned();
        cluster.node.run(&["ip", "link", "set", "dev", &link, "alias", ""]);
    }
    attached.collect(Some(&["a"])).silence();
    attached.assert_left(&["a"]);
    // What only looks alike stays.
    cluster.node.run(&["ip", "link", "add", "weir0123456789a", "type", "bridge"]);
    attached.collect(Some(&[])).silence();
    assert_eq!(cluster.interfaces(), ["lo", "eth0", "weir0123456789a"]);
}

#[test]
fn weir_ipam_collects_under_other_main_plugins() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let call =
            |id: &str| current(cluster.ipam(Families::V4, id)).configure("/type", "bridge".into());
        for id in ["a", "b"] {
            call(id).add(&cluster.node);
        }
        collect(&cluster, &call("a"), Some(&["b"])).silence();
        let left: Vec<String> = allocations(&cluster.store.entries()).into_values().collect();
        assert_eq!(left, ["pods.b"]);
    });
}

/// One GC cleans up after ADDs and DELs that were killed at any moment.
#[test]
fn after_killed_calls_nothing_is_left() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let node = &cluster.node;
    let first = node.container("first");
    let begin = std::time::Instant::now();
    let kept = current(cluster.weir(Families::Dual, &first));
    let result = kept.add(node);
    let whole = begin.elapsed();
    const KILLS: u32 = 30;
    for round in 0..KILLS {
        let container = node.container(&format!("web{round}"));
        let call = current(cluster.weir(Families::Dual, &container));
        let command = if round % 3 == 0 {
            call.add(node);
            "DEL"
        } else {
            "ADD"
        };
        let running = call.start(node, command);
        // Not to wait for anything: to die at another point in each round.
        std::thread::sleep(whole * round / KILLS);
        running.kill();
    }
    collect(&cluster, &kept, Some(&["first"])).silence();
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    let holders: BTreeSet<String> = allocations(&entries).into_values().collect();
    assert_eq!(holders, ["pods.first".to_owned()].into());
    assert_eq!(cluster.interfaces(), ["lo", "eth0", host_interface(&result)]);
    kept.check(node, &result).silence();
}

#[test]
fn cnitool_collects_and_asks_for_the_status() {
    on_both_stores(|cluster| {
        let cluster = cluster.with_pools(Families::V4);
        let mut list = cluster.list(cluster.plugin(Families::V4));
        list["cniVersion"] = "1.1.0".into();
        let tool = CniTool::new(&cluster.node, &list);
        let (web, lost) = (cluster.node.container("web"), cluster.node.container("lost"));
        tool.run("status", &web).silence();
        let result = tool.add(&web);
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(result["interfaces"][1]["mtu"], 1500);
        tool.check(&web);
        tool.add(&lost);
        lost.run(&["ip", "link", "delete", "eth0"]);
        age(&cluster);
        // It deletes all that it remembers, and then calls GC without a list.
        cluster.node.run(&["mv", "/var/lib/cni/results", "/run/results"]);
        tool.run("gc", &web).silence();
        let left: Vec<_> = allocations(&cluster.store.entries()).into_keys().collect();
        assert_eq!(left, [address(&result, 0).parse::<std::net::IpAddr>().unwrap()]);
        assert!(cluster.node.reaches(address(&result, 0)));
        cluster.node.run(&["mv", "/run/results", "/var/lib/cni/results"]);
        tool.run("gc", &web).silence();
        cluster.assert_nothing_allocated();
        assert_eq!(cluster.interfaces(), ["lo", "eth0"]);
    });
}
