//! Properties of the plan and of the difference.

use proptest::prelude::*;

use super::changes::carry_out;
use super::*;
use crate::datastore::{Entry, Event, keys};
use crate::ipam::{Attribute, Block};

fn some_node() -> impl Strategy<Value = Peer> {
    let address = (1u8..=2, 1u8..=4, prop::sample::select(vec![16u8, 24, 32]));
    (prop::option::weighted(0.9, address), prop::option::of(1u8..4)).prop_map(
        |(address, tunnel)| {
            let v4 = |(subnet, host, length)| {
                IpNet::new(Ipv4Addr::new(172, 16, subnet, host).into(), length).unwrap()
            };
            let tunnel = tunnel.map(|host| Ipv4Addr::new(10, 3, 0, host));
            Peer { ipv4: address.map(v4), tunnel, ..Peer::default() }
        },
    )
}

fn some_state() -> impl Strategy<Value = ClusterState> {
    let mode = prop::sample::select(vec![Never, Always, CrossSubnet]);
    let node_name = || (1u8..=4).prop_map(|number| format!("n{number}"));
    let address = (0u8..4, 0u8..4, 0u8..64)
        .prop_map(|(pool, block, host)| IpAddr::from([10, pool, block, host]));
    (
        prop::collection::btree_map(node_name(), some_node(), 0..=4),
        prop::collection::btree_map(0u8..4, (mode, any::<[bool; 3]>()), 0..=4),
        prop::collection::btree_map((0u8..4, 0u8..4), node_name(), 0..12),
        prop::collection::btree_map((0u8..4, 0u8..4), node_name(), 0..4),
        prop::collection::btree_map(address, node_name(), 0..6),
    )
        .prop_map(|(nodes, pools, blocks, homes, borrowed)| {
            let mut state = ClusterState { nodes, ..ClusterState::default() };
            for (index, (mode, [nat_outgoing, vxlan, is_exported])) in pools {
                let pool = ClusterPool {
                    nat_outgoing,
                    is_exported,
                    vxlan: vxlan && mode == Never,
                    ..pool(&format!("10.{index}.0.0/16"), mode)
                };
                state.pools.insert(format!("p{index}"), pool);
            }
            let cidr = |(pool, block)| net(&format!("10.{pool}.{block}.0/26"));
            for (block, host) in blocks {
                state.blocks.insert(cidr(block), BTreeSet::from([host]));
            }
            state.homes.extend(homes.into_iter().map(|(block, host)| (cidr(block), host)));
            for (address, host) in borrowed {
                let block = IpNet::new(address, 26).unwrap().trunc();
                state.borrowed.entry(block).or_default().insert(address, host);
            }
            state
        })
}

fn some_way() -> impl Strategy<Value = RouteKind> {
    let next_hop = || (1u8..=2, 1u8..=4).prop_map(|(a, b)| Ipv4Addr::new(172, 16, a, b));
    let source = prop::option::of((1u8..4).prop_map(|host| Ipv4Addr::new(10, 3, 0, host)));
    prop_oneof![
        Just(RouteKind::Blackhole),
        next_hop().prop_map(|next_hop| RouteKind::Direct {
            next_hop: next_hop.into(),
            link: "eth0".into(),
            source: Ipv4Addr::new(172, 16, 1, 1).into(),
        }),
        (next_hop(), source).prop_map(|(next_hop, source)| RouteKind::Tunnel { next_hop, source }),
    ]
}

fn some_actual() -> impl Strategy<Value = ActualState> {
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
        ActualTunnel { claimed, up, mtu, addresses }
    });
    let strict = prop::sample::subsequence(vec!["eth0".to_owned(), "tunl0".to_owned()], 0..=2);
    (
        prop::option::of(tunnel),
        prop::collection::btree_map(range(), prop::option::weighted(0.8, some_way()), 0..10),
        prop::collection::btree_set(range(), 0..4),
        prop::collection::btree_set(range(), 0..4),
        strict,
    )
        .prop_map(|(tunnel, routes, occupied, announced, strict)| {
            let usable = |way: &Option<RouteKind>| match (way, &tunnel) {
                (Some(RouteKind::Tunnel { source, .. }), Some(tunnel)) => {
                    tunnel.up
                        && source.is_none_or(|source| tunnel.addresses.contains(&source.into()))
                }
                (Some(RouteKind::Tunnel { .. }), None) => false,
                _ => true,
            };
            let routes: BTreeMap<_, _> = routes
                .into_iter()
                .filter(|(destination, way)| !occupied.contains(destination) && usable(way))
                .collect();
            let strict = strict.into_iter().collect();
            ActualState { tunnel, routes, occupied, announced, strict, ..ActualState::default() }
        })
}

proptest! {
    /// Whatever the kernel has, the changes lead to what the plan says, touch
    /// nothing of another program's, and leave nothing to change.
    #[test]
    fn the_difference_leads_to_the_plan(
        state in some_state(),
        before in some_actual(),
    ) {
        let plan = plan_of_n1(&state);
        let (changes, problems) = diff(&plan, &before);
        let mut actual = before.clone();
        for change in &changes {
            carry_out(&mut actual, change);
        }
        let wanted: BTreeMap<IpNet, Option<RouteKind>> = plan
            .routes
            .iter()
            .filter(|(destination, _)| !before.occupied.contains(*destination))
            .map(|(destination, way)| (*destination, Some(way.clone())))
            .collect();
        prop_assert_eq!(&actual.routes, &wanted);
        prop_assert_eq!(&actual.occupied, &before.occupied);
        let conflicting = plan.routes.keys().filter(|range| before.occupied.contains(*range));
        let unled: BTreeSet<&Problem> = plan.left_to_others.values().collect();
        prop_assert_eq!(problems.len(), conflicting.count() + unled.len());
        match &plan.tunnel {
            Some(wanted) => {
                let tunnel = actual.tunnel.as_ref().unwrap();
                prop_assert!(tunnel.up && tunnel.claimed);
                prop_assert_eq!(tunnel.mtu, wanted.mtu);
                let address: BTreeSet<Ipv4Net> =
                    wanted.address.into_iter().map(Ipv4Net::from).collect();
                prop_assert_eq!(&tunnel.addresses, &address);
                prop_assert!(!actual.strict.contains(TUNNEL_DEVICE));
            }
            None => match before.tunnel.as_ref().filter(|tunnel| tunnel.claimed) {
                Some(_) => {
                    let tunnel = actual.tunnel.as_ref().unwrap();
                    prop_assert!(!tunnel.up && !tunnel.claimed && tunnel.addresses.is_empty());
                }
                None => prop_assert_eq!(&actual.tunnel, &before.tunnel),
            },
        }
        prop_assert_eq!(&actual.announced, &announced(&state));
        prop_assert_eq!(diff(&plan, &actual).0, Vec::new());
    }

    /// No other node is told of a range before its route is there, nor of one whose route goes.
    #[test]
    fn announcements_are_within_the_life_of_routes(state in some_state(), before in some_actual()) {
        let changes = diff(&plan_of_n1(&state), &before).0;
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
        }
        let plans: BTreeMap<&String, ClusterPlan> = state
            .nodes
            .iter()
            .map(|(name, peer)| {
                let addresses = peer.ipv4.into_iter().collect();
                let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
                (name, plan_cluster(name, &state, &Underlay { links: vec![link], ..Underlay::default() }))
            })
            .collect();
        let node_of = |address: IpAddr| {
            let mut nodes = state.nodes.iter();
            nodes.find(|(_, peer)| peer.ipv4.is_some_and(|own| own.addr() == address))
        };
        for (from, plan) in &plans {
            for (range, way) in &plan.routes {
                let RouteKind::Tunnel { next_hop, .. } = way else { continue };
                prop_assert!(plan.tunnel.is_some(), "{} sends by a tunnel it has not", from);
                let Some((to, _)) = node_of((*next_hop).into()) else { continue };
                prop_assert!(plans[to].tunnel.is_some(), "{} cannot receive from {}", to, from);
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
        let underlay = underlay("172.16.1.1/24");
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
    if bgp_need("n1", state, &underlay("172.16.1.1/24")).is_none() {
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
    let users: Vec<(IpNet, IpNet, &str)> = users.collect();
    let here = users.iter().filter(|(block, _, user)| *user == "n1" && !own.contains(block));
    let is_elsewhere =
        |range: &IpNet| users.iter().any(|(_, it, user)| it == range && *user != "n1");
    let blocks = own.iter().filter(|block| !is_elsewhere(block)).copied();
    let all = blocks.chain(here.map(|(_, address, _)| *address));
    all.filter(is_exported).collect()
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
    let block = (0u8..4, 0u8..3, prop::sample::select(vec!["0/26", "9/32"]))
        .prop_map(|(pool, block, rest)| net(&format!("10.{pool}.{block}.{rest}")));
    let node = || (1u8..=4).prop_map(|number| format!("n{number}"));
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
    let mode = prop::sample::select(vec!["CrossSubnet", "Never"]);
    let pool = (0u8..4, mode, any::<[bool; 2]>()).prop_map(|(number, mode, [hidden, is_there])| {
        let cidr = format!("10.{number}.0.0/16");
        let spec =
            format!(r#"{{"cidr":"{cidr}","ipipMode":"{mode}","disableBGPExport":{hidden}}}"#);
        let value = format!(r#"{{"metadata":{{"name":"p{number}"}},"spec":{spec}}}"#);
        event(keys::pool(&format!("p{number}")), is_there.then_some(value))
    });
    let peer = node().prop_map(|name| event(keys::node(&name), None));
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
