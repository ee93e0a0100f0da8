//! Taking back blocks that are of no use where they are.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::audit::{Circumstances, Listing, Owner};
use super::{Affinity, AffinityState, Block, Error, ReadyFlag, Stored};
use crate::datastore::{Datastore, Entry, Outcome, Selection, Transaction, keys};
use crate::resources::IpPool;

/// A block to take back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EmptyBlock {
    /// The block.
    pub block: IpNet,
    /// The host that has it.
    pub host: Option<String>,
}

/// The empty blocks that can be taken back.
///
/// A host keeps one block in each enabled pool, so that its next address needs
/// no claim: an empty one only if all of its blocks there are empty. (Calico
/// keeps the last block of a node, whatever its pool.) Blocks that a claim or a
/// release has not settled are left alone, and so are those of hosts that are
/// gone: an audit finds these ([`super::audit::Kind::HostGone`]).
pub fn plan(listing: &Listing, circumstances: &Circumstances<'_>) -> Vec<EmptyBlock> {
    let mut kept: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut empty: BTreeMap<IpNet, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (block, content) in &listing.blocks {
        let pool = enabled_pool(listing, *block).map(|pool| pool.name.as_str());
        let host = match &content.owner {
            Owner::Host(host) => Some(host.as_ref()),
            Owner::Nobody => None,
            Owner::Other => continue,
        };
        if !content.allocations.is_empty() {
            kept.extend(host.zip(pool));
        } else if host.is_none_or(|host| is_settled(listing, *block, host)) {
            empty.insert(*block, (host, pool));
        }
    }
    let gone = super::audit::hosts_gone(listing, circumstances);
    empty.retain(|_, (host, _)| !host.is_some_and(|host| gone.contains(host)));
    // The first empty block of a host without another one in the pool stays.
    empty.retain(|_, (host, pool)| match host.zip(*pool) {
        Some(place) => !kept.insert(place),
        None => true,
    });
    let name = |(block, (host, _)): (IpNet, (Option<&str>, _))| EmptyBlock {
        block,
        host: host.map(str::to_owned),
    };
    empty.into_iter().map(name).collect()
}

fn enabled_pool(listing: &Listing, block: IpNet) -> Option<&IpPool> {
    let serves = |pool: &&IpPool| {
        !pool.disabled && pool.cidr.contains(&block) && pool.block_size == block.prefix_len()
    };
    listing.pools.iter().find(serves)
}

fn is_settled(listing: &Listing, block: IpNet, host: &str) -> bool {
    let affinities = listing.affinities.get(&block).map_or(&[][..], Vec::as_slice);
    affinities
        .iter()
        .any(|(holder, state)| holder.as_ref() == host && *state == AffinityState::Confirmed)
}

/// Takes a block back, with its host's affinity, if it is still empty and that
/// host's. Answers whether it did.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Contended`], [`Error::Malformed`],
/// [`Error::Datastore`].
pub async fn reclaim(datastore: &dyn Datastore, empty: &EmptyBlock) -> Result<bool, Error> {
    let mut selections = vec![ReadyFlag::selection(), Selection::Key(keys::block(empty.block))];
    selections
        .extend(empty.host.iter().map(|host| Selection::Key(keys::affinity(host, empty.block))));
    for _ in 0..crate::datastore::MAX_ATTEMPTS {
        let snapshot = datastore.read(&selections).await?;
        let entry = |index: usize| snapshot.selected.get(index).and_then(|found| found.first());
        match decide(empty, entry(0), entry(1), entry(2))? {
            None => return Ok(false),
            Some(transaction) => {
                if let Outcome::Committed(_) = datastore.commit(transaction).await? {
                    return Ok(true);
                }
            }
        }
    }
    Err(crate::datastore::Contended::new(vec![keys::block(empty.block)]).into())
}

/// The transaction, if the block is still empty and its host's.
fn decide(
    empty: &EmptyBlock,
    information: Option<&Entry>,
    block: Option<&Entry>,
    affinity: Option<&Entry>,
) -> Result<Option<Transaction>, Error> {
    let ready = ReadyFlag::parse(information)?;
    ready.require()?;
    let block = block.map(|entry| Stored::read(entry, Block::from_json)).transpose()?;
    let affinity = affinity.map(|entry| Stored::read(entry, Affinity::from_json)).transpose()?;
    let is_takeable = |block: &Stored<Block>| {
        block.value.is_empty() && block.value.host() == empty.host.as_deref()
    };
    let Some(block) = block.filter(is_takeable) else { return Ok(None) };
    let mut transaction = Transaction::default();
    transaction.delete(keys::block(empty.block), block.revision);
    if let Some(host) = &empty.host {
        let key = keys::affinity(host, empty.block);
        match affinity {
            Some(affinity) => transaction.delete(key, affinity.revision),
            None => transaction.absent(key),
        };
        super::release::forget_full(host, empty.block, &mut transaction);
    }
    ready.guard(&mut transaction);
    Ok(Some(transaction))
}
