//! A state out of keys and values.

use super::*;
use crate::datastore::{Entry, Event, Revision, keys};
use crate::ipam::{Attribute, Block};

fn put(state: &mut ClusterState, key: String, value: &str) -> bool {
    state.put(&Entry { key, value: value.into(), revision: Revision(1) })
}

fn delete(state: &mut ClusterState, key: String) -> bool {
    state.apply(&Event::Delete { key, revision: Revision(2) })
}

#[test]
fn only_confirmed_affinities_count() {
    let mut state = ClusterState::default();
    let block = net("10.0.1.0/26");
    let key = || keys::affinity("n2", block);
    assert!(!put(&mut state, key(), r#"{"state":"pending","deleted":false}"#));
    assert!(put(&mut state, key(), r#"{"state":"confirmed","deleted":false}"#));
    assert!(state.blocks.contains_key(&block));
    assert!(!put(&mut state, key(), r#"{"state":"confirmed","deleted":false}"#));
    assert!(put(&mut state, key(), r#"{"state":"pendingDeletion","deleted":false}"#));
    assert!(state.blocks.is_empty());
    assert!(put(&mut state, key(), "{}"));
    assert!(delete(&mut state, key()));
    assert_eq!(state, ClusterState::default());
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
    let mut state = ClusterState::default();
    let key = || keys::block(block.cidr);
    assert!(put(&mut state, key(), &serde_json::to_string(&block).unwrap()));
    let away = |state: &ClusterState| {
        let addresses = state.borrowed.values().flatten();
        addresses.map(|(address, node)| format!("{address} {node}")).collect::<Vec<_>>()
    };
    assert_eq!(away(&state), ["10.0.1.4 n2"]);
    assert_eq!(state.homes, [(block.cidr, "n1".to_owned())].into());
    let mut orphan = block.clone();
    orphan.affinity = None;
    assert!(put(&mut state, key(), &serde_json::to_string(&orphan).unwrap()));
    assert_eq!(away(&state), ["10.0.1.3 n1", "10.0.1.4 n2"]);
    assert!(state.homes.is_empty());
    let home = Block::new(block.cidr, "n2", 1);
    assert!(put(&mut state, key(), &serde_json::to_string(&home).unwrap()));
    assert!(!put(&mut state, key(), &serde_json::to_string(&home).unwrap()));
    assert!(delete(&mut state, key()));
    assert_eq!(state, ClusterState::default());
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
    let mut known = ClusterState::default();
    let mut listed = ClusterState::default();
    for (key, value) in good {
        put(&mut known, key.clone(), value);
        put(&mut listed, key, "{");
    }
    known.borrowed.insert(block, BTreeMap::from([("10.0.1.9".parse().unwrap(), "n3".into())]));
    put(&mut listed, keys::block(block), "{");
    let mut cache = ClusterCache::default();
    let at =
        |revision| ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
    cache.replace(known.clone(), &at(1));
    let fingerprints = listed.fingerprints.clone();
    cache.replace(listed, &at(2));
    let state = cache.state().into_owned();
    assert_eq!(state.unreadable.len(), 4);
    assert_eq!(state, ClusterState { unreadable: state.unreadable.clone(), fingerprints, ..known });
    assert_eq!(cache.retained(), 0);
}

fn node_with(ipv4: &str, ipv6: &str) -> String {
    let bgp = format!(r#"{{"ipv4Address":"{ipv4}","ipv6Address":"{ipv6}"}}"#);
    format!(r#"{{"metadata":{{"name":"n2"}},"spec":{{"bgp":{bgp}}}}}"#)
}

/// By a change, by a listing, and by the listing of the next process.
#[test]
fn an_address_that_is_wrong_counts_as_before_and_takes_no_other_away() {
    let good = node_with("172.16.1.2/24", "fd00::2/64");
    let bad = node_with("172.16.1.2/33", "fd00::3/64");
    let ipv6 = Some(net("fd00::3/64"));
    let wanted = Peer { ipv4: Some(net("172.16.1.2/24")), ipv6, ..Peer::default() };
    let at =
        |revision| ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
    let entry = |value: &str, revision| {
        let (key, value) = (keys::node("n2"), value.into());
        Entry { key, value, revision: Revision(revision) }
    };
    let listed = |value: &str, revision| {
        let mut state = ClusterState::default();
        state.put(&entry(value, revision));
        state
    };
    assert_eq!(listed(&bad, 1).nodes["n2"], Peer { ipv4: None, ..wanted.clone() });
    let mut cache = ClusterCache::default();
    cache.replace(listed(&good, 1), &at(1));
    let mut next = cache.clone();
    assert!(cache.apply(&[Event::Put(entry(&bad, 2))]).whole);
    let mut after_next = cache.clone();
    assert_eq!(cache.state().nodes["n2"], wanted);
    for cache in [&mut cache, &mut next, &mut after_next] {
        assert!(!cache.replace(listed(&bad, 2), &at(2)));
        let state = cache.state();
        assert_eq!(state.nodes["n2"], wanted);
        assert!(state.unreadable[&keys::node("n2")].contains("172.16.1.2/33"));
        // One that is gone is not wrong.
        cache.replace(ClusterState::default(), &at(4));
        assert_eq!((cache.retained(), cache.state().nodes.len()), (0, 0));
    }
    // What is retained counts for it, too.
    cache.replace(listed(&good, 8), &at(9));
    assert!(cache.replace(ClusterState::default(), &at(5)));
    cache.apply(&[Event::Put(entry(&bad, 6))]);
    assert_eq!(cache.state().nodes["n2"], wanted);
}

#[test]
fn an_unreadable_value_leaves_what_was_known() {
    let mut state = ClusterState::default();
    let good = r#"{"metadata":{"name":"n2"},"spec":{"bgp":{"ipv4Address":"172.16.1.2/24"}}}"#;
    assert!(put(&mut state, keys::node("n2"), good));
    assert!(put(&mut state, keys::node("n2"), "{"));
    assert_eq!(state.nodes["n2"].ipv4, Some(net("172.16.1.2/24")));
    assert_eq!(state.unreadable.keys().collect::<Vec<_>>(), [&keys::node("n2")]);
    assert!(put(&mut state, keys::node("n2"), good));
    assert!(state.unreadable.is_empty());
}

/// What only people look at keeps nobody from being reached.
#[test]
fn a_value_is_read_as_far_as_ways_depend_on_it() {
    let mut state = ClusterState::default();
    let pool = r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.9/16","ipipMode":"Always",
    "natOutgoing":true,"allowedUses":["Tunnel","Coffee"],"blockSize":99}}"#;
    assert!(put(&mut state, keys::pool("p"), pool));
    let read = &state.pools["p"];
    let always = PoolTunnel { kind: TunnelKind::Ipip, cross_subnet: false };
    assert_eq!((read.cidr, read.tunnel), (net("10.0.0.0/16"), Some(always)));
    assert!(read.nat_outgoing && read.has_tunnel_addresses);
    let node = r#"{"metadata":{"name":"n2","labels":{"a":1}},"spec":{"bgp":{"asNumber":"x",
    "ipv4Address":"172.16.1.2/24","ipv4IPIPTunnelAddr":"nowhere"}}}"#;
    assert!(put(&mut state, keys::node("n2"), node));
    let peer = Peer { ipv4: Some(net("172.16.1.2/24")), ..Peer::default() };
    assert_eq!(state.nodes["n2"], peer);
    assert!(state.unreadable.is_empty());
    let problems = plan_cluster("n1", &state, &Underlay::default()).problems;
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for part in ["Coffee", "IPPool CIDR is not strictly masked", "ASNumber", "nowhere"] {
        assert!(told.iter().any(|problem| problem.contains(part)), "{part}: {told:?}");
    }
    assert!(!put(&mut state, keys::pool("p"), pool), "the same once more");
    for (key, value) in [
        (keys::pool("p"), pool.replace("Always", "always")),
        (keys::node("n2"), node.replace("172.16.1.2", "172.16.1")),
        (keys::node("n2"), r#"{"metadata":{"name":"n2"},"spec":{"bgp":"none"}}"#.to_owned()),
    ] {
        let before = (state.nodes.clone(), state.pools.clone());
        assert!(put(&mut state, key.clone(), &value));
        assert_eq!((state.nodes.clone(), state.pools.clone()), before, "{value}");
        assert!(state.unreadable.contains_key(&key) && !state.flawed.contains_key(&key));
    }
    state.delete(&keys::pool("p"));
    state.delete(&keys::node("n2"));
    assert!(state.unreadable.is_empty() && state.flawed.is_empty());
}

#[test]
fn a_node_without_a_subnet_is_told_of_where_it_matters() {
    for (modes, length, told) in
        [([CrossSubnet], 32, true), ([CrossSubnet], 24, false), ([Always], 32, false)]
    {
        let mut state = four_nodes(&modes);
        let own = state.nodes.get_mut("n1").expect("the first of them");
        own.ipv4 = own.ipv4.and_then(|it| IpNet::new(it.addr(), length).ok());
        let problems = plan_cluster("n1", &state, &Underlay::default()).problems;
        let is_it = |problem: &Problem| matches!(problem, Problem::AloneInSubnet { .. });
        assert_eq!(problems.iter().any(is_it), told, "{modes:?} {length}");
    }
}
