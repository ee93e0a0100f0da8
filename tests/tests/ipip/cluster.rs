//! A cluster that tunnels: who tunnels to whom, what is seen on the underlay, and
//! pools that change under running containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::json;
use weir_tests::{Capture, Fleet, Header, ICMP, IPIP, Member, Place, Pod, Subnet, UDP, UPLINK};

const TWO_SUBNETS: [Subnet; 4] = [Subnet::First, Subnet::First, Subnet::Second, Subnet::Second];

fn pool(fleet: &Fleet, name: &str, number: u8, mode: &str) {
    let cidr = format!("10.{number}.0.0/24");
    fleet.apply_pool(name, json!({"cidr": cidr, "blockSize": 28, "ipipMode": mode}));
}

/// Whether two nodes are in one subnet.
fn near(one: usize, other: usize) -> bool {
    TWO_SUBNETS[one] == TWO_SUBNETS[other]
}

#[test]
fn four_nodes_and_pools_of_every_mode_at_once() {
    let mut fleet = Fleet::new(&TWO_SUBNETS);
    let pools = [
        ("bgp", "Never"),
        ("always", "Always"),
        ("cross", "CrossSubnet"),
        ("vxlan", "Always"),
        ("vxcross", "CrossSubnet"),
    ];
    for (number, (name, mode)) in (61..).zip(pools) {
        match name.starts_with("vx") {
            true => fleet.apply_pool(
                name,
                json!({"cidr": format!("10.{number}.0.0/24"), "blockSize": 28, "vxlanMode": mode}),
            ),
            false => pool(&fleet, name, number, mode),
        }
    }
    fleet.start_agents();
    let pods: BTreeMap<(&str, usize), Pod> = pools
        .iter()
        .flat_map(|(name, _)| (0..4).map(move |member| (*name, member)))
        .map(|(name, member)| ((name, member), fleet.pod(member, name)))
        .collect();
    for member in 0..4 {
        fleet.announce_to_router(member, pods[&("bgp", member)].address.into());
        assert!(fleet.members[member].has_tunnel());
    }
    let captures: Vec<Capture> =
        fleet.members.iter().map(|member| Capture::start(member.node(), UPLINK)).collect();
    let mut tunnelled = BTreeMap::new();
    for (name, mode) in pools {
        for (from, to) in fleet.pairs() {
            let (source, target) = (&pods[&(name, from)], &pods[&(name, to)]);
            let by_tunnel = match mode {
                "Never" => false,
                "Always" => true,
                _ => !near(from, to),
            };
            let [own, other] = [from, to].map(|member| fleet.members[member].host.address);
            let wanted = if by_tunnel {
                Header::new(own, other, if name.starts_with("vx") { UDP } else { IPIP })
            } else {
                Header::new(source.address, target.address, ICMP)
            };
            tunnelled.insert((name, from, to), by_tunnel);
            // It fits into VXLAN.
            let sender = (&source.container, source.address.into());
            fleet.assert_way(&captures[from], sender, target.address.into(), wanted, 1450);
        }
    }
    assert_eq!(tunnelled.values().filter(|by_tunnel| **by_tunnel).count(), 2 * (12 + 8));
}

#[test]
fn pools_without_ipip_need_no_tunnel() {
    let mut fleet = Fleet::new(&TWO_SUBNETS);
    pool(&fleet, "bgp", 61, "Never");
    fleet.start_agents();
    let pods = [fleet.pod(0, "bgp"), fleet.pod(1, "bgp"), fleet.pod(2, "bgp")];
    fleet.announce_to_router(0, pods[0].address.into());
    fleet.announce_to_router(2, pods[2].address.into());
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        fleet.until_reached(&pods[from], &pods[to]);
    }
    assert!(pods[0].container.passes(&pods[2].address.to_string(), 1500));
    for member in &fleet.members {
        assert!(member.has_no_tunnel(), "{}", member.name);
    }
}

#[test]
fn a_cross_subnet_pool_needs_tunnels_once_a_node_is_elsewhere() {
    let mut fleet = Fleet::new(&TWO_SUBNETS[..2]);
    pool(&fleet, "cross", 63, "CrossSubnet");
    fleet.start_agents();
    let pods = [fleet.pod(0, "cross"), fleet.pod(1, "cross")];
    fleet.until_reached(&pods[0], &pods[1]);
    assert!(fleet.members.iter().all(|member| member.has_no_tunnel()));
    assert_eq!(tunnel_addresses(&fleet), Default::default());
    fleet.join(Subnet::Second);
    fleet.start_agents();
    fleet.until("all have a tunnel", || fleet.members.iter().all(|member| member.has_tunnel()));
    let all = ["n1", "n2", "n3"].map(str::to_owned);
    assert_eq!(tunnel_addresses(&fleet), (all.clone().into(), all.into()));
    let third = fleet.pod(2, "cross");
    for pod in &pods {
        fleet.until_reached(pod, &third);
        fleet.until_reached(&third, pod);
    }
    // It goes again: so do the tunnels, and the two still reach each other.
    fleet.call(2, "cross", &third.container).delete(fleet.members[2].node());
    fleet.stop_agent(2);
    let answer = fleet.weirctl(0, &["delete", "node", "n3"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("no tunnel is left", || {
        fleet.members[..2].iter().all(|member| member.has_no_tunnel())
            && tunnel_addresses(&fleet) == Default::default()
    });
    fleet.until_reached(&pods[0], &pods[1]);
}

#[test]
fn a_tunnel_address_is_kept_over_restarts_and_repaired() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "always", 62, "Always");
    fleet.start_agents();
    let show = ["ip", "-4", "-o", "address", "show", "dev", "tunl0"];
    fleet.until("both have a tunnel", || fleet.members.iter().all(|member| member.has_tunnel()));
    let before = fleet.members[0].node().run(&show);
    fleet.stop_agent(0);
    fleet.start_agents();
    assert_eq!(fleet.members[0].node().run(&show), before);
    let member = &fleet.members[0];
    member.node().run(&["ip", "address", "flush", "dev", "tunl0"]);
    fleet.until("the address is back", || member.has_tunnel());
    member.node().run(&["ip", "address", "add", "10.99.0.1/32", "dev", "tunl0"]);
    fleet.until("a foreign address is gone", || member.node().run(&show) == before);
}

#[test]
fn a_connection_survives_the_switch_of_modes() {
    switch_modes(
        [Subnet::First, Subnet::First],
        "Never",
        &[("Always", true), ("Never", false), ("CrossSubnet", false)],
    );
}

#[test]
fn a_connection_between_subnets_survives_the_switch_of_modes() {
    switch_modes(
        [Subnet::First, Subnet::Second],
        "Always",
        &[("CrossSubnet", true), ("Never", false), ("Always", true)],
    );
}

/// A pool gets one mode after the other under a connection; each comes with whether
/// packets then go by a tunnel.
fn switch_modes(subnets: [Subnet; 2], first: &str, modes: &[(&str, bool)]) {
    let mut fleet = Fleet::new(&subnets);
    pool(&fleet, "blue", 61, first);
    fleet.start_agents();
    let pods = [fleet.pod(0, "blue"), fleet.pod(1, "blue")];
    if subnets[0] != subnets[1] {
        fleet.announce_to_router(0, pods[0].address.into());
        fleet.announce_to_router(1, pods[1].address.into());
    }
    fleet.until_reached(&pods[0], &pods[1]);
    let mut connection = pods[0].connect(&pods[1].container, pods[1].address.into());
    let captures = [0, 1].map(|member| Capture::start(fleet.members[member].node(), UPLINK));
    connection.carries();
    for (mode, by_tunnel) in modes {
        pool(&fleet, "blue", 61, mode);
        let protocol = if *by_tunnel { IPIP } else { ICMP };
        for (from, to) in [(0, 1), (1, 0)] {
            fleet.until(&format!("packets go as {mode} says"), || {
                let seen = headers_seen(&captures, &pods[from], &pods[to]);
                !seen.is_empty() && seen.iter().all(|header| header.protocol == protocol)
            });
        }
        // Pods keep the MTU that they were born with, so their packets may be too large
        // for the tunnel by now.
        connection.carries();
    }
}

/// The headers that an echo request and its answer have on both nodes' links.
fn headers_seen(captures: &[Capture; 2], from: &Pod, to: &Pod) -> BTreeSet<Header> {
    captures.iter().for_each(|capture| drop(capture.packets()));
    from.container.reaches(&to.address.to_string());
    let packets = captures.iter().flat_map(Capture::packets);
    let of_both = |header: Header| {
        header.protocol == ICMP
            && BTreeSet::from([header.source, header.destination])
                == BTreeSet::from([from.address, to.address].map(IpAddr::from))
    };
    packets.filter(|packet| of_both(packet.original())).map(|packet| packet.outer).collect()
}

#[test]
fn nat_hides_what_leaves_the_pools_and_nothing_else() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    let spec = |cidr: &str, nat: bool, disabled: bool| {
        json!({"cidr": cidr, "blockSize": 28, "ipipMode": "Always", "natOutgoing": nat,
            "disabled": disabled})
    };
    fleet.apply_pool("hidden", spec("10.61.0.0/24", true, false));
    fleet.apply_pool("plain", spec("10.62.0.0/24", false, false));
    fleet.start_agents();
    let hidden = [fleet.pod(0, "hidden"), fleet.pod(1, "hidden")];
    let plain = fleet.pod(0, "plain");
    fleet.until_reached(&hidden[0], &hidden[1]);
    let outside = fleet.underlay.outside();
    let by = fleet.members[0].host.address.to_string();
    fleet.underlay.router().run(&["ip", "route", "add", "10.62.0.0/24", "via", &by]);
    let outside_address = IpAddr::V4(outside.address);
    let node_address = IpAddr::V4(fleet.members[0].host.address);
    assert_eq!(hidden[0].connect(&outside.node, outside_address).seen, node_address);
    assert_eq!(plain.connect(&outside.node, outside_address).seen, IpAddr::V4(plain.address));
    let other = &hidden[1];
    let seen = hidden[0].connect(&other.container, other.address.into()).seen;
    assert_eq!(seen, IpAddr::V4(hidden[0].address), "inside the pools");
    // A disabled pool around the outside exempts it.
    let way_back = ["ip", "route", "add", "10.61.0.0/24", "via", &by];
    fleet.underlay.router().run(&way_back);
    fleet.apply_pool("exempt", spec("172.31.4.0/24", false, true));
    fleet.until("the outside is exempt", || {
        hidden[0].connect(&outside.node, outside_address).seen == IpAddr::V4(hidden[0].address)
    });
}

#[test]
fn ipip_from_strangers_is_dropped() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "always", 62, "Always");
    fleet.start_agents();
    let pod = fleet.pod(0, "always");
    let stranger = fleet.underlay.outside();
    let (own, by) = ("10.62.0.250", fleet.members[0].host.address.to_string());
    stranger.node.succeeds(&["ip", "link", "add", "tunl0", "type", "ipip"]);
    let lines = format!(
        "link set tunl0 mtu 1480 up\naddress add {own}/32 dev tunl0\n\
         route add {}/32 via {by} dev tunl0 onlink src {own}\n",
        pod.address
    );
    stranger.node.run_with(&["ip", "-batch", "-"], &lines);
    let inside = Capture::start(&pod.container, "eth0");
    let gets_in = || {
        stranger.node.reaches(&pod.address.to_string());
        inside.packets().iter().any(|packet| packet.outer.source.to_string() == own)
    };
    assert!(!gets_in());
    let node = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "Node",
        "metadata": {"name": "stranger"},
        "spec": {"bgp": {"ipv4Address": format!("{}/24", stranger.address)}},
    });
    fleet.members[0].node().write("/run/node.yaml", &node.to_string());
    let answer = fleet.weirctl(0, &["apply", "-f", "/run/node.yaml"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("a registered node is let in", gets_in);
    let answer = fleet.weirctl(0, &["delete", "node", "stranger"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("a node that is gone is a stranger again", || !gets_in());
}

/// The nodes that are registered with a tunnel address, and the handles that have
/// such addresses.
fn tunnel_addresses(fleet: &Fleet) -> (BTreeSet<String>, BTreeSet<String>) {
    let entries = fleet.store.entries();
    let name = |(key, value): (&String, &String)| {
        let name = key.strip_prefix("/calico/resources/v3/projectcalico.org/nodes/")?;
        value.contains("ipv4IPIPTunnelAddr").then(|| name.to_owned())
    };
    let handle = |key: &String| {
        key.strip_prefix("/calico/ipam/v2/handle/ipip-tunnel-addr-").map(str::to_owned)
    };
    (entries.iter().filter_map(name).collect(), entries.keys().filter_map(handle).collect())
}

#[test]
fn a_pool_with_tunnels_is_disabled_and_deleted_under_its_containers() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "always", 62, "Always");
    fleet.start_agents();
    let pods = fleet.connected_pods("always");
    let before = tunnel_addresses(&fleet);
    let mut connection = pods[0].connect(&pods[1].container, pods[1].address.into());
    pods[0].without_a_loss(&pods[1], || {
        let spec = json!({"cidr": "10.62.0.0/24", "blockSize": 28, "ipipMode": "Always",
            "disabled": true});
        fleet.apply_pool("always", spec);
        // Every agent has taken that in when it knows of a later pool.
        pool(&fleet, "marker", 63, "Never");
        fleet.pod(0, "marker");
        let member = &fleet.members[0];
        fleet.until("the marker", || member.routes().join("\n").contains("10.63.0."));
    });
    connection.carries();
    assert_eq!(tunnel_addresses(&fleet), before, "a disabled pool keeps tunnel addresses");
    let answer = fleet.weirctl(0, &["delete", "ippool", "always", "--force"]);
    assert!(answer.succeeded, "{answer:?}");
    fleet.until("the tunnels are gone", || {
        fleet.members.iter().all(|member| {
            member.has_no_tunnel() && !member.routes().join("\n").contains("10.62.0.")
        })
    });
    assert_eq!(tunnel_addresses(&fleet), Default::default());
}

/// As `etcdctl del` or a tool does that does not look at blocks.
#[test]
fn a_pool_that_is_deleted_by_its_key_alone_is_told_and_leaves_direct_ways() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    pool(&fleet, "always", 62, "Always");
    fleet.start_agents();
    let pods = fleet.connected_pods("always");
    fleet.etcd().delete("/calico/resources/v3/projectcalico.org/ippools/always");
    fleet.until("the agents tell", || {
        fleet.members.iter().all(|member| {
            member.agent().metric("weir_node_problems") == Some(1.0)
                && member.agent().log().contains("lies in no pool")
        })
    });
    fleet.until("no tunnel is left", || fleet.members.iter().all(Member::has_no_tunnel));
    fleet.until_connected(&pods[0], &pods[1]);
    // It is made again, and all is as before.
    pool(&fleet, "always", 62, "Always");
    fleet.until("no problem is left, and there are tunnels", || {
        let mut members = fleet.members.iter();
        members.all(|member| {
            member.agent().metric("weir_node_problems") == Some(0.0) && member.has_tunnel()
        })
    });
    fleet.until_connected(&pods[0], &pods[1]);
}

#[test]
fn a_node_behind_a_tunnel_changes_its_address() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "always", 62, "Always");
    fleet.start_agents();
    let pods = fleet.connected_pods("always");
    let before = tunnel_addresses(&fleet);
    let mut connection = pods[0].connect(&pods[1].container, pods[1].address.into());
    let moved = fleet.members[1].node();
    // Without it the new address would go with the first of its subnet.
    moved.write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1");
    moved.run(&["ip", "address", "add", "172.31.2.99/24", "dev", "eth0"]);
    moved.run(&["ip", "address", "delete", "172.31.2.12/24", "dev", "eth0"]);
    let routes = || fleet.members[0].routes().join("\n");
    fleet.until("the other node follows", || routes().contains("via 172.31.2.99 dev tunl0"));
    fleet.until_connected(&pods[0], &pods[1]);
    connection.carries();
    assert_eq!(tunnel_addresses(&fleet), before);
}
