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
        led_by_others: nets(led),
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
        let mut orphan = block.clone();
        orphan.affinity = None;
        assert!(put(&mut inventory, key(), &serde_json::to_string(&orphan).unwrap()));
        assert_eq!(away(&inventory), ["10.0.1.3 n1", "10.0.1.4 n2"]);
        assert!(delete(&mut inventory, key()));
        assert!(inventory.borrowed.is_empty());
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
        let at = |revision| Seen { revision: Revision(revision), ..Seen::default() };
        follower.relist(known.clone(), &at(1));
        let facts = listed.facts.clone();
        follower.relist(listed, &at(2));
        let inventory = follower.inventory().into_owned();
        assert_eq!(inventory.unreadable.len(), 4);
        assert_eq!(
            inventory,
            Inventory { unreadable: inventory.unreadable.clone(), facts, ..known }
        );
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

    /// What only people look at keeps nobody from being reached.
    #[test]
    fn a_value_is_read_as_far_as_ways_depend_on_it() {
        let mut inventory = Inventory::default();
        let pool = r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.9/16","ipipMode":"Always",
        "natOutgoing":true,"allowedUses":["Tunnel","Coffee"],"blockSize":99}}"#;
        assert!(put(&mut inventory, keys::pool("p"), pool));
        let read = &inventory.pools["p"];
        assert_eq!((read.cidr, read.ipip_mode), (net("10.0.0.0/16"), Always));
        assert!(read.nat_outgoing && read.has_tunnel_addresses);
        let node = r#"{"metadata":{"name":"n2","labels":{"a":1}},"spec":{"bgp":{"asNumber":"x",
        "ipv4Address":"172.16.1.2/24","ipv4IPIPTunnelAddr":"nowhere"}}}"#;
        assert!(put(&mut inventory, keys::node("n2"), node));
        let peer = Peer { ipv4: Some(net("172.16.1.2/24")), ..Peer::default() };
        assert_eq!(inventory.nodes["n2"], peer);
        assert!(inventory.unreadable.is_empty());
        let problems = plan_cluster("n1", &inventory, &Underlay::default()).problems;
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for part in ["Coffee", "IPPool CIDR is not strictly masked", "ASNumber", "nowhere"] {
            assert!(told.iter().any(|problem| problem.contains(part)), "{part}: {told:?}");
        }
        assert!(!put(&mut inventory, keys::pool("p"), pool), "the same once more");
        for (key, value) in [
            (keys::pool("p"), pool.replace("Always", "always")),
            (keys::node("n2"), node.replace("172.16.1.2", "172.16.1")),
            (keys::node("n2"), r#"{"metadata":{"name":"n2"},"spec":{"bgp":"none"}}"#.to_owned()),
        ] {
            let before = (inventory.nodes.clone(), inventory.pools.clone());
            assert!(put(&mut inventory, key.clone(), &value));
            assert_eq!((inventory.nodes.clone(), inventory.pools.clone()), before, "{value}");
            assert!(
                inventory.unreadable.contains_key(&key) && !inventory.flawed.contains_key(&key)
            );
        }
        inventory.delete(&keys::pool("p"));
        inventory.delete(&keys::node("n2"));
        assert!(inventory.unreadable.is_empty() && inventory.flawed.is_empty());
    }

    #[test]
    fn a_node_without_a_subnet_is_told_of_where_it_matters() {
        for (modes, length, told) in
            [([CrossSubnet], 32, true), ([CrossSubnet], 24, false), ([Always], 32, false)]
        {
            let mut inventory = four_nodes(&modes);
            let own = inventory.nodes.get_mut("n1").expect("the first of them");
            own.ipv4 = own.ipv4.and_then(|it| IpNet::new(it.addr(), length).ok());
            let problems = plan_cluster("n1", &inventory, &Underlay::default()).problems;
            let is_it = |problem: &Problem| matches!(problem, Problem::AloneInSubnet { .. });
            assert_eq!(problems.iter().any(is_it), told, "{modes:?} {length}");
        }
    }
}
