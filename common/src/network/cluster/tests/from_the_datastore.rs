//! An inventory out of keys and values.

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
    let at = |revision| Seen { revision: Revision(revision), ..Seen::default() };
    follower.relist(known.clone(), &at(1));
    let facts = listed.facts.clone();
    follower.relist(listed, &at(2));
    let inventory = follower.inventory().into_owned();
    assert_eq!(inventory.unreadable.len(), 4);
    assert_eq!(inventory, Inventory { unreadable: inventory.unreadable.clone(), facts, ..known });
    assert_eq!(follower.held(), 0);
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
    let wanted =
        Peer { ipv4: Some(net("172.16.1.2/24")), ipv6: Some(net("fd00::3/64")), tunnel: None };
    let at = |revision| Seen { revision: Revision(revision), ..Seen::default() };
    let entry = |value: &str, revision| {
        let (key, value) = (keys::node("n2"), value.into());
        Entry { key, value, revision: Revision(revision) }
    };
    let listed = |value: &str, revision| {
        let mut inventory = Inventory::default();
        inventory.put(&entry(value, revision));
        inventory
    };
    assert_eq!(listed(&bad, 1).nodes["n2"], Peer { ipv4: None, ..wanted.clone() });
    let mut follower = Follower::default();
    follower.relist(listed(&good, 1), &at(1));
    let mut next = follower.left_behind();
    assert!(follower.take(&[Event::Put(entry(&bad, 2))]));
    let mut after_next = follower.left_behind();
    assert_eq!(follower.inventory().nodes["n2"], wanted);
    for follower in [&mut follower, &mut next, &mut after_next] {
        assert!(!follower.relist(listed(&bad, 2), &at(2)));
        let inventory = follower.inventory();
        assert_eq!(inventory.nodes["n2"], wanted);
        assert!(inventory.unreadable[&keys::node("n2")].contains("172.16.1.2/33"));
        // One that is gone is not wrong.
        follower.relist(Inventory::default(), &at(4));
        assert_eq!((follower.held(), follower.inventory().nodes.len()), (0, 0));
    }
    // What is held counts for it, too.
    follower.relist(listed(&good, 8), &at(9));
    assert!(follower.relist(Inventory::default(), &at(5)));
    follower.take(&[Event::Put(entry(&bad, 6))]);
    assert_eq!(follower.inventory().nodes["n2"], wanted);
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
        assert!(inventory.unreadable.contains_key(&key) && !inventory.flawed.contains_key(&key));
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
