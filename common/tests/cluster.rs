//! What an ADD finds out about the cluster, against a store in memory.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;

use serde_json::json;
use support::*;
use weir_common::datastore::{Datastore, Transaction, Write, keys};
use weir_common::ipam::{Family, engine};
use weir_common::network::{ClusterSnapshot, ClusterState, ObservedRevision, TunnelSettings};
use weir_common::resources::FelixConfiguration;
use weir_datastore::Memory;

fn store_with_pool() -> Memory {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({}));
    store
}

/// An address for a container on n1.
async fn assign(store: &Memory, container: &str) {
    let request = request("n1", container, &[Family::V4]);
    engine::assign(store, &request, &[], now()).await.unwrap();
}

async fn listed(store: &Memory) -> ClusterSnapshot {
    ClusterSnapshot::read(store, usize::MAX).await.unwrap()
}

async fn delete(store: &Memory, key: String) {
    let writes = vec![Write::Delete { key }];
    store.commit(Transaction { compares: vec![], writes }).await.unwrap();
}

/// Whether an ADD on n1 from a block that the node has leaves the cluster as observed.
async fn is_outdated(store: &Memory, observed: &ObservedRevision) -> bool {
    observed.is_outdated(store).await.unwrap()
}

#[tokio::test]
async fn an_address_out_of_a_known_block_changes_nothing_and_a_claim_does() {
    let store = store_with_pool();
    let nothing = listed(&store).await;
    assert!(nothing.state.blocks.is_empty());
    assign(&store, "a").await;
    assert!(is_outdated(&store, &nothing.observed).await, "a block was claimed");
    let ClusterSnapshot { state, observed, .. } = listed(&store).await;
    assert_eq!(state.blocks.len(), 1);
    assert!(!is_outdated(&store, &observed).await);
    store.reset_counters();
    assign(&store, "b").await;
    assert!(store.counters().round_trips() <= 3);
    assert!(!is_outdated(&store, &observed).await);
    assert_eq!(store.counters().lists, 0);
}

#[tokio::test]
async fn a_deletion_is_a_change() {
    let store = store_with_pool();
    assign(&store, "a").await;
    let ClusterSnapshot { state, observed, .. } = listed(&store).await;
    let block = *state.blocks.keys().next().unwrap();
    delete(&store, keys::affinity("n1", block)).await;
    assert!(is_outdated(&store, &observed).await);
}

/// A node without an agent has them from its ADDs.
#[tokio::test]
async fn the_settings_of_tunnels_are_read_and_each_change_of_them_is_one() {
    let store = store_with_pool();
    assign(&store, "a").await;
    let before = listed(&store).await;
    assert_eq!(before.state.tunnel_settings("n1"), TunnelSettings::default());
    let key = format!("{}default", keys::FELIX_CONFIGURATIONS);
    let value = json!({"metadata": {"name": "default"}, "spec": {"vxlanVNI": 5000}});
    store.seed([(key.clone(), value.to_string().into_bytes())]);
    assert!(is_outdated(&store, &before.observed).await, "a configuration was made");
    let after = listed(&store).await;
    let expected = TunnelSettings(FelixConfiguration {
        numbers: [("vxlanVNI".to_owned(), 5000)].into(),
        ..FelixConfiguration::default()
    });
    assert_eq!(after.state.tunnel_settings("n1"), expected);
    assert!(!is_outdated(&store, &after.observed).await);
    delete(&store, key).await;
    assert!(is_outdated(&store, &after.observed).await, "it was deleted");
}

#[tokio::test]
async fn a_datastore_that_went_back_is_a_change() {
    let store = store_with_pool();
    assign(&store, "a").await;
    let later = listed(&store).await.observed;
    assert!(is_outdated(&store_with_pool(), &later).await);
}

#[tokio::test]
async fn too_many_blocks_are_left_out() {
    let store = store_with_pool();
    assign(&store, "a").await;
    let most = |most| ClusterSnapshot::read(&store, most);
    assert!(!most(1).await.unwrap().without_blocks);
    let limited = most(0).await.unwrap();
    assert!(limited.without_blocks);
    let whole = listed(&store).await.state;
    assert_eq!(whole.homes.values().collect::<Vec<_>>(), ["n1"]);
    let fingerprints = limited.state.fingerprints.clone();
    let known_without =
        ClusterState { homes: BTreeMap::new(), used: BTreeMap::new(), fingerprints, ..whole };
    assert_eq!(limited.state, known_without, "nothing was borrowed");
}
