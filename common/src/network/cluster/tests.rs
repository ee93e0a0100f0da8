//! Examples and properties of the plan and of the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use super::*;
use crate::ipam::Family;
use crate::resources::EncapsulationMode::{self, Always, CrossSubnet, Never};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peer(ipv4: &str) -> Peer {
    Peer { ipv4: Some(net(ipv4)), ..Peer::default() }
}

fn pool(cidr: &str, ipip_mode: EncapsulationMode) -> ClusterPool {
    ClusterPool {
        cidr: net(cidr),
        ipip_mode,
        vxlan: false,
        nat_outgoing: false,
        has_tunnel_addresses: ipip_mode != Never,
    }
}

/// Two nodes in 172.16.1.0/24 and two in 172.16.2.0/24; a pool of each mode; a
/// block of each pool on every node.
fn four_nodes(modes: &[EncapsulationMode]) -> Inventory {
    let mut inventory = Inventory::default();
    for (number, address) in
        ["172.16.1.1/24", "172.16.1.2/24", "172.16.2.1/24", "172.16.2.2/24"].iter().enumerate()
    {
        inventory.nodes.insert(format!("n{}", number + 1), peer(address));
    }
    for (index, mode) in modes.iter().enumerate() {
        inventory.pools.insert(format!("p{index}"), pool(&format!("10.{index}.0.0/16"), *mode));
        for number in 1..=4 {
            let block = net(&format!("10.{index}.{number}.0/26"));
            inventory.blocks.insert(block, BTreeSet::from([format!("n{number}")]));
        }
    }
    inventory
}

fn underlay(address: &str) -> Underlay {
    let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses: vec![net(address)] };
    Underlay { links: vec![link] }
}

fn plan_of_n1(inventory: &Inventory) -> ClusterPlan {
    plan_cluster("n1", inventory, &underlay("172.16.1.1/24"))
}

fn way<'a>(plan: &'a ClusterPlan, destination: &str) -> Option<&'a Way> {
    plan.routes.get(&net(destination))
}

fn is_tunnel(plan: &ClusterPlan, destination: &str) -> bool {
    matches!(way(plan, destination), Some(Way::Tunnel { .. }))
}

fn is_direct(plan: &ClusterPlan, destination: &str) -> bool {
    matches!(way(plan, destination), Some(Way::Direct { .. }))
}

#[test]
fn a_pool_without_ipip_goes_by_the_shared_link_and_is_left_to_bgp_elsewhere() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    assert_eq!(plan.tunnel, None);
    let direct = Way::Direct {
        next_hop: "172.16.1.2".parse().unwrap(),
        link: "eth0".into(),
        source: "172.16.1.1".parse().unwrap(),
    };
    assert_eq!(way(&plan, "10.0.2.0/26"), Some(&direct));
    assert_eq!(way(&plan, "10.0.3.0/26"), None);
    let (_, problems) = difference(&plan, &Present::default());
    let named = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(named.contains("node n3 (172.16.2.1) is not on a link"), "{named}");
    assert_eq!(plan.pod_mtu, 1500);
}

/// A routing daemon has routes to all blocks, and drops what is for this node's own.
#[test]
fn what_another_programs_routes_do_as_well_is_no_problem() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    let nets = |ranges: &[&str]| ranges.iter().map(|range| net(range)).collect::<BTreeSet<_>>();
    let daemon = |led: &[&str]| Present {
        foreign: nets(&["10.0.1.0/26", "10.0.2.0/26", "10.0.3.0/26"]),
        dropped_by_others: nets(&["10.0.1.0/26"]),
        led_by_others: led.iter().map(|range| (net(range), BTreeSet::new())).collect(),
        ..Present::default()
    };
    // By each block, or by a range around some of them.
    for led in [&["10.0.2.0/26", "10.0.3.0/26", "10.0.4.0/26"][..], &["10.0.2.0/26", "10.0.0.0/16"]]
    {
        assert_eq!(difference(&plan, &daemon(led)), Default::default());
    }
    let (_, problems) = difference(&plan, &daemon(&["10.0.3.0/26", "10.0.4.0/27"]));
    let (node, next_hop) = ("n4".to_owned(), "172.16.2.2".parse().unwrap());
    let expected = [
        Problem::NextHopNotOnLink { node, next_hop, cross_subnet: false },
        Problem::ForeignRoute { destination: net("10.0.2.0/26") },
    ];
    assert_eq!(problems, expected.into(), "a part of a block is not enough");
    // What is to be tunnelled is not reached as the pool asks.
    let plan = plan_of_n1(&four_nodes(&[Always]));
    let (_, problems) = difference(&plan, &daemon(&["10.0.2.0/26", "10.0.3.0/26"]));
    let expected = ["10.0.2.0/26", "10.0.3.0/26"].map(net);
    assert_eq!(problems, expected.map(|destination| Problem::ForeignRoute { destination }).into());
}

/// A routing daemon that was killed leaves routes behind, to nodes of before.
#[test]
fn another_programs_route_to_another_node_than_the_blocks_is_reported() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    let told = |route: &str, next_hops: &[&str]| {
        let next_hops = next_hops.iter().map(|it| it.parse().unwrap()).collect();
        // All others are served.
        let mut led_by_others: BTreeMap<_, _> =
            ["10.0.3.0/26", "10.0.4.0/26"].map(|range| (net(range), BTreeSet::new())).into();
        led_by_others.insert(net(route), next_hops);
        let foreign = BTreeSet::from([net(route)]);
        let present = Present { foreign, led_by_others, ..Present::default() };
        let (_, problems) = difference(&plan, &present);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    // To where the block is, by a router, or by a link.
    for next_hops in [&["172.16.1.2"][..], &["172.16.1.254"], &[]] {
        assert_eq!(told("10.0.2.0/26", next_hops), "");
    }
    for next_hops in [&["172.16.2.1"][..], &["172.16.2.1", "172.16.1.254"], &[]] {
        assert_eq!(told("10.0.3.0/26", next_hops), "");
    }
    let astray = "10.0.2.0/26 is on the node at 172.16.1.2, and another program's route leads to \
                  node n4 (172.16.2.2) instead; look at it with \"ip route show 10.0.2.0/26\"";
    assert!(told("10.0.2.0/26", &["172.16.2.2"]).starts_with(astray));
    assert!(told("10.0.2.0/26", &["172.16.1.2", "172.16.2.2"]).starts_with(astray));
    let left = told("10.0.3.0/26", &["172.16.1.2"]);
    assert!(left.starts_with("10.0.3.0/26 is on the node at 172.16.2.1"), "{left}");
    // A range around is looked at where there is none of the block's own.
    assert_eq!(told("10.0.0.0/16", &["172.16.1.2"]), "");
    let mut present = Present::default();
    present.led_by_others.insert(net("10.0.0.0/16"), ["172.16.1.2".parse().unwrap()].into());
    let (_, problems) = difference(&plan, &present);
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("look at it with \"ip route show 10.0.0.0/16\""), "{problems:?}");
}

#[test]
fn of_several_addresses_in_one_subnet_the_registered_one_sends_or_else_the_first() {
    let inventory = four_nodes(&[Never]);
    let source = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| net(address)).collect();
        let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
        let plan = plan_cluster("n1", &inventory, &Underlay { links: vec![link] });
        match way(&plan, "10.0.2.0/26") {
            Some(Way::Direct { source, .. }) => source.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(source(&["172.16.1.1/24", "172.16.1.9/24"]), "172.16.1.1");
    assert_eq!(source(&["172.16.1.9/24", "172.16.1.1/24"]), "172.16.1.1");
    assert_eq!(source(&["172.16.1.8/24", "172.16.1.9/24"]), "172.16.1.8");
    // A longer prefix comes first, as in the kernel.
    assert_eq!(source(&["172.16.1.1/24", "172.16.1.9/28"]), "172.16.1.9");
}

#[test]
fn a_new_tunnel_address_is_there_before_the_old_one_goes() {
    let mut inventory = four_nodes(&[Always]);
    let mut with_address = |host: u8| {
        let tunnel = Some(Ipv4Addr::new(10, 0, 1, host));
        inventory.nodes.get_mut("n1").unwrap().tunnel = tunnel;
        plan_of_n1(&inventory)
    };
    let mut present = Present::default();
    for change in difference(&with_address(1), &present).0 {
        carry_out(&mut present, &change);
    }
    let changes = difference(&with_address(2), &present).0;
    let place = |wanted: &Change| changes.iter().position(|change| change == wanted).unwrap();
    let added = place(&Change::AddTunnelAddress(Ipv4Addr::new(10, 0, 1, 2)));
    let removed = place(&Change::RemoveTunnelAddress(Ipv4Addr::new(10, 0, 1, 1).into()));
    let is_replacement = |change: &Change| matches!(change, Change::ReplaceRoute(..));
    assert!(added < removed);
    assert_eq!(changes[added..removed].iter().filter(|change| is_replacement(change)).count(), 3);
}

#[test]
fn a_pool_with_ipip_always_is_tunnelled_to_every_node() {
    let plan = plan_of_n1(&four_nodes(&[Always]));
    for destination in ["10.0.2.0/26", "10.0.3.0/26", "10.0.4.0/26"] {
        assert!(is_tunnel(&plan, destination), "{destination}");
    }
    let tunnel = plan.tunnel.unwrap();
    assert_eq!(tunnel.mtu, 1480);
    let peers: Vec<String> = tunnel.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["172.16.1.2", "172.16.2.1", "172.16.2.2"]);
    assert_eq!(plan.pod_mtu, 1480);
    assert!(plan.problems.is_empty());
}

#[test]
fn a_cross_subnet_pool_is_tunnelled_to_other_subnets_alone() {
    let plan = plan_of_n1(&four_nodes(&[CrossSubnet, CrossSubnet]));
    for pool in 0..2 {
        assert!(is_direct(&plan, &format!("10.{pool}.2.0/26")));
        assert!(is_tunnel(&plan, &format!("10.{pool}.3.0/26")));
        assert!(is_tunnel(&plan, &format!("10.{pool}.4.0/26")));
    }
}

#[test]
fn cross_subnet_goes_by_this_nodes_own_prefix() {
    let mut inventory = four_nodes(&[CrossSubnet]);
    inventory.nodes.insert("n1".into(), peer("172.16.1.1/32"));
    assert!(is_tunnel(&plan_of_n1(&inventory), "10.0.2.0/26"), "a /32 has no neighbours");
    // The other side still sees both in its /24, sends directly, and must be let in.
    let tunnel = plan_of_n1(&inventory).tunnel.unwrap();
    assert_eq!(tunnel.lopsided, BTreeSet::from(["eth0".to_owned()]));
    let theirs = plan_cluster("n2", &inventory, &underlay("172.16.1.2/24"));
    assert!(is_direct(&theirs, "10.0.1.0/26"));
    assert!(theirs.tunnel.is_some(), "n1 tunnels to it");
}

#[test]
fn a_tunnel_from_a_secondary_address_is_reported() {
    let told = |mode, addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| net(address)).collect();
        let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
        let plan = plan_cluster("n1", &four_nodes(&[mode]), &Underlay { links: vec![link] });
        plan.problems.iter().any(|problem| matches!(problem, Problem::SecondaryAddress { .. }))
    };
    assert!(told(Always, &["172.16.1.9/24", "172.16.1.1/24"]));
    assert!(!told(Always, &["172.16.1.1/24", "172.16.1.9/24"]));
    assert!(!told(Always, &["10.99.0.9/24", "172.16.1.1/24"]), "another subnet's");
    assert!(!told(Never, &["172.16.1.9/24", "172.16.1.1/24"]));
}

#[test]
fn no_tunnel_without_a_peer_behind_it() {
    let mut inventory = four_nodes(&[CrossSubnet]);
    inventory.nodes.retain(|name, _| name == "n1" || name == "n2");
    assert!(!needs_tunnel("n1", &inventory));
    inventory.pools.insert("always".into(), pool("10.9.0.0/16", Always));
    assert!(needs_tunnel("n1", &inventory));
    inventory.nodes.retain(|name, _| name == "n1");
    assert!(!needs_tunnel("n1", &inventory), "there is nobody to tunnel to");
}

#[test]
fn own_blocks_are_blackholes_unless_of_one_address() {
    let mut inventory = four_nodes(&[Never]);
    inventory.blocks.insert(net("10.0.200.7/32"), BTreeSet::from(["n1".into()]));
    let plan = plan_of_n1(&inventory);
    assert_eq!(way(&plan, "10.0.1.0/26"), Some(&Way::Blackhole));
    assert_eq!(way(&plan, "10.0.200.7/32"), None);
}

#[test]
fn addresses_that_may_be_borrowed_stay() {
    let mut plan = plan_of_n1(&four_nodes(&[Never]));
    plan.keeps_addresses = true;
    let routes = ["10.0.9.9/32", "10.0.9.0/26"].map(|range| (net(range), Some(Way::Blackhole)));
    let present = Present { routes: routes.clone().into(), ..Present::default() };
    let deleted = |change: &Change| matches!(change, Change::DeleteRoute(..));
    let changes = difference(&plan, &present).0;
    let deletions: Vec<_> = changes.into_iter().filter(deleted).collect();
    assert_eq!(deletions, [Change::DeleteRoute(routes[1].0, Some(Way::Blackhole))]);
}

#[test]
fn a_borrowed_address_has_a_route_of_its_own() {
    let mut inventory = four_nodes(&[Never, Always]);
    let borrow = |address: &str, node: &str| {
        BTreeMap::from([(address.parse::<IpAddr>().unwrap(), node.to_owned())])
    };
    // n2 has an address of n1's block, n3 one of n2's, and n1 itself one of n4's.
    inventory.borrowed.insert(net("10.0.1.0/26"), borrow("10.0.1.9", "n2"));
    inventory.borrowed.insert(net("10.1.2.0/26"), borrow("10.1.2.9", "n3"));
    inventory.borrowed.insert(net("10.1.4.0/26"), borrow("10.1.4.9", "n1"));
    let plan = plan_of_n1(&inventory);
    assert!(is_direct(&plan, "10.0.1.9/32"));
    assert!(is_tunnel(&plan, "10.1.2.9/32"));
    assert_eq!(way(&plan, "10.1.4.9/32"), None, "ADD made the container's own route");
}

#[test]
fn the_only_address_of_a_block_is_where_it_is_borrowed() {
    let mut inventory = four_nodes(&[Never]);
    let (block, address) = (net("10.0.200.7/32"), IpAddr::from([10, 0, 200, 7]));
    let mut lent = |owner: &str, borrower: &str| {
        inventory.blocks.insert(block, BTreeSet::from([owner.to_owned()]));
        inventory.borrowed.insert(block, BTreeMap::from([(address, borrower.to_owned())]));
        plan_of_n1(&inventory)
    };
    assert_eq!(way(&lent("n2", "n1"), "10.0.200.7/32"), None, "ADD made the container's own route");
    assert!(is_direct(&lent("n1", "n2"), "10.0.200.7/32"));
    // n3 is behind a router that has to know.
    let plan = lent("n2", "n3");
    assert_eq!(way(&plan, "10.0.200.7/32"), None);
    assert!(plan.left_to_others.contains_key(&block));
    let plan = lent("n3", "n2");
    assert!(is_direct(&plan, "10.0.200.7/32") && !plan.left_to_others.contains_key(&block));
}

/// Whatever the order of the links, and whichever way packets to other nodes go.
#[test]
fn the_mtu_is_that_of_the_link_with_the_nodes_address() {
    let link = |name: &str, mtu, address| UnderlayLink {
        name: name.to_owned(),
        mtu,
        addresses: vec![net(address)],
    };
    for (own, other) in [(1400, 9000), (9000, 1400), (1500, 1500)] {
        let links = [link("eth0", other, "192.0.2.1/24"), link("eth1", own, "172.16.1.1/24")];
        let turned = [links[1].clone(), links[0].clone()];
        for links in [links, turned].map(Vec::from) {
            for (mode, less) in [(Never, 0), (Always, 20), (CrossSubnet, 20)] {
                let underlay = Underlay { links: links.clone() };
                let plan = plan_cluster("n1", &four_nodes(&[mode]), &underlay);
                assert_eq!(plan.pod_mtu, own - less, "{mode:?}");
                let tunnel = plan.tunnel.map(|tunnel| tunnel.mtu);
                assert_eq!(tunnel, (mode != Never).then_some(own - 20), "{mode:?}");
            }
            // Without its address here the smallest is safe.
            let mut inventory = four_nodes(&[Always]);
            inventory.nodes.insert("n1".into(), peer("172.16.9.9/24"));
            let plan = plan_cluster("n1", &inventory, &Underlay { links });
            assert_eq!(plan.pod_mtu, own.min(other) - 20);
            assert_eq!(plan.tunnel.map(|tunnel| tunnel.mtu), Some(own.min(other) - 20));
        }
    }
}

#[test]
fn ipv6_never_tunnels() {
    let mut inventory = four_nodes(&[Always]);
    inventory.pools.insert("v6".into(), pool("fd00::/48", Always));
    for (name, address) in [("n1", "fd01::1/64"), ("n2", "fd01::2/64")] {
        inventory.nodes.get_mut(name).unwrap().ipv6 = Some(net(address));
    }
    inventory.blocks.insert(net("fd00::40/122"), BTreeSet::from(["n2".into()]));
    let mut underlay = underlay("172.16.1.1/24");
    underlay.links[0].addresses.push(net("fd01::1/64"));
    assert!(is_direct(&plan_cluster("n1", &inventory, &underlay), "fd00::40/122"));
}

#[test]
fn what_cannot_be_routed_is_named_and_the_rest_goes_on() {
    let mut inventory = four_nodes(&[Never, Always]);
    inventory.nodes.remove("n2");
    inventory.blocks.insert(net("10.1.3.0/26"), BTreeSet::from(["n3".into(), "n4".into()]));
    inventory.pools.get_mut("p0").unwrap().vxlan = true;
    let plan = plan_of_n1(&inventory);
    let kinds = plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in ["is on node n2, which has no address", "several hosts (n3, n4)", "asks for VXLAN"]
    {
        assert!(kinds.contains(part), "{part}: {kinds}");
    }
    assert!(is_tunnel(&plan, "10.1.4.0/26"));
}

#[test]
fn blocks_of_a_pool_whose_key_is_gone_are_routed_without_tunnel_and_reported() {
    let mut inventory = four_nodes(&[Always, Never]);
    assert!(!told(&plan_of_n1(&inventory)).contains("in no pool"));
    inventory.pools.remove("p0");
    let plan = plan_of_n1(&inventory);
    assert_eq!(plan.tunnel, None);
    assert!(is_direct(&plan, "10.0.2.0/26"));
    assert!(plan.left_to_others.contains_key(&net("10.0.3.0/26")));
    let told = told(&plan);
    assert!(told.contains("block 10.0.1.0/26 (and 3 more) lies in no pool"), "{told}");
}

#[test]
fn of_several_hosts_of_a_block_the_one_that_it_names_counts() {
    let mut inventory = four_nodes(&[Never]);
    let block = net("10.0.2.0/26");
    inventory.blocks.insert(block, ["n1", "n2", "n3"].map(str::to_owned).into());
    let mut named = |home: Option<&str>| {
        inventory.homes = home.map(|home| (block, home.to_owned())).into_iter().collect();
        let plan = plan_of_n1(&inventory);
        (plan.routes.get(&block).cloned(), told(&plan).contains("several hosts (n1, n2, n3)"))
    };
    assert!(matches!(named(Some("n2")), (Some(Way::Direct { .. }), false)));
    assert_eq!(named(Some("n1")), (Some(Way::Blackhole), false));
    // Nobody's, of one that claims no more, or not read.
    assert_eq!(named(Some("n4")), (None, true));
    assert_eq!(named(None), (None, true));
}

/// What is said of this plan's problems, in an empty kernel.
fn told(plan: &ClusterPlan) -> String {
    let (_, problems) = difference(plan, &Present::default());
    let all = plan.problems.iter().chain(&problems);
    all.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn advice_fits_the_family_and_the_mode() {
    let bgp = "(172.16.2.1) is not on a link of this node and its pool does not tunnel to it; a \
               routing daemon (BGP) must provide the routes";
    let never = told(&plan_of_n1(&four_nodes(&[Never])));
    assert!(
        never.contains(&format!("{bgp}, or set ipipMode of the pool to CrossSubnet")),
        "{never}"
    );
    // The registered subnet reaches further than the link.
    let mut inventory = four_nodes(&[CrossSubnet]);
    inventory.nodes.insert("n1".into(), peer("172.16.1.1/16"));
    let cross = told(&plan_of_n1(&inventory));
    assert!(
        cross.contains(&format!("{bgp}, or give spec.bgp.ipv4Address of this Node")),
        "{cross}"
    );
    assert!(!cross.contains("set ipipMode"), "{cross}");

    let mut inventory = four_nodes(&[Always]);
    inventory.pools.insert("v6".into(), pool("fd00::/48", Never));
    inventory.nodes.get_mut("n2").unwrap().ipv6 = Some(net("fd02::2/64"));
    inventory.blocks.insert(net("fd00::40/122"), BTreeSet::from(["n2".into()]));
    let unregistered = told(&plan_of_n1(&inventory));
    let option = "weirctl node run --ip6-autodetection-method first-found\", or restart it";
    assert!(unregistered.contains(option), "{unregistered}");
    assert!(unregistered.contains("ipv6Address in spec.bgp"), "{unregistered}");
    inventory.nodes.get_mut("n1").unwrap().ipv6 = Some(net("fd01::1/64"));
    let v6 = told(&plan_of_n1(&inventory));
    assert!(v6.contains("correct spec.bgp.ipv6Address of the Node"), "{v6}");
    assert!(v6.contains("must provide the routes"), "{v6}");
    assert!(!v6.contains("ipv4Address") && !v6.contains("ipipMode"), "{v6}");
}

#[test]
fn an_unregistered_node_keeps_its_own_blocks_and_nothing_else() {
    let mut inventory = four_nodes(&[Always]);
    inventory.nodes.remove("n1");
    let plan = plan_of_n1(&inventory);
    assert_eq!(plan.routes.len(), 1);
    assert_eq!(plan.tunnel, None);
    let problem = Problem::NotRegistered { node: "n1".into(), family: Family::V4 };
    assert!(plan.problems.contains(&problem));
}

/// The kernel, as far as changes go.
fn carry_out(present: &mut Present, change: &Change) {
    let missing = "the tunnel device is there before it is used";
    match change {
        Change::CreateTunnel => {
            assert!(present.tunnel.is_none());
            present.tunnel = Some(PresentTunnel { mtu: 1480, ..PresentTunnel::default() });
        }
        Change::ClaimTunnel => present.tunnel.as_mut().expect(missing).claimed = true,
        Change::DisclaimTunnel => present.tunnel.as_mut().expect(missing).claimed = false,
        Change::SetTunnelMtu(mtu) => present.tunnel.as_mut().expect(missing).mtu = *mtu,
        Change::AddTunnelAddress(address) => {
            let added = present.tunnel.as_mut().expect(missing).addresses.insert((*address).into());
            assert!(added, "{address} is there already");
        }
        Change::RemoveTunnelAddress(address) => {
            assert!(present.tunnel.as_mut().expect(missing).addresses.remove(address));
            let sends_from_it = |way: &Option<Way>| {
                matches!(way, Some(Way::Tunnel { source: Some(source), .. })
                    if *source == address.addr())
            };
            present.routes.retain(|_, way| !sends_from_it(way));
        }
        Change::SetTunnelUp => present.tunnel.as_mut().expect(missing).up = true,
        Change::SetTunnelDown => {
            present.tunnel.as_mut().expect(missing).up = false;
            present.routes.retain(|_, way| !matches!(way, Some(Way::Tunnel { .. })));
        }
        Change::LoosenReversePath(link) => {
            present.strict.remove(link);
        }
        Change::AddRoute(destination, way) => {
            assert!(!present.foreign.contains(destination), "{destination} is somebody else's");
            assert_usable(present, way);
            let before = present.routes.insert(*destination, Some(way.clone()));
            assert_eq!(before, None, "{destination} had a route");
        }
        Change::ReplaceRoute(destination, way) => {
            assert_usable(present, way);
            let before = present.routes.insert(*destination, Some(way.clone()));
            assert!(before.is_some(), "{destination} had no route of Weir's");
        }
        Change::DeleteRoute(destination, way) => {
            assert_eq!(present.routes.remove(destination).as_ref(), Some(way));
        }
    }
}

fn assert_usable(present: &Present, way: &Way) {
    if let Way::Tunnel { source, .. } = way {
        let tunnel = present.tunnel.as_ref().expect("a tunnel route needs the device");
        assert!(tunnel.up, "a tunnel route needs the device up");
        let has = |source: Ipv4Addr| tunnel.addresses.contains(&Ipv4Net::from(source));
        assert!(source.is_none_or(has), "the route's source is on the device");
    }
}

fn some_node() -> impl Strategy<Value = Peer> {
    let address = (1u8..=2, 1u8..=4, prop::sample::select(vec![16u8, 24, 32]));
    (prop::option::weighted(0.9, address), prop::option::of(1u8..4)).prop_map(
        |(address, tunnel)| {
            let v4 = |(subnet, host, length)| {
                IpNet::new(Ipv4Addr::new(172, 16, subnet, host).into(), length).unwrap()
            };
            let tunnel = tunnel.map(|host| Ipv4Addr::new(10, 3, 0, host));
            Peer { ipv4: address.map(v4), ipv6: None, tunnel }
        },
    )
}

fn some_inventory() -> impl Strategy<Value = Inventory> {
    let mode = prop::sample::select(vec![Never, Always, CrossSubnet]);
    let node_name = || (1u8..=4).prop_map(|number| format!("n{number}"));
    let address = (0u8..4, 0u8..4, 0u8..64)
        .prop_map(|(pool, block, host)| IpAddr::from([10, pool, block, host]));
    (
        prop::collection::btree_map(node_name(), some_node(), 0..=4),
        prop::collection::btree_map(0u8..4, (mode, any::<bool>(), any::<bool>()), 0..=4),
        prop::collection::btree_map((0u8..4, 0u8..4), node_name(), 0..12),
        prop::collection::btree_map(address, node_name(), 0..6),
    )
        .prop_map(|(nodes, pools, blocks, borrowed)| {
            let mut inventory = Inventory { nodes, ..Inventory::default() };
            for (index, (mode, nat_outgoing, vxlan)) in pools {
                let pool = ClusterPool {
                    nat_outgoing,
                    vxlan: vxlan && mode == Never,
                    ..pool(&format!("10.{index}.0.0/16"), mode)
                };
                inventory.pools.insert(format!("p{index}"), pool);
            }
            for ((pool, block), host) in blocks {
                let cidr = net(&format!("10.{pool}.{block}.0/26"));
                inventory.blocks.insert(cidr, BTreeSet::from([host]));
            }
            for (address, host) in borrowed {
                let block = IpNet::new(address, 26).unwrap().trunc();
                inventory.borrowed.entry(block).or_default().insert(address, host);
            }
            inventory
        })
}

fn some_way() -> impl Strategy<Value = Way> {
    let next_hop = || (1u8..=2, 1u8..=4).prop_map(|(a, b)| Ipv4Addr::new(172, 16, a, b));
    let source = prop::option::of((1u8..4).prop_map(|host| Ipv4Addr::new(10, 3, 0, host)));
    prop_oneof![
        Just(Way::Blackhole),
        next_hop().prop_map(|next_hop| Way::Direct {
            next_hop: next_hop.into(),
            link: "eth0".into(),
            source: Ipv4Addr::new(172, 16, 1, 1).into(),
        }),
        (next_hop(), source).prop_map(|(next_hop, source)| Way::Tunnel { next_hop, source }),
    ]
}

fn some_present() -> impl Strategy<Value = Present> {
    let range =
        || (0u8..4, 0u8..4).prop_map(|(pool, block)| net(&format!("10.{pool}.{block}.0/26")));
    let tunnel = (
        any::<bool>(),
        any::<bool>(),
        prop::sample::select(vec![1400u32, 1480]),
        prop::collection::btree_set((1u8..4).prop_map(|host| [10, 3, 0, host].into()), 0..3),
    );
    let tunnel = tunnel.prop_map(|(claimed, up, mtu, addresses): (_, _, _, BTreeSet<Ipv4Addr>)| {
        let addresses = addresses.into_iter().map(Ipv4Net::from).collect();
        PresentTunnel { claimed, up, mtu, addresses }
    });
    let strict = prop::sample::subsequence(vec!["eth0".to_owned(), "tunl0".to_owned()], 0..=2);
    (
        prop::option::of(tunnel),
        prop::collection::btree_map(range(), prop::option::weighted(0.8, some_way()), 0..10),
        prop::collection::btree_set(range(), 0..4),
        strict,
    )
        .prop_map(|(tunnel, routes, foreign, strict)| {
            let usable = |way: &Option<Way>| match (way, &tunnel) {
                (Some(Way::Tunnel { source, .. }), Some(tunnel)) => {
                    tunnel.up
                        && source.is_none_or(|source| tunnel.addresses.contains(&source.into()))
                }
                (Some(Way::Tunnel { .. }), None) => false,
                _ => true,
            };
            let routes: BTreeMap<_, _> = routes
                .into_iter()
                .filter(|(destination, way)| !foreign.contains(destination) && usable(way))
                .collect();
            let strict = strict.into_iter().collect();
            Present { tunnel, routes, foreign, strict, ..Present::default() }
        })
}

proptest! {
    /// Whatever the kernel has, the changes lead to what the plan says, touch
    /// nothing of anybody else's, and leave nothing to change.
    #[test]
    fn the_difference_leads_to_the_plan(
        inventory in some_inventory(),
        before in some_present(),
    ) {
        let plan = plan_of_n1(&inventory);
        let (changes, problems) = difference(&plan, &before);
        let mut present = before.clone();
        for change in &changes {
            carry_out(&mut present, change);
        }
        let wanted: BTreeMap<IpNet, Option<Way>> = plan
            .routes
            .iter()
            .filter(|(destination, _)| !before.foreign.contains(*destination))
            .map(|(destination, way)| (*destination, Some(way.clone())))
            .collect();
        prop_assert_eq!(&present.routes, &wanted);
        prop_assert_eq!(&present.foreign, &before.foreign);
        let in_the_way = plan.routes.keys().filter(|range| before.foreign.contains(*range));
        let unled: BTreeSet<&Problem> = plan.left_to_others.values().collect();
        prop_assert_eq!(problems.len(), in_the_way.count() + unled.len());
        match &plan.tunnel {
            Some(wanted) => {
                let tunnel = present.tunnel.as_ref().unwrap();
                prop_assert!(tunnel.up && tunnel.claimed);
                prop_assert_eq!(tunnel.mtu, wanted.mtu);
                let address: BTreeSet<Ipv4Net> =
                    wanted.address.into_iter().map(Ipv4Net::from).collect();
                prop_assert_eq!(&tunnel.addresses, &address);
                prop_assert!(!present.strict.contains(TUNNEL_DEVICE));
            }
            None => match before.tunnel.as_ref().filter(|tunnel| tunnel.claimed) {
                Some(_) => {
                    let tunnel = present.tunnel.as_ref().unwrap();
                    prop_assert!(!tunnel.up && !tunnel.claimed && tunnel.addresses.is_empty());
                }
                None => prop_assert_eq!(&present.tunnel, &before.tunnel),
            },
        }
        prop_assert_eq!(difference(&plan, &present).0, Vec::new());
    }

    /// Where both nodes' prefixes are the same subnet, or apart, one sends by
    /// the tunnel if and only if the other does; and whoever uses a tunnel has
    /// one, on both sides.
    #[test]
    fn symmetric_subnets_give_symmetric_ways(inventory in some_inventory()) {
        let mut inventory = inventory;
        for peer in inventory.nodes.values_mut() {
            peer.ipv4 = peer.ipv4.map(|address| IpNet::new(address.addr(), 24).unwrap());
        }
        let plans: BTreeMap<&String, ClusterPlan> = inventory
            .nodes
            .iter()
            .map(|(name, peer)| {
                let addresses = peer.ipv4.into_iter().collect();
                let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
                (name, plan_cluster(name, &inventory, &Underlay { links: vec![link] }))
            })
            .collect();
        let node_of = |address: IpAddr| {
            let mut nodes = inventory.nodes.iter();
            nodes.find(|(_, peer)| peer.ipv4.is_some_and(|own| own.addr() == address))
        };
        for (from, plan) in &plans {
            for (range, way) in &plan.routes {
                let Way::Tunnel { next_hop, .. } = way else { continue };
                prop_assert!(plan.tunnel.is_some(), "{} sends by a tunnel it has not", from);
                let Some((to, _)) = node_of((*next_hop).into()) else { continue };
                prop_assert!(plans[to].tunnel.is_some(), "{} cannot receive from {}", to, from);
                let pool = inventory.pool_of(*range).map(|(name, _)| name);
                let back = plans[to].routes.iter().find(|(range, way)| {
                    inventory.pool_of(**range).map(|(name, _)| name) == pool
                        && matches!(way, Way::Direct { next_hop, .. }
                            if node_of(*next_hop).is_some_and(|(name, _)| name == *from))
                });
                prop_assert!(back.is_none(), "{} answers {} directly", to, from);
            }
        }
    }

    /// Whatever the other nodes' prefixes: a cross-subnet pool goes directly to exactly
    /// those nodes whose address lies in this node's own subnet.
    #[test]
    fn cross_subnet_ways_follow_the_nodes_own_prefix_alone(
        length in 1u8..=32,
        theirs in 1u8..=32,
        // The first bit in which the addresses differ, and the bits after it.
        differs in 0u32..32,
        rest in any::<u32>(),
    ) {
        let own = Ipv4Addr::new(172, 16, 1, 1);
        let bit = 1 << (31 - differs);
        let other = Ipv4Addr::from_bits(own.to_bits() ^ bit ^ (rest & (bit - 1)));
        let mut inventory = four_nodes(&[CrossSubnet]);
        let registered = |address, length| {
            let ipv4 = Some(IpNet::new(IpAddr::V4(address), length).unwrap());
            Peer { ipv4, ..Peer::default() }
        };
        inventory.nodes.insert("n1".into(), registered(own, length));
        inventory.nodes.insert("n2".into(), registered(other, theirs));
        // The link reaches everybody.
        let plan = plan_cluster("n1", &inventory, &underlay("172.16.1.1/0"));
        let near = differs >= length.into();
        prop_assert_eq!(is_direct(&plan, "10.0.2.0/26"), near);
        prop_assert_eq!(is_tunnel(&plan, "10.0.2.0/26"), !near);
    }

    /// An inventory that took the changes one by one is the one that is read
    /// at once: values survive their transport to `weir` too.
    #[test]
    fn an_inventory_survives_its_json(inventory in some_inventory()) {
        let json = serde_json::to_string(&inventory).unwrap();
        prop_assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
    }
}

mod from_the_datastore {
    use super::*;
    use crate::datastore::{Entry, Event, Revision, keys};
    use crate::ipam::{Attribute, Block};

    fn put(inventory: &mut Inventory, key: String, value: &str) -> bool {
        inventory.put(&Entry { key, value: value.into(), revision: Revision(1) })
    }

    fn delete(inventory: &mut Inventory, key: String) -> bool {
        inventory.take(&Event::Delete { key, revision: Revision(2) })
    }

    #[test]
    fn only_confirmed_affinities_count() {
        let mut inventory = Inventory::default();
        let block = net("10.0.1.0/26");
        let key = || keys::affinity("n2", block);
        assert!(!put(&mut inventory, key(), r#"{"state":"pending","deleted":false}"#));
        assert!(put(&mut inventory, key(), r#"{"state":"confirmed","deleted":false}"#));
        assert!(inventory.blocks.contains_key(&block));
        assert!(!put(&mut inventory, key(), r#"{"state":"confirmed","deleted":false}"#));
        assert!(put(&mut inventory, key(), r#"{"state":"pendingDeletion","deleted":false}"#));
        assert!(inventory.blocks.is_empty());
        assert!(put(&mut inventory, key(), "{}"));
        assert!(delete(&mut inventory, key()));
        assert_eq!(inventory, Inventory::default());
    }

    #[test]
    fn addresses_away_from_home_are_borrowed() {
        let holder = |node: &str| Attribute {
            handle_id: Some(format!("net.{node}")),
            secondary: Some(BTreeMap::from([("node".to_owned(), node.to_owned())])),
            ..Attribute::default()
        };
        let mut block = Block::new(net("10.0.1.0/26"), "n1", 1);
        block.attributes = vec![holder("n1"), holder("n2")];
        block.allocations[3] = Some(0);
        block.allocations[4] = Some(1);
        let mut inventory = Inventory::default();
        let key = || keys::block(block.cidr);
        assert!(put(&mut inventory, key(), &serde_json::to_string(&block).unwrap()));
        let away = |inventory: &Inventory| {
            let addresses = inventory.borrowed.values().flatten();
            addresses.map(|(address, node)| format!("{address} {node}")).collect::<Vec<_>>()
        };
        assert_eq!(away(&inventory), ["10.0.1.4 n2"]);
        assert_eq!(inventory.homes, [(block.cidr, "n1".to_owned())].into());
        let mut orphan = block.clone();
        orphan.affinity = None;
        assert!(put(&mut inventory, key(), &serde_json::to_string(&orphan).unwrap()));
        assert_eq!(away(&inventory), ["10.0.1.3 n1", "10.0.1.4 n2"]);
        assert!(inventory.homes.is_empty());
        let home = Block::new(block.cidr, "n2", 1);
        assert!(put(&mut inventory, key(), &serde_json::to_string(&home).unwrap()));
        assert!(!put(&mut inventory, key(), &serde_json::to_string(&home).unwrap()));
        assert!(delete(&mut inventory, key()));
        assert_eq!(inventory, Inventory::default());
    }

    #[test]
    fn an_unreadable_value_leaves_what_was_known_over_a_listing_too() {
        let block = net("10.0.1.0/26");
        let good = [
            (
                keys::node("n2"),
                r#"{"metadata":{"name":"n2"},"spec":{"bgp":{"ipv4Address":"172.16.1.2/24"}}}"#,
            ),
            (keys::pool("p"), r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16"}}"#),
            (keys::affinity("n2", block), r#"{"state":"confirmed"}"#),
        ];
        let mut known = Inventory::default();
        let mut listed = Inventory::default();
        for (key, value) in good {
            put(&mut known, key.clone(), value);
            put(&mut listed, key, "{");
        }
        known.borrowed.insert(block, BTreeMap::from([("10.0.1.9".parse().unwrap(), "n3".into())]));
        put(&mut listed, keys::block(block), "{");
        let mut follower = Follower::default();
        follower.relist(known.clone(), Revision(1));
        follower.relist(listed, Revision(2));
        let inventory = follower.inventory().into_owned();
        assert_eq!(inventory.unreadable.len(), 4);
        assert_eq!(Inventory { unreadable: BTreeMap::new(), ..inventory }, known);
        assert_eq!(follower.held(), 0);
    }

    #[test]
    fn an_unreadable_value_leaves_what_was_known() {
        let mut inventory = Inventory::default();
        let good = r#"{"metadata":{"name":"n2"},"spec":{"bgp":{"ipv4Address":"172.16.1.2/24"}}}"#;
        assert!(put(&mut inventory, keys::node("n2"), good));
        assert!(put(&mut inventory, keys::node("n2"), "{"));
        assert_eq!(inventory.nodes["n2"].ipv4, Some(net("172.16.1.2/24")));
        assert_eq!(inventory.unreadable.keys().collect::<Vec<_>>(), [&keys::node("n2")]);
        assert!(put(&mut inventory, keys::node("n2"), good));
        assert!(inventory.unreadable.is_empty());
    }
}
