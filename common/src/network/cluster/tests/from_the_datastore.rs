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
