//! Properties of the plan and of the difference.

use proptest::prelude::*;

use super::changes::carry_out;
use super::*;

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
