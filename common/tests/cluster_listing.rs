//! Reading the inventory while others write.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ipnet::IpNet;
use weir_common::datastore::{
    self, Datastore, Outcome, Page, Revision, Selection, Snapshot, Transaction, Watch, keys,
};
use weir_common::network::{Follower, Inventory, Listing};
use weir_datastore::Memory;

fn block(number: usize) -> IpNet {
    format!("10.0.{}.{}/28", number / 16, number % 16 * 16).parse().unwrap()
}

fn claim(number: usize) -> (String, Vec<u8>) {
    (keys::affinity("n1", block(number)), br#"{"state":"confirmed"}"#.to_vec())
}

/// Before each page but the first, another node gives its first block up, and claims
/// one that comes before all that is still to be read.
struct Busy {
    store: Memory,
    pages: AtomicUsize,
}

const BLOCKS: usize = 1200;

#[async_trait]
impl Datastore for Busy {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, datastore::Error> {
        self.store.read(selections).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, datastore::Error> {
        let page = self.pages.fetch_add(1, Ordering::Relaxed);
        if page > 0 {
            let mut change = Transaction::default();
            let key = keys::affinity("n1", block(page));
            change.writes.push(datastore::Write::Delete { key });
            let (key, value) = claim(BLOCKS + page);
            let key = key.replace("/host/n1/", "/host/n0/");
            change.writes.push(datastore::Write::Put { key, value });
            self.store.commit(change).await?;
        }
        self.store.list(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, datastore::Error> {
        self.store.commit(transaction).await
    }

    async fn watch(
        &self,
        prefixes: &[String],
        after: Revision,
    ) -> Result<Box<dyn Watch>, datastore::Error> {
        self.store.watch(prefixes, after).await
    }
}

/// The listing is of no single moment: with what a watch tells from its revision on it
/// comes to what there is, and nobody takes that for a restored datastore.
#[tokio::test]
async fn what_is_written_while_pages_are_read_is_not_missed() {
    let store = Memory::new();
    store.seed((0..BLOCKS).map(claim));
    let busy = Busy { store, pages: AtomicUsize::new(0) };
    let Listing { inventory, seen, .. } = Listing::read(&busy, usize::MAX).await.unwrap();
    let pages = busy.pages.load(Ordering::Relaxed);
    assert!(pages > 5, "{pages} pages: this tests nothing");
    let quiet = Listing::read(&busy.store, usize::MAX).await.unwrap();
    assert_ne!(inventory.blocks, quiet.inventory.blocks, "this tests nothing");
    let mut follower = Follower::default();
    follower.relist(inventory, &seen);
    let prefixes = Inventory::PREFIXES.map(str::to_owned);
    let mut watch = busy.watch(&prefixes, seen.revision).await.unwrap();
    while follower.revision() < quiet.seen.revision {
        follower.take(&watch.next().await.unwrap());
    }
    assert_eq!(follower.inventory().blocks, quiet.inventory.blocks);
    assert!(!follower.relist(quiet.inventory, &quiet.seen));
}
