//! A host gives up its empty blocks of a pool that no longer selects it.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;

use serde_json::json;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::engine::{Leaving, release};
use weir_common::ipam::reclaim::{plan, reclaim};
use weir_common::ipam::{Family, IpamSnapshot};
use weir_datastore::Memory;

const V4: &[Family] = &[Family::V4];

fn labelled(store: &Memory, zone: &str) {
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1", "labels": {"zone": zone}}, "spec": {},
    });
    put(store, keys::node("n1"), node);
}

/// `n1` with three containers in two blocks of a pool for zone `a`, then in zone `b`.
async fn relabelled() -> Memory {
    let store = Memory::new();
    let for_zone =
        |zone: &str| json!({"blockSize": 31, "nodeSelector": format!("zone == '{zone}'")});
    pool(&store, "a", "10.0.0.0/28", for_zone("a"));
    pool(&store, "b", "10.1.0.0/28", for_zone("b"));
    labelled(&store, "a");
    for container in ["x", "y", "z"] {
        assign(&store, &request("n1", container, V4)).await.unwrap();
    }
    labelled(&store, "b");
    store
}

async fn del(store: &Memory, container: &str) {
    let leaving = Leaving { gives_up_blocks: true, ..Leaving::default() };
    release(store, &assignee("n1", container), &leaving).await.unwrap();
    assert_consistent(store);
}

fn held(store: &Memory) -> (usize, usize) {
    let affinities = store.dump().keys().filter(|key| key.starts_with(keys::HOSTS)).count();
    (blocks(store).len(), affinities)
}

#[tokio::test]
async fn the_last_release_in_a_block_gives_it_up() {
    let store = relabelled().await;
    del(&store, "x").await;
    assert_eq!(held(&store), (2, 2), "in use");
    del(&store, "y").await;
    assert_eq!(held(&store), (1, 1));
    // A block of the pool that selects the node stays when it is empty.
    assign(&store, &request("n1", "w", V4)).await.unwrap();
    del(&store, "w").await;
    assert_eq!(held(&store), (2, 2));
    del(&store, "z").await;
    assert_eq!(blocks(&store).len(), 1);
    assert!(blocks(&store)[0].cidr.to_string().starts_with("10.1."), "the other pool's");
    assert_eq!(held(&store), (1, 1));
    let notes = |key: &&String| key.starts_with("/calico/weir/v1/full/");
    assert_eq!(store.dump().keys().filter(notes).count(), 0);
}

/// Blocks that were empty when the node was labelled again go with the next release.
#[tokio::test]
async fn blocks_that_were_empty_before_go_too() {
    let store = relabelled().await;
    labelled(&store, "a");
    for container in ["x", "y"] {
        del(&store, container).await;
    }
    assert_eq!(held(&store), (2, 2), "selected");
    labelled(&store, "b");
    assign(&store, &request("n1", "w", V4)).await.unwrap();
    del(&store, "w").await;
    assert_eq!(held(&store), (2, 2), "the empty one went, z's and the new one stay");
    del(&store, "w").await;
    assert_eq!(held(&store), (2, 2), "a repeated DEL changes nothing");
}

/// A network that asks for its pools keeps their blocks, and a pool or node that cannot be read
/// is not an obstacle.
#[tokio::test]
async fn what_is_asked_for_or_not_known_stays() {
    let store = relabelled().await;
    for container in ["x", "y"] {
        let assignee = assignee("n1", container);
        release(&store, &assignee, &Leaving::default()).await.unwrap();
    }
    assert_eq!(held(&store), (2, 2));
    for key in [keys::pool("b"), keys::node("n1")] {
        let store = relabelled().await;
        put(&store, key, json!([]));
        for container in ["x", "y", "z"] {
            let leaving = Leaving { gives_up_blocks: true, ..Leaving::default() };
            release(&store, &assignee("n1", container), &leaving).await.unwrap();
        }
        assert_eq!(held(&store), (2, 2));
    }
}

#[tokio::test]
async fn reclaim_keeps_no_block_in_a_pool_that_does_not_select_the_host() {
    let store = relabelled().await;
    for container in ["x", "y", "z"] {
        let assignee = assignee("n1", container);
        release(&store, &assignee, &Leaving::default()).await.unwrap();
    }
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let planned = plan(&snapshot, &BTreeSet::new());
    assert_eq!(planned.len(), 2);
    for empty in planned {
        assert!(reclaim(&store, &empty).await.unwrap());
    }
    assert_eq!(held(&store), (0, 0));
    // Where the node cannot be read, one block stays.
    let store = relabelled().await;
    for container in ["x", "y", "z"] {
        release(&store, &assignee("n1", container), &Leaving::default()).await.unwrap();
    }
    put(&store, keys::node("n1"), json!([]));
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    assert_eq!(plan(&snapshot, &BTreeSet::new()).len(), 1);
}
