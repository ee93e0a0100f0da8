//! Properties of the plan.

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::datastore::{Entry, Event, Revision, keys};

/// Nodes with addresses of both families, AS numbers and ports, some of which reflect.
pub(super) fn some_cluster() -> impl Strategy<Value = ClusterState> {
    let one = (
        1u8..=120,
        any::<bool>(),
        prop::option::of(64600u32..64603),
        prop::option::of(1790u16..1793),
        prop::option::weighted(0.2, 1u8..3),
        prop::sample::select(vec![16u8, 24, 26, 32]),
    );
    let label = prop::sample::select(vec!["a", "b"]);
    (
        prop::collection::btree_map(1u8..=9, (one, label), 0..=9),
        prop::option::of(1790u16..1793),
        prop::collection::vec((0u8..6, 0u8..6, any::<bool>(), 64600u32..64603), 0..4),
    )
        .prop_map(|(all, listen_port, peers)| {
            let mut state = ClusterState::default();
            configure(
                &mut state,
                "default",
                BgpConfiguration { listen_port, ..Default::default() },
            );
            for (number, (node, group)) in all {
                let (host, has_v6, as_number, port, cluster, length) = node;
                // One address for each node: its number is a part of it.
                let v4 = Ipv4Addr::new(10, 0, host % 3, number * 10);
                let v4 = IpNet::new(v4.into(), length).unwrap();
                let v6 = format!("fd00::{host}:{number}/64").parse().unwrap();
                let peer = Peer {
                    ipv4: Some(v4),
                    ipv6: has_v6.then_some(v6),
                    as_number,
                    route_reflector_cluster_id: cluster.map(|id| Ipv4Addr::new(244, 0, 0, id)),
                    ..Peer::default()
                };
                let name = format!("n{number}");
                state.nodes.insert(name.clone(), peer);
                super::label(&mut state, &name, group);
                let configuration = BgpConfiguration { listen_port: port, ..Default::default() };
                configure(&mut state, &format!("node.{name}"), configuration);
            }
            for (index, (nodes, target, is_reversed, as_number)) in peers.into_iter().enumerate() {
                let nodes = match nodes {
                    0 => PeerNodes::All,
                    1 => selected("has(a)"),
                    2 => selected("has(b)"),
                    other => PeerNodes::Named(format!("n{other}")),
                };
                let (target, as_number) = match target {
                    0 => (PeerTarget::Nodes(selector("has(a)")), None),
                    1 => (PeerTarget::Nodes(selector("all()")), None),
                    2 => (address("fd00::ffff", None), Some(as_number)),
                    3 => (address("10.0.200.1", None), Some(as_number)),
                    other => {
                        let node = state.nodes.get(&format!("n{other}"));
                        let known = node.and_then(|node| Some(node.ipv4?.addr().to_string()));
                        (address(&known.unwrap_or("10.0.200.2".into()), None), None)
                    }
                };
                let peer = BgpPeer { is_reversed, ..peering(nodes, target, as_number) };
                add(&mut state, &format!("p{index}"), peer);
            }
            state
        })
}

/// A cluster as it is stored.
fn stored_cluster() -> Vec<Entry> {
    let entry = |kind: &str, name: &str, labels: &str, spec: &str| Entry {
        key: format!("{}{kind}/{name}", keys::RESOURCES),
        value: format!(r#"{{"metadata":{{"name":"{name}","labels":{labels}}},"spec":{spec}}}"#)
            .into(),
        revision: Revision(1),
    };
    let node = |name, address, more| {
        let bgp = format!(r#"{{"bgp":{{"ipv4Address":"{address}"{more}}}}}"#);
        entry("nodes", name, r#"{"rack":"r1"}"#, &bgp)
    };
    vec![
        node("n1", "10.0.0.1/24", ""),
        node("n2", "10.0.0.2/24", r#","routeReflectorClusterID":"244.0.0.1""#),
        node("n3", "10.0.1.3/24", r#","asNumber":"1.10""#),
        entry("ippools", "plain", "{}", r#"{"cidr":"10.244.0.0/16"}"#),
        entry("bgpconfigurations", "default", "{}", r#"{"asNumber":64600,"listenPort":1790}"#),
        entry("bgpconfigurations", "node.n3", "{}", r#"{"listenPort":1791}"#),
        entry("bgppeers", "a-tor", "{}", r#"{"node":"n2","peerIP":"10.0.0.254","asNumber":65000}"#),
        entry("bgppeers", "b-tor", "{}", r#"{"peerIP":"10.0.0.254","asNumber":65000}"#),
        entry(
            "bgppeers",
            "reflectors",
            "{}",
            r#"{"nodeSelector":"rack == 'r1'","peerIP":"10.0.0.2","asNumber":64600,"filters":["f"]}"#,
        ),
        entry("bgpfilters", "f", "{}", r#"{"exportV4":[{"action":"Accept"}]}"#),
    ]
}

proptest! {
    /// In the mesh, each of two nodes has the other one, exactly one of them waits, and they
    /// agree about ports and AS numbers.
    #[test]
    fn a_mesh_is_symmetric(state in some_cluster()) {
        let mut state = state;
        state.bgp.peers.clear();
        let plans: Vec<(&String, BgpPlan)> =
            state.nodes.keys().map(|name| (name, plan(&state, name))).collect();
        for (name, own) in &plans {
            let in_mesh = plans.iter().filter(|(other, _)| {
                let reflects = |node: &str| state.nodes[node].route_reflector_cluster_id.is_some();
                other != name && !reflects(name) && !reflects(other)
            });
            let of_v4 = own.sessions.values().filter(|session| session.address.is_ipv4());
            prop_assert_eq!(of_v4.count(), in_mesh.count());
            for session in own.sessions.values() {
                let other = session.node.as_ref().unwrap();
                let there = &plans.iter().find(|(name, _)| *name == other).unwrap().1;
                let back = there.sessions.values().find(|back| {
                    back.node.as_ref() == Some(name) && Some(back.address) == session.local_address
                });
                let back = back.unwrap();
                prop_assert_ne!(back.is_passive, session.is_passive);
                prop_assert_eq!((back.as_number, back.local_as), (session.local_as, session.as_number));
                prop_assert_eq!((back.port, session.port), (own.listen_port, there.listen_port));
                prop_assert_eq!(back.local_address, Some(session.address));
            }
        }
    }

    /// Nodes that peer agree whether they are on one link, whichever of their links are down.
    #[test]
    fn nodes_agree_about_their_link(state in some_cluster(), is_down in any::<[bool; 10]>()) {
        let mut state = state;
        state.bgp.peers.values_mut().for_each(|peer| peer.is_reversed = true);
        let plans: BTreeMap<&str, BgpPlan> = (0..).zip(&state.nodes).map(|(index, (name, own))| {
            let addresses = [own.ipv4, own.ipv6].into_iter().flatten().collect();
            let link = UnderlayLink { name: "eth0".into(), mtu: 1500, addresses };
            let links = if is_down[index] { Vec::new() } else { vec![link] };
            (name.as_str(), plan_bgp(name, &state, &Underlay { links, ..Underlay::default() }))
        }).collect();
        for own in plans.values() {
            for session in own.sessions.values() {
                let Some(other) = &session.node else { continue };
                let back = plans[other.as_str()].sessions.values().filter(|back| {
                    Some(back.address) == session.local_address
                });
                for back in back {
                    prop_assert_eq!(back.is_on_link, session.is_on_link, "{:?}", session);
                }
            }
        }
    }

    /// Where peerings are reversed, nodes that peer have each other and agree about AS numbers.
    #[test]
    fn reversed_peerings_are_symmetric(state in some_cluster()) {
        let mut state = state;
        state.bgp.peers.values_mut().for_each(|peer| peer.is_reversed = true);
        let plans: Vec<(&String, BgpPlan)> =
            state.nodes.keys().map(|name| (name, plan(&state, name))).collect();
        for (name, own) in &plans {
            for session in own.sessions.values().filter(|it| it.origin != Origin::Mesh) {
                prop_assert!(session.address != state.nodes[*name].ipv4.unwrap().addr());
                let Some(other) = &session.node else { continue };
                let there = &plans.iter().find(|(name, _)| *name == other).unwrap().1;
                let back = there.sessions.values().any(|back| {
                    Some(back.address) == session.local_address
                        && (back.as_number, back.local_as) == (session.local_as, session.as_number)
                });
                prop_assert!(back, "{} {:?}", name, session);
            }
        }
    }

    /// Whatever order events come in, the plan is the same.
    #[test]
    fn the_plan_does_not_depend_on_the_order_of_events(
        entries in Just(stored_cluster()).prop_shuffle(),
    ) {
        let after = |entries: &[Entry]| {
            let mut state = ClusterState::default();
            for entry in entries {
                state.apply(&Event::Put(entry.clone()));
            }
            prop_assert!(state.unreadable.is_empty(), "{:?}", state.unreadable);
            Ok(["n1", "n2", "n3"].map(|node| plan(&state, node)))
        };
        let plans = after(&entries)?;
        prop_assert_eq!(&plans, &after(&stored_cluster())?);
        prop_assert_eq!(plans.map(|plan| plan.sessions.len()), [3, 3, 3]);
    }

    /// A name belongs to an address, and an address has one session, or one a port.
    #[test]
    fn names_follow_from_addresses(state in some_cluster()) {
        for name in state.nodes.keys() {
            let sessions = plan(&state, name).sessions;
            let mut keys: Vec<_> = sessions.values().map(|it| (it.address, it.port)).collect();
            keys.sort_unstable();
            keys.dedup();
            prop_assert_eq!(keys.len(), sessions.len());
            for (name, session) in &sessions {
                let address = session.address.to_string().replace(['.', ':'], "_");
                prop_assert!(name.contains(&address));
                prop_assert!(name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'));
            }
        }
    }
}
