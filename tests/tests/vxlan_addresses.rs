//! The addresses of VXLAN tunnels: who takes and gives them back when, with agents and without.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{Fleet, Place, Subnet};

const DEVICE: &str = "vxlan.calico";

fn pool(fleet: &Fleet, mode: &str) {
    let spec = json!({"cidr": "10.64.0.0/24", "blockSize": 28, "vxlanMode": mode});
    fleet.apply_pool("vxlan", spec);
}

/// The address for VXLAN that a node is registered with.
fn registered(fleet: &Fleet, name: &str) -> Option<String> {
    let entries = fleet.store.entries();
    let node = entries.get(&format!("/calico/resources/v3/projectcalico.org/nodes/{name}"))?;
    let node: Value = serde_json::from_str(node).expect("a Node is JSON");
    node["spec"]["ipv4VXLANTunnelAddr"].as_str().map(str::to_owned)
}

/// The IPv4 addresses of a node's device, without that of its link; `None` where there is no device.
fn of_device(fleet: &Fleet, member: usize) -> Option<BTreeSet<String>> {
    let links = fleet.members[member].node().run(&["ip", "-j", "address", "show"]);
    let links: Vec<Value> = serde_json::from_str(&links).expect("ip prints JSON");
    let link = links.into_iter().find(|link| link["ifname"] == DEVICE)?;
    let addresses = link["addr_info"].as_array().cloned().unwrap_or_default();
    let own = addresses.iter().filter(|it| it["family"] == "inet" && it["scope"] == "global");
    Some(own.filter_map(|it| it["local"].as_str().map(str::to_owned)).collect())
}

/// Whether a node's device has the address that its Node names, and no other.
fn is_whole(fleet: &Fleet, member: usize) -> bool {
    let named = registered(fleet, &fleet.members[member].name);
    named.is_some_and(|named| of_device(fleet, member) == Some([named].into()))
}

fn handles(fleet: &Fleet) -> Vec<String> {
    let of_tunnel = |key: &String| key.contains("/handle/vxlan-tunnel-addr-");
    fleet.store.entries().into_keys().filter(of_tunnel).collect()
}

#[test]
fn agents_take_the_addresses_and_give_them_back() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    pool(&fleet, "Always");
    fleet.start_agents();
    // Before the containers, so that each node has one block for both.
    fleet.until("both tunnels are whole", || (0..2).all(|member| is_whole(&fleet, member)));
    let pods = fleet.connected_pods("vxlan");
    fleet.until_routed(2);
    let metric =
        |kind| fleet.members[0].agent().metric(&format!("weir_node_tunnel_up{{kind=\"{kind}\"}}"));
    assert_eq!(["ipip", "vxlan", "vxlan-v6"].map(metric), [Some(0.0), Some(1.0), Some(0.0)]);
    let told = fleet.weirctl(0, &["node", "status", "--node", "n1", "-o", "json"]);
    let status: Value = serde_json::from_str(&told.stdout).expect("status is JSON");
    let tunnel = &status["tunnels"][0];
    assert_eq!((&tunnel["kind"], &tunnel["up"]), (&json!("vxlan"), &json!(true)), "{status}");
    assert_eq!(tunnel["address"], registered(&fleet, "n1").unwrap(), "{status}");

    pool(&fleet, "Never");
    fleet.until("the addresses are given back", || handles(&fleet).is_empty());
    fleet.until("the devices go", || (0..2).all(|it| of_device(&fleet, it).is_none()));
    assert_eq!(registered(&fleet, "n1"), None);
    fleet.until_connected(&pods[0], &pods[1]);
}

#[test]
fn an_agent_that_runs_once_leaves_everything_in_place() {
    let fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    (0..2).for_each(|member| fleet.register(member));
    pool(&fleet, "CrossSubnet");
    for (member, name) in [(0, "n1"), (1, "n2")] {
        let answer = fleet.weirctl(member, &["node", "run", "--once", "--node", name]);
        assert!(answer.succeeded, "{answer:?}");
        assert!(is_whole(&fleet, member), "{name}: {answer:?}");
    }
    pool(&fleet, "Never");
    let answer = fleet.weirctl(0, &["node", "run", "--once", "--node", "n1"]);
    assert!(answer.succeeded, "{answer:?}");
    assert_eq!(registered(&fleet, "n1"), None, "{answer:?}");
    assert!(registered(&fleet, "n2").is_some(), "another node's is its own affair");
}

#[test]
fn add_alone_takes_the_addresses_and_gives_them_back() {
    let fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    (0..2).for_each(|member| fleet.register(member));
    pool(&fleet, "Always");
    let pods = [fleet.pod(0, "vxlan"), fleet.pod(1, "vxlan")];
    assert!((0..2).all(|member| is_whole(&fleet, member)), "{:?}", of_device(&fleet, 0));
    assert_eq!(pods[0].container.link("eth0")["mtu"], 1450);
    let _next = [fleet.named_pod(0, "vxlan", "next-1"), fleet.named_pod(1, "vxlan", "next-2")];
    let address = pods[1].address.to_string();
    assert!(pods[0].container.passes(&address, 1450), "{:?}", fleet.members[0].routes());
    assert!(!pods[0].container.passes(&address, 1451));
    fleet.status(0, "vxlan").silence();

    pool(&fleet, "Never");
    let _last = [fleet.named_pod(0, "vxlan", "last-1"), fleet.named_pod(1, "vxlan", "last-2")];
    assert_eq!(handles(&fleet), [""; 0]);
    assert!(pods[0].container.reaches(&address), "{:?}", fleet.members[0].routes());
}

/// What cannot receive yet must not be sent to.
#[test]
fn no_address_is_registered_for_a_device_that_cannot_be_made() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    let foreign = ["ip", "link", "add", DEVICE, "type", "bridge"];
    fleet.members[0].node().run(&foreign);
    pool(&fleet, "Always");
    fleet.start_agent(0);
    fleet.start_agent(1);
    fleet.until("n2 is ready", || is_whole(&fleet, 1));
    let health = || fleet.members[0].agent().answer("/health").unwrap_or_default();
    fleet.until("n1 says so", || health().contains(DEVICE));
    assert_eq!(registered(&fleet, "n1"), None);
    fleet.members[0].node().run(&["ip", "link", "delete", DEVICE]);
    fleet.until("n1 is ready", || is_whole(&fleet, 0));
}
