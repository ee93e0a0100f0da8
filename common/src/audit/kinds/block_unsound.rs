//! Kind 11: a block with ordinals both free and taken, or neither.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::audit::finding::{Finding, listed};
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};
use crate::ipam::{Block, BlockUse, nth_address, release};

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let blocks = scope.snapshot.blocks.iter();
    let unsound = blocks.filter(|(_, it)| !it.both.is_empty() || !it.neither.is_empty());
    unsound.map(|(block, content)| describe(scope, *block, content)).collect()
}

fn describe(scope: &Scope<'_>, block: IpNet, content: &BlockUse) -> Finding {
    let addresses = |ordinals: &[usize]| -> Vec<IpAddr> {
        ordinals.iter().map(|ordinal| nth_address(block, *ordinal as u128)).collect()
    };
    let (both, neither) = (addresses(&content.both), addresses(&content.neither));
    let may_free = |it: &&IpAddr| {
        let node = scope.context.node;
        node.is_some_and(|node| node.may_free(content, scope.snapshot, **it))
    };
    let doubtful: Vec<IpAddr> = neither.iter().filter(|it| !may_free(it)).copied().collect();
    let states =
        [(&both, "both free and taken, or free twice"), (&neither, "neither free nor taken")];
    let states = states.iter().filter(|(addresses, _)| !addresses.is_empty());
    let states: Vec<String> =
        states.map(|(addresses, state)| format!("{} {state}", listed(*addresses))).collect();
    let problem = format!("block {block} has {}", states.join("; "));
    let host = content.owner.host().map(AsRef::as_ref);
    let is_left = both.is_empty() && doubtful.len() == neither.len();
    let obstacle = is_left.then(|| perhaps_used(host, &doubtful));
    let remedy = "make the list of free addresses again; what is taken stays taken";
    let finding = Finding::of_block(DamageKind::BlockUnsound, host, block, problem, remedy);
    Finding { doubtful, in_busy_block: true, ..finding.left(obstacle) }
}

fn perhaps_used(host: Option<&str>, addresses: &[IpAddr]) -> String {
    let addresses = listed(addresses);
    match host {
        Some(host) => format!(
            "{addresses} may be in use all the same; a repair on node {host} frees what that node \
             has no route to"
        ),
        None => format!("{addresses} may be in use all the same, and the block belongs to no node"),
    }
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let block = found.block?;
    let stored = values.blocks.get(&block)?;
    let sound = make_sound(&stored.value, &found.doubtful);
    tx.update(keys::block(block), stored.revision, sound.to_json());
    if let Some(host) = sound.host() {
        release::forget_full(host, block, tx);
    }
    Some(())
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
