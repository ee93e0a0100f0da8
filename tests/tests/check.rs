//! CHECK notices what somebody took away, and says what it is.

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, CniTool, Container, Failure, Families, Place, address, host_interface,
};

/// The error code of a CHECK that found something missing.
const CHECK_FAILED: u64 = 107;

struct Attached {
    cluster: Cluster,
    container: Container,
    call: Call,
    result: Value,
}

impl Attached {
    fn new(cluster: Cluster, families: Families) -> Self {
        let cluster = cluster.with_pools(families);
        let container = cluster.node.container("web");
        let call = cluster.weir(families, &container);
        let result = call.add(&cluster.node);
        call.check(&cluster.node, &result).silence();
        Self { cluster, container, call, result }
    }

    fn address(&self, index: usize) -> &str {
        address(&self.result, index)
    }

    /// CHECK must fail and mention these words.
    fn assert_noticed(&self, words: &[&str]) -> Failure {
        let failure = self.call.check(&self.cluster.node, &self.result).failure();
        failure.expect(CHECK_FAILED, words);
        failure
    }
}

fn on_both_stores(families: Families, damage: impl Fn(&Attached)) {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        damage(&Attached::new(cluster, families));
    }
}

#[test]
fn a_route_of_the_container_is_gone() {
    let attached = Attached::new(Cluster::embedded(), Families::V4);
    attached.container.run(&["ip", "route", "delete", "default"]);
    attached.assert_noticed(&["route", "169.254.1.1"]);
}

#[test]
fn an_ipv6_route_of_the_container_is_gone() {
    let attached = Attached::new(Cluster::embedded(), Families::Dual);
    attached.container.run(&["ip", "-6", "route", "delete", "default"]);
    attached.assert_noticed(&["route"]);
}

#[test]
fn the_route_of_the_node_is_gone() {
    let attached = Attached::new(Cluster::embedded(), Families::V4);
    attached.cluster.node.run(&["ip", "route", "delete", attached.address(0)]);
    attached.assert_noticed(&["route", attached.address(0)]);
}

#[test]
fn an_address_is_gone() {
    for (index, length) in [(0, 32), (1, 128)] {
        let attached = Attached::new(Cluster::embedded(), Families::Dual);
        let address = format!("{}/{length}", attached.address(index));
        attached.container.run(&["ip", "address", "delete", &address, "dev", "eth0"]);
        attached.assert_noticed(&[attached.address(index)]);
    }
}

/// Attached by CNI 1.1.0, whose result has the MTU.
fn attached_with_mtu() -> Attached {
    let mut attached = Attached::new(Cluster::embedded(), Families::Dual);
    attached.call.delete(&attached.cluster.node);
    attached.call = attached.call.configure("/cniVersion", "1.1.0".into());
    attached.result = attached.call.add(&attached.cluster.node);
    attached.call.check(&attached.cluster.node, &attached.result).silence();
    attached
}

#[test]
fn an_mtu_is_another() {
    let attached = attached_with_mtu();
    let (node, host) = (&attached.cluster.node, host_interface(&attached.result));
    attached.container.run(&["ip", "link", "set", "eth0", "mtu", "1300"]);
    attached.assert_noticed(&["eth0", "mtu 1300 and not 1500"]);
    attached.container.run(&["ip", "link", "set", "eth0", "mtu", "1500"]);
    node.run(&["ip", "link", "set", host, "mtu", "1300"]);
    attached.assert_noticed(&[host, "mtu 1300 and not 1500"]);
    node.run(&["ip", "link", "set", host, "mtu", "1500"]);
    // An ADD of what is there answers the MTU that it was born with.
    node.run(&["ip", "link", "set", "eth0", "mtu", "1400"]);
    let again = attached.call.add(node);
    assert_eq!(again["interfaces"], attached.result["interfaces"]);
    attached.call.check(node, &again).silence();
    // A result of an earlier version has none to compare with.
    let attached = Attached::new(Cluster::embedded(), Families::V4);
    let host = host_interface(&attached.result);
    attached.cluster.node.run(&["ip", "link", "set", host, "mtu", "1300"]);
    attached.assert_noticed(&["eth0", "mtu 1500", "1300", host]);
}

#[test]
fn the_containers_neighbour_is_gone() {
    let attached = Attached::new(Cluster::embedded(), Families::Dual);
    let delete = ["ip", "neighbour", "delete", "169.254.1.1", "dev", "eth0"];
    attached.container.run(&delete);
    attached.assert_noticed(&["169.254.1.1", "ee:ee:ee:ee:ee:ee", "permanent"]);
    attached.container.run(&[
        "ip",
        "neighbour",
        "add",
        "169.254.1.1",
        "lladdr",
        "02:00:00:00:00:01",
        "dev",
        "eth0",
    ]);
    attached.assert_noticed(&["169.254.1.1", "02:00:00:00:00:01 and not ee:ee:ee:ee:ee:ee"]);
}

#[test]
fn a_parameter_is_another() {
    let attached = Attached::new(Cluster::embedded(), Families::Dual);
    let (node, host) = (&attached.cluster.node, host_interface(&attached.result));
    let path = |name: &str| format!("/proc/sys/net/{name}");
    for key in ["ipv4/conf/HOST/forwarding", "ipv4/conf/HOST/proxy_arp", "ipv6/conf/HOST/proxy_ndp"]
    {
        let key = key.replace("HOST", host);
        node.write(&path(&key), "0");
        attached.assert_noticed(&[&key, "is 0 and not 1"]);
        node.write(&path(&key), "1");
        attached.call.check(node, &attached.result).silence();
    }
    for (key, parameter) in [
        ("ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
    ] {
        node.write(&path(key), "0");
        attached.assert_noticed(&["does not forward", parameter]);
        node.write(&path(key), "1");
        attached.call.check(node, &attached.result).silence();
    }
}

#[test]
fn the_veth_is_gone() {
    let attached = Attached::new(Cluster::embedded(), Families::V4);
    attached.cluster.node.run(&["ip", "link", "delete", host_interface(&attached.result)]);
    let failure = attached.assert_noticed(&[]);
    let named =
        ["eth0", host_interface(&attached.result)].iter().any(|name| failure.text.contains(name));
    assert!(named, "{}", failure.text);
    attached.call.delete(&attached.cluster.node);
    attached.cluster.assert_nothing_allocated();
}

#[test]
fn the_link_is_down() {
    let attached = Attached::new(Cluster::embedded(), Families::V4);
    attached.container.run(&["ip", "link", "set", "eth0", "down"]);
    attached.assert_noticed(&["eth0"]);
}

#[test]
fn the_allocation_is_gone() {
    on_both_stores(Families::V4, |attached| {
        attached.cluster.ipam(Families::V4, "web").delete(&attached.cluster.node);
        attached.assert_noticed(&[attached.address(0)]);
    });
}

/// Where the result names addresses of another interface only, those are not looked at,
/// but the attachment must have one.
#[test]
fn a_result_without_an_address_of_its_own_does_not_hide_that_none_is_allocated() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::V4);
        let call = cluster.ipam(Families::V4, "web");
        let others = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "eth0", "sandbox": "/run/netns/none"},
                {"name": "net1", "sandbox": "/run/netns/none"},
            ],
            "ips": [{"address": "10.9.0.7/24", "interface": 1}],
        });
        call.add(&cluster.node);
        call.check(&cluster.node, &others).silence();
        call.delete(&cluster.node);
        let failure = call.check(&cluster.node, &others).failure();
        failure.expect(107, &["no address", "eth0", "pods.web", "n1"]);
    }
}

#[test]
fn the_allocation_belongs_to_another() {
    on_both_stores(Families::V4, |attached| {
        attached.cluster.ipam(Families::V4, "web").delete(&attached.cluster.node);
        let thief = attached.cluster.ipam(Families::V4, "thief");
        let asked = format!("IP={}", attached.address(0));
        // As long as the node has its route, no other container is given the address.
        let (node, address) = (&attached.cluster.node, attached.address(0));
        let route = node.run(&["ip", "route", "show", address]);
        node.run(&["ip", "route", "delete", address]);
        thief.with("CNI_ARGS", &asked).add(node);
        let words: Vec<&str> = route.split_whitespace().collect();
        node.run(&[&["ip", "route", "add"], &words[..]].concat());
        attached.assert_noticed(&[address]);
    });
}

#[test]
fn cnitool_tells_what_is_missing() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let tool = CniTool::new(&cluster.node, &cluster.list(cluster.plugin(Families::V4)));
    tool.add(&container);
    tool.check(&container);
    container.run(&["ip", "route", "delete", "default"]);
    assert!(tool.check_fails(&container).contains("169.254.1.1"));
    tool.delete(&container);
}
