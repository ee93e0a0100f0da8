//! Blocks that a host has no more use for, because their pool does not select it any more.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::affinity::Affinity;
use super::block::Block;
use super::knowledge::{Blocks, Stored, read_pool};
use crate::datastore::{Revision, Selection, Snapshot, keys};
use crate::resources::{IpPool, Node};

/// How many blocks are looked at for a release at the most, and how many of them are given up in
/// its transaction.
const MAX_LOOKS: usize = 128;
const MAX_BLOCKS: usize = 16;

/// The blocks of a host whose pool's node selector leaves the host out, each with the revision
/// of its affinity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnselectedBlocks {
    pub(super) host: String,
    pub(super) affinities: BTreeMap<IpNet, Revision>,
}

impl UnselectedBlocks {
    /// What to read for a host.
    pub fn selections(host: &str) -> Vec<Selection> {
        vec![
            Selection::Key(keys::node(host)),
            Selection::Prefix(keys::POOLS.to_owned()),
            Selection::Prefix(keys::affinities_of(host)),
        ]
    }

    /// Understands the answer to [`UnselectedBlocks::selections`], which begins at `first`.
    /// Where the node, a pool or an affinity cannot be read there are none: no DEL fails by it.
    pub fn parse(host: &str, snapshot: &Snapshot, first: usize) -> Self {
        Self::try_parse(host, snapshot, first).unwrap_or_default()
    }

    fn try_parse(host: &str, snapshot: &Snapshot, first: usize) -> Option<Self> {
        let node = snapshot.stored(first, Node::from_json).ok()?;
        let labels = node.map(|node| node.value.labels).unwrap_or_default();
        let pools = snapshot.entries(first + 1).iter();
        let pools: Vec<IpPool> =
            pools.map(|entry| Some(read_pool(entry).ok()?.value)).collect::<Option<_>>()?;
        let mut affinities = BTreeMap::new();
        for entry in snapshot.entries(first + 2) {
            let (_, block) = keys::parse_affinity(&entry.key)?;
            Affinity::from_json(&entry.value).ok()?;
            if is_unselected(&pools, block, &labels) {
                affinities.insert(block, entry.revision);
            }
        }
        Some(Self { host: host.to_owned(), affinities })
    }

    /// Those that have not been looked at yet.
    pub(super) fn unread(&self, blocks: &Blocks) -> Vec<IpNet> {
        blocks.unknown(self.affinities.keys().copied().take(MAX_LOOKS))
    }

    /// Those that are empty, but for these.
    pub(super) fn empty<'a>(&self, blocks: &'a Blocks, except: &[IpNet]) -> Vec<&'a Stored<Block>> {
        let others = self.affinities.keys().filter(|block| !except.contains(block));
        let known = others.filter_map(|block| blocks.get(*block)?);
        known.filter(|stored| self.may_go(&stored.value)).take(MAX_BLOCKS).collect()
    }

    /// Whether a block is one of them, and empty.
    pub(super) fn may_go(&self, block: &Block) -> bool {
        block.is_empty()
            && block.host() == Some(&self.host)
            && self.affinities.contains_key(&block.cidr)
    }
}

/// Whether a block lies in a pool whose node selector leaves out a node with these labels. Of
/// a block in no pool that cannot be said.
pub(super) fn is_unselected(
    pools: &[IpPool],
    block: IpNet,
    labels: &BTreeMap<String, String>,
) -> bool {
    let pool = pools.iter().find(|pool| pool.cidr.contains(&block));
    pool.is_some_and(|pool| !pool.node_selector.matches(labels))
}
