//! STATUS says whether an ADD would work, and whether containers can be reached.

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, CniTool, Container, Families, Place, Snapshot, address, host_interface,
};

/// The codes of the specification.
const NOT_AVAILABLE: u64 = 50;
const LIMITED_CONNECTIVITY: u64 = 51;

fn current(call: Call) -> Call {
    call.configure("/cniVersion", "1.1.0".into())
}

/// STATUS as libcni calls it: without a container.
fn status(cluster: &Cluster, call: &Call) -> Answer {
    let mut call = current(call.clone());
    for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        call = call.with(variable, "");
    }
    call.run(&cluster.node, "STATUS")
}

/// Both programs must say so.
fn assert_unavailable(cluster: &Cluster, families: Families, words: &[&str]) {
    let container = cluster.node.container("asking");
    for call in [cluster.weir(families, &container), cluster.ipam(families, "asking")] {
        status(cluster, &call).failure().expect(NOT_AVAILABLE, words);
    }
    container.remove();
}

#[test]
fn all_is_well_and_nothing_is_changed() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::Dual);
        let container = cluster.node.container("web");
        let before = (Snapshot::of(&cluster.node), cluster.store.entries());
        status(&cluster, &cluster.weir(Families::Dual, &container)).silence();
        status(&cluster, &cluster.ipam(Families::Dual, "web")).silence();
        before.0.assert_unchanged(&Snapshot::of(&cluster.node));
        assert_eq!(before.1, cluster.store.entries());
        cluster.weir(Families::Dual, &container).add(&cluster.node);
        status(&cluster, &cluster.weir(Families::Dual, &container)).silence();
    }
}

#[test]
fn the_datastore_cannot_be_reached() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    for call in [cluster.weir(Families::V4, &container), cluster.ipam(Families::V4, "web")] {
        let call = call
            .configure("/datastore_type", "etcdv3".into())
            .configure("/etcd_endpoints", "http://127.0.0.1:1".into());
        status(&cluster, &call)
            .failure()
            .expect(NOT_AVAILABLE, &["127.0.0.1:1", "check that it runs"]);
    }
}

#[test]
fn no_pool_serves_the_node() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        assert_unavailable(&cluster, Families::V4, &["pool", "weirctl create"]);
        cluster.create_pool("off", json!({"cidr": "10.8.0.0/24", "disabled": true}));
        let selector = "zone == 'edge'";
        cluster.create_pool("edge", json!({"cidr": "10.9.0.0/24", "nodeSelector": selector}));
        assert_unavailable(&cluster, Families::V4, &["n1", "off", "disabled", "edge"]);
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
        status(&cluster, &cluster.ipam(Families::V4, "web")).silence();
        // Asked for by name, one pool is not there.
        let call = cluster.ipam(Families::V4, "web");
        let call = call.configure("/ipam/ipv4_pools", json!(["green"]));
        status(&cluster, &call).failure().expect(NOT_AVAILABLE, &["green"]);
    }
}

#[test]
fn every_pool_is_exhausted() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        cluster.create_pool("tiny", json!({"cidr": "10.7.0.0/30", "blockSize": 30}));
        for number in 0..4 {
            status(&cluster, &cluster.ipam(Families::V4, "web")).silence();
            cluster.ipam(Families::V4, &format!("c{number}")).add(&cluster.node);
        }
        assert_unavailable(&cluster, Families::V4, &["tiny", "weirctl ipam show"]);
        // Neither ADD nor DEL goes by it.
        cluster.ipam(Families::V4, "c0").add(&cluster.node);
        cluster.ipam(Families::V4, "c0").delete(&cluster.node);
        status(&cluster, &cluster.ipam(Families::V4, "web")).silence();
        cluster.create_pool("large", json!({"cidr": "10.8.0.0/24"}));
        status(&cluster, &cluster.ipam(Families::V4, "web")).silence();
    }
}

/// A container that is attached, and what somebody then did to it.
struct Attached {
    cluster: Cluster,
    container: Container,
    call: Call,
    result: Value,
}

impl Attached {
    fn new(families: Families) -> Self {
        let cluster = Cluster::embedded().with_pools(families);
        let container = cluster.node.container("web");
        let call = cluster.weir(families, &container);
        let result = call.add(&cluster.node);
        status(&cluster, &call).silence();
        Self { cluster, container, call, result }
    }

    fn assert_troubled(&self, words: &[&str]) {
        let failure = status(&self.cluster, &self.call).failure();
        failure.expect(LIMITED_CONNECTIVITY, words);
        // Addresses are not the trouble.
        status(&self.cluster, &self.cluster.ipam(Families::V4, "web")).silence();
    }
}

#[test]
fn the_node_does_not_forward() {
    let attached = Attached::new(Families::V4);
    attached.cluster.node.write("/proc/sys/net/ipv4/ip_forward", "0");
    attached.assert_troubled(&["net.ipv4.ip_forward", "sysctl -w"]);
    let attached = Attached::new(Families::V6);
    attached.cluster.node.write("/proc/sys/net/ipv6/conf/all/forwarding", "0");
    let failure = status(&attached.cluster, &attached.call).failure();
    failure.expect(LIMITED_CONNECTIVITY, &["net.ipv6.conf.all.forwarding"]);
}

#[test]
fn a_route_is_gone() {
    let attached = Attached::new(Families::V4);
    attached.cluster.node.run(&["ip", "route", "delete", address(&attached.result, 0)]);
    attached.assert_troubled(&["web", host_interface(&attached.result), "add the container"]);
    // A container that switched its interface off itself is none of the node's.
    attached.container.run(&["ip", "link", "set", "eth0", "down"]);
    status(&attached.cluster, &attached.call).silence();
}

#[test]
fn a_link_is_down() {
    let attached = Attached::new(Families::V4);
    let link = host_interface(&attached.result);
    attached.cluster.node.run(&["ip", "link", "set", link, "down"]);
    attached.assert_troubled(&["web", link, "is down"]);
}

#[test]
fn what_is_full_is_told_before_what_is_cut_off() {
    let cluster = Cluster::embedded();
    cluster.create_pool("tiny", json!({"cidr": "10.7.0.0/32", "blockSize": 32}));
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    call.add(&cluster.node);
    cluster.node.write("/proc/sys/net/ipv4/ip_forward", "0");
    let failure = status(&cluster, &call).failure();
    failure.expect(NOT_AVAILABLE, &["tiny", "net.ipv4.ip_forward"]);
}

#[test]
fn cnitool_tells_what_the_matter_is() {
    let cluster = Cluster::embedded();
    let mut list = cluster.list(cluster.plugin(Families::V4));
    list["cniVersion"] = "1.1.0".into();
    let tool = CniTool::new(&cluster.node, &list);
    let container = cluster.node.container("web");
    let answer = tool.run("status", &container);
    assert!(!answer.succeeded && answer.stderr.contains("pool"), "{answer:?}");
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    tool.run("status", &container).silence();
}
