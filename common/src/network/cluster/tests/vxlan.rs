//! Examples of plans with pools of VXLAN.

use super::super::tunnels::plan_tunnels;
use super::*;
use crate::link::MacAddress;
use crate::resources::FelixConfiguration;
use crate::tunnel::link_local;

use TunnelKind::{Ipip, Vxlan, VxlanV6};

/// As [`four_nodes`], with one pool of VXLAN for each mode; the nodes have addresses for it:
/// n1 has 10.0.1.1 of its own block, n2 10.0.2.1, and so on.
fn four_vxlan_nodes(modes: &[EncapsulationMode]) -> ClusterState {
    let mut state = four_nodes(modes);
    for pool in state.pools.values_mut() {
        pool.tunnel = pool.tunnel.map(|tunnel| PoolTunnel { kind: Vxlan, ..tunnel });
    }
    for number in 1..=4 {
        let own = state.nodes.get_mut(&format!("n{number}")).unwrap();
        own.tunnels.insert(Vxlan, [10, 0, number, 1].into());
    }
    state
}

/// The same of IPv6: nodes in fd01:1::/64 and fd01:2::/64, blocks fd00::x:0/122, addresses
/// fd00::x:1.
fn four_v6_nodes(mode: EncapsulationMode) -> ClusterState {
    let mut state = four_nodes(&[]);
    state.pools.insert("v6".into(), pool_of(VxlanV6, "fd00::/64", mode));
    for (number, address) in (1..).zip(["fd01:1::1", "fd01:1::2", "fd01:2::1", "fd01:2::2"]) {
        let own = state.nodes.get_mut(&format!("n{number}")).unwrap();
        own.ipv6 = Some(net(&format!("{address}/64")));
        own.tunnels.insert(VxlanV6, format!("fd00::{number}:1").parse().unwrap());
        let block = net(&format!("fd00::{number}:0/122"));
        state.blocks.insert(block, BTreeSet::from([format!("n{number}")]));
    }
    state
}

fn both_families() -> Underlay {
    let mut underlay = underlay("172.16.1.1/24");
    underlay.links[0].addresses.push(net("fd01:1::1/64"));
    underlay
}

fn node<'a>(state: &'a mut ClusterState, name: &str) -> &'a mut Peer {
    state.nodes.get_mut(name).unwrap()
}

fn text(plan: &ClusterPlan, destination: &str) -> String {
    way(plan, destination).map(ToString::to_string).unwrap_or_default()
}

/// A device's neighbours and forwarding entries, as `ip` and `bridge` show them.
fn entries(plan: &ClusterPlan, kind: TunnelKind) -> Vec<String> {
    let vxlan = plan.tunnels[&kind].vxlan.as_ref().unwrap();
    let neighbours = vxlan.neighbours.iter().map(|(address, mac)| format!("{address} {mac}"));
    let forwarding = vxlan.forwarding.iter().map(|(mac, node)| format!("{mac} {node}"));
    neighbours.chain(forwarding).collect()
}

#[test]
fn every_node_is_reached_by_its_tunnel_address_behind_its_hardware_address() {
    let plan = plan_of_n1(&four_vxlan_nodes(&[Always]));
    assert_eq!(plan.problems, BTreeSet::new());
    let tunnel = &plan.tunnels[&Vxlan];
    assert!(tunnel.is_needed && plan.tunnels.len() == 1);
    assert_eq!(tunnel.address, Some([10, 0, 1, 1].into()));
    assert_eq!((tunnel.mtu, plan.pod_mtu), (1450, 1450));
    let expected = VxlanDevice {
        vni: 4096,
        port: 4789,
        local: [172, 16, 1, 1].into(),
        parent: Some("eth0".to_owned()),
        mac: Vxlan.mac("n1").unwrap(),
        is_learning: false,
    };
    assert_eq!(tunnel.vxlan.as_ref().unwrap().device, expected);
    for number in 2..=4 {
        let expected = format!("via 10.0.{number}.1 dev vxlan.calico onlink src 10.0.1.1");
        assert_eq!(text(&plan, &format!("10.0.{number}.0/26")), expected);
    }
    assert_eq!(way(&plan, "10.0.1.0/26"), Some(&RouteKind::Blackhole));
    // Made with `printf n2 | sha1sum`, and so on.
    let expected = [
        "10.0.2.1 66:40:24:34:76:fc",
        "10.0.3.1 66:26:c2:ce:28:d0",
        "10.0.4.1 66:f3:34:2a:76:bd",
        "66:26:c2:ce:28:d0 172.16.2.1",
        "66:40:24:34:76:fc 172.16.1.2",
        "66:f3:34:2a:76:bd 172.16.2.2",
    ];
    assert_eq!(entries(&plan, Vxlan), expected);
    let senders: Vec<String> = tunnel.senders.iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["172.16.1.2/32", "172.16.2.1/32", "172.16.2.2/32"]);
}

/// The kernel takes no next hop of IPv6 by another link than it knows the way to.
#[test]
fn by_ipv6_the_next_hop_is_the_devices_link_local_address() {
    let plan = plan_cluster("n1", &four_v6_nodes(Always), &both_families());
    assert_eq!(plan.problems, BTreeSet::new());
    let tunnel = &plan.tunnels[&VxlanV6];
    assert_eq!(plan.tunnels.len(), 1, "IPv4 needs none");
    assert_eq!(tunnel.address, Some("fd00::1:1".parse().unwrap()));
    assert_eq!((tunnel.mtu, plan.pod_mtu), (1430, 1430));
    let device = &tunnel.vxlan.as_ref().unwrap().device;
    assert_eq!(device.local, "fd01:1::1".parse::<IpAddr>().unwrap());
    assert_eq!((device.parent.as_deref(), device.mac), (Some("eth0"), VxlanV6.mac("n1").unwrap()));
    let mac = VxlanV6.mac("n3").unwrap();
    let hop = link_local(mac);
    let expected = format!("via {hop} dev vxlan-v6.calico onlink src fd00::1:1");
    assert_eq!(text(&plan, "fd00::3:0/122"), expected);
    let of_n3 = [format!("{hop} {mac}"), format!("{mac} fd01:2::1")];
    assert!(of_n3.iter().all(|entry| entries(&plan, VxlanV6).contains(entry)), "{of_n3:?}");
    let senders: Vec<String> = tunnel.senders.iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["fd01:1::2/128", "fd01:2::1/128", "fd01:2::2/128"]);
}

#[test]
fn a_cross_subnet_pool_goes_directly_within_the_subnet() {
    let plan = plan_of_n1(&four_vxlan_nodes(&[CrossSubnet]));
    assert!(is_direct(&plan, "10.0.2.0/26"));
    assert!(is_tunnel(&plan, "10.0.3.0/26") && is_tunnel(&plan, "10.0.4.0/26"));
    let plan = plan_cluster("n1", &four_v6_nodes(CrossSubnet), &both_families());
    assert!(is_direct(&plan, "fd00::2:0/122"));
    assert!(is_tunnel(&plan, "fd00::3:0/122") && is_tunnel(&plan, "fd00::4:0/122"));
    // Where all nodes share it, there is no device.
    let mut near = four_vxlan_nodes(&[CrossSubnet]);
    near.nodes.retain(|name, _| name == "n1" || name == "n2");
    assert!(!needs_tunnel(Vxlan, "n1", &near));
    node(&mut near, "n2").tunnels.clear();
    assert_eq!(plan_of_n1(&near).tunnels, BTreeMap::new());
}

#[test]
fn hardware_addresses_of_nodes_nodes_count_more_than_their_names() {
    let [own, theirs] = [MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])];
    let mut state = four_vxlan_nodes(&[Always]);
    node(&mut state, "n1").tunnel_macs.insert(Vxlan, own);
    node(&mut state, "n2").tunnel_macs.insert(Vxlan, theirs);
    let plan = plan_of_n1(&state);
    assert_eq!(plan.tunnels[&Vxlan].vxlan.as_ref().unwrap().device.mac, own);
    let entries = entries(&plan, Vxlan);
    for entry in ["10.0.2.1 02:00:00:00:00:02", "02:00:00:00:00:02 172.16.1.2"] {
        assert!(entries.contains(&entry.to_owned()), "{entries:?}");
    }
    assert!(!entries.iter().any(|entry| entry.contains(&Vxlan.mac("n2").unwrap().to_string())));
    // By IPv6 the next hop follows from it.
    let mut state = four_v6_nodes(Always);
    node(&mut state, "n2").tunnel_macs.insert(VxlanV6, theirs);
    let plan = plan_cluster("n1", &state, &both_families());
    assert!(text(&plan, "fd00::2:0/122").starts_with("via fe80::ff:fe00:2 dev vxlan-v6.calico"));
}

#[test]
fn a_node_without_a_tunnel_address_is_not_reached_and_named() {
    let mut state = four_vxlan_nodes(&[Always]);
    node(&mut state, "n3").tunnels.clear();
    let plan = plan_of_n1(&state);
    assert_eq!(way(&plan, "10.0.3.0/26"), None);
    assert!(!entries(&plan, Vxlan).iter().any(|entry| entry.contains("172.16.2.1")));
    let told = told(&plan);
    assert!(told.starts_with("node n3 has no VXLAN address yet, so nothing goes to or"), "{told}");
    assert!(told.contains("a pool with vxlanMode and the use Tunnel"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(is_tunnel(&plan, "10.0.2.0/26") && is_tunnel(&plan, "10.0.4.0/26"));
    // What it sends is taken all the same: it may know this node's address already.
    assert!(plan.tunnels[&Vxlan].senders.contains(&net("172.16.2.1/32")));
    // Without one of its own the node sends nothing by VXLAN: others rely on that.
    let mut state = four_vxlan_nodes(&[Always]);
    node(&mut state, "n1").tunnels.clear();
    let plan = plan_of_n1(&state);
    assert_eq!(plan.tunnels[&Vxlan].address, None);
    assert_eq!(way(&plan, "10.0.3.0/26"), None);
    assert!(super::vxlan::told(&plan).starts_with("node n1 has no VXLAN address yet"));
}

/// Its block leads elsewhere, so that without one nothing would reach the node's own processes
/// (Calico's issue 5595).
#[test]
fn a_borrowed_tunnel_address_has_a_route_by_itself() {
    let mut state = four_vxlan_nodes(&[Always]);
    let lent = |address: &str, node: &str| {
        BTreeMap::from([(address.parse::<IpAddr>().unwrap(), node.to_owned())])
    };
    node(&mut state, "n2").tunnels.insert(Vxlan, [10, 0, 3, 9].into());
    node(&mut state, "n1").tunnels.insert(Vxlan, [10, 0, 4, 9].into());
    state.borrowed.insert(net("10.0.3.0/26"), lent("10.0.3.9", "n2"));
    state.borrowed.insert(net("10.0.4.0/26"), lent("10.0.4.9", "n1"));
    let plan = plan_of_n1(&state);
    let by_itself = "via 10.0.3.9 dev vxlan.calico onlink src 10.0.4.9";
    assert_eq!(text(&plan, "10.0.3.9/32"), by_itself);
    assert_eq!(text(&plan, "10.0.2.0/26"), by_itself);
    assert_eq!(text(&plan, "10.0.3.0/26"), "via 10.0.3.1 dev vxlan.calico onlink src 10.0.4.9");
    assert_eq!(way(&plan, "10.0.4.9/32"), None, "it is on this node's device");
    let mut state = four_v6_nodes(Always);
    node(&mut state, "n2").tunnels.insert(VxlanV6, "fd00::3:9".parse().unwrap());
    state.borrowed.insert(net("fd00::3:0/122"), lent("fd00::3:9", "n2"));
    let plan = plan_cluster("n1", &state, &both_families());
    assert_eq!(text(&plan, "fd00::3:9/128"), text(&plan, "fd00::2:0/122"));
}

#[test]
fn what_is_configured_of_tunnels_counts() {
    let mut state = four_v6_nodes(Always);
    state.pools.insert("v4".into(), pool_of(Vxlan, "10.0.0.0/16", Always));
    state.pools.insert("ipip".into(), pool("10.1.0.0/16", Always));
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
    let numbers = [
        ("vxlanVNI", 7),
        ("vxlanPort", 8472),
        ("ipipMTU", 1300),
        ("vxlanMTU", 1310),
        ("vxlanMTUV6", 1320),
    ];
    let settings = TunnelSettings(FelixConfiguration {
        numbers: numbers.map(|(field, number)| (field.to_owned(), number)).into(),
        external_nodes: Some(nets(&["192.0.2.0/24", "2001:db8::7/128"])),
        ..FelixConfiguration::default()
    });
    let tunnels = plan_tunnels("n1", &state, &both_families(), &settings);
    for (kind, mtu, external) in [(Vxlan, 1310, "192.0.2.0/24"), (VxlanV6, 1320, "2001:db8::7/128")]
    {
        let tunnel = &tunnels[&kind];
        let device = &tunnel.vxlan.as_ref().unwrap().device;
        assert_eq!((device.vni, device.port, tunnel.mtu), (7, 8472, mtu));
        assert!(tunnel.senders.contains(&net(external)));
        assert_eq!(tunnel.senders.len(), 4, "three nodes, and those of its family");
    }
    // The list is of VXLAN alone, as in Calico.
    assert_eq!((tunnels[&Ipip].mtu, tunnels[&Ipip].senders.len()), (1300, 3));
    assert_eq!(pod_mtu(1500, state.pools.values(), &settings), 1300);
    assert_eq!(pod_mtu(1200, state.pools.values(), &settings), 1130, "no more than fits");
}

#[test]
fn the_smallest_of_all_tunnels_is_the_mtu_of_containers() {
    let pools = |kinds: &[TunnelKind]| {
        let range =
            |kind: &TunnelKind| if kind.row().is_ipv6 { "fd00::/64" } else { "10.0.0.0/16" };
        kinds.iter().map(|kind| pool_of(*kind, range(kind), CrossSubnet)).collect::<Vec<_>>()
    };
    for (kinds, less) in [
        (&[][..], 0),
        (&[Ipip], 20),
        (&[Vxlan, Ipip], 50),
        (&[Vxlan], 50),
        (&[VxlanV6], 70),
        (&[Ipip, Vxlan, VxlanV6], 70),
    ] {
        for uplink in [1500, 9000] {
            let settings = TunnelSettings::default();
            assert_eq!(pod_mtu(uplink, &pools(kinds), &settings), uplink - less, "{kinds:?}");
        }
    }
    let mut state = four_v6_nodes(Always);
    state.pools.insert("ipip".into(), pool("10.1.0.0/16", Always));
    let plan = plan_cluster("n1", &state, &both_families());
    let mtus: Vec<u32> = plan.tunnels.values().map(|tunnel| tunnel.mtu).collect();
    assert_eq!((mtus, plan.pod_mtu), (vec![1480, 1430], 1430));
}

/// What the containers of a pool have does not end when the pool gives no more (Calico's issue
/// 3672).
#[test]
fn a_disabled_pool_keeps_its_ways() {
    let of_pool = |disabled| {
        let mut state = four_vxlan_nodes(&[Always]);
        let range = net("10.0.0.0/16");
        let pool =
            IpPool { modes: [("vxlanMode", Always)].into(), disabled, ..IpPool::new("p0", range) };
        state.pools.insert("p0".into(), ClusterPool::from(&pool));
        (plan_of_n1(&state), has_settled_tunnels("n1", &state))
    };
    assert!(is_tunnel(&of_pool(false).0, "10.0.3.0/26"));
    assert_eq!(of_pool(true), of_pool(false));
}

/// No node gets an address then: it is said, and whatever is repeated changes nothing.
#[test]
fn a_pool_that_gives_tunnels_no_address_is_a_problem_and_nothing_flaps() {
    let mut state = four_vxlan_nodes(&[CrossSubnet]);
    let allowed_uses = vec![crate::resources::AllowedUse::Workload];
    let range = net("10.0.0.0/16");
    let workload = IpPool {
        modes: [("vxlanMode", CrossSubnet)].into(),
        allowed_uses,
        ..IpPool::new("p0", range)
    };
    state.pools.insert("p0".into(), ClusterPool::from(&workload));
    state.nodes.values_mut().for_each(|node| node.tunnels.clear());
    assert!(needs_tunnel(Vxlan, "n1", &state) && !has_settled_tunnel(Vxlan, "n1", &state));
    let plan = plan_of_n1(&state);
    assert!(is_direct(&plan, "10.0.2.0/26"));
    let told = told(&plan);
    assert!(told.contains("node n1 has no VXLAN address"), "{told}");
    let mut actual = ActualState::default();
    for change in &diff(&plan, &actual).changes {
        changes::carry_out(&mut actual, change);
    }
    assert_eq!(diff(&plan, &actual).changes, []);
    assert_eq!(actual.routes.len(), 2, "the own block and that of n2");
}

#[test]
fn a_node_without_an_address_of_the_family_has_no_tunnel_of_it() {
    let mut state = four_v6_nodes(Always);
    node(&mut state, "n1").ipv6 = None;
    let plan = plan_cluster("n1", &state, &both_families());
    assert_eq!(plan.tunnels, BTreeMap::new());
    assert!(told(&plan).contains("node n1 is not registered with an IPv6 address"));
    // Of a peer without one nothing is known.
    let mut state = four_v6_nodes(Always);
    node(&mut state, "n3").ipv6 = None;
    let plan = plan_cluster("n1", &state, &both_families());
    assert_eq!(entries(&plan, VxlanV6).len(), 4);
    assert!(told(&plan).contains("is on node n3, which has no address to reach it by"));
}

#[test]
fn ipv6_nodes_of_one_address_each_are_told_how_to_share_a_subnet() {
    let mut state = four_v6_nodes(CrossSubnet);
    node(&mut state, "n1").ipv6 = Some(net("fd01:1::1/128"));
    let told = told(&plan_cluster("n1", &state, &both_families()));
    let advice = "give spec.bgp.ipv6Address of the Node its prefix length, as fd01:1::1/64";
    assert!(told.contains(advice), "{told}");
}

/// VXLAN sends from the address that its device is told, unlike IPIP.
#[test]
fn vxlan_may_send_from_a_secondary_address() {
    let addresses = vec![net("172.16.1.9/24"), net("172.16.1.1/24")];
    let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
    let underlay = Underlay { links: vec![link], ..Underlay::default() };
    let plan = plan_cluster("n1", &four_vxlan_nodes(&[Always]), &underlay);
    assert_eq!(plan.problems, BTreeSet::new());
    let device = &plan.tunnels[&Vxlan].vxlan.as_ref().unwrap().device;
    assert_eq!(device.local, IpAddr::from([172, 16, 1, 1]));
}

/// Names of one form give the device's command, and what goes with it.
#[test]
fn the_commands_of_a_first_plan_are_those_of_iproute2() {
    let plan = plan_of_n1(&four_vxlan_nodes(&[CrossSubnet]));
    let changes = diff(&plan, &ActualState::default()).changes;
    let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let expected = [
        "ip link add vxlan.calico address 66:40:b3:ea:b6:3f type vxlan id 4096 dstport 4789 local \
         172.16.1.1 nolearning dev eth0",
        "ip link set vxlan.calico alias weir",
        "ip link set vxlan.calico mtu 1450",
        "ip address add 10.0.1.1/32 dev vxlan.calico",
        "ip address add 169.254.191.1/32 dev vxlan.calico",
        "ip link set vxlan.calico up",
        "sysctl -w net/ipv4/conf/vxlan.calico/rp_filter=2",
        "bridge fdb replace 66:26:c2:ce:28:d0 dev vxlan.calico dst 172.16.2.1 self permanent",
        "bridge fdb replace 66:40:24:34:76:fc dev vxlan.calico dst 172.16.1.2 self permanent",
        "bridge fdb replace 66:f3:34:2a:76:bd dev vxlan.calico dst 172.16.2.2 self permanent",
        "ip neighbour replace 10.0.2.1 lladdr 66:40:24:34:76:fc dev vxlan.calico nud permanent",
        "ip neighbour replace 10.0.3.1 lladdr 66:26:c2:ce:28:d0 dev vxlan.calico nud permanent",
        "ip neighbour replace 10.0.4.1 lladdr 66:f3:34:2a:76:bd dev vxlan.calico nud permanent",
        "ip route add blackhole 10.0.1.0/26 proto 77",
        "ip route add 10.0.2.0/26 via 172.16.1.2 dev eth0 src 172.16.1.1 proto 77",
        "ip route add 10.0.3.0/26 via 10.0.3.1 dev vxlan.calico onlink src 10.0.1.1 proto 77",
        "ip route add 10.0.4.0/26 via 10.0.4.1 dev vxlan.calico onlink src 10.0.1.1 proto 77",
    ];
    assert_eq!(texts, expected);
}
