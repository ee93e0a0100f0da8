//! Beside a node whose device and entries are made by hand, exactly as Calico's Felix makes them.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_tests::{Fleet, Place, Pod, Subnet, UPLINK};

use crate::{DEVICE, DEVICE_V6, dual, listed, pool, pool_v6, registered};

/// What Calico's node `n2` has of one family.
struct OfCalico {
    /// What `ip` calls the family.
    option: &'static str,
    device: &'static str,
    /// The field of a Node that has its tunnel address.
    field: &'static str,
    handle: &'static str,
    allocation_type: &'static str,
    /// What its hardware address is a digest of.
    mac_of: &'static str,
    /// The directories of the family in the datastore.
    directory: &'static str,
    block: &'static str,
    /// The second and the third address of the block.
    tunnel: &'static str,
    container: &'static str,
    /// Of the device, in bytes.
    mtu: u16,
}

const V4: OfCalico = OfCalico {
    option: "-4",
    device: DEVICE,
    field: "ipv4VXLANTunnelAddr",
    handle: "vxlan-tunnel-addr-n2",
    allocation_type: "vxlanTunnelAddress",
    mac_of: "n2",
    directory: "ipv4",
    block: "10.61.0.128/28",
    tunnel: "10.61.0.129",
    container: "10.61.0.130",
    mtu: 1450,
};

const V6: OfCalico = OfCalico {
    option: "-6",
    device: DEVICE_V6,
    field: "ipv6VXLANTunnelAddr",
    handle: "vxlan-v6-tunnel-addr-n2",
    allocation_type: "vxlanV6TunnelAddress",
    mac_of: "n2-v6",
    directory: "ipv6",
    block: "fd10:61::80/124",
    tunnel: "fd10:61::81",
    container: "fd10:61::82",
    mtu: 1430,
};

#[test]
fn a_node_of_calico_and_one_of_weir_reach_each_other() {
    beside_calico(&[V4]);
}

#[test]
fn a_node_of_calico_and_one_of_weir_reach_each_other_in_both_families() {
    beside_calico(&[V4, V6]);
}

fn beside_calico(families: &[OfCalico]) {
    let mut fleet = dual(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "blue", 61, "Always");
    families.iter().skip(1).for_each(|_| pool_v6(&fleet, "blue6", 61, "Always"));
    register_calico(&fleet, families);
    fleet.start_agent(0);
    let weir = &fleet.members[0];
    for of in families {
        fleet.until("Weir's node has its tunnel", || weir.has_device(of.device));
    }
    let (first, addresses) = pod_of_weir(&fleet, families.len());
    let second = made_by_hand(&fleet, families);
    let narrowest = families.iter().map(|of| of.mtu).min().expect("a family");
    for (of, address) in families.iter().zip(addresses) {
        felix_learns(&fleet, of, address);
        let own = address.to_string();
        fleet.until(&format!("Weir reaches {}", of.container), || {
            first.container.reaches(of.container)
        });
        fleet.until(&format!("Calico reaches {own}"), || second.container.reaches(&own));
        // As large as either's containers may send, and no larger, from both sides.
        let headers = if address.is_ipv4() { 28 } else { 48 };
        for (from, to) in [(&first.container, of.container), (&second.container, &own)] {
            assert!(from.reaches_with(to, narrowest - headers), "{to}");
            assert!(!from.reaches_with(to, narrowest - headers + 1), "{to}");
        }
        let target = of.container.parse().expect("an address");
        first.connect(&second.container, target).carries();
        second.connect(&first.container, address).carries();
        let line = ["ip", "-j", of.option, "-d", "route", "show", of.block];
        let routes = listed(weir, &line);
        assert_eq!(routes[0]["dev"], of.device, "{routes:?}");
        let line =
            ["ip", "-j", of.option, "neighbour", "show", "dev", of.device, "nud", "permanent"];
        let neighbours = listed(weir, &line);
        assert_eq!(neighbours[0]["dst"], routes[0]["gateway"], "{neighbours:?}");
        assert_eq!(neighbours[0]["lladdr"], mac(&fleet, of), "{neighbours:?}");
    }
}

fn pod_of_weir(fleet: &Fleet, families: usize) -> (Pod, Vec<IpAddr>) {
    if families == 1 {
        let pod = fleet.pod(0, "blue");
        let addresses = vec![pod.address.into()];
        return (pod, addresses);
    }
    let (pod, second) = fleet.dual_pod(0, ["blue", "blue6"]);
    let addresses = vec![pod.address.into(), second.into()];
    (pod, addresses)
}

/// Felix's hardware address of the second node's device.
fn mac(fleet: &Fleet, of: &OfCalico) -> String {
    let digest = fleet.members[1].node().run_with(&["sha1sum"], of.mac_of);
    let bytes: Vec<&str> = (0..5).map(|at| &digest[at * 2..at * 2 + 2]).collect();
    format!("66:{}", bytes.join(":"))
}

/// What Calico's programs write of the second node: its tunnel addresses with handles and
/// attributes, its blocks and its Node.
fn register_calico(fleet: &Fleet, families: &[OfCalico]) {
    let etcd = fleet.etcd();
    let host = &fleet.members[1].host;
    let v6 = host.address_v6.expect("the underlay has IPv6");
    let mut spec = json!({"bgp": {"ipv4Address": format!("{}/24", host.address),
        "ipv6Address": format!("{v6}/64")}});
    for of in families {
        let holder =
            |handle: &str, secondary: Value| json!({"handle_id": handle, "secondary": secondary});
        let mut allocations = vec![Value::Null; 16];
        (allocations[1], allocations[2]) = (0.into(), 1.into());
        let block = json!({
            "cidr": of.block, "affinity": "host:n2", "strictAffinity": false,
            "allocations": allocations,
            "unallocated": [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            "attributes": [
                holder(of.handle, json!({"node": "n2", "type": of.allocation_type})),
                holder("k8s-pod-network.c", json!({"node": "n2"})),
            ],
            "deleted": false, "sequenceNumber": 1, "sequenceNumberForAllocation": {},
        });
        let name = of.block.replace('/', "-");
        let directory = format!("{}/block/{name}", of.directory);
        etcd.put(&format!("/calico/ipam/v2/assignment/{directory}"), &block.to_string());
        let affinity = r#"{"state":"confirmed","deleted":false}"#;
        etcd.put(&format!("/calico/ipam/v2/host/n2/{directory}"), affinity);
        let value = json!({"handleID": of.handle, "block": {of.block: 1}, "deleted": false});
        etcd.put(&format!("/calico/ipam/v2/handle/{}", of.handle), &value.to_string());
        spec[of.field] = of.tunnel.into();
    }
    let blocks: serde_json::Map<String, Value> =
        families.iter().map(|of| (of.block.to_owned(), 1.into())).collect();
    let value = json!({"handleID": "k8s-pod-network.c", "block": blocks, "deleted": false});
    etcd.put("/calico/ipam/v2/handle/k8s-pod-network.c", &value.to_string());
    fleet.apply("Node", "n2", spec);
}

/// The second node with its devices and a container, as Calico's programs make them.
fn made_by_hand(fleet: &Fleet, families: &[OfCalico]) -> Pod {
    let host = &fleet.members[1].host;
    let container = host.node.container("c");
    let narrowest = families.iter().map(|of| of.mtu).min().expect("a family");
    let mut lines = format!(
        "link add cali1 address ee:ee:ee:ee:ee:ee mtu {narrowest} type veth peer name eth0 netns c\n\
         link set cali1 up\n"
    );
    let mut inside = format!(
        "link set lo up\nlink set eth0 mtu {narrowest} up\n\
         route add 169.254.1.1 dev eth0 scope link\n"
    );
    for of in families {
        let v6 = host.address_v6.expect("the underlay has IPv6");
        let (local, length, gateway) = match of.option {
            "-4" => (host.address.to_string(), 32, "169.254.1.1"),
            _ => (v6.to_string(), 128, "fe80::ecee:eeff:feee:eeee"),
        };
        let OfCalico { device, block, tunnel, container, mtu, .. } = of;
        lines += &format!(
            "link add {device} address {mac} mtu {mtu} type vxlan id 4096 dstport 4789 \
             local {local} dev {UPLINK} nolearning\n\
             address add {tunnel}/{length} dev {device}\n\
             link set {device} up\n\
             route add {container} dev cali1 scope link\n\
             route add blackhole {block} proto 80\n",
            mac = mac(fleet, of),
        );
        inside += &format!(
            "address add {container}/{length} dev eth0\n\
             route add default via {gateway} dev eth0\n"
        );
    }
    host.node.run_with(&["ip", "-batch", "-"], &lines);
    host.node.write("/proc/sys/net/ipv4/ip_forward", "1");
    host.node.write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    host.node.write("/proc/sys/net/ipv4/conf/cali1/proxy_arp", "1");
    container.run_with(&["ip", "-batch", "-"], &inside);
    Pod { container, address: V4.container.parse().expect("an address") }
}

/// What Felix makes of Weir's node, whose container has this address.
fn felix_learns(fleet: &Fleet, of: &OfCalico, container: IpAddr) {
    let (weir, calico) = (&fleet.members[0], fleet.members[1].node());
    let v6 = weir.host.address_v6.expect("the underlay has IPv6");
    let to: IpAddr = if container.is_ipv4() { weir.host.address.into() } else { v6.into() };
    let node = registered(fleet, 0);
    let tunnel = node["spec"][of.field].as_str().expect("it is registered");
    let link = weir.node().link(of.device);
    let mac = link["address"].as_str().expect("a hardware address");
    let length = of.block.split_once('/').expect("a length").1;
    let block: ipnet::IpNet = format!("{container}/{length}").parse().expect("a block");
    let (block, device) = (block.trunc(), of.device);
    let lines = format!(
        "ip neighbour replace {tunnel} lladdr {mac} dev {device} nud permanent
        bridge fdb replace {mac} dev {device} dst {to} self permanent
        ip route replace {block} via {tunnel} dev {device} onlink"
    );
    calico.run(&["sh", "-ec", &lines]);
}
