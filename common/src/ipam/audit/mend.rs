//! How a finding is mended: one transaction, from the values it rests on.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::affinity::Affinity;
use super::super::block::Block;
use super::super::handle::Handle;
use super::super::knowledge::Stored;
use super::super::{release, release_one};
use super::audit;
use super::evidence::{Evidence, rests_on_pools};
use super::finding::{Claim, Finding};
use super::node::Circumstances;
use super::wording::Settlement;
use crate::datastore::{Compare, Transaction, keys};

/// The most comparisons that one transaction may hold (etcd's default
/// `--max-txn-ops`).
const MAX_COMPARES: usize = 128;

/// What becomes of a finding.
#[derive(Clone, Debug, PartialEq)]
pub enum Mend {
    /// This mends it.
    Commit(Transaction),
    /// It is not there any more.
    Gone,
    /// It is not safe to mend, for this reason.
    Left(String),
}

/// Makes the transaction that mends a finding, if the finding still holds of
/// what was read, and it is safe.
///
/// The transaction compares every value that the finding rests on, so that it
/// changes nothing when one of them changed meanwhile. An attachment without
/// its address is not mended here but by an assignment
/// ([`super::engine::Repair::mend`]).
pub fn mend(finding: &Finding, evidence: &Evidence, circumstances: &Circumstances<'_>) -> Mend {
    let mut found = audit(&evidence.listing, circumstances).into_iter();
    let Some(found) = found.find(|found| found.subject() == finding.subject()) else {
        return Mend::Gone;
    };
    if let Some(obstacle) = found.obstacle() {
        return Mend::Left(obstacle);
    }
    let Some(mut transaction) = transaction(&found, evidence) else {
        return Mend::Gone;
    };
    if let Some(key) = unreadable_key(&transaction, evidence) {
        return Mend::Left(format!("{key} cannot be read, and Weir does not overwrite it"));
    }
    evidence.ready.guard(&mut transaction);
    if let Some(host) = found.host().filter(|_| found.rests_on_kernel()) {
        evidence.require_machine(host, &mut transaction);
    }
    if rests_on_pools(&found) {
        let (prefix, revision) = (keys::POOLS.to_owned(), evidence.revision);
        transaction.compares.push(Compare::NoneNewer { prefix, revision });
    }
    if transaction.compares.len() > MAX_COMPARES {
        return Mend::Left("it takes more changes than one transaction may hold".to_owned());
    }
    Mend::Commit(transaction)
}

/// A key that a transaction takes for absent, because its value cannot be read.
fn unreadable_key<'a>(transaction: &'a Transaction, evidence: &Evidence) -> Option<&'a str> {
    transaction.compares.iter().find_map(|compare| match compare {
        Compare::Absent { key } if evidence.listing.unreadable.contains_key(key) => {
            Some(key.as_str())
        }
        _ => None,
    })
}

fn transaction(found: &Finding, evidence: &Evidence) -> Option<Transaction> {
    let mut transaction = Transaction::default();
    match found {
        Finding::LeakedAddress(allocation) => {
            evidence.release(allocation.block, allocation.address, &mut transaction)?;
        }
        Finding::AddressOfGoneHost { allocation, host, .. } => {
            evidence.release(allocation.block, allocation.address, &mut transaction)?;
            transaction.absent(keys::node(host));
        }
        Finding::BlockOfGoneHost { claim, .. } => {
            evidence.give_up(claim, &mut transaction);
            transaction.absent(keys::node(&claim.host));
        }
        Finding::EmptyHandle { handle, named } => {
            let stored = evidence.handles.get(handle.as_ref())?;
            transaction.delete(keys::handle(handle), stored.revision);
            evidence.require_blocks(named.iter().copied(), &mut transaction);
        }
        Finding::MissingHandle { handle, addresses } => {
            let mut blocks: Vec<IpNet> = addresses.iter().map(|it| it.block).collect();
            blocks.dedup();
            let content = evidence.count(Handle::default(), handle, &blocks);
            transaction.create(keys::handle(handle), content.to_json());
            evidence.require_blocks(blocks, &mut transaction);
        }
        Finding::WrongCount { handle, counts } => {
            let stored = evidence.handles.get(handle.as_ref())?;
            let blocks: Vec<IpNet> = counts.iter().map(|(block, ..)| *block).collect();
            let content = evidence.count(stored.value.clone(), handle, &blocks);
            transaction.update(keys::handle(handle), stored.revision, content.to_json());
            evidence.require_blocks(blocks, &mut transaction);
        }
        _ => return transaction_for_block(found, evidence),
    }
    Some(transaction)
}

fn transaction_for_block(found: &Finding, evidence: &Evidence) -> Option<Transaction> {
    let mut transaction = Transaction::default();
    match found {
        Finding::AffinityWithoutBlock(claim) | Finding::ForeignAffinity { claim, .. } => {
            evidence.forget(claim, &mut transaction);
            evidence.require_blocks([claim.block], &mut transaction);
        }
        Finding::MissingAffinity(claim) => {
            transaction.create(claim.key(), Affinity::default().to_json());
            evidence.require_blocks([claim.block], &mut transaction);
        }
        Finding::UnsettledAffinity { claim, .. } => match found.settlement() {
            Settlement::Release => evidence.give_up(claim, &mut transaction),
            Settlement::Confirm => {
                let stored = evidence.affinities.get(claim)?;
                let confirmed = stored.value.confirmed().to_json();
                transaction.update(claim.key(), stored.revision, confirmed);
                evidence.require_blocks([claim.block], &mut transaction);
            }
            Settlement::Forget => {
                evidence.forget(claim, &mut transaction);
                evidence.require_blocks([claim.block], &mut transaction);
            }
        },
        Finding::BlockWithoutPool { block, host, .. } => {
            evidence.remove(*block, host.as_ref(), &mut transaction)?;
        }
        Finding::MisfitBlock { block, host, overlaps, .. } => {
            evidence.remove(*block, host.as_ref(), &mut transaction)?;
            evidence.require_blocks(overlaps.iter().copied(), &mut transaction);
        }
        Finding::UnsoundBlock { block, doubtful, .. } => {
            let stored = evidence.blocks.get(block)?;
            let sound = make_sound(&stored.value, doubtful);
            transaction.update(keys::block(*block), stored.revision, sound.to_json());
            if let Some(host) = sound.host() {
                release::forget_full(host, *block, &mut transaction);
            }
        }
        _ => return None,
    }
    Some(transaction)
}

impl Evidence {
    /// Releases one address of a block.
    fn release(&self, block: IpNet, address: IpAddr, transaction: &mut Transaction) -> Option<()> {
        let stored = self.blocks.get(&block)?;
        let ordinal = stored.value.ordinal(address)?;
        let handle = stored.value.holder(ordinal)?.handle_id.as_deref();
        let handle = handle.and_then(|handle| self.handles.get(handle));
        release_one::release_ordinal(stored, ordinal, handle, transaction);
        Some(())
    }

    /// Takes a block from its host: deletes the affinity, and the block when it
    /// is empty; else the block becomes nobody's.
    fn give_up(&self, claim: &Claim, transaction: &mut Transaction) {
        self.forget(claim, transaction);
        let of_host = |stored: &&Stored<Block>| stored.value.host() == Some(claim.host.as_ref());
        match self.blocks.get(&claim.block).filter(of_host) {
            None => self.require_blocks([claim.block], transaction),
            Some(stored) => {
                release::abandon(stored, transaction);
            }
        }
    }

    /// Deletes an empty block and its host's affinity to it.
    fn remove(
        &self,
        block: IpNet,
        host: Option<&Arc<str>>,
        transaction: &mut Transaction,
    ) -> Option<()> {
        let stored = self.blocks.get(&block)?;
        if let Some(host) = host {
            let claim = Claim { block, host: host.clone() };
            self.forget(&claim, transaction);
        }
        transaction.delete(keys::block(block), stored.revision);
        Some(())
    }

    /// Deletes an affinity, or requires that it is still not there. What the
    /// host noted about the block goes with it.
    fn forget(&self, claim: &Claim, transaction: &mut Transaction) {
        match self.affinities.get(claim) {
            Some(stored) => transaction.delete(claim.key(), stored.revision),
            None => transaction.absent(claim.key()),
        };
        release::forget_full(&claim.host, claim.block, transaction);
    }

    /// Requires that blocks are as they were read.
    fn require_blocks(
        &self,
        blocks: impl IntoIterator<Item = IpNet>,
        transaction: &mut Transaction,
    ) {
        for block in blocks {
            let block = block.trunc();
            match self.blocks.get(&block) {
                Some(stored) => transaction.unchanged(keys::block(block), stored.revision),
                None => transaction.absent(keys::block(block)),
            };
        }
    }

    /// A handle with the counts of these blocks and no others.
    fn count(&self, handle: Handle, id: &str, blocks: &[IpNet]) -> Handle {
        let mut counted = Handle { block: Default::default(), ..handle };
        for stored in blocks.iter().filter_map(|block| self.blocks.get(block)) {
            let of_handle =
                |holder: &super::super::block::Attribute| holder.handle_id.as_deref() == Some(id);
            counted.set(stored.value.cidr, stored.value.held_by(of_handle).len() as u64);
        }
        counted
    }
}

/// The same block with a list of free ordinals that fits what is allocated:
/// those that were free stay in their order, those that were missing come last,
/// but for the doubtful ones.
fn make_sound(block: &Block, doubtful: &[IpAddr]) -> Block {
    let mut sound = block.clone();
    let mut free: Vec<usize> = Vec::with_capacity(block.unallocated.len());
    let doubtful: Vec<usize> = doubtful.iter().filter_map(|it| block.ordinal(*it)).collect();
    let missing = (0..block.allocations.len()).filter(|ordinal| !doubtful.contains(ordinal));
    for ordinal in block.unallocated.iter().copied().chain(missing) {
        if block.allocations[ordinal].is_none() && !free.contains(&ordinal) {
            free.push(ordinal);
        }
    }
    sound.unallocated = free;
    sound.advance();
    sound
}
