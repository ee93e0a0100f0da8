//! The decision how an attachment's addresses are given back.

use ipnet::IpNet;

use super::Decided;
use super::assignee::Assignee;
use super::block::{Attribute, Block};
use super::error::Error;
use super::handle::Handle;
use super::knowledge::{Blocks, Holdings, Stored};
use super::unselected::UnselectedBlocks;
use crate::datastore::{Transaction, Write, keys};

/// Decides how to release all addresses of `assignee`. What others have under the same
/// handle stays, and with it the handle.
///
/// # Errors
/// As [`decide_by`].
pub fn decide(assignee: &Assignee, holdings: &Holdings, blocks: &Blocks) -> Result<Decided, Error> {
    let has = |holder: &Attribute| assignee.has(holder, holdings.machine());
    decide_by(&assignee.handle_id, has, (holdings, &UnselectedBlocks::default()), blocks)
}

/// Decides how to release what of a handle a holder `has`; the other holders' addresses stay,
/// and with them the handle. Of the `unselected` blocks those that are empty go with it.
///
/// Nothing to release is no error: DEL may be repeated. A block left empty stays
/// with its host, one without a host is removed.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Malformed`].
pub fn decide_by(
    handle_id: &str,
    has: impl Fn(&Attribute) -> bool,
    (holdings, unselected): (&Holdings, &UnselectedBlocks),
    blocks: &Blocks,
) -> Result<Decided, Error> {
    holdings.ready.require()?;
    let Some(handle) = &holdings.handle else {
        return Ok(Decided::Done(Vec::new()));
    };
    let unread = holdings.unread(blocks)?;
    if !unread.is_empty() {
        return Ok(Decided::Read(unread));
    }
    let released = holdings.addresses_of(&has, blocks);
    let mut transaction = Transaction::default();
    let mut remaining = handle.value.clone();
    for cidr in holdings.blocks() {
        let count = match blocks.get(cidr).flatten() {
            None => 0,
            Some(block) => release_in(block, handle_id, &has, unselected, &mut transaction),
        };
        remaining.set(cidr, count);
    }
    if remaining == handle.value {
        return Ok(Decided::Done(Vec::new()));
    }
    let unread = unselected.unread(blocks);
    if !unread.is_empty() {
        return Ok(Decided::Read(unread));
    }
    for stored in unselected.empty(blocks, &holdings.blocks()) {
        give_up(stored, unselected, &mut transaction);
    }
    let value = (!remaining.is_empty()).then(|| remaining.to_json());
    transaction.replace(keys::handle(handle_id), handle.revision, value);
    holdings.ready.guard(&mut transaction);
    Ok(Decided::Commit(transaction, released))
}

/// Releases what a holder `has` in one block and returns how many addresses the handle still
/// has there: other interfaces', other hosts' and machines', other networks'.
fn release_in(
    stored: &Stored<Block>,
    handle_id: &str,
    has: impl Fn(&Attribute) -> bool,
    unselected: &UnselectedBlocks,
    transaction: &mut Transaction,
) -> u64 {
    let ordinals = stored.value.held_by(has);
    let mut block = stored.value.clone();
    if !ordinals.is_empty() {
        block.release(&ordinals);
        if unselected.may_go(&block) {
            give_up(stored, unselected, transaction);
            return 0;
        }
        block = give_back(stored, &ordinals, transaction);
    }
    block.held_by(|holder| holder.is_of(handle_id)).len() as u64
}

/// Gives up a block ([`UnselectedBlocks::may_go`]) with its affinity.
fn give_up(stored: &Stored<Block>, unselected: &UnselectedBlocks, transaction: &mut Transaction) {
    let (host, cidr) = (unselected.host.as_str(), stored.value.cidr);
    transaction.delete(keys::block(cidr), stored.revision);
    if let Some(revision) = unselected.affinities.get(&cidr) {
        transaction.delete(keys::affinity(host, cidr), *revision);
    }
    forget_full(host, cidr, transaction);
}

/// Writes a block without these ordinals, or removes one that is left empty and
/// without a host, and returns it as it is then. What its host noted about it
/// being full goes.
pub fn give_back(
    stored: &Stored<Block>,
    ordinals: &[usize],
    transaction: &mut Transaction,
) -> Block {
    let mut block = stored.value.clone();
    block.release(ordinals);
    block.advance();
    let is_over = block.is_empty() && block.affinity.is_none();
    let value = (!is_over).then(|| block.to_json());
    transaction.replace(keys::block(block.cidr), stored.revision, value);
    if let Some(host) = block.host() {
        forget_full(host, block.cidr, transaction);
    }
    block
}

/// As [`give_back`], of one ordinal, whose handle counts it no more.
pub fn give_back_one(
    stored: &Stored<Block>,
    ordinal: usize,
    handle: Option<&Stored<Handle>>,
    transaction: &mut Transaction,
) {
    let id = stored.value.holder(ordinal).and_then(|holder| holder.handle_id.as_deref());
    let left = give_back(stored, &[ordinal], transaction);
    if let Some(id) = id {
        count_again(id, handle, &left, transaction);
    }
}

/// Takes a block from its host: removes it when it is empty, else it stays
/// without a host. Returns whether it is removed. Affinity and note
/// ([`forget_full`]) are the caller's concern.
pub fn abandon(stored: &Stored<Block>, transaction: &mut Transaction) -> bool {
    let mut block = Block { affinity: None, ..stored.value.clone() };
    block.advance();
    let value = (!block.is_empty()).then(|| block.to_json());
    transaction.replace(keys::block(block.cidr), stored.revision, value);
    block.is_empty()
}

/// Deletes what a host may have noted about a block being full; the note goes
/// with the affinity, or when an address becomes free.
pub fn forget_full(host: &str, block: IpNet, transaction: &mut Transaction) {
    transaction.writes.push(Write::Delete { key: keys::full(host, block) });
}

/// Sets what a handle has in a block to what the block says; a handle without
/// an address goes. One that is not there must stay so.
pub fn count_again(
    id: &str,
    handle: Option<&Stored<Handle>>,
    block: &Block,
    transaction: &mut Transaction,
) {
    let key = keys::handle(id);
    let Some(handle) = handle else {
        transaction.absent(key);
        return;
    };
    let mut remaining = handle.value.clone();
    let of_handle = block.held_by(|holder| holder.is_of(id));
    remaining.set(block.cidr, of_handle.len() as u64);
    let value = (!remaining.is_empty()).then(|| remaining.to_json());
    transaction.replace(key, handle.revision, value);
}
