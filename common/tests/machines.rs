//! Two machines under one node name: neither gets, frees or judges what the other has.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::stores::{delete, edit, kinds, node, repair};
use support::*;
use weir_common::audit::{DamageKind, ThisNode};
use weir_common::datastore::keys;
use weir_common::ipam::adopt::adopt;
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::{CollectScope, Collected, Collection, Evidence, Rule, collect};
use weir_common::ipam::{
    ATTRIBUTE_BOOT, ATTRIBUTE_MACHINE, ATTRIBUTE_TIMESTAMP, Attribute, Error, Family, MachineId,
    MachineRecord, engine, find_clash,
};
use weir_common::node::{
    self, LocalFacts, NodeAddresses, ensure_tunnel_address, register, release_tunnel_address,
};
use weir_common::resources::Birth;
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const V4: &[Family] = &[Family::V4];

fn id(machine: &str) -> MachineId {
    MachineId::from_source(machine)
}

/// A store whose blocks hold four addresses, so that both machines soon share some.
fn cluster() -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/27", json!({"blockSize": 30, "ipipMode": "Always"}));
    store
}

/// What `n1` on a machine asks for its container; an earlier version names no machine.
fn on(machine: Option<&str>, container: &str) -> Request {
    let boot = format!("boot of {}", machine.unwrap_or("an earlier version"));
    let request = request("n1", container, V4);
    Request {
        assignee: request.assignee.on(machine.map(id)),
        facts: BTreeMap::from([(ATTRIBUTE_BOOT.to_owned(), boot)]),
        ..request
    }
}

async fn add(store: &Memory, machine: Option<&str>, container: &str) -> IpAddr {
    assign(store, &on(machine, container)).await.unwrap()[0]
}

/// The holder of every address in use.
fn holders(store: &Memory) -> BTreeMap<IpAddr, Attribute> {
    let blocks = blocks(store);
    let in_block = |block: &weir_common::ipam::Block| {
        let held = block.held_by(|_| true).into_iter();
        held.map(|it| (block.address(it), block.holder(it).unwrap().clone())).collect::<Vec<_>>()
    };
    blocks.iter().flat_map(in_block).collect()
}

fn recorded(store: &Memory) -> Option<MachineId> {
    let record = store.dump().get(&keys::machine("n1")).cloned();
    record.map(|record| MachineRecord::from_json(&record).unwrap().machine)
}

fn collection(machine: &str, rule: Rule) -> Collection {
    let (host, network) = ("n1".to_owned(), "net".to_owned());
    Collection { host, machine: Some(id(machine)), network, rule }
}

/// GC with an empty list.
fn listed(machine: &str) -> Collection {
    collection(machine, Rule::Listed(BTreeSet::new()))
}

/// The sweep after a reboot of the machine.
fn rebooted(machine: &str) -> Collection {
    let evidence = Evidence { boot_id: Some("a new boot".to_owned()), ..Evidence::default() };
    collection(machine, Rule::Proved(evidence))
}

async fn collect_all(store: &Memory, collection: &Collection) -> Collected {
    collect(store, collection, CollectScope::AllBlocks, &|_| true).await
}

/// The machine as a repair sees it: no container is in its kernel.
fn empty_machine(machine: &str) -> ThisNode {
    ThisNode {
        host: "n1".to_owned(),
        machine: Some(id(machine)),
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Add(u8),
    Del(u8),
    Collect(bool),
    Repair,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0u8..5).prop_map(Operation::Add),
        2 => (0u8..5).prop_map(Operation::Del),
        1 => any::<bool>().prop_map(Operation::Collect),
        1 => Just(Operation::Repair),
    ]
}

async fn perform(store: &Memory, machine: &str, operation: &Operation) {
    match operation {
        Operation::Add(container) => {
            match assign(store, &on(Some(machine), &container.to_string())).await {
                Ok(_) | Err(Error::Exhausted { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        Operation::Del(container) => {
            let assignee = on(Some(machine), &container.to_string()).assignee;
            engine::release(store, &assignee, &Default::default()).await.unwrap();
            assert_eq!(engine::lookup(store, &assignee).await.unwrap(), []);
        }
        Operation::Collect(is_listed) => {
            let collection = if *is_listed { listed(machine) } else { rebooted(machine) };
            assert!(collect_all(store, &collection).await.errors.is_empty());
        }
        Operation::Repair => {
            repair(store, Some(&empty_machine(machine))).await;
        }
    }
}

proptest! {
    /// Some of it was made by an earlier version, before the name was recorded: it
    /// belongs to whoever comes first.
    #[test]
    fn neither_machine_touches_what_the_other_has(
        earlier in prop::collection::btree_set(0u8..5, 0..3),
        steps in prop::collection::vec((any::<bool>(), operation()), 1..40),
    ) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let store = cluster();
            node(&store, "n1");
            for container in &earlier {
                add(&store, None, &container.to_string()).await;
            }
            for (is_first, operation) in &steps {
                let machine = if *is_first { "first" } else { "second" };
                let (before, owner) = (holders(&store), recorded(&store));
                perform(&store, machine, operation).await;
                assert_consistent(&store);
                let after = holders(&store);
                for (address, holder) in &before {
                    let is_own = match holder.fact(ATTRIBUTE_MACHINE) {
                        Some(made_on) => made_on == id(machine).as_str(),
                        None => owner.as_ref().is_none_or(|owner| *owner == id(machine)),
                    };
                    assert!(is_own || after.get(address) == Some(holder), "{address} {operation:?}");
                    let is_all = matches!(operation, Operation::Collect(_) | Operation::Repair);
                    let is_gone = !after.contains_key(address);
                    assert!(!is_own || !is_all || is_gone, "{address} is left by {operation:?}");
                }
                assert!(owner.is_none() || recorded(&store) == owner);
            }
        });
    }
}

#[tokio::test]
async fn the_first_add_records_the_machine_and_the_second_machine_is_told() {
    let store = cluster();
    let first = engine::assign(&store, &on(Some("first"), "a"), &[], now()).await.unwrap();
    assert_eq!((first.clash, recorded(&store)), (None, Some(id("first"))));
    let second = engine::assign(&store, &on(Some("second"), "a"), &[], now()).await.unwrap();
    assert_eq!(second.clash.as_ref().map(|clash| &clash.recorded), Some(&id("first")));
    assert_ne!(first.addresses, second.addresses);
    assert_eq!(recorded(&store), Some(id("first")));
    assert_eq!(find_clash(&store, "n1", Some(&id("first"))).await.unwrap(), None);
    assert_eq!(find_clash(&store, "n1", Some(&id("second"))).await.unwrap(), second.clash);
    // The handle counts both, and goes with the last.
    for machine in ["second", "first"] {
        assert_consistent(&store);
        let own = on(Some(machine), "a").assignee;
        assert_eq!(engine::release(&store, &own, &Default::default()).await.unwrap().len(), 1);
    }
    assert!(!store.dump().contains_key(&keys::handle("net.a")));
}

/// The first of a name neither.
#[tokio::test]
async fn the_record_costs_no_round_trip() {
    let round_trips = async |machine: Option<&str>| {
        let store = cluster();
        add(&store, machine, "a").await;
        let first = store.counters().round_trips();
        add(&store, machine, "b").await;
        (first, store.counters().round_trips() - first)
    };
    assert_eq!(round_trips(Some("first")).await, round_trips(None).await);
}

#[tokio::test]
async fn what_an_earlier_version_made_is_of_the_recorded_machine() {
    let store = cluster();
    let old = add(&store, None, "old").await;
    let own = add(&store, Some("first"), "new").await;
    // Another machine of the name: it gets another address, and frees nothing.
    let others = add(&store, Some("second"), "old").await;
    assert_ne!(others, old);
    engine::release(&store, &on(Some("second"), "old").assignee, &Default::default())
        .await
        .unwrap();
    for collection in [listed("second"), rebooted("second")] {
        let collected = collect_all(&store, &collection).await;
        assert_eq!((collected.released.len(), collected.of_other_machines), (0, 2));
    }
    assert_eq!(holders(&store).into_keys().collect::<Vec<_>>(), [old, own]);
    // The recorded one stamps it as its own.
    assert_eq!(add(&store, Some("first"), "old").await, old);
    let machine = holders(&store)[&old].fact(ATTRIBUTE_MACHINE).map(str::to_owned);
    assert_eq!(machine.as_deref(), Some(id("first").as_str()));
}

/// A machine without an identity has what names no machine, as long as there is no record.
#[tokio::test]
async fn a_machine_without_an_identity_leaves_what_names_one() {
    let store = cluster();
    let old = add(&store, None, "a").await;
    assert_eq!(add(&store, None, "a").await, old);
    assert_eq!(recorded(&store), None);
    add(&store, Some("first"), "b").await;
    let nobodys = Collection { machine: None, ..listed("any") };
    assert!(collect_all(&store, &nobodys).await.released.is_empty());
    assert_ne!(add(&store, None, "a").await, old);
}

#[tokio::test]
async fn a_takeover_keeps_boot_and_moment_and_goes_on_where_it_was_cut_off() {
    let store = cluster();
    for container in ["a", "b", "c", "d", "e", "f"] {
        add(&store, Some("first"), container).await;
    }
    let known = json!({"machine": id("first").as_str(), "since": 2026});
    put(&store, keys::machine("n1"), known);
    let before = holders(&store);
    let dying = store.another_process();
    dying.fail_commit(3, CommitFault::CrashBefore);
    adopt(&dying, "n1", &id("second")).await.unwrap_err();
    let left = |store: &Memory| {
        let mut holders = holders(store).into_values();
        holders.any(|it| it.fact(ATTRIBUTE_MACHINE) == Some(id("first").as_str()))
    };
    assert!(left(&store), "it was cut off");
    let adopted = adopt(&store, "n1", &id("second")).await.unwrap();
    assert!(adopted.addresses > 0 && adopted.errors.is_empty(), "{adopted:?}");
    assert!(!left(&store));
    let record: Value = serde_json::from_slice(&store.dump()[&keys::machine("n1")]).unwrap();
    assert_eq!(record, json!({"machine": id("second").as_str(), "since": 2026}));
    for (address, holder) in holders(&store) {
        for key in [ATTRIBUTE_BOOT, ATTRIBUTE_TIMESTAMP] {
            assert_eq!(holder.fact(key), before[&address].fact(key));
        }
    }
    let again = adopt(&store, "n1", &id("second")).await.unwrap();
    assert_eq!((again.before, again.addresses), (Some(id("second")), 0));
    assert_consistent(&store);
    // What is left is dead to the new machine, and nothing is the old one's any more.
    assert!(collect_all(&store, &listed("first")).await.released.is_empty());
    assert_eq!(collect_all(&store, &rebooted("second")).await.released.len(), 6);
    assert_consistent(&store);
}

#[tokio::test]
async fn a_takeover_names_a_block_that_cannot_be_read_and_leaves_other_nodes() {
    let store = cluster();
    let mut elsewhere = on(Some("first"), "x");
    elsewhere.assignee.host = "n2".to_owned();
    assign(&store, &elsewhere).await.unwrap();
    let own = add(&store, Some("first"), "a").await;
    let broken = keys::block("10.9.0.0/30".parse().unwrap());
    store.seed([(broken.clone(), b"{".to_vec())]);
    let adopted = adopt(&store, "n1", &id("second")).await.unwrap();
    assert_eq!((adopted.before, adopted.addresses), (Some(id("first")), 1));
    assert!(matches!(adopted.errors[..], [Error::Malformed { .. }]), "{:?}", adopted.errors);
    delete(&store, broken).await;
    for (address, holder) in holders(&store) {
        let machine = if address == own { id("second") } else { id("first") };
        assert_eq!(holder.fact(ATTRIBUTE_MACHINE), Some(machine.as_str()));
    }
}

/// Its Node is the other machine's.
#[tokio::test]
async fn nothing_of_the_node_is_written_in_a_clash() {
    let store = cluster();
    let birth = Birth { uid: "u".to_owned(), timestamp: "2026-11-23T03:40:20Z".to_owned() };
    let at = |address: &str| NodeAddresses { ipv4: address.parse().ok(), ipv6: None };
    let facts = |machine| LocalFacts { machine: Some(id(machine)), ..LocalFacts::default() };
    let (first, second) = (id("first"), id("second"));
    assert!(register(&store, "n1", at("172.31.1.1/24"), Some(&birth), Some(&first)).await.unwrap());
    assert_eq!(recorded(&store), Some(id("first")));
    ensure_tunnel_address(&store, TunnelKind::Ipip, "n1", &facts("first"), now()).await.unwrap();
    let tunnel = holders(&store).into_values().next().unwrap();
    assert_eq!(tunnel.fact(ATTRIBUTE_MACHINE), Some(id("first").as_str()));
    let before = store.dump();
    let failed = [
        register(&store, "n1", at("172.31.1.2/24"), Some(&birth), Some(&second)).await.err(),
        ensure_tunnel_address(&store, TunnelKind::Ipip, "n1", &facts("second"), now()).await.err(),
        release_tunnel_address(&store, TunnelKind::Ipip, "n1", Some(&second)).await.err(),
    ];
    for error in failed {
        assert!(matches!(error, Some(node::Error::Clash(_))), "{error:?}");
    }
    assert_eq!(store.dump(), before);
    // Registered before there were records: one is made, and nothing else.
    delete(&store, keys::machine("n1")).await;
    assert!(
        register(&store, "n1", NodeAddresses::default(), Some(&birth), Some(&first)).await.unwrap()
    );
    assert_eq!(store.dump(), before);
    assert!(
        !register(&store, "n1", NodeAddresses::default(), Some(&birth), Some(&first))
            .await
            .unwrap()
    );
    release_tunnel_address(&store, TunnelKind::Ipip, "n1", Some(&first)).await.unwrap().unwrap();
}

/// An ordinal that is neither free nor taken may be in use on the other machine.
#[tokio::test]
async fn a_repair_frees_no_ordinal_of_a_block_that_two_machines_share() {
    for owner in ["first", "second"] {
        let store = cluster();
        node(&store, "n1");
        add(&store, Some("second"), "b").await;
        put(&store, keys::machine("n1"), json!({"machine": id(owner).as_str()}));
        let block = blocks(&store)[0].cidr;
        edit(&store, keys::block(block), |block| {
            block["unallocated"].as_array_mut().unwrap().pop();
        });
        let left = repair(&store, Some(&empty_machine("first"))).await;
        assert_eq!(kinds(&left), [DamageKind::BlockUnsound], "{owner}");
        // On the machine that has all of the block, and the name, it becomes free.
        let left = repair(&store, Some(&empty_machine("second"))).await;
        assert_eq!(left.is_empty(), owner == "second", "{left:?}");
    }
}
