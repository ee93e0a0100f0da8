//! Who tunnels to whom, what is seen on the underlay, and how large packets may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;
use weir_tests::{Capture, Fleet, Header, ICMP, ICMPV6, Place, Pod, Subnet, UDP, UPLINK};

use crate::{DEVICE, DEVICE_V6, TWO_SUBNETS, dual, listed, pair, pool, pool_v6, registered};

/// The pools, of IPv4 and of IPv6, each with its mode.
const POOLS: [(&str, &str, &str); 3] =
    [("bgp", "bgp6", "Never"), ("always", "always6", "Always"), ("cross", "cross6", "CrossSubnet")];

#[test]
fn four_nodes_and_pools_of_every_mode_in_both_families() {
    let mut fleet = dual(&TWO_SUBNETS);
    for (number, (v4, v6, mode)) in (61..).zip(POOLS) {
        pool(&fleet, v4, number, mode);
        pool_v6(&fleet, v6, number, mode);
    }
    fleet.start_agents();
    let pods: BTreeMap<(&str, usize), (Pod, [IpAddr; 2])> = POOLS
        .iter()
        .flat_map(|(v4, v6, _)| (0..4).map(move |member| (*v4, *v6, member)))
        .map(|(v4, v6, member)| {
            let (pod, second) = fleet.dual_pod(member, [v4, v6]);
            let addresses = [pod.address.into(), second.into()];
            ((v4, member), (pod, addresses))
        })
        .collect();
    for member in 0..4 {
        pods[&("bgp", member)]
            .1
            .iter()
            .for_each(|address| fleet.announce_to_router(member, *address));
        for device in [DEVICE, DEVICE_V6] {
            let it = &fleet.members[member];
            fleet.until(&format!("{device} of {}", it.name), || it.has_device(device));
        }
    }
    let captures: Vec<Capture> =
        fleet.members.iter().map(|member| Capture::start(member.node(), UPLINK)).collect();
    for (name, _, mode) in POOLS {
        for ((from, to), family) in fleet.pairs().into_iter().flat_map(|it| [(it, 0), (it, 1)]) {
            let by_tunnel =
                mode == "Always" || mode == "CrossSubnet" && TWO_SUBNETS[from] != TWO_SUBNETS[to];
            let (source, own) = &pods[&(name, from)];
            let (own, target) = (own[family], pods[&(name, to)].1[family]);
            let hosts = [from, to].map(|member| &fleet.members[member].host);
            let wanted = match (by_tunnel, family) {
                (true, 0) => Header::new(hosts[0].address, hosts[1].address, UDP),
                (true, _) => {
                    let [one, other] = hosts.map(|host| host.address_v6.expect("IPv6"));
                    Header::new(one, other, UDP)
                }
                (false, 0) => Header::new(own, target, ICMP),
                (false, _) => Header::new(own, target, ICMPV6),
            };
            // The narrowest tunnel is that of IPv6.
            let sender = (&source.container, own);
            fleet.assert_way(&captures[from], sender, target, wanted, 1430);
        }
    }
}

#[test]
fn a_cross_subnet_pool_needs_tunnels_once_a_node_is_elsewhere() {
    let mut fleet = Fleet::new(&TWO_SUBNETS[..2]);
    pool(&fleet, "cross", 63, "CrossSubnet");
    fleet.start_agents();
    let pods = [fleet.pod(0, "cross"), fleet.pod(1, "cross")];
    fleet.until_connected(&pods[0], &pods[1]);
    let has_none = |fleet: &Fleet| {
        (0..2).all(|member| {
            !fleet_links(&fleet.members[member]).contains(DEVICE)
                && tunnel_address(fleet, member).is_none()
        })
    };
    assert!(has_none(&fleet));
    fleet.join(Subnet::Second);
    fleet.start_agents();
    fleet.until("all have a tunnel", || {
        fleet.members.iter().all(|member| member.has_device(DEVICE))
    });
    let third = fleet.pod(2, "cross");
    for pod in &pods {
        fleet.until_connected(pod, &third);
    }
    fleet.call(2, "cross", &third.container).delete(fleet.members[2].node());
    fleet.stop_agent(2);
    let answer = fleet.weirctl(0, &["delete", "node", "n3"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("no tunnel is left", || has_none(&fleet));
    fleet.until_connected(&pods[0], &pods[1]);
}

fn fleet_links(member: &weir_tests::Member) -> String {
    member.node().run(&["ip", "-brief", "link"])
}

fn tunnel_address(fleet: &Fleet, member: usize) -> Option<String> {
    registered(fleet, member)["spec"]["ipv4VXLANTunnelAddr"].as_str().map(str::to_owned)
}

/// What Calico's programs look at: the device, its address, the handle and its attributes.
#[test]
fn the_datastore_has_what_calico_has() {
    let fleet = pair();
    fleet.until("both have a tunnel", || fleet.members.iter().all(|it| it.has_device(DEVICE)));
    for member in [0, 1] {
        let name = &fleet.members[member].name;
        let address = tunnel_address(&fleet, member).expect("it is registered");
        let entries = fleet.store.entries();
        let handle = format!("/calico/ipam/v2/handle/vxlan-tunnel-addr-{name}");
        assert!(entries.contains_key(&handle), "{handle}");
        let blocks =
            entries.iter().filter(|(key, _)| key.starts_with("/calico/ipam/v2/assignment"));
        let blocks =
            blocks.map(|(_, value)| -> Value { serde_json::from_str(value).expect("JSON") });
        let holders: Vec<Value> = blocks
            .flat_map(|block| block["attributes"].as_array().cloned().expect("a list"))
            .collect();
        let is_own = |holder: &Value| {
            let secondary = &holder["secondary"];
            holder["handle_id"] == format!("vxlan-tunnel-addr-{name}")
                && secondary["node"] == name.as_str()
                && secondary["type"] == "vxlanTunnelAddress"
        };
        assert!(holders.iter().any(is_own), "{name} in {holders:#?}");
        let shown = listed(&fleet.members[member], &["ip", "-j", "-d", "address", "show", DEVICE]);
        let data = &shown[0]["linkinfo"]["info_data"];
        assert_eq!((&data["id"], &data["port"]), (&4096.into(), &4789.into()), "{shown:?}");
        assert_eq!(data["learning"], false);
        assert_eq!(data["link"], UPLINK);
        assert_eq!(data["local"], fleet.members[member].host.address.to_string());
        let addresses = shown[0]["addr_info"].as_array().expect("a list");
        let of_v4: Vec<_> = addresses.iter().filter(|it| it["scope"] == "global").collect();
        assert_eq!(of_v4.len(), 1);
        assert_eq!((&of_v4[0]["local"], &of_v4[0]["prefixlen"]), (&address.into(), &32.into()));
        assert_eq!(shown[0]["mtu"], 1450);
    }
    // f and the first bytes of the SHA-1 of "n1".
    assert_eq!(fleet.members[0].node().link(DEVICE)["address"], "66:40:b3:ea:b6:3f");
}

/// The largest packet of a mode passes whole, and no larger one, on links of any MTU.
#[test]
fn packets_are_as_large_as_the_underlay_lets_them_be() {
    for mtu in [1400, 9000] {
        let mut fleet =
            Fleet::with_mtu(&[Subnet::First, Subnet::First, Subnet::Second], mtu.into());
        pool(&fleet, "always", 62, "Always");
        pool(&fleet, "cross", 63, "CrossSubnet");
        fleet.start_agents();
        let largest: u16 = mtu - 50;
        for pool in ["always", "cross"] {
            let pods = [0, 1, 2].map(|member| fleet.pod(member, pool));
            let capture = Capture::start(fleet.members[0].node(), UPLINK);
            for to in &pods[1..] {
                fleet.until_connected(&pods[0], to);
                capture.packets();
                let address = to.address.to_string();
                assert!(pods[0].container.passes(&address, largest), "{largest} to {address}");
                assert!(!pods[0].container.passes(&address, largest + 1), "{largest} to {address}");
                let packets = capture.packets();
                assert!(packets.iter().all(|packet| !packet.is_fragment));
                let wrapped = packets.iter().filter(|packet| packet.inner.is_some());
                // Full windows both ways are made of full-size segments.
                pods[0].connect(&to.container, to.address.into()).carries();
                let lengths: BTreeSet<usize> = wrapped.map(|packet| packet.length).collect();
                assert!(lengths.is_empty() || lengths.contains(&usize::from(mtu)), "{lengths:?}");
            }
        }
        for member in &fleet.members {
            assert_eq!(member.node().link(DEVICE)["mtu"], largest, "{}", member.name);
        }
    }
}

#[test]
fn vxlan_from_strangers_is_dropped() {
    let fleet = pair();
    let pod = fleet.pod(0, "blue");
    let stranger = fleet.underlay.outside();
    let (own, node) = ("10.61.0.250", &fleet.members[0]);
    fleet.until("there is a tunnel", || node.has_device(DEVICE));
    let (by, mac) =
        (node.host.address, node.node().link(DEVICE)["address"].as_str().unwrap().to_owned());
    let lines = format!(
        "link add {DEVICE} type vxlan id 4096 dstport 4789 dev {UPLINK} nolearning\n\
         link set {DEVICE} up\naddress add {own}/32 dev {DEVICE}\n\
         route add {target} dev {DEVICE} src {own}\n\
         neighbour add {target} lladdr {mac} dev {DEVICE} nud permanent\n",
        target = pod.address,
    );
    stranger.node.run_with(&["ip", "-batch", "-"], &lines);
    let to = by.to_string();
    stranger.node.run(&["bridge", "fdb", "append", &mac, "dev", DEVICE, "dst", &to]);
    let inside = Capture::start(&pod.container, "eth0");
    let gets_in = || {
        stranger.node.reaches(&pod.address.to_string());
        inside.packets().iter().any(|packet| packet.outer.source.to_string() == own)
    };
    assert!(!gets_in());
    let address = format!("{}/24", stranger.address);
    fleet.apply("Node", "stranger", serde_json::json!({"bgp": {"ipv4Address": address}}));
    fleet.until("a registered node is let in", gets_in);
    let answer = fleet.weirctl(0, &["delete", "node", "stranger"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("a node that is gone is a stranger again", || !gets_in());
}
