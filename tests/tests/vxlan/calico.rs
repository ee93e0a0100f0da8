//! Beside a node whose device and entries are made by hand, exactly as Calico's Felix makes them.

use serde_json::json;
use weir_tests::{Fleet, Place, Pod, Subnet, UPLINK};

use crate::{DEVICE, listed, pool, registered};

#[test]
fn a_node_of_calico_and_one_of_weir_reach_each_other() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "blue", 61, "Always");
    // What Calico's programs write of the second node: its tunnel address with handle and
    // attributes, its block and its Node.
    let node = json!({"bgp": {"ipv4Address": format!("{}/24", fleet.members[1].host.address)}});
    fleet.apply("Node", "n2", node);
    fleet.start_agent(0);
    let first = fleet.pod(0, "blue");
    let second = made_by_hand(&fleet);
    let weir = &fleet.members[0];
    fleet.until("Weir's node has its tunnel", || weir.has_device(DEVICE));
    let tunnel = registered(&fleet, 0)["spec"]["ipv4VXLANTunnelAddr"].as_str().unwrap().to_owned();
    let mac = weir.node().link(DEVICE)["address"].as_str().unwrap().to_owned();
    // What Felix makes of Weir's node.
    let calico = fleet.members[1].node();
    let to = weir.host.address.to_string();
    calico.run(&[
        "ip",
        "neighbour",
        "replace",
        &tunnel,
        "lladdr",
        &mac,
        "dev",
        DEVICE,
        "nud",
        "permanent",
    ]);
    calico.run(&["bridge", "fdb", "replace", &mac, "dev", DEVICE, "dst", &to, "self", "permanent"]);
    let block: ipnet::Ipv4Net = format!("{}/28", first.address).parse().unwrap();
    let block = block.trunc().to_string();
    calico.run(&["ip", "route", "replace", &block, "via", &tunnel, "dev", DEVICE, "onlink"]);
    fleet.until("Weir reaches Calico", || first.container.reaches("10.61.0.130"));
    fleet.until("Calico reaches Weir", || second.container.reaches(&first.address.to_string()));
    let routes = listed(weir, &["ip", "-j", "route", "show", "10.61.0.128/28"]);
    assert_eq!(routes[0]["gateway"], "10.61.0.129", "{routes:?}");
    assert_eq!(routes[0]["dev"], DEVICE);
}

/// The second node, as Calico's programs make it: block 10.61.0.128/28, tunnel address .129, a
/// container with .130.
fn made_by_hand(fleet: &Fleet) -> Pod {
    let etcd = fleet.etcd();
    let holder = |handle: &str, secondary: serde_json::Value| json!({"handle_id": handle, "secondary": secondary});
    let mut allocations = vec![serde_json::Value::Null; 16];
    allocations[1] = 0.into();
    allocations[2] = 1.into();
    let block = json!({
        "cidr": "10.61.0.128/28", "affinity": "host:n2", "strictAffinity": false,
        "allocations": allocations,
        "unallocated": [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        "attributes": [
            holder("vxlan-tunnel-addr-n2", json!({"node": "n2", "type": "vxlanTunnelAddress"})),
            holder("k8s-pod-network.c", json!({"node": "n2"})),
        ],
        "deleted": false, "sequenceNumber": 1, "sequenceNumberForAllocation": {},
    });
    etcd.put("/calico/ipam/v2/assignment/ipv4/block/10.61.0.128-28", &block.to_string());
    etcd.put(
        "/calico/ipam/v2/host/n2/ipv4/block/10.61.0.128-28",
        r#"{"state":"confirmed","deleted":false}"#,
    );
    for handle in ["vxlan-tunnel-addr-n2", "k8s-pod-network.c"] {
        let value = json!({"handleID": handle, "block": {"10.61.0.128/28": 1}, "deleted": false});
        etcd.put(&format!("/calico/ipam/v2/handle/{handle}"), &value.to_string());
    }
    let host = &fleet.members[1].host;
    let spec = json!({
        "bgp": {"ipv4Address": format!("{}/24", host.address)},
        "ipv4VXLANTunnelAddr": "10.61.0.129",
    });
    fleet.apply("Node", "n2", spec);
    let mac = {
        let digest = host.node.run_with(&["sha1sum"], "n2");
        let bytes: Vec<&str> = (0..5).map(|at| &digest[at * 2..at * 2 + 2]).collect();
        format!("66:{}", bytes.join(":"))
    };
    let lines = format!(
        "link add {DEVICE} address {mac} mtu 1450 type vxlan id 4096 dstport 4789 local {local} \
         dev {UPLINK} nolearning\n\
         address add 10.61.0.129/32 dev {DEVICE}\n\
         link set {DEVICE} up\n\
         link add cali1 type veth peer name eth0 netns c\n\
         link set cali1 up\n\
         route add 10.61.0.130 dev cali1 scope link\n\
         route add blackhole 10.61.0.128/28 proto 80\n",
        local = host.address,
    );
    let container = host.node.container("c");
    host.node.run_with(&["ip", "-batch", "-"], &lines);
    host.node.write("/proc/sys/net/ipv4/ip_forward", "1");
    host.node.write("/proc/sys/net/ipv4/conf/cali1/proxy_arp", "1");
    let lines = "link set lo up\naddress add 10.61.0.130/32 dev eth0\nlink set eth0 up\n\
                 route add 169.254.1.1 dev eth0 scope link\n\
                 route add default via 169.254.1.1 dev eth0\n";
    container.run_with(&["ip", "-batch", "-"], lines);
    Pod { container, address: "10.61.0.130".parse().expect("an address") }
}
