//! The cluster as the page shows it, out of what the datastore has.
//!
//! [`ClusterState`] says who has which block, how full it is, and how nodes reach each other;
//! beside it stand the blocks' own values. A change costs the parsing of the one value that
//! changed.

mod address;
mod answer;
mod block;
mod problems;
mod reach;
mod search;
mod state;

use std::collections::BTreeMap;

use ipnet::IpNet;
use weir_common::datastore::{Entry, Event, keys};
use weir_common::ipam::Block;
use weir_common::network::ClusterState;
use weir_common::resources::IpPool;

pub use block::BlockDocument;
pub use reach::ReachDocument;
pub use search::{HistoryAnswer, SearchDocument, checked, question};
pub use state::{Circumstances, Offline, StateDocument};

/// The values that are kept besides the state.
#[derive(Debug, Default)]
pub struct KeptValues {
    pools: BTreeMap<String, IpPool>,
    /// The blocks' values as they are stored.
    blocks: BTreeMap<IpNet, String>,
}

impl KeptValues {
    /// Takes an entry in, if it is of a kind that is kept, and can be read.
    pub fn put(&mut self, entry: &Entry) {
        if let Some(block) = keys::parse_block(&entry.key) {
            if let Ok(text) = std::str::from_utf8(&entry.value) {
                self.blocks.insert(block, text.to_owned());
            }
        } else if let Some(name) = entry.key.strip_prefix(keys::POOLS)
            && let Ok((pool, _)) = IpPool::for_routes(&entry.value)
        {
            self.pools.insert(name.to_owned(), pool);
        }
    }

    fn delete(&mut self, key: &str) {
        if let Some(block) = keys::parse_block(key) {
            self.blocks.remove(&block);
        } else if let Some(name) = key.strip_prefix(keys::POOLS) {
            self.pools.remove(name);
        }
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct ClusterView {
    cluster: ClusterState,
    kept: KeptValues,
}

impl ClusterView {
    /// What a listing says.
    pub fn new(cluster: ClusterState, mut kept: KeptValues) -> Self {
        kept.blocks.retain(|block, _| cluster.used.contains_key(block));
        Self { cluster, kept }
    }

    /// Takes changes in. A value that cannot be read leaves what was known before.
    pub fn apply(&mut self, events: &[Event]) {
        for event in events {
            self.cluster.apply(event);
            match event {
                Event::Put(entry) if self.cluster.unreadable.contains_key(&entry.key) => {}
                Event::Put(entry) => self.kept.put(entry),
                Event::Delete { key, .. } => self.kept.delete(key),
            }
        }
    }

    /// A block; none where it is not there, or its value is another block's.
    fn block(&self, cidr: IpNet) -> Option<Block> {
        let block = Block::from_json(self.kept.blocks.get(&cidr)?.as_bytes()).ok()?;
        (block.cidr == cidr).then_some(block)
    }

    /// The block that an address lies in.
    fn block_around(&self, address: std::net::IpAddr) -> Option<IpNet> {
        let upto = IpNet::from(address);
        // Blocks do not overlap, so that none lies between it and the address; those that do all
        // the same are damage.
        let before = self.kept.blocks.range(..=upto).rev().map(|(block, _)| *block).take(2);
        before.into_iter().find(|block| block.contains(&address))
    }

    /// The host that a block names.
    fn host_of(&self, block: IpNet) -> Option<&str> {
        self.cluster.homes.get(&block).map(String::as_str)
    }
}

/// Why a question has no answer, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuestion(pub String);

#[cfg(test)]
mod tests;
