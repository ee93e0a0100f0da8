//! The decision how an attachment's addresses are given back.

use super::{Attribute, Block, Blocks, Error, Holdings, Step, Stored};
use crate::datastore::{Transaction, Write, keys};

/// Decides how to release all addresses of `interface` under `handle_id`.
///
/// Nothing to release is no error: DEL may be repeated. A block left empty stays
/// with its host, one without a host is removed.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Malformed`].
pub fn decide(
    handle_id: &str,
    interface: &str,
    holdings: &Holdings,
    blocks: &Blocks,
) -> Result<Step, Error> {
    holdings.require_ready()?;
    let Some(handle) = &holdings.handle else {
        return Ok(Step::Done(Vec::new()));
    };
    let unread = holdings.unread(blocks)?;
    if !unread.is_empty() {
        return Ok(Step::Read(unread));
    }
    let released = holdings.addresses(handle_id, interface, blocks);
    let mut transaction = Transaction::default();
    let mut remaining = handle.value.clone();
    for cidr in holdings.blocks() {
        let count = match blocks.get(cidr).flatten() {
            None => 0,
            Some(block) => release_in(block, handle_id, interface, &mut transaction),
        };
        remaining.set(cidr, count);
    }
    if remaining == handle.value {
        return Ok(Step::Done(Vec::new()));
    }
    let key = keys::handle(handle_id);
    if remaining.is_empty() {
        transaction.delete(key, handle.revision);
    } else {
        transaction.update(key, handle.revision, remaining.to_json());
    }
    holdings.guard_ready(&mut transaction);
    Ok(Step::Commit(transaction, released))
}

/// Releases the attachment's addresses in one block and returns how many the
/// handle still has there: its other interfaces'.
fn release_in(
    stored: &Stored<Block>,
    handle_id: &str,
    interface: &str,
    transaction: &mut Transaction,
) -> u64 {
    let ordinals = stored.value.held_by(|holder| holder.belongs_to(handle_id, interface));
    let mut block = stored.value.clone();
    if !ordinals.is_empty() {
        block = give_back(stored, &ordinals, transaction);
    }
    let of_handle = |holder: &Attribute| holder.handle_id.as_deref() == Some(handle_id);
    block.held_by(of_handle).len() as u64
}

/// Writes a block without these ordinals, or removes one that is left empty and
/// without a host, and returns it as it is then.
pub(super) fn give_back(
    stored: &Stored<Block>,
    ordinals: &[usize],
    transaction: &mut Transaction,
) -> Block {
    let mut block = stored.value.clone();
    block.release(ordinals);
    block.advance();
    let key = keys::block(block.cidr);
    if block.is_empty() && block.affinity.is_none() {
        transaction.delete(key, stored.revision);
    } else {
        transaction.update(key, stored.revision, block.to_json());
    }
    if let Some(host) = block.host() {
        transaction.writes.push(Write::Delete { key: keys::full(host, block.cidr) });
    }
    block
}
