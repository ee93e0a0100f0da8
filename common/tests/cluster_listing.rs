//! Reading the state while others write.

#![allow(clippy::unwrap_used, reason = "test code")]

use ipnet::IpNet;
use weir_common::datastore::{Datastore, Transaction, Write, keys};
use weir_common::network::{ClusterCache, ClusterSnapshot, ClusterState};
use weir_datastore::Memory;
use weir_datastore::memory::MemoryCall;

fn block(number: usize) -> IpNet {
    format!("10.0.{}.{}/28", number / 16, number % 16 * 16).parse().unwrap()
}

fn claim(number: usize) -> (String, Vec<u8>) {
    (keys::affinity("n1", block(number)), br#"{"state":"confirmed"}"#.to_vec())
}

const BLOCKS: usize = 1200;

/// Another node gives a block up, and claims one that comes before all others.
async fn change(store: &Memory, number: usize) {
    let mut change = Transaction::default();
    let key = keys::affinity("n1", block(number));
    change.writes.push(Write::Delete { key });
    let (key, value) = claim(BLOCKS + number);
    let key = key.replace("/host/n1/", "/host/n0/");
    change.writes.push(Write::Put { key, value });
    store.commit(change).await.unwrap();
}

/// The listing is of no single moment: with what a watch tells from its revision on it
/// comes to what there is, and nobody takes that for a restored datastore.
#[tokio::test]
async fn what_is_written_while_pages_are_read_is_not_missed() {
    let store = Memory::new();
    store.seed((0..BLOCKS).map(claim));
    let busy = store.another_process();
    busy.before_each(MemoryCall::Read, |page, other| async move {
        if page > 1 {
            change(&other, page as usize - 1).await;
        }
    });
    let ClusterSnapshot { state, observed, .. } =
        ClusterSnapshot::read(&busy, usize::MAX).await.unwrap();
    let pages = busy.counters().lists;
    assert!(pages > 5, "{pages} pages: this tests nothing");
    let quiet = ClusterSnapshot::read(&store, usize::MAX).await.unwrap();
    assert_ne!(state.blocks, quiet.state.blocks, "this tests nothing");
    let mut cache = ClusterCache::default();
    cache.replace(state, &observed);
    let prefixes = ClusterState::PREFIXES.map(str::to_owned);
    let mut watch = busy.watch(&prefixes, observed.revision).await.unwrap();
    while cache.revision() < quiet.observed.revision {
        cache.apply(&watch.next().await.unwrap());
    }
    assert_eq!(cache.state().blocks, quiet.state.blocks);
    assert!(!cache.replace(quiet.state, &quiet.observed));
}
