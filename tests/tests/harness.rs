//! The harness itself, shown on plugins that are not Weir's.

use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use weir_tests::{
    CNI_PATH, Call, Certificates, CniTool, Etcd, EtcdOptions, Network, Node, Place, Snapshot,
    UPLINK,
};

fn ptp() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "reference",
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.9.0.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })
}

fn ptp_list() -> Value {
    let mut plugin = ptp();
    let members = plugin.as_object_mut().expect("an object");
    members.retain(|name, _| name != "cniVersion" && name != "name");
    json!({"cniVersion": "1.0.0", "name": "reference", "plugins": [plugin]})
}

#[test]
fn a_node_has_its_own_world() {
    let node = Node::with_mtu("alone", 1400);
    assert_eq!(node.run(&["ls", "/etc/cni/net.d"]), "");
    let uplink: Value =
        serde_json::from_str(&node.run(&["ip", "-j", "link", "show", UPLINK])).expect("JSON");
    assert_eq!(uplink[0]["mtu"], 1400);
    assert_eq!(node.read("/proc/sys/net/ipv4/ip_forward").trim(), "0");
    node.write("/var/lib/weir/there", "only here");
    assert_eq!(node.read("/var/lib/weir/there"), "only here");
    assert!(!std::path::Path::new("/var/lib/weir/there").exists());
    assert_eq!(node.read("/etc/hostname"), std::fs::read_to_string("/etc/hostname").unwrap());
}

#[test]
fn a_nodes_processes_end_with_it() {
    let node = Node::bare("short");
    let mut sleeper = node.spawn(Command::new("sleep").arg("1000").stdin(Stdio::null()));
    drop(node);
    assert!(!sleeper.wait().unwrap().success());
}

#[test]
fn plugins_connect_containers() {
    let node = Node::new("n1");
    let before = Snapshot::of(&node);
    let containers = ["web", "db"].map(|name| node.container(name));
    let inside = Snapshot::of(&containers[0]);
    let calls = containers.each_ref().map(|it| Call::reference("ptp", ptp()).container(it));
    let results = calls.each_ref().map(|call| call.add(&node));
    assert_eq!(results[0]["ips"][0]["address"], "10.9.0.2/24");
    assert!(containers[0].reaches("10.9.0.3"));
    assert!(node.reaches("10.9.0.2"));
    assert!(!containers[0].reaches("10.9.0.99"));
    assert!(!containers[0].reaches_with("10.9.0.3", 1500));
    calls[0].check(&node, &results[0]).silence();
    containers[0].run(&["ip", "route", "del", "default"]);
    assert!(calls[0].check(&node, &results[0]).failure().text.contains("0.0.0.0"));
    calls.iter().for_each(|call| call.delete(&node));
    // ptp leaves IP forwarding on; everything else is as it was.
    node.write("/proc/sys/net/ipv4/ip_forward", "0");
    before.assert_unchanged(&Snapshot::of(&node));
    inside.assert_unchanged(&Snapshot::of(&containers[0]));
}

#[test]
fn a_snapshot_sees_what_changes() {
    let node = Node::new("n1");
    let changes: [&[&str]; 6] = [
        &["ip", "link", "set", UPLINK, "alias", "changed"],
        &["ip", "address", "add", "10.1.0.1/32", "dev", "lo"],
        &["ip", "route", "add", "blackhole", "10.2.0.0/24", "table", "7"],
        &[
            "ip",
            "-6",
            "neighbor",
            "add",
            "fd00:30::7",
            "lladdr",
            "02:00:00:00:00:07",
            "dev",
            UPLINK,
        ],
        &["nft", "add", "table", "inet", "changed"],
        &["sysctl", "-q", "-w", "net.ipv4.conf.eth0.proxy_arp=1"],
    ];
    for change in changes {
        let before = Snapshot::of(&node);
        before.assert_unchanged(&Snapshot::of(&node));
        node.run(change);
        assert!(before != Snapshot::of(&node), "{change:?} should show");
    }
    assert!(Snapshot::of(&node).mentions(&["eth0", "changed"]));
}

#[test]
fn cnitool_adds_and_removes() {
    let node = Node::new("n1");
    let container = node.container("web");
    let tool = CniTool::with_path(&node, &ptp_list(), CNI_PATH);
    let result = tool.add(&container);
    assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
    tool.check(&container);
    container.run(&["ip", "address", "flush", "dev", "eth0"]);
    assert!(tool.check_fails(&container).contains("10.9.0.2"));
    tool.delete(&container);
    container.remove();
    tool.run_at("del", "/run/netns/web").silence();
}

#[test]
fn nodes_reach_each_other_and_an_etcd() {
    let network = Network::new();
    let nodes = [network.node(1), network.node(2)];
    assert!(nodes[0].reaches("172.30.0.12"));
    assert!(nodes[1].reaches("fd00:30::1"));
    let etcd = Etcd::start(network.router());
    etcd.put("/calico/a", "1");
    let endpoint = etcd.endpoint_at("172.30.0.1");
    let got = nodes[0].run(&["etcdctl", "--endpoints", &endpoint, "get", "/calico/a"]);
    assert_eq!(got, "/calico/a\n1\n");
    assert_eq!(etcd.entries().len(), 1);
}

#[test]
fn etcd_asks_for_certificates_and_passwords() {
    let node = Node::bare("n1");
    let certificates = Arc::new(Certificates::new());
    let options = EtcdOptions { certificates: Some(certificates), ..Default::default() };
    let secure = Etcd::start_with(&node, options);
    secure.put("/calico/a", "1");
    assert!(!node.succeeds(&["etcdctl", "--endpoints", &secure.endpoint(), "get", "/calico/a"]));
    let options = EtcdOptions { port: 3379, password: Some("secret".into()), ..Default::default() };
    let guarded = Etcd::start_with(&node, options);
    guarded.put("/calico/b", "2");
    guarded.freeze();
    guarded.thaw();
    guarded.delete("/calico/b");
    assert!(!node.succeeds(&["etcdctl", "--endpoints", &guarded.endpoint(), "get", "/calico/b"]));
}
