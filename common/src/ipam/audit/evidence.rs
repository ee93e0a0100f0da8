//! What a finding rests on, read again as of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::super::affinity::Affinity;
use super::super::block::Block;
use super::super::error::Error;
use super::super::handle::Handle;
use super::super::knowledge::Stored;
use super::super::ready::ReadyFlag;
use super::finding::{Claim, Finding};
use super::listing::Listing;
use crate::datastore::{Entry, Revision, Selection, Snapshot, Transaction, keys};

/// The values that a finding rests on, whole and with their revisions.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The same values, condensed: an audit of them alone finds the finding
    /// again, if it is still there.
    pub(super) listing: Listing,
    pub(super) blocks: BTreeMap<IpNet, Stored<Block>>,
    pub(super) handles: BTreeMap<String, Stored<Handle>>,
    pub(super) affinities: BTreeMap<Claim, Stored<Affinity>>,
    pub(super) ready: ReadyFlag,
    pub(super) revision: Revision,
    /// When each value was last written.
    written: BTreeMap<String, Revision>,
}

impl Evidence {
    /// What to read for a finding.
    pub fn selections(finding: &Finding) -> Vec<Selection> {
        let mut keys = vec![keys::CLUSTER_INFORMATION.to_owned()];
        keys.extend(finding.keys());
        keys.extend(finding.host().map(keys::node));
        keys.extend(finding.host().map(keys::machine));
        keys.extend(finding.block().map(keys::block));
        keys.extend(blocks_of(finding).into_iter().map(keys::block));
        keys.extend(finding.handle().as_deref().map(keys::handle));
        if let (Some(host), Some(block)) = (finding.host(), finding.block()) {
            keys.push(keys::affinity(host, block));
        }
        keys.sort_unstable();
        keys.dedup();
        let mut selections: Vec<Selection> = keys.into_iter().map(Selection::Key).collect();
        if rests_on_pools(finding) {
            selections.push(Selection::Prefix(keys::POOLS.to_owned()));
        }
        selections
    }

    /// Understands the answer to [`Evidence::selections`]. Pools and nodes that
    /// were not asked for are those of `listing`.
    ///
    /// # Errors
    /// [`Error::NotReady`] while somebody is moving the datastore;
    /// [`Error::Malformed`] when that cannot be told.
    pub fn parse(finding: &Finding, snapshot: &Snapshot, listing: &Listing) -> Result<Self, Error> {
        let mut evidence = Self {
            listing: listing.surroundings(),
            blocks: BTreeMap::new(),
            handles: BTreeMap::new(),
            affinities: BTreeMap::new(),
            ready: ReadyFlag::default(),
            revision: snapshot.revision,
            written: BTreeMap::new(),
        };
        if rests_on_pools(finding) {
            evidence.listing.forget_pools();
        }
        if let Some(host) = finding.host() {
            evidence.listing.forget_node(host);
        }
        for entry in snapshot.selected.iter().flatten() {
            evidence.learn(entry)?;
        }
        evidence.ready.require()?;
        Ok(evidence)
    }

    /// Requires that a host's name has the machine with which it was read.
    pub(super) fn require_machine(&self, host: &str, transaction: &mut Transaction) {
        let key = keys::machine(host);
        match self.written.get(&key) {
            Some(revision) => transaction.unchanged(key, *revision),
            None => transaction.absent(key),
        };
    }

    /// Whether what the finding calls damaged was written by somebody after
    /// `since`, when it was first seen; `ours` are a repair's own changes.
    pub(super) fn is_in_motion(
        &self,
        finding: &Finding,
        since: Revision,
        ours: &BTreeSet<Revision>,
    ) -> bool {
        let keys = finding.steady_keys().into_iter();
        let mut written = keys.filter_map(|key| self.written.get(&key));
        written.any(|revision| *revision > since && !ours.contains(revision))
    }

    fn learn(&mut self, entry: &Entry) -> Result<(), Error> {
        self.listing.learn(entry);
        self.written.insert(entry.key.clone(), entry.revision);
        let key = entry.key.as_str();
        // What cannot be read is in the listing, as such.
        if self.listing.unreadable.contains_key(key) {
            return Ok(());
        }
        if key == keys::CLUSTER_INFORMATION {
            self.ready = ReadyFlag::parse(Some(entry))?;
        } else if let Some(block) = keys::parse_block(key) {
            self.blocks.insert(block, Stored::read(entry, Block::from_json)?);
        } else if let Some((host, block)) = keys::parse_affinity(key) {
            let claim = Claim { block, host: Arc::from(host) };
            self.affinities.insert(claim, Stored::read(entry, Affinity::from_json)?);
        } else if let Some(handle) = keys::parse_handle(key) {
            self.handles.insert(handle.to_owned(), Stored::read(entry, Handle::from_json)?);
        }
        Ok(())
    }
}

/// The blocks that a finding about a handle rests on.
fn blocks_of(finding: &Finding) -> Vec<IpNet> {
    match finding {
        Finding::EmptyHandle { named, .. } => named.clone(),
        Finding::WrongCount { counts, .. } => counts.iter().map(|(block, ..)| *block).collect(),
        Finding::MissingHandle { addresses, .. } => {
            addresses.iter().map(|allocation| allocation.block).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a finding rests on which pools there are.
pub(super) fn rests_on_pools(finding: &Finding) -> bool {
    matches!(finding, Finding::BlockWithoutPool { .. } | Finding::MisfitBlock { .. })
}
