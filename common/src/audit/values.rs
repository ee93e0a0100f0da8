//! The values that a finding rests on, read again as of one moment, and the changes that
//! repairs are made of.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::finding::Finding;
use crate::datastore::{Datastore, Entry, Revision, Selection, Transaction, keys};
use crate::ipam::release::{abandon, count_again, forget_full, give_back};
use crate::ipam::{Affinity, Attribute, Block, Error, Guarded, Handle, IpamSnapshot, Stored};

/// The values that a finding rests on, whole and with their revisions.
#[derive(Clone, Debug)]
pub struct CurrentValues {
    /// The same values, condensed: an audit of them alone finds the finding
    /// again, if it is still there.
    pub(super) snapshot: IpamSnapshot,
    pub(super) blocks: BTreeMap<IpNet, Stored<Block>>,
    pub(super) handles: BTreeMap<String, Stored<Handle>>,
    /// By their keys.
    pub(super) affinities: BTreeMap<String, Stored<Affinity>>,
    /// As they were read.
    pub(super) guarded: Guarded,
    /// When each value was last written.
    written: BTreeMap<String, Revision>,
}

impl CurrentValues {
    /// Reads what a finding rests on. Pools and nodes that it does not rest on are those
    /// of `snapshot`.
    ///
    /// # Errors
    /// [`Error::NotReady`] while another program is moving the datastore;
    /// [`Error::Malformed`] when that cannot be told; [`Error::Datastore`].
    pub async fn read(
        datastore: &dyn Datastore,
        finding: &Finding,
        snapshot: &IpamSnapshot,
    ) -> Result<Self, Error> {
        let guarded = Guarded::read(datastore, selections(finding)).await?;
        let entries: Vec<Entry> = guarded.selected.iter().flatten().cloned().collect();
        let mut values = Self {
            snapshot: snapshot.pools_and_nodes(),
            blocks: BTreeMap::new(),
            handles: BTreeMap::new(),
            affinities: BTreeMap::new(),
            guarded,
            written: BTreeMap::new(),
        };
        if finding.rests_on_pools() {
            values.snapshot.forget_pools();
        }
        if let Some(host) = &finding.host {
            values.snapshot.forget_node(host);
        }
        for entry in &entries {
            values.learn(entry)?;
        }
        Ok(values)
    }

    fn learn(&mut self, entry: &Entry) -> Result<(), Error> {
        self.snapshot.learn(entry);
        self.written.insert(entry.key.clone(), entry.revision);
        let key = entry.key.as_str();
        // What cannot be read is in the snapshot, as such.
        if self.snapshot.unreadable.contains_key(key) {
            return Ok(());
        }
        if let Some(block) = keys::parse_block(key) {
            self.blocks.insert(block, Stored::read(entry, Block::from_json)?);
        } else if keys::parse_affinity(key).is_some() {
            self.affinities.insert(key.to_owned(), Stored::read(entry, Affinity::from_json)?);
        } else if let Some(handle) = keys::parse_handle(key) {
            self.handles.insert(handle.to_owned(), Stored::read(entry, Handle::from_json)?);
        }
        Ok(())
    }

    /// Whether another program wrote what the finding calls damaged after `since`, when
    /// it was first seen; `ours` are the keys that the repair changed itself.
    pub(super) fn is_in_motion(
        &self,
        finding: &Finding,
        since: Revision,
        ours: &BTreeSet<String>,
    ) -> bool {
        let is_written = |key: &String| self.written.get(key).is_some_and(|it| *it > since);
        let mut keys = finding.keys.iter();
        !finding.in_busy_block && keys.any(|key| is_written(key) && !ours.contains(key))
    }

    /// Requires that a host's name has the machine with which it was read.
    pub(super) fn require_machine(&self, host: &str, transaction: &mut Transaction) {
        let key = keys::machine(host);
        match self.written.get(&key) {
            Some(revision) => transaction.unchanged(key, *revision),
            None => transaction.absent(key),
        };
    }

    /// Requires that blocks are as they were read.
    pub(super) fn require_blocks(&self, blocks: &[IpNet], transaction: &mut Transaction) {
        for block in blocks {
            match self.blocks.get(block) {
                Some(stored) => transaction.unchanged(keys::block(*block), stored.revision),
                None => transaction.absent(keys::block(*block)),
            };
        }
    }

    /// Releases the one address that a finding is about.
    pub(super) fn release(&self, found: &Finding, transaction: &mut Transaction) -> Option<()> {
        let stored = self.blocks.get(&found.block?)?;
        let ordinal = stored.value.ordinal(found.addresses.first()?.address)?;
        let block = give_back(stored, &[ordinal], transaction);
        if let Some(id) = &found.handle {
            count_again(id, self.handles.get(id), &block, transaction);
        }
        Some(())
    }

    /// Takes a block from its host: deletes the affinity, and the block when it
    /// is empty; else the block stays without a host.
    pub(super) fn give_up(&self, found: &Finding, transaction: &mut Transaction) -> Option<()> {
        let (host, block) = (found.host.as_deref()?, found.block?);
        self.forget(host, block, transaction);
        match self.blocks.get(&block).filter(|stored| stored.value.host() == Some(host)) {
            None => self.require_blocks(&[block], transaction),
            Some(stored) => {
                abandon(stored, transaction);
            }
        }
        Some(())
    }

    /// Deletes an affinity, as long as the block is as it was read.
    pub(super) fn delete_affinity(
        &self,
        found: &Finding,
        transaction: &mut Transaction,
    ) -> Option<()> {
        let block = found.block?;
        self.forget(found.host.as_deref()?, block, transaction);
        self.require_blocks(&[block], transaction);
        Some(())
    }

    /// Deletes an empty block and its host's affinity to it.
    pub(super) fn delete_block(
        &self,
        found: &Finding,
        transaction: &mut Transaction,
    ) -> Option<()> {
        let block = found.block?;
        if let Some(host) = &found.host {
            self.forget(host, block, transaction);
        }
        transaction.delete(keys::block(block), self.blocks.get(&block)?.revision);
        Some(())
    }

    /// Deletes an affinity, or requires that it is still not there. What the
    /// host noted about the block goes with it.
    fn forget(&self, host: &str, block: IpNet, transaction: &mut Transaction) {
        let key = keys::affinity(host, block);
        match self.affinities.get(&key) {
            Some(stored) => transaction.delete(key, stored.revision),
            None => transaction.absent(key),
        };
        forget_full(host, block, transaction);
    }

    /// A handle with the counts of these blocks and no others.
    pub(super) fn count(&self, handle: Handle, id: &str, blocks: &[IpNet]) -> Handle {
        let mut counted = Handle { block: Default::default(), ..handle };
        let of_handle = |holder: &Attribute| holder.is_of(id);
        for stored in blocks.iter().filter_map(|block| self.blocks.get(block)) {
            counted.set(stored.value.cidr, stored.value.held_by(of_handle).len() as u64);
        }
        counted
    }
}

/// What to read for a finding.
fn selections(finding: &Finding) -> Vec<Selection> {
    let mut keys = finding.keys.clone();
    keys.extend(finding.host.as_deref().map(keys::node));
    keys.extend(finding.host.as_deref().map(keys::machine));
    keys.extend(finding.block.iter().chain(&finding.rests_on_blocks).map(|it| keys::block(*it)));
    keys.extend(finding.handle.as_deref().map(keys::handle));
    if let (Some(host), Some(block)) = (&finding.host, finding.block) {
        keys.push(keys::affinity(host, block));
    }
    keys.sort_unstable();
    keys.dedup();
    let mut selections: Vec<Selection> = keys.into_iter().map(Selection::Key).collect();
    if finding.rests_on_pools() {
        selections.push(Selection::Prefix(keys::POOLS.to_owned()));
    }
    selections
}
