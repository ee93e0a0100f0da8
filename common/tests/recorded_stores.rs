//! Every value of IPAM that Calico stored, and every one written by hand as Calico does, is read and written back to the byte,
//! and what it means holds together.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use proptest::prelude::*;
use serde_json::Value;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::{
    ATTRIBUTE_NODE, Affinity, Assignee, Block, Family, Handle, Purpose, engine,
};
use weir_datastore::Memory;

fn stores() -> Vec<(&'static str, Memory)> {
    let of_calico = ["small", "seed", "busy"].map(|name| (name, recorded(name)));
    of_calico
        .into_iter()
        .chain(["vxlan-small", "vxlan"].map(|name| (name, by_hand(name))))
        .collect()
}

fn written_back(key: &str, value: &[u8]) -> Option<Vec<u8>> {
    if key.starts_with(keys::BLOCKS) {
        Some(Block::from_json(value).unwrap().to_json())
    } else if key.starts_with(keys::HANDLES) {
        Some(Handle::from_json(value).unwrap().to_json())
    } else if key.starts_with(keys::HOSTS) {
        Some(Affinity::from_json(value).unwrap().to_json())
    } else {
        None
    }
}

#[test]
fn blocks_handles_and_affinities_are_written_back_as_they_were() {
    for (name, store) in stores() {
        let mut compared = 0;
        for (key, value) in store.dump() {
            if let Some(again) = written_back(&key, &value) {
                assert_eq!(
                    String::from_utf8(again).unwrap(),
                    String::from_utf8(value).unwrap(),
                    "{key}"
                );
                compared += 1;
            }
        }
        assert!(compared >= 7, "{name}: {compared} values");
    }
}

#[test]
fn fields_that_weir_does_not_know_survive() {
    let block = r#"{"cidr":"10.0.0.0/31","affinity":"host:a","allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"n.c","secondary":null,"releasedAt":"2026"}],"sequenceNumber":9223372036854775809,"sequenceNumberForAllocation":{"0":9223372036854775808},"deleted":false,"affinityClaimTime":"2026-01-02T03:04:05Z"}"#;
    let mut read = Block::from_json(block.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(read.to_json()).unwrap(), block);
    read.assign(1, read.attributes[0].clone());
    read.advance();
    let changed: Value = serde_json::from_slice(&read.to_json()).unwrap();
    assert_eq!(changed["affinityClaimTime"], "2026-01-02T03:04:05Z");
    assert_eq!(changed["attributes"][0]["releasedAt"], "2026");
    assert_eq!(changed["sequenceNumber"], 9_223_372_036_854_775_810_u64);
}

#[test]
fn calicos_stores_are_consistent() {
    for (_, store) in stores() {
        assert_consistent(&store);
    }
}

/// Allocating and releasing again touches nothing but the block's queue and its
/// sequence numbers.
#[tokio::test]
async fn everything_else_stays_as_it_was() {
    for (name, host) in [("small", "n1"), ("seed", "n3"), ("busy", "n5")] {
        let store = recorded(name);
        let before = store.dump();
        let mut request = request(host, "weir", &[Family::V4]);
        if name == "busy" {
            request.wants = request_of_both_families(host);
        }
        let got = assign(&store, &request).await.unwrap();
        assert_eq!(got.len(), request.wants.len());
        assert_consistent(&store);
        engine::release(&store, &request.assignee, &Default::default()).await.unwrap();
        let after = store.dump();
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{name}");
        let changed = before.iter().filter(|(key, value)| after[*key] != **value);
        for (key, _) in changed {
            assert!(key.starts_with(keys::BLOCKS), "{name}: {key} changed");
        }
    }
}

fn request_of_both_families(host: &str) -> Vec<weir_common::ipam::assign::Want> {
    request(host, "weir", &[Family::V4, Family::V6]).wants
}

/// Whoever has an address.
fn assignees(store: &Memory) -> Vec<Assignee> {
    let mut assignees = Vec::new();
    for block in blocks(store) {
        for ordinal in block.held_by(|_| true) {
            let holder = block.holder(ordinal).unwrap();
            assignees.push(Assignee {
                host: holder.fact(ATTRIBUTE_NODE).unwrap_or_default().to_owned(),
                machine: None,
                network: None,
                handle_id: holder.handle_id.clone().unwrap_or_default(),
                purpose: Purpose::Interface("eth0".to_owned()),
            });
        }
    }
    assignees
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Containers come and go on the six nodes of `busy`, those of Calico too.
    #[test]
    fn every_block_stays_sound(
        steps in prop::collection::vec((any::<bool>(), 1u8..=6, 0usize..40, any::<bool>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = recorded("busy");
            let calicos = assignees(&store);
            for (add, host, container, dual) in steps {
                if add {
                    let families = if dual { &[Family::V4, Family::V6][..] } else { &[Family::V4] };
                    let request = request(&format!("n{host}"), &container.to_string(), families);
                    // A refusal is as good as an address: both must leave all sound.
                    let _ = assign(&store, &request).await;
                } else {
                    let weirs = || assignee(&format!("n{host}"), &container.to_string());
                    let gone = calicos.get(container).cloned().unwrap_or_else(weirs);
                    engine::release(&store, &gone, &Default::default()).await.unwrap();
                }
                assert_consistent(&store);
            }
        });
    }
}
