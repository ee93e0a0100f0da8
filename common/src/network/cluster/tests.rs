//! Examples of the plan; in modules those of the diff, properties, and what the
//! datastore makes of a state.

mod changes;
mod from_the_datastore;
mod properties;
mod switches;
mod vxlan;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::*;
use crate::datastore::{Entry, Event, Revision, keys};
use crate::ipam::{Attribute, Block, Family};
use crate::resources::EncapsulationMode::{self, Always, CrossSubnet, Never};
use crate::resources::IpPool;
use crate::tunnel::TunnelKind;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn peer(ipv4: &str) -> Peer {
    Peer { ipv4: Some(net(ipv4)), ..Peer::default() }
}

/// A pool that tunnels by IPIP, or not at all.
fn pool(cidr: &str, mode: EncapsulationMode) -> ClusterPool {
    pool_of(TunnelKind::Ipip, cidr, mode)
}

fn pool_of(kind: TunnelKind, cidr: &str, mode: EncapsulationMode) -> ClusterPool {
    let cross_subnet = mode == CrossSubnet;
    ClusterPool {
        cidr: net(cidr),
        tunnel: (mode != Never).then_some(PoolTunnel { kind, cross_subnet }),
        nat_outgoing: false,
        has_tunnel_addresses: mode != Never,
        is_exported: true,
    }
}

/// Two nodes in 172.16.1.0/24 and two in 172.16.2.0/24; a pool of each mode; a
/// block of each pool on every node.
fn four_nodes(modes: &[EncapsulationMode]) -> ClusterState {
    let mut state = ClusterState::default();
    for (number, address) in
        ["172.16.1.1/24", "172.16.1.2/24", "172.16.2.1/24", "172.16.2.2/24"].iter().enumerate()
    {
        state.nodes.insert(format!("n{}", number + 1), peer(address));
    }
    for (index, mode) in modes.iter().enumerate() {
        state.pools.insert(format!("p{index}"), pool(&format!("10.{index}.0.0/16"), *mode));
        for number in 1..=4 {
            let block = net(&format!("10.{index}.{number}.0/26"));
            state.blocks.insert(block, BTreeSet::from([format!("n{number}")]));
        }
    }
    state
}

fn underlay(address: &str) -> Underlay {
    let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses: vec![net(address)] };
    Underlay { links: vec![link], ..Underlay::default() }
}

fn plan_of_n1(state: &ClusterState) -> ClusterPlan {
    plan_cluster("n1", state, &underlay("172.16.1.1/24"))
}

fn way<'a>(plan: &'a ClusterPlan, destination: &str) -> Option<&'a RouteKind> {
    plan.routes.get(&net(destination))
}

fn is_tunnel(plan: &ClusterPlan, destination: &str) -> bool {
    matches!(way(plan, destination), Some(RouteKind::Tunnel { .. }))
}

fn is_direct(plan: &ClusterPlan, destination: &str) -> bool {
    matches!(way(plan, destination), Some(RouteKind::Direct { .. }))
}

#[test]
fn a_pool_without_ipip_goes_by_the_shared_link_and_is_left_to_bgp_elsewhere() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    assert_eq!(plan.tunnels, BTreeMap::new());
    let direct = RouteKind::Direct {
        next_hop: "172.16.1.2".parse().unwrap(),
        link: "eth0".into(),
        source: "172.16.1.1".parse().unwrap(),
    };
    assert_eq!(way(&plan, "10.0.2.0/26"), Some(&direct));
    assert_eq!(way(&plan, "10.0.3.0/26"), None);
    let named = diff(&plan, &ActualState::default()).problems;
    let named = named.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(named.contains("node n3 (172.16.2.1) is not on a link"), "{named}");
    assert_eq!(plan.pod_mtu, 1500);
}

#[test]
fn of_several_addresses_in_one_subnet_the_registered_one_sends_or_else_the_first() {
    let state = four_nodes(&[Never]);
    let source = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| net(address)).collect();
        let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
        let plan =
            plan_cluster("n1", &state, &Underlay { links: vec![link], ..Underlay::default() });
        match way(&plan, "10.0.2.0/26") {
            Some(RouteKind::Direct { source, .. }) => source.to_string(),
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
fn a_pool_with_ipip_always_is_tunnelled_to_every_node() {
    let plan = plan_of_n1(&four_nodes(&[Always]));
    for destination in ["10.0.2.0/26", "10.0.3.0/26", "10.0.4.0/26"] {
        assert!(is_tunnel(&plan, destination), "{destination}");
    }
    let tunnel = &plan.tunnels[&TunnelKind::Ipip];
    assert_eq!((tunnel.mtu, tunnel.is_needed, &tunnel.vxlan), (1480, true, &None));
    let senders: Vec<String> = tunnel.senders.iter().map(ToString::to_string).collect();
    assert_eq!(senders, ["172.16.1.2/32", "172.16.2.1/32", "172.16.2.2/32"]);
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
    let mut state = four_nodes(&[CrossSubnet]);
    state.nodes.insert("n1".into(), peer("172.16.1.1/32"));
    assert!(is_tunnel(&plan_of_n1(&state), "10.0.2.0/26"), "a /32 has no neighbours");
    // The other side still sees both in its /24, sends directly, and must be let in.
    let tunnels = plan_of_n1(&state).tunnels;
    assert_eq!(tunnels[&TunnelKind::Ipip].asymmetric, BTreeSet::from(["eth0".to_owned()]));
    let theirs = plan_cluster("n2", &state, &underlay("172.16.1.2/24"));
    assert!(is_direct(&theirs, "10.0.1.0/26"));
    assert!(theirs.tunnels.contains_key(&TunnelKind::Ipip), "n1 tunnels to it");
}

#[test]
fn a_tunnel_from_a_secondary_address_is_reported() {
    let told = |mode, addresses: &[&str]| {
        let addresses = addresses.iter().map(|address| net(address)).collect();
        let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
        let plan = plan_cluster(
            "n1",
            &four_nodes(&[mode]),
            &Underlay { links: vec![link], ..Underlay::default() },
        );
        plan.problems.iter().any(|problem| matches!(problem, Problem::SecondaryAddress { .. }))
    };
    assert!(told(Always, &["172.16.1.9/24", "172.16.1.1/24"]));
    assert!(!told(Always, &["172.16.1.1/24", "172.16.1.9/24"]));
    assert!(!told(Always, &["10.99.0.9/24", "172.16.1.1/24"]), "another subnet's");
    assert!(!told(Never, &["172.16.1.9/24", "172.16.1.1/24"]));
}

#[test]
fn two_nodes_of_one_address_are_reported_as_long_as_there_are_two() {
    let mut state = four_nodes(&[Never]);
    assert!(!plan_of_n1(&state).problems.iter().any(Problem::isolates_node));
    for (other, address) in [("n3", "172.16.1.1/20"), ("n2", "172.16.1.1/24")] {
        state.nodes.insert(other.to_owned(), peer(address));
    }
    let problems = plan_of_n1(&state).problems;
    let told: Vec<String> = problems
        .iter()
        .filter(|problem| problem.isolates_node())
        .map(ToString::to_string)
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("172.16.1.1, and so is node n3; give one of them"), "{told:?}");
}

#[test]
fn no_tunnel_without_a_peer_behind_it() {
    let mut state = four_nodes(&[CrossSubnet]);
    state.nodes.retain(|name, _| name == "n1" || name == "n2");
    assert!(!needs_tunnel(TunnelKind::Ipip, "n1", &state));
    state.pools.insert("always".into(), pool("10.9.0.0/16", Always));
    assert!(needs_tunnel(TunnelKind::Ipip, "n1", &state));
    state.nodes.retain(|name, _| name == "n1");
    assert!(!needs_tunnel(TunnelKind::Ipip, "n1", &state), "there is no node to tunnel to");
}

#[test]
fn own_blocks_are_blackholes_unless_of_one_address() {
    let mut state = four_nodes(&[Never]);
    state.blocks.insert(net("10.0.200.7/32"), BTreeSet::from(["n1".into()]));
    let plan = plan_of_n1(&state);
    assert_eq!(way(&plan, "10.0.1.0/26"), Some(&RouteKind::Blackhole));
    assert_eq!(way(&plan, "10.0.200.7/32"), None);
}

#[test]
fn a_borrowed_address_has_a_route_of_its_own() {
    let mut state = four_nodes(&[Never, Always]);
    let borrow = |address: &str, node: &str| {
        BTreeMap::from([(address.parse::<IpAddr>().unwrap(), node.to_owned())])
    };
    // n2 has an address of n1's block, n3 one of n2's, and n1 itself one of n4's.
    state.borrowed.insert(net("10.0.1.0/26"), borrow("10.0.1.9", "n2"));
    state.borrowed.insert(net("10.1.2.0/26"), borrow("10.1.2.9", "n3"));
    state.borrowed.insert(net("10.1.4.0/26"), borrow("10.1.4.9", "n1"));
    let plan = plan_of_n1(&state);
    assert!(is_direct(&plan, "10.0.1.9/32"));
    assert!(is_tunnel(&plan, "10.1.2.9/32"));
    assert_eq!(way(&plan, "10.1.4.9/32"), None, "ADD made the container's own route");
}

#[test]
fn the_only_address_of_a_block_is_where_it_is_borrowed() {
    let mut state = four_nodes(&[Never]);
    let (block, address) = (net("10.0.200.7/32"), IpAddr::from([10, 0, 200, 7]));
    let mut lent = |owner: &str, borrower: &str| {
        state.blocks.insert(block, BTreeSet::from([owner.to_owned()]));
        state.borrowed.insert(block, BTreeMap::from([(address, borrower.to_owned())]));
        plan_of_n1(&state)
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
                let underlay = Underlay { links: links.clone(), ..Underlay::default() };
                let plan = plan_cluster("n1", &four_nodes(&[mode]), &underlay);
                assert_eq!(plan.pod_mtu, own - less, "{mode:?}");
                let tunnel = plan.tunnels.values().map(|tunnel| tunnel.mtu).next();
                assert_eq!(tunnel, (mode != Never).then_some(own - 20), "{mode:?}");
            }
            // Without its address here the smallest is safe.
            let mut state = four_nodes(&[Always]);
            state.nodes.insert("n1".into(), peer("172.16.9.9/24"));
            let plan = plan_cluster("n1", &state, &Underlay { links, ..Underlay::default() });
            assert_eq!(plan.pod_mtu, own.min(other) - 20);
            assert_eq!(plan.tunnels[&TunnelKind::Ipip].mtu, own.min(other) - 20);
        }
    }
}

#[test]
fn ipip_carries_no_ipv6() {
    let mut state = four_nodes(&[Always]);
    let v6 = IpPool { modes: [("ipipMode", Always)].into(), ..IpPool::new("v6", net("fd00::/48")) };
    state.pools.insert("v6".into(), ClusterPool::from(&v6));
    for (name, address) in [("n1", "fd01::1/64"), ("n2", "fd01::2/64")] {
        state.nodes.get_mut(name).unwrap().ipv6 = Some(net(address));
    }
    state.blocks.insert(net("fd00::40/122"), BTreeSet::from(["n2".into()]));
    let mut underlay = underlay("172.16.1.1/24");
    underlay.links[0].addresses.push(net("fd01::1/64"));
    assert!(is_direct(&plan_cluster("n1", &state, &underlay), "fd00::40/122"));
}

#[test]
fn what_cannot_be_routed_is_named_and_the_rest_goes_on() {
    let mut state = four_nodes(&[Never, Always]);
    state.nodes.remove("n2");
    state.blocks.insert(net("10.1.3.0/26"), BTreeSet::from(["n3".into(), "n4".into()]));
    let plan = plan_of_n1(&state);
    let kinds = plan.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in ["is on node n2, which has no address", "several hosts (n3, n4)"] {
        assert!(kinds.contains(part), "{part}: {kinds}");
    }
    assert!(is_tunnel(&plan, "10.1.4.0/26"));
}

#[test]
fn blocks_of_a_pool_whose_key_is_gone_are_routed_without_tunnel_and_reported() {
    let mut state = four_nodes(&[Always, Never]);
    assert!(!told(&plan_of_n1(&state)).contains("in no pool"));
    state.pools.remove("p0");
    let plan = plan_of_n1(&state);
    assert_eq!(plan.tunnels, BTreeMap::new());
    assert!(is_direct(&plan, "10.0.2.0/26"));
    assert!(plan.left_to_others.contains_key(&net("10.0.3.0/26")));
    let told = told(&plan);
    assert!(told.contains("block 10.0.1.0/26 (and 3 more) lies in no pool"), "{told}");
}

#[test]
fn of_several_hosts_of_a_block_the_one_that_it_names_counts() {
    let mut state = four_nodes(&[Never]);
    let block = net("10.0.2.0/26");
    state.blocks.insert(block, ["n1", "n2", "n3"].map(str::to_owned).into());
    let mut named = |home: Option<&str>| {
        state.homes = home.map(|home| (block, home.to_owned())).into_iter().collect();
        let plan = plan_of_n1(&state);
        (plan.routes.get(&block).cloned(), told(&plan).contains("several hosts (n1, n2, n3)"))
    };
    assert!(matches!(named(Some("n2")), (Some(RouteKind::Direct { .. }), false)));
    assert_eq!(named(Some("n1")), (Some(RouteKind::Blackhole), false));
    // Nobody's, or not read.
    assert_eq!(named(None), (None, true));
}

/// IPAM takes addresses on the host that the block names, whatever affinities say.
#[test]
fn the_host_that_a_block_names_counts_more_than_affinities() {
    let mut state = four_nodes(&[Never]);
    let block = net("10.0.2.0/26");
    let plan = |state: &ClusterState| {
        let plan = plan_of_n1(state);
        (plan.routes.get(&block).cloned(), told(&plan))
    };
    state.blocks.insert(block, ["n2".to_owned()].into());
    let (to_n2, _) = plan(&state);
    for stale in ["n1", "n4"] {
        state.blocks.insert(block, [stale.to_owned()].into());
        state.homes.insert(block, "n2".to_owned());
        let (way, told) = plan(&state);
        assert_eq!(way, to_n2, "{stale}");
        assert!(told.contains(&format!("{block} belongs to host n2")), "{told}");
        assert!(told.contains(&format!("only {stale} has a confirmed affinity")), "{told}");
    }
    // A claim or a release may have stopped halfway.
    state.blocks.remove(&block);
    let (way, told) = plan(&state);
    assert!(way.is_none() && told.contains("has no confirmed affinity to it"), "{way:?} {told}");
    // The datastore's word about a block counts more than what is retained of it.
    state.blocks.insert(block, ["n2".to_owned()].into());
    let seen =
        |revision| ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
    let mut cache = ClusterCache::default();
    cache.replace(state, &seen(9));
    let mut fresh = four_nodes(&[Never]);
    fresh.blocks.insert(block, ["n4".to_owned()].into());
    assert!(cache.replace(fresh, &seen(1)));
    assert!(!cache.state().homes.contains_key(&block));
}

/// What is said of this plan's problems, in an empty kernel.
fn told(plan: &ClusterPlan) -> String {
    let problems = diff(plan, &ActualState::default()).problems;
    let all = plan.problems.iter().chain(&problems);
    all.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn advice_fits_the_family_and_the_mode() {
    let bgp = "(172.16.2.1) is not on a link of this node and its pool does not tunnel to it; \
               its routes come by BGP, and there is none: see \"weirctl bgp peers\"";
    let never = told(&plan_of_n1(&four_nodes(&[Never])));
    assert!(
        never.contains(&format!("{bgp}, or set ipipMode or vxlanMode of the pool to CrossSubnet")),
        "{never}"
    );
    // The registered subnet reaches further than the link.
    let mut state = four_nodes(&[CrossSubnet]);
    state.nodes.insert("n1".into(), peer("172.16.1.1/16"));
    let cross = told(&plan_of_n1(&state));
    assert!(
        cross.contains(&format!("{bgp}, or give spec.bgp.ipv4Address of this Node")),
        "{cross}"
    );
    assert!(!cross.contains("set ipipMode"), "{cross}");

    let mut state = four_nodes(&[Always]);
    state.pools.insert("v6".into(), pool("fd00::/48", Never));
    state.nodes.get_mut("n2").unwrap().ipv6 = Some(net("fd02::2/64"));
    state.blocks.insert(net("fd00::40/122"), BTreeSet::from(["n2".into()]));
    let unregistered = told(&plan_of_n1(&state));
    let option = "weirctl node run --ip6-autodetection-method first-found\", or restart it";
    assert!(unregistered.contains(option), "{unregistered}");
    assert!(unregistered.contains("ipv6Address in spec.bgp"), "{unregistered}");
    state.nodes.get_mut("n1").unwrap().ipv6 = Some(net("fd01::1/64"));
    let v6 = told(&plan_of_n1(&state));
    assert!(v6.contains("correct spec.bgp.ipv6Address of the Node"), "{v6}");
    assert!(v6.contains("its routes come by BGP"), "{v6}");
    assert!(!v6.contains("ipv4Address") && !v6.contains("ipipMode"), "{v6}");
    assert!(v6.contains("set vxlanMode of the pool to CrossSubnet"), "{v6}");
}

#[test]
fn an_unregistered_node_keeps_its_own_blocks_and_nothing_else() {
    let mut state = four_nodes(&[Always]);
    state.nodes.remove("n1");
    let plan = plan_of_n1(&state);
    assert_eq!(plan.routes.len(), 1);
    assert_eq!(plan.tunnels, BTreeMap::new());
    let problem = Problem::NotRegistered { node: "n1".into(), family: Family::V4 };
    assert!(plan.problems.contains(&problem));
}

/// A pool over the nodes' own subnet: nothing that a node needs there is routed elsewhere.
#[test]
fn in_a_subnet_no_block_hides_what_others_have() {
    let mut state = four_nodes(&[]);
    state.pools.insert("lan".into(), pool("172.16.1.0/25", Never));
    // The first addresses of the block, so many.
    let used = |block: &str, count: u64| {
        let key = keys::block(net(block));
        let host = "n2".to_owned();
        let mut block = Block::new(net(block), &host, 0);
        for ordinal in 5..5 + count as usize {
            block.assign(ordinal, Attribute::default());
        }
        Event::Put(Entry { key, value: block.to_json(), revision: Revision(1) })
    };
    for (block, host) in
        [("172.16.1.0/28", "n2"), ("172.16.1.16/28", "n2"), ("172.16.1.32/28", "n1")]
    {
        state.blocks.insert(net(block), BTreeSet::from([host.to_owned()]));
    }
    // n1 is .1 and n2 .2.
    state.apply(&used("172.16.1.0/28", 2));
    state.apply(&used("172.16.1.16/28", 2));
    let plan = plan_of_n1(&state);
    let ranges: Vec<String> = plan.routes.keys().map(ToString::to_string).collect();
    assert_eq!(ranges, ["172.16.1.5/32", "172.16.1.6/32", "172.16.1.16/28"]);
    assert!(is_direct(&plan, "172.16.1.5/32") && is_direct(&plan, "172.16.1.16/28"));
    assert!(told(&plan).contains("pool lan has addresses of 172.16.1.0/24"), "{}", told(&plan));
    // A router in the other block.
    let next_hops = BTreeSet::from(["172.16.1.20".parse().unwrap()]);
    let plan = plan_cluster("n1", &state, &Underlay { next_hops, ..underlay("172.16.1.1/24") });
    assert!(!plan.routes.contains_key(&net("172.16.1.16/28")));
    assert!(is_direct(&plan, "172.16.1.21/32"));
    // One more in a block with nodes in it changes the plan, in another one it does not.
    assert!(state.apply(&used("172.16.1.0/28", 3)) && !state.apply(&used("172.16.1.16/28", 3)));
    // Where blocks were not read, it is said.
    state.used.clear();
    let plan = plan_of_n1(&state);
    assert!(!plan.routes.contains_key(&net("172.16.1.0/28")));
    assert!(told(&plan).contains("block 172.16.1.0/28 on another node has the address"));
}

/// The node behind a router is as good as one in the same subnet.
#[test]
fn an_own_block_with_a_node_of_another_subnet_in_it_gets_no_blackhole() {
    let mut state = four_nodes(&[]);
    state.pools.insert("all".into(), pool("172.16.0.0/16", Never));
    for block in ["172.16.2.0/26", "172.16.3.0/26"] {
        state.blocks.insert(net(block), BTreeSet::from(["n1".to_owned()]));
    }
    let plan = plan_of_n1(&state);
    assert!(!plan.routes.contains_key(&net("172.16.2.0/26")));
    assert_eq!(way(&plan, "172.16.3.0/26"), Some(&RouteKind::Blackhole));
}

#[test]
fn a_block_with_a_next_hop_of_another_subnet_gets_no_blackhole() {
    let state = four_nodes(&[Never]);
    let next_hops = BTreeSet::from(["10.0.1.9".parse().unwrap()]);
    let plan = plan_cluster("n1", &state, &Underlay { next_hops, ..underlay("172.16.1.1/24") });
    assert!(!plan.routes.contains_key(&net("10.0.1.0/26")));
    assert_eq!(way(&plan_of_n1(&state), "10.0.1.0/26"), Some(&RouteKind::Blackhole));
}
