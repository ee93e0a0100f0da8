//! Properties of the plan and of the difference.

use proptest::prelude::*;
use serde_json::json;

use super::super::tunnel_diff::kinds_of_others;
use super::super::tunnels::next_hop;
use super::changes::{carry_out, is_usable};
use super::*;
use crate::link::MacAddress;
use crate::tunnel::link_local;

/// The range of a pool: the first four are of IPv4, two more of IPv6.
fn range_of_pool(pool: u8) -> IpNet {
    match pool {
        0..4 => net(&format!("10.{pool}.0.0/16")),
        _ => net(&format!("fd00:{pool}::/48")),
    }
}

fn address_in(pool: u8, block: u8, host: u8) -> IpAddr {
    match pool {
        0..4 => IpAddr::from([10, pool, block, host]),
        _ => IpAddr::from([
            0xfd00,
            pool.into(),
            0,
            0,
            0,
            0,
            0,
            u16::from(block) * 64 + u16::from(host),
        ]),
    }
}

fn block_in(pool: u8, block: u8) -> IpNet {
    let length = if pool < 4 { 26 } else { 122 };
    IpNet::new(address_in(pool, block, 0), length).unwrap()
}

fn some_range() -> impl Strategy<Value = IpNet> {
    (0u8..6, 0u8..4).prop_map(|(pool, block)| block_in(pool, block))
}

fn node_name() -> impl Strategy<Value = String> {
    (1u8..=4).prop_map(|number| format!("n{number}"))
}

/// One of the two addresses that a node's tunnel of this kind has in these tests, and no other's.
fn tunnel_address(kind: TunnelKind, node: u8, host: u8) -> IpAddr {
    match kind {
        TunnelKind::Ipip => address_in(3, node, host),
        TunnelKind::Vxlan => address_in(2, node, host),
        TunnelKind::VxlanV6 => address_in(5, node, host),
    }
}

/// As nodes' Nodes say of their devices, where they do.
fn own_mac(kind: TunnelKind, node: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, kind as u8, node])
}

fn node_address(is_ipv6: bool, subnet: u8, host: u8) -> IpAddr {
    if is_ipv6 {
        IpAddr::from([0xfd01, subnet.into(), 0, 0, 0, 0, 0, host.into()])
    } else {
        IpAddr::from([172, 16, subnet, host])
    }
}

fn some_node(number: u8) -> impl Strategy<Value = Peer> {
    let address = |is_ipv6: bool, lengths: Vec<u8>| {
        let address = (1u8..=2, 1u8..=4, prop::sample::select(lengths));
        address.prop_map(move |(subnet, host, length)| {
            IpNet::new(node_address(is_ipv6, subnet, host), length).unwrap()
        })
    };
    let ipv4 = prop::option::weighted(0.9, address(false, vec![16, 24, 32]));
    let ipv6 = prop::option::weighted(0.7, address(true, vec![32, 64, 128]));
    let tunnel = || (prop::option::weighted(0.7, 1u8..3), prop::bool::weighted(0.2));
    (ipv4, ipv6, [tunnel(), tunnel(), tunnel()]).prop_map(move |(ipv4, ipv6, tunnels)| {
        let mut peer = Peer { ipv4, ipv6, ..Peer::default() };
        for (kind, (host, has_mac)) in TunnelKind::ALL.into_iter().zip(tunnels) {
            let address = host.map(|host| tunnel_address(kind, number, host));
            peer.tunnels.extend(address.map(|address| (kind, address)));
            let has_mac = has_mac && kind.row().frames().is_some();
            peer.tunnel_macs.extend(has_mac.then(|| (kind, own_mac(kind, number))));
        }
        peer
    })
}

fn some_nodes() -> impl Strategy<Value = BTreeMap<String, Peer>> {
    let node = |number: u8| prop::option::weighted(0.8, some_node(number));
    [node(1), node(2), node(3), node(4)].prop_map(|nodes| {
        let nodes = (1..).zip(nodes);
        nodes.filter_map(|(number, node)| Some((format!("n{number}"), node?))).collect()
    })
}

fn some_state() -> impl Strategy<Value = ClusterState> {
    let mode = prop::sample::select(vec![Never, Always, CrossSubnet]);
    let address =
        (0u8..6, 0u8..4, 0u8..64).prop_map(|(pool, block, host)| address_in(pool, block, host));
    (
        some_nodes(),
        prop::collection::btree_map(0u8..6, (mode, any::<[bool; 3]>()), 0..=6),
        prop::collection::btree_map((0u8..6, 0u8..4), node_name(), 0..18),
        prop::collection::btree_map((0u8..6, 0u8..4), node_name(), 0..4),
        prop::collection::btree_map(address, node_name(), 0..8),
    )
        .prop_map(|(nodes, pools, blocks, homes, borrowed)| {
            let mut state = ClusterState { nodes, ..ClusterState::default() };
            for (index, (mode, [nat_outgoing, is_vxlan, is_exported])) in pools {
                let kind = match is_vxlan {
                    _ if index >= 4 => TunnelKind::VxlanV6,
                    true => TunnelKind::Vxlan,
                    false => TunnelKind::Ipip,
                };
                let pool = ClusterPool {
                    nat_outgoing,
                    is_exported,
                    ..pool_of(kind, &range_of_pool(index).to_string(), mode)
                };
                state.pools.insert(format!("p{index}"), pool);
            }
            let cidr = |(pool, block)| block_in(pool, block);
            for (block, host) in blocks {
                state.blocks.insert(cidr(block), BTreeSet::from([host]));
            }
            state.homes.extend(homes.into_iter().map(|(block, host)| (cidr(block), host)));
            for (address, host) in borrowed {
                let length = if address.is_ipv4() { 26 } else { 122 };
                let block = IpNet::new(address, length).unwrap().trunc();
                state.borrowed.entry(block).or_default().insert(address, host);
            }
            state
        })
}

/// The links of n1, with addresses of both families.
fn links_of_n1() -> Underlay {
    let mut underlay = underlay("172.16.1.1/24");
    underlay.links[0].addresses.push(net("fd01:1::1/64"));
    underlay
}

fn plan_of(state: &ClusterState) -> ClusterPlan {
    plan_cluster("n1", state, &links_of_n1())
}

fn some_mac(kind: TunnelKind) -> impl Strategy<Value = MacAddress> {
    let of_node = |number: u8| [own_mac(kind, number), kind.mac(&format!("n{number}")).unwrap()];
    prop::sample::select((1..=4).flat_map(of_node).collect::<Vec<_>>())
}

/// What may stand for a node beyond a tunnel of this kind.
fn some_next_hop(kind: TunnelKind) -> BoxedStrategy<IpAddr> {
    match kind {
        TunnelKind::Ipip => (1u8..=2, 1u8..=4).prop_map(|(a, b)| node_address(false, a, b)).boxed(),
        TunnelKind::Vxlan => {
            (1u8..=4, 1u8..3).prop_map(move |(a, b)| tunnel_address(kind, a, b)).boxed()
        }
        TunnelKind::VxlanV6 => some_mac(kind).prop_map(|mac| link_local(mac).into()).boxed(),
    }
}

fn some_way(is_ipv6: bool) -> impl Strategy<Value = RouteKind> {
    let source = links_of_n1().links[0].addresses[usize::from(is_ipv6)].addr();
    let direct = (1u8..=2, 1u8..=4).prop_map(move |(subnet, host)| RouteKind::Direct {
        next_hop: node_address(is_ipv6, subnet, host),
        link: "eth0".into(),
        source,
    });
    let tunnel = |kind: TunnelKind| {
        let source = (1u8..3).prop_map(move |host| tunnel_address(kind, 1, host));
        let parts = (some_next_hop(kind), prop::option::of(source));
        parts.prop_map(move |(next_hop, source)| RouteKind::Tunnel { kind, next_hop, source })
    };
    let kinds = TunnelKind::ALL.into_iter().filter(|kind| kind.row().is_ipv6 == is_ipv6);
    let tunnels = prop::strategy::Union::new(kinds.map(|kind| tunnel(kind).boxed()));
    prop_oneof![1 => Just(RouteKind::Blackhole), 2 => direct, 4 => tunnels]
}

fn some_route() -> impl Strategy<Value = (IpNet, Option<RouteKind>)> {
    some_range().prop_flat_map(|range| {
        let way = some_way(range.addr().is_ipv6());
        (Just(range), prop::option::weighted(0.9, way))
    })
}

/// A device of VXLAN as this node's may be, and sometimes one that was made with other values.
fn some_vxlan(kind: TunnelKind) -> impl Strategy<Value = ActualVxlan> {
    let local = node_address(kind.row().is_ipv6, 1, 1);
    let right = move |mac| VxlanDevice {
        vni: 4096,
        port: 4789,
        local,
        parent: Some("eth0".to_owned()),
        mac,
        is_learning: false,
    };
    let macs = prop::sample::select(vec![kind.mac("n1").unwrap(), own_mac(kind, 1)]);
    let device = (macs, prop::option::weighted(0.3, 0u8..5)).prop_map(move |(mac, wrong)| {
        let right = right(mac);
        match wrong {
            None => right,
            Some(0) => VxlanDevice { vni: 7, ..right },
            Some(1) => VxlanDevice { port: 8472, ..right },
            Some(2) => VxlanDevice { local: node_address(kind.row().is_ipv6, 2, 9), ..right },
            Some(3) => VxlanDevice { parent: None, ..right },
            Some(_) => VxlanDevice { is_learning: true, ..right },
        }
    });
    let node = (1u8..=2, 1u8..=4)
        .prop_map(move |(subnet, host)| node_address(kind.row().is_ipv6, subnet, host));
    let neighbours = prop::collection::btree_map(some_next_hop(kind), some_mac(kind), 0..8);
    let forwarding = prop::collection::btree_set((some_mac(kind), node), 0..10);
    (device, neighbours, forwarding).prop_map(|(device, neighbours, forwarding)| ActualVxlan {
        device,
        neighbours,
        forwarding,
    })
}

fn some_tunnel(kind: TunnelKind) -> impl Strategy<Value = ActualTunnel> {
    let address = (1u8..3).prop_map(move |host| IpNet::from(tunnel_address(kind, 1, host)));
    let vxlan = match kind.row().frames() {
        Some(_) => some_vxlan(kind).prop_map(Some).boxed(),
        None => Just(None).boxed(),
    };
    (
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.8),
        prop::sample::select(vec![1400u32, 1430, 1450, 1480]),
        prop::collection::btree_set(address, 0..3),
        vxlan,
    )
        .prop_map(|(claimed, up, mtu, addresses, vxlan)| ActualTunnel {
            claimed,
            up,
            mtu,
            addresses,
            vxlan,
        })
}

fn some_tunnels() -> impl Strategy<Value = BTreeMap<TunnelKind, ActualTunnel>> {
    let tunnel = |kind| prop::option::weighted(0.8, some_tunnel(kind));
    TunnelKind::ALL.map(tunnel).prop_map(|tunnels| {
        let tunnels = TunnelKind::ALL.into_iter().zip(tunnels);
        tunnels.filter_map(|(kind, tunnel)| Some((kind, tunnel?))).collect()
    })
}

fn some_actual() -> impl Strategy<Value = ActualState> {
    let strict = ["eth0", "tunl0", "vxlan.calico"].map(str::to_owned).to_vec();
    (
        some_tunnels(),
        prop::collection::vec(some_route(), 0..30),
        prop::collection::btree_set(some_range(), 0..4),
        prop::collection::btree_set(some_range(), 0..4),
        prop::sample::subsequence(strict, 0..=3),
    )
        .prop_map(|(tunnels, routes, occupied, announced, strict)| {
            let strict = strict.into_iter().collect();
            let mut actual =
                ActualState { tunnels, occupied, announced, strict, ..ActualState::default() };
            let is_there = |(range, way): &(IpNet, Option<RouteKind>)| {
                let is_usable = way.as_ref().is_none_or(|way| is_usable(&actual, way).is_ok());
                !actual.occupied.contains(range) && is_usable
            };
            actual.routes = routes.into_iter().filter(is_there).collect();
            actual
        })
}

/// Whether a route that the kernel had stays although it is not planned: it leads to the range's
/// node, in another way than its pool asks for.
fn stays_meanwhile(plan: &ClusterPlan, before: &ActualState, range: &IpNet) -> bool {
    let (Some(next_hops), Some(way)) = (plan.awaited.get(range), before.way(range)) else {
        return false;
    };
    let Some(next_hop) = way.next_hop() else { return false };
    if plan.routes.get(range).is_some_and(|it| it.tunnel_kind() == way.tunnel_kind()) {
        return false;
    }
    match way.tunnel_kind() {
        None => next_hops.contains(&next_hop) && !plan.left_to_others.contains_key(range),
        Some(TunnelKind::Ipip) => next_hops.contains(&next_hop),
        Some(kind) => {
            let planned = plan.tunnels.get(&kind).and_then(|tunnel| tunnel.vxlan.as_ref());
            let has = before.tunnels[&kind].vxlan.as_ref().unwrap();
            if planned.is_some_and(|it| it.neighbours.contains_key(&next_hop)) {
                return next_hops.contains(&next_hop);
            }
            let mac = has.neighbours[&next_hop];
            match planned.and_then(|it| it.forwarding.get(&mac)) {
                Some(node) => next_hops.contains(node),
                None => nodes_behind(has, mac).is_subset(next_hops),
            }
        }
    }
}

fn nodes_behind(vxlan: &ActualVxlan, mac: MacAddress) -> BTreeSet<IpAddr> {
    vxlan.forwarding.iter().filter(|(it, _)| *it == mac).map(|(_, node)| *node).collect()
}

proptest! {
    /// Whatever the kernel has, the changes lead to what the plan says, touch
    /// nothing of another program's, and leave nothing to change.
    #[test]
    fn the_difference_leads_to_the_plan(
        state in some_state(),
        before in some_actual(),
    ) {
        let whole = plan_of(&state);
        let Difference { changes, problems, still_used } = diff(&whole, &before);
        // What is made with something else and is another program's stays out of it.
        let of_others = kinds_of_others(&whole, &before);
        let plan = whole.clone().without_tunnels(&of_others);
        let mut actual = before.clone();
        for change in &changes {
            carry_out(&mut actual, change);
        }
        let wanted: BTreeMap<IpNet, Option<RouteKind>> = plan
            .routes
            .iter()
            .filter(|(destination, _)| !before.occupied.contains(*destination))
            .filter(|(destination, _)| !stays_meanwhile(&plan, &before, destination))
            .map(|(destination, way)| (*destination, Some(way.clone())))
            .collect();
        let (staying, others): (BTreeMap<IpNet, _>, BTreeMap<_, _>) = actual
            .routes
            .clone()
            .into_iter()
            .partition(|(range, _)| stays_meanwhile(&plan, &before, range));
        prop_assert_eq!(&others, &wanted);
        let expected = before.routes.keys().filter(|range| stays_meanwhile(&plan, &before, range));
        prop_assert!(expected.eq(staying.keys()));
        for (range, way) in &staying {
            let hop = |way: &RouteKind| (way.tunnel_kind(), way.next_hop());
            prop_assert_eq!(way.as_ref().map(hop), before.way(range).map(hop));
        }
        let used = staying.values().filter_map(|way| way.as_ref()?.tunnel_kind());
        prop_assert_eq!(&still_used, &used.collect::<BTreeSet<_>>());
        for way in actual.routes.values().flatten() {
            prop_assert_eq!(is_usable(&actual, way), Ok(()), "{}", way);
        }
        for (range, way) in &staying {
            let Some(RouteKind::Tunnel { kind, next_hop, .. }) = way else { continue };
            let is_in_service = before.tunnels[kind].claimed || needs_tunnel(*kind, "n1", &state);
            let Some(vxlan) = actual.tunnels[kind].vxlan.as_ref().filter(|_| is_in_service) else { continue };
            let nodes = nodes_behind(vxlan, vxlan.neighbours[next_hop]);
            prop_assert!(nodes.is_subset(&plan.awaited[range]), "{} leads to {:?}", range, nodes);
        }
        prop_assert_eq!(&actual.occupied, &before.occupied);
        let conflicting = plan.routes.keys().filter(|range| before.occupied.contains(*range));
        let unled: BTreeSet<&Problem> = plan.left_to_others.values().collect();
        let told = conflicting.count() + unled.len() + of_others.len();
        prop_assert_eq!(problems.len(), told);
        for kind in TunnelKind::ALL {
            let (was, is) = (before.tunnels.get(&kind), actual.tunnels.get(&kind));
            let was_claimed = was.is_some_and(|tunnel| tunnel.claimed);
            match plan.tunnels.get(&kind) {
                Some(wanted) if wanted.is_needed || was_claimed => {
                    let hops = staying.values().flatten().filter(|way| way.tunnel_kind() == Some(kind));
                    let hops: BTreeSet<IpAddr> = hops.filter_map(RouteKind::next_hop).collect();
                    let is = is.unwrap();
                    prop_assert!(is.claimed && is.up);
                    prop_assert_eq!(is.mtu, wanted.mtu);
                    prop_assert_eq!(&is.addresses, &wanted.addresses(kind));
                    prop_assert!(!actual.strict.contains(kind.device()));
                    assert_entries(is.vxlan.as_ref(), wanted.vxlan.as_ref(), &hops);
                }
                _ if !was_claimed || still_used.contains(&kind) => prop_assert_eq!(is, was),
                _ if kind.row().is_deletable => prop_assert_eq!(is, None),
                _ => {
                    let is = is.unwrap();
                    prop_assert!(!is.up && !is.claimed && is.addresses.is_empty());
                }
            }
        }
        prop_assert_eq!(&actual.announced, &announced(&state));
        prop_assert_eq!(diff(&whole, &actual).changes, Vec::new());
    }

    /// No other node is told of a range before its route is there, nor of one whose route goes.
    #[test]
    fn announcements_are_within_the_life_of_routes(state in some_state(), before in some_actual()) {
        let changes = diff(&plan_of(&state), &before).changes;
        let place = |wanted: &dyn Fn(&Change) -> bool| changes.iter().position(wanted);
        for (number, change) in changes.iter().enumerate() {
            let is_in_order = match change {
                Change::AddRoute(range, _) => {
                    place(&|it| *it == Change::Announce(*range)).is_none_or(|it| it > number)
                }
                Change::DeleteRoute(range, _) => {
                    place(&|it| *it == Change::Withdraw(*range)).is_none_or(|it| it < number)
                }
                _ => true,
            };
            prop_assert!(is_in_order, "{:?}", changes);
        }
    }

    /// Where both nodes' prefixes are the same subnet, or apart, one sends by
    /// the tunnel if and only if the other does; and whoever uses a tunnel has
    /// one, on both sides.
    #[test]
    fn symmetric_subnets_give_symmetric_ways(state in some_state()) {
        let mut state = state;
        for peer in state.nodes.values_mut() {
            peer.ipv4 = peer.ipv4.map(|address| IpNet::new(address.addr(), 24).unwrap());
            peer.ipv6 = peer.ipv6.map(|address| IpNet::new(address.addr(), 64).unwrap());
        }
        let plans: BTreeMap<&String, ClusterPlan> = state
            .nodes
            .iter()
            .map(|(name, peer)| {
                let addresses = [peer.ipv4, peer.ipv6].into_iter().flatten().collect();
                let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
                (name, plan_cluster(name, &state, &Underlay { links: vec![link], ..Underlay::default() }))
            })
            .collect();
        let node_of = |address: IpAddr| {
            let mut nodes = state.nodes.iter();
            nodes.find(|(_, peer)| peer.addresses().any(|own| own == address))
        };
        let beyond = |from: &String, kind: TunnelKind, address: IpAddr| {
            let mut nodes = state.nodes.iter().filter(|(name, _)| *name != from);
            nodes.find(|(name, peer)| next_hop(kind, name, peer) == Some(address))
        };
        for (from, plan) in &plans {
            for (range, way) in &plan.routes {
                let RouteKind::Tunnel { kind, next_hop, .. } = way else { continue };
                prop_assert!(plan.tunnels.contains_key(kind), "{} sends by a tunnel it has not", from);
                let Some((to, _)) = beyond(from, *kind, *next_hop) else { continue };
                prop_assert!(plans[to].tunnels.contains_key(kind), "{} cannot receive from {}", to, from);
                let pool = state.pool_of(*range).map(|(name, _)| name);
                let back = plans[to].routes.iter().find(|(range, way)| {
                    state.pool_of(**range).map(|(name, _)| name) == pool
                        && matches!(way, RouteKind::Direct { next_hop, .. }
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
        let mut state = four_nodes(&[CrossSubnet]);
        let registered = |address, length| {
            let ipv4 = Some(IpNet::new(IpAddr::V4(address), length).unwrap());
            Peer { ipv4, ..Peer::default() }
        };
        state.nodes.insert("n1".into(), registered(own, length));
        state.nodes.insert("n2".into(), registered(other, theirs));
        // The link reaches everybody.
        let plan = plan_cluster("n1", &state, &underlay("172.16.1.1/0"));
        let near = differs >= length.into();
        prop_assert_eq!(is_direct(&plan, "10.0.2.0/26"), near);
        prop_assert_eq!(is_tunnel(&plan, "10.0.2.0/26"), !near);
    }

    /// A state that took the changes one by one is the one that is read
    /// at once: values survive their transport to `weir` too.
    #[test]
    fn a_state_survives_its_json(state in some_state()) {
        let json = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<ClusterState>(&json).unwrap(), state);
    }
    /// Whatever happens, in whatever order: an updated plan is the one that is made as a whole,
    /// and the changes lead from the routes of before to those of now.
    #[test]
    fn an_updated_plan_is_the_whole_plan(
        before in some_state(),
        events in prop::collection::vec(some_event(), 0..24),
        batch in 1usize..4,
    ) {
        let underlay = links_of_n1();
        let mut cache = ClusterCache::default();
        cache.replace(before, &ObservedRevision::default());
        let mut plan = plan_cluster("n1", &cache.state(), &underlay);
        for events in events.chunks(batch) {
            let diff = cache.apply(events);
            let (state, mut routes) = (cache.state(), plan.routes.clone());
            let mut told = if plan.bgp_need.is_some() { plan.announced.clone() } else { BTreeSet::new() };
            let whole = plan_cluster("n1", &state, &underlay);
            let changes = (!diff.whole)
                .then(|| plan.update("n1", &state, &underlay, &diff.ranges))
                .flatten();
            match changes {
                None => plan = whole,
                Some(changes) => {
                    prop_assert_eq!(&plan, &whole);
                    let first_deletion = changes.iter().position(is_deletion);
                    let deletions = &changes[first_deletion.unwrap_or(changes.len())..];
                    prop_assert!(deletions.iter().all(is_deletion), "{:?}", changes);
                    changes.iter().for_each(|change| apply_to(&mut routes, &mut told, change));
                    prop_assert_eq!(routes, whole.routes);
                    prop_assert_eq!(told, announced(&state));
                }
            }
        }
    }
}

/// What n1 announces, if it needs BGP: a second way to find it, block by block and address by
/// address.
fn announced(state: &ClusterState) -> BTreeSet<IpNet> {
    if bgp_need("n1", state, &links_of_n1()).is_none() {
        return BTreeSet::new();
    }
    let is_exported = |range: &IpNet| state.pool_of(*range).is_some_and(|(_, it)| it.is_exported);
    let is_own = |(block, hosts): &(&IpNet, &BTreeSet<String>)| match state.homes.get(block) {
        Some(home) => home == "n1",
        None => hosts.iter().eq(["n1"]),
    };
    let own: BTreeSet<IpNet> =
        state.blocks.iter().filter(is_own).map(|(block, _)| *block).collect();
    let users = state.borrowed.iter().flat_map(|(block, of_block)| {
        of_block.iter().map(|(address, user)| (*block, IpNet::from(*address), user.as_str()))
    });
    let mut users: Vec<(IpNet, IpNet, &str)> = users.collect();
    // Of blocks around each other the narrowest knows.
    users.sort_by_key(|(block, address, _)| (*address, block.prefix_len()));
    users.reverse();
    users.dedup_by_key(|(_, address, _)| *address);
    let here = users.iter().filter(|(block, _, user)| *user == "n1" && !own.contains(block));
    let is_elsewhere =
        |range: &IpNet| users.iter().any(|(_, it, user)| it == range && *user != "n1");
    let blocks = own.iter().filter(|block| !is_elsewhere(block)).copied();
    let all = blocks.chain(here.map(|(_, address, _)| *address));
    all.filter(is_exported).collect()
}

/// The device has what is planned, and besides only what these next hops need.
fn assert_entries(is: Option<&ActualVxlan>, wanted: Option<&VxlanPlan>, hops: &BTreeSet<IpAddr>) {
    let (Some(is), Some(wanted)) = (is, wanted) else {
        return assert_eq!(is.is_some(), wanted.is_some());
    };
    assert_eq!(is.device, wanted.device);
    let is_planned =
        |(address, mac): &(&IpAddr, &MacAddress)| wanted.neighbours.get(*address) == Some(*mac);
    let (planned, others): (Vec<_>, Vec<_>) = is.neighbours.iter().partition(is_planned);
    assert_eq!(planned.len(), wanted.neighbours.len());
    assert!(others.iter().all(|(address, _)| hops.contains(address)), "{others:?}");
    let macs: BTreeSet<&MacAddress> = others.into_iter().map(|(_, mac)| mac).collect();
    for (mac, node) in &is.forwarding {
        match wanted.forwarding.get(mac) {
            Some(planned) => assert_eq!(node, planned),
            None => assert!(macs.contains(mac), "{mac} {node}"),
        }
    }
    assert!(wanted.forwarding.iter().all(|(mac, node)| is.forwarding.contains(&(*mac, *node))));
}

fn is_deletion(change: &Change) -> bool {
    matches!(change, Change::DeleteRoute(..))
}

fn apply_to(routes: &mut BTreeMap<IpNet, RouteKind>, told: &mut BTreeSet<IpNet>, change: &Change) {
    match change {
        Change::AddRoute(range, route) => {
            assert_eq!(routes.insert(*range, route.clone()), None, "{range} had a route");
        }
        Change::ReplaceRoute(range, route) => {
            assert!(routes.insert(*range, route.clone()).is_some(), "{range} had no route");
        }
        Change::DeleteRoute(range, route) => assert_eq!(routes.remove(range), *route),
        Change::Announce(range) => assert!(told.insert(*range), "{range} was announced"),
        Change::Withdraw(range) => assert!(told.remove(range), "{range} was not announced"),
        other => panic!("{other} changes no route"),
    }
}

/// A change of an affinity or a block of /26 or of one address, sometimes of a pool or a node.
fn some_event() -> impl Strategy<Value = Event> {
    let block = (0u8..6, 0u8..3, any::<bool>()).prop_map(|(pool, block, is_single)| {
        let single = IpNet::from(address_in(pool, block, 9));
        if is_single { single } else { block_in(pool, block) }
    });
    let node = node_name;
    let affinity = (
        node(),
        block.clone(),
        prop::sample::select(vec![
            Some(r#"{"state":"confirmed"}"#),
            Some(r#"{"state":"pending"}"#),
            None,
            Some("{"),
        ]),
    );
    let affinity = affinity.prop_map(|(node, block, value)| {
        event(keys::affinity(&node, block), value.map(str::to_owned))
    });
    let home = prop::option::weighted(0.8, (node(), prop::option::of((0usize..1, node()))));
    let block = (block, home).prop_map(|(cidr, home)| {
        let value = home.map(|(home, borrowed)| block_value(cidr, &home, borrowed));
        event(keys::block(cidr), value)
    });
    let mode = prop::sample::select(vec!["CrossSubnet", "Always", "Never"]);
    let pool = (0u8..6, mode, any::<[bool; 3]>()).prop_map(
        |(number, mode, [hidden, is_vxlan, is_there])| {
            let field = if is_vxlan || number >= 4 { "vxlanMode" } else { "ipipMode" };
            let cidr = range_of_pool(number);
            let spec =
                format!(r#"{{"cidr":"{cidr}","{field}":"{mode}","disableBGPExport":{hidden}}}"#);
            let value = format!(r#"{{"metadata":{{"name":"p{number}"}},"spec":{spec}}}"#);
            event(keys::pool(&format!("p{number}")), is_there.then_some(value))
        },
    );
    let peer = (1u8..=4).prop_flat_map(|number| {
        let node = prop::option::of(some_node(number));
        node.prop_map(move |node| {
            event(keys::node(&format!("n{number}")), node.map(|node| node_value(number, &node)))
        })
    });
    prop_oneof![8 => affinity, 8 => block, 1 => pool, 1 => peer]
}

fn event(key: String, value: Option<String>) -> Event {
    let revision = Revision(1);
    match value {
        Some(value) => Event::Put(Entry { key, value: value.into(), revision }),
        None => Event::Delete { key, revision },
    }
}

/// A block of one node, in which another one may have an address.
fn block_value(cidr: IpNet, home: &str, borrowed: Option<(usize, String)>) -> String {
    let mut block = Block::new(cidr, home, 1);
    if let Some((ordinal, node)) = borrowed {
        let secondary = Some(BTreeMap::from([("node".to_owned(), node)]));
        block.attributes = vec![Attribute { handle_id: None, secondary, ..Attribute::default() }];
        block.allocations[ordinal] = Some(0);
    }
    serde_json::to_string(&block).unwrap()
}

fn node_value(number: u8, node: &Peer) -> String {
    let text = |address: Option<IpNet>| address.map(|it| it.to_string());
    let mut spec = json!({"bgp": {"ipv4Address": text(node.ipv4), "ipv6Address": text(node.ipv6)}});
    for (kind, address) in &node.tunnels {
        match *kind.row().address_field {
            ["bgp", field] => spec["bgp"][field] = address.to_string().into(),
            [field, ..] => spec[field] = address.to_string().into(),
            [] => {}
        }
    }
    for (kind, mac) in &node.tunnel_macs {
        spec[kind.row().frames().unwrap().mac_field] = mac.to_string().into();
    }
    json!({"metadata": {"name": format!("n{number}")}, "spec": spec}).to_string()
}
