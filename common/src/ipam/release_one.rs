//! Giving back one address, whoever has it, guarded by its sequence number.

use std::net::IpAddr;

use ipnet::IpNet;

use super::audit::Allocation;
use super::block::block_of;
use super::release::{count_again, give_back};
use super::{Attribute, Block, Error, Family, Guarded, Handle, MAX_BLOCK_BITS, Stored};
use crate::datastore::{Datastore, Decision, Selection, Transaction, keys, transact};
use crate::node::forget_tunnel_addresses;

/// One address in use, as somebody saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address.
    pub address: IpAddr,
    /// The handle that had it.
    pub handle: Option<String>,
    /// The sequence number under which it was handed out.
    pub sequence: Option<u64>,
}

/// What became of an address that was to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It is free now.
    Released,
    /// It was not in use.
    NotInUse,
    /// It is in use, but by somebody else than was seen: nothing was changed.
    Reassigned(Seen),
}

/// Releases one ordinal of a block and takes it out of its handle.
///
/// A block left empty stays with its host, one without a host is removed; a note
/// that it is full goes. The ordinal must be in use; `handle` is its holder's, if there.
pub(super) fn release_ordinal(
    stored: &Stored<Block>,
    ordinal: usize,
    handle: Option<&Stored<Handle>>,
    transaction: &mut Transaction,
) {
    let id = stored.value.holder(ordinal).and_then(|holder| holder.handle_id.clone());
    let block = give_back(stored, &[ordinal], transaction);
    if let Some(id) = id {
        count_again(&id, handle, &block, transaction);
    }
}

/// Who has an address; `None` when nobody does.
///
/// One round trip: the address is looked for in every block that could hold
/// it, so that no pool needs to be there.
///
/// # Errors
/// [`Error::Datastore`], [`Error::Malformed`].
pub async fn look_up(
    datastore: &dyn Datastore,
    address: IpAddr,
) -> Result<Option<Allocation>, Error> {
    Ok(find(datastore, address).await?.map(|(_, _, allocation)| allocation))
}

/// Who has an address, with all that is recorded about the holder.
///
/// # Errors
/// As [`look_up`].
pub async fn holder(
    datastore: &dyn Datastore,
    address: IpAddr,
) -> Result<Option<Attribute>, Error> {
    let found = find(datastore, address).await?;
    Ok(found.and_then(|(block, ordinal, _)| block.value.holder(ordinal).cloned()))
}

/// Releases an address if it is still in use as it was seen. A node whose tunnel
/// had it does not name it any more.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Contended`], [`Error::Datastore`],
/// [`Error::Malformed`].
pub async fn release(datastore: &dyn Datastore, seen: &Seen) -> Result<Release, Error> {
    transact(datastore, |_| decide(datastore, seen)).await
}

async fn decide(datastore: &dyn Datastore, seen: &Seen) -> Result<Decision<Release>, Error> {
    let Some((block, ordinal, allocation)) = find(datastore, seen.address).await? else {
        return Ok(Decision::Done(Release::NotInUse));
    };
    let present = Seen::from(&allocation);
    if present != *seen {
        return Ok(Decision::Done(Release::Reassigned(present)));
    }
    let id = seen.handle.as_deref();
    let selection: Vec<_> = id.map(|id| Selection::Key(keys::handle(id))).into_iter().collect();
    let guarded = Guarded::read(datastore, selection).await?;
    let handle = guarded.stored(0, Handle::from_json)?;
    let mut transaction = guarded.transaction();
    release_ordinal(&block, ordinal, handle.as_ref(), &mut transaction);
    forget_tunnel_addresses(datastore, id.as_slice(), &block.value, &mut transaction).await?;
    Ok(Decision::Commit(transaction, Release::Released))
}

async fn find(
    datastore: &dyn Datastore,
    address: IpAddr,
) -> Result<Option<(Stored<Block>, usize, Allocation)>, Error> {
    let selections: Vec<Selection> =
        blocks_around(address).map(|block| Selection::Key(keys::block(block))).collect();
    let snapshot = datastore.read(&selections).await?;
    for entry in snapshot.selected.iter().flatten() {
        let block = Stored::read(entry, Block::from_json)?;
        if let Some(ordinal) = block.value.ordinal(address)
            && let Some(allocation) = Allocation::read(&block.value, ordinal, |name| name.into())
        {
            return Ok(Some((block, ordinal, allocation)));
        }
    }
    Ok(None)
}

/// Every block that an address can lie in: one for each size there is.
fn blocks_around(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let longest = match Family::of(address) {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    (longest - MAX_BLOCK_BITS..=longest).filter_map(move |length| block_of(address, length))
}

impl From<&Allocation> for Seen {
    fn from(allocation: &Allocation) -> Self {
        Self {
            address: allocation.address,
            handle: allocation.handle.as_deref().map(str::to_owned),
            sequence: allocation.sequence,
        }
    }
}
