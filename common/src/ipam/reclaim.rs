//! Taking back blocks that are of no use where they are.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::affinity::{Affinity, AffinityState};
use super::block::Block;
use super::error::Error;
use super::knowledge::Stored;
use super::ready::Guarded;
use super::snapshot::{IpamSnapshot, Owner};
use super::unselected::is_unselected;
use crate::datastore::{Datastore, Decision, Selection, keys, transact};
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
/// A host keeps one block in each enabled pool that selects it, so that its next
/// address needs no claim: an empty one only if all of its blocks there are empty.
/// (Calico keeps the last block of a node, whatever its pool.) Blocks that a claim or a
/// release has not settled are left alone, and so are those of the hosts in `gone`: an
/// audit finds these.
pub fn plan(snapshot: &IpamSnapshot, gone: &BTreeSet<&str>) -> Vec<EmptyBlock> {
    let mut kept: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut empty: BTreeMap<IpNet, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for (block, content) in &snapshot.blocks {
        let host = match &content.owner {
            Owner::Host(host) => Some(host.as_ref()),
            Owner::NoHost => None,
            Owner::Other => continue,
        };
        let pool = enabled_pool(snapshot, *block).filter(|_| !is_unwanted(snapshot, *block, host));
        let pool = pool.map(|pool| pool.name.as_str());
        if !content.allocations.is_empty() {
            kept.extend(host.zip(pool));
        } else if host.is_none_or(|host| is_settled(snapshot, *block, host)) {
            empty.insert(*block, (host, pool));
        }
    }
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

fn enabled_pool(snapshot: &IpamSnapshot, block: IpNet) -> Option<&IpPool> {
    let serves = |pool: &&IpPool| {
        !pool.disabled && pool.cidr.contains(&block) && pool.block_size == block.prefix_len()
    };
    snapshot.pools.iter().find(serves)
}

/// Whether the block's pool does not select its host. As for an ADD, a host that is not
/// registered has no labels; of one that cannot be read nothing is said.
fn is_unwanted(snapshot: &IpamSnapshot, block: IpNet, host: Option<&str>) -> bool {
    let is_left_out = |labels| is_unselected(&snapshot.pools, block, labels);
    match host.map(|host| snapshot.nodes.get(host)) {
        None | Some(Some(None)) => false,
        Some(None) => is_left_out(&BTreeMap::new()),
        Some(Some(Some(node))) => is_left_out(&node.labels),
    }
}

fn is_settled(snapshot: &IpamSnapshot, block: IpNet, host: &str) -> bool {
    let affinities = snapshot.affinities.get(&block).map_or(&[][..], Vec::as_slice);
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
    transact(datastore, |_| decide(datastore, empty)).await
}

/// Takes the block back if it is still empty and its host's.
async fn decide(datastore: &dyn Datastore, empty: &EmptyBlock) -> Result<Decision<bool>, Error> {
    let affinity_key = empty.host.as_ref().map(|host| keys::affinity(host, empty.block));
    let keys = [Some(keys::block(empty.block)), affinity_key.clone()].into_iter().flatten();
    let guarded = Guarded::read(datastore, keys.map(Selection::Key).collect::<Vec<_>>()).await?;
    let is_takeable = |block: &Stored<Block>| {
        block.value.is_empty() && block.value.host() == empty.host.as_deref()
    };
    let Some(block) = guarded.stored(0, Block::from_json)?.filter(is_takeable) else {
        return Ok(Decision::Done(false));
    };
    let affinity = guarded.stored(1, Affinity::from_json)?;
    let mut transaction = guarded.transaction();
    transaction.delete(block.key, block.revision);
    if let Some((host, key)) = empty.host.as_ref().zip(affinity_key) {
        match affinity {
            Some(affinity) => transaction.delete(key, affinity.revision),
            None => transaction.absent(key),
        };
        super::release::forget_full(host, empty.block, &mut transaction);
    }
    Ok(Decision::Commit(transaction, true))
}
