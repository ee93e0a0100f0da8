//! What newer versions of Calico write survives whatever Weir does to the same values, and an
//! address that cools down is neither leaked nor free.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::stores::{check, cidr, later, node, repair};
use support::*;
use weir_common::audit::release_one::{Release, SeenAddress, look_up, release};
use weir_common::audit::{ThisNode, unjudged_addresses};
use weir_common::datastore::keys;
use weir_common::ipam::adopt::adopt;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::collect::{CollectScope, Collection, Rule, collect};
use weir_common::ipam::explain::{explain, newcomer};
use weir_common::ipam::{Block, Error, Family, IpamSnapshot, MachineId, engine, reclaim};
use weir_datastore::Memory;

/// When [`now`] is, and a moment thirty seconds before.
fn released() -> String {
    (now() - SignedDuration::from_secs(30)).to_string()
}

/// Two blocks of four addresses as a newer Calico leaves them: a container with an alternate
/// owner, an address that cools down, and fields that no version has yet.
fn newer(cooldown: u64) -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/28", json!({"blockSize": 30}));
    node(&store, "n1");
    node(&store, "n2");
    put(
        &store,
        keys::IPAM_CONFIG.to_owned(),
        json!({"auto_allocate_blocks": true, "ipCooldownSeconds": cooldown, "later": 1}),
    );
    for (number, host) in ["n1", "n2"].into_iter().enumerate() {
        let block = format!("10.0.0.{}/30", 4 * number);
        let handle = format!("net.{host}-old");
        let value = json!({
            "cidr": block, "affinity": format!("host:{host}"),
            "affinity_claim_time": "2026-11-23T03:00:00Z", "later": {"deep": [1]},
            "allocations": [0, 1, null, null], "unallocated": [2, 3],
            "attributes": [
                {"handle_id": handle, "secondary": {"node": host, "interface": "eth0"},
                    "alternateOwnerAttrs": {"pod": "next"}, "later": "kept"},
                {"handle_id": null, "secondary": {"node": host}, "releasedAt": released(),
                    "later": "cold"},
            ],
            "sequenceNumber": 5, "sequenceNumberForAllocation": {"0": 3, "1": 4},
            "deleted": false,
        });
        put(&store, keys::block(cidr(&block)), value);
        put(
            &store,
            keys::affinity(host, cidr(&block)),
            json!({"state": "confirmed", "deleted": false, "later": true}),
        );
        put(&store, keys::handle(&handle), json!({"block": {block: 1}, "later": true}));
    }
    store
}

fn only(store: &Memory, host: &str) -> Option<Block> {
    let address = if host == "n1" { "10.0.0.0/30" } else { "10.0.0.4/30" };
    blocks(store).into_iter().find(|block| block.cidr == cidr(address))
}

/// The block's own unknown fields, and those of each address in use.
type Unknown = (Map<String, Value>, BTreeMap<usize, Map<String, Value>>);

fn unknown(block: &Block) -> Unknown {
    let of = |ordinal: usize| Some((ordinal, block.holder(ordinal)?.unknown.clone()));
    (block.unknown.clone(), (0..block.allocations.len()).filter_map(of).collect())
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, u8),
    Del(u8, u8),
    DelOld(u8),
    Gc(u8),
    Adopt(u8),
    ReleaseOne(u8),
    Repair,
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..3, 0u8..4).prop_map(|(host, container)| Step::Add(host, container)),
        3 => (1u8..3, 0u8..4).prop_map(|(host, container)| Step::Del(host, container)),
        1 => (1u8..3).prop_map(Step::DelOld),
        1 => (1u8..3).prop_map(Step::Gc),
        1 => (1u8..3).prop_map(Step::Adopt),
        1 => (0u8..8).prop_map(Step::ReleaseOne),
        1 => Just(Step::Repair),
        1 => Just(Step::Reclaim),
    ]
}

async fn perform(store: &Memory, step: &Step) {
    match step {
        Step::Add(host, container) => {
            let request = request(&format!("n{host}"), &container.to_string(), &[Family::V4]);
            let _ = assign(store, &request).await;
        }
        Step::Del(host, container) => {
            let assignee = assignee(&format!("n{host}"), &container.to_string());
            engine::release(store, &assignee, &Default::default()).await.unwrap();
        }
        Step::DelOld(host) => {
            let assignee = assignee(&format!("n{host}"), &format!("n{host}-old"));
            engine::release(store, &assignee, &Default::default()).await.unwrap();
        }
        Step::Gc(host) => {
            let collection = Collection {
                host: format!("n{host}"),
                machine: None,
                network: "net".to_owned(),
                rule: Rule::Listed(BTreeSet::new()),
            };
            collect(store, &collection, CollectScope::AllBlocks, &|_| true).await;
        }
        Step::Adopt(host) => {
            adopt(store, &format!("n{host}"), &MachineId::from_source("new")).await.unwrap();
        }
        Step::ReleaseOne(number) => {
            let address = format!("10.0.0.{number}").parse().unwrap();
            if let Some(seen) = look_up(store, address).await.unwrap() {
                release(store, &SeenAddress::from(&seen)).await.unwrap();
            }
        }
        Step::Repair => {
            let here = ThisNode {
                host: "n1".to_owned(),
                networks: ["net".to_owned()].into(),
                ..ThisNode::default()
            };
            repair(store, Some(&here)).await;
        }
        Step::Reclaim => {
            let snapshot = IpamSnapshot::list(store).await.unwrap();
            for empty in reclaim::plan(&snapshot, &BTreeSet::new()) {
                reclaim::reclaim(store, &empty).await.unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An hour of cooling: the cold address of each block stays, with all that is written
    /// there, whatever else comes and goes.
    #[test]
    fn every_field_survives_every_transition(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = newer(1200);
            let config = store.dump()[keys::IPAM_CONFIG].clone();
            let before = ["n1", "n2"].map(|host| unknown(&only(&store, host).unwrap()));
            for step in steps {
                perform(&store, &step).await;
                for (host, before) in ["n1", "n2"].into_iter().zip(&before) {
                    let block = only(&store, host).unwrap();
                    let after = unknown(&block);
                    assert_eq!(after.0, before.0, "{step:?}");
                    assert_eq!(after.1.get(&1), before.1.get(&1), "{step:?}");
                    let is_old = |it: &weir_common::ipam::Attribute| {
                        it.handle_id.as_deref().is_some_and(|id| id.ends_with("-old"))
                    };
                    if block.holder(0).is_some_and(is_old) {
                        assert_eq!(after.1.get(&0), before.1.get(&0), "{step:?}");
                    }
                    let affinity = &store.dump()[&keys::affinity(host, block.cidr)];
                    let affinity: Value = serde_json::from_slice(affinity).unwrap();
                    assert_eq!(affinity["later"], true, "{step:?}");
                }
                assert_eq!(store.dump()[keys::IPAM_CONFIG], config);
                assert_consistent_but_for_cold(&store);
            }
        });
    }
}

/// A handle counts no address that cools down.
fn assert_consistent_but_for_cold(store: &Memory) {
    for block in blocks(store) {
        let cold = block.held_by(|holder| holder.is_cooling_down());
        assert!(cold.iter().all(|ordinal| !block.unallocated.contains(ordinal)));
        assert!(block.free().all(|ordinal| block.holder(ordinal).is_none()));
    }
}

/// Eight addresses, two in use, two cooling down: with a minute to go they are passed over, asked
/// for and not, and after it they are given, the longest cold first.
#[tokio::test]
async fn what_cools_down_is_passed_over_until_its_time_is_over() {
    for (cooldown, left) in [(31, 2), (30, 4)] {
        let store = newer(cooldown);
        put(
            &store,
            keys::pool("four"),
            json!({
                "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": "four"},
                "spec": {"cidr": "10.0.0.0/29", "blockSize": 30},
            }),
        );
        let cold = "10.0.0.1".parse().unwrap();
        let exactly = Request { wants: vec![Want::Exactly(cold)], ..request("n1", "asks", &[]) };
        let explained =
            explain(&store, &newcomer("n1", exactly.wants.clone()), vec![], now()).await.unwrap();
        assert_eq!(explained.wants[0].held[0].cooling, usize::from(left == 2));
        match engine::assign(&store, &exactly, &[], now()).await {
            Ok(_) => assert_eq!(left, 4),
            Err(error @ Error::Taken { .. }) => {
                assert!(left == 2 && error.to_string().contains("cools down"), "{error}");
            }
            Err(other) => panic!("{other}"),
        }
        engine::release(&store, &exactly.assignee, &Default::default()).await.unwrap();
        let mut given = 0;
        let refused = loop {
            match assign(&store, &request("n1", &format!("c{given}"), &[Family::V4])).await {
                Ok(_) => given += 1,
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(given, left + 2, "{refused}");
        assert_eq!(refused.contains("2 addresses there were released and cool down"), left == 2);
    }
}

/// Neither leaked nor in use: no finding, nothing unjudged, nothing to release.
#[tokio::test]
async fn what_cools_down_is_not_leaked() {
    let store = newer(1200);
    let here = ThisNode {
        host: "n1".to_owned(),
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    };
    engine::release(&store, &assignee("n1", "n1-old"), &Default::default()).await.unwrap();
    assert!(check(&store, Some(&here)).await.is_empty());
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let context = weir_common::audit::AuditContext::new(Some(&here), later());
    let unjudged: usize =
        unjudged_addresses(&snapshot, &context).iter().map(|it| it.addresses).sum();
    assert_eq!(unjudged, 1, "the other node's container");
    let cold = "10.0.0.1".parse().unwrap();
    assert_eq!(look_up(&store, cold).await.unwrap(), None);
    let seen = SeenAddress { address: cold, handle: None, sequence: Some(4) };
    assert_eq!(release(&store, &seen).await.unwrap(), Release::NotInUse);
}
