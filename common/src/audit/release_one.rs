//! Giving back one address, whoever has it, guarded by its sequence number.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::datastore::{Datastore, Decision, Selection, keys, transact};
use crate::ipam::release::{count_again, give_back};
use crate::ipam::{
    Allocation, Attribute, Block, Error, Family, Guarded, Handle, MAX_BLOCK_BITS, Stored, block_of,
};
use crate::node::forget_tunnel_addresses;

/// One address in use, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAddress {
    /// The address.
    pub address: IpAddr,
    /// The handle that had it.
    #[serde(default)]
    pub handle: Option<String>,
    /// The block's sequence number when it was assigned.
    #[serde(default, with = "as_text")]
    pub sequence: Option<u64>,
}

/// What became of an address that was to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// It is free now.
    Released,
    /// It was not in use.
    NotInUse,
    /// It is in use, but by another holder than was seen: nothing was changed.
    Reassigned(SeenAddress),
}

/// Who has an address; `None` when it is free or cools down.
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
    let found = find(datastore, address).await?.map(|(_, _, allocation)| allocation);
    Ok(found.filter(|it| !it.cooling_down))
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
pub async fn release(datastore: &dyn Datastore, seen: &SeenAddress) -> Result<Release, Error> {
    transact(datastore, |_| decide(datastore, seen)).await
}

async fn decide(datastore: &dyn Datastore, seen: &SeenAddress) -> Result<Decision<Release>, Error> {
    let Some((block, ordinal, allocation)) = find(datastore, seen.address).await? else {
        return Ok(Decision::Done(Release::NotInUse));
    };
    if allocation.cooling_down {
        return Ok(Decision::Done(Release::NotInUse));
    }
    let present = SeenAddress::from(&allocation);
    if present != *seen {
        return Ok(Decision::Done(Release::Reassigned(present)));
    }
    let id = seen.handle.as_deref();
    let selection: Vec<_> = id.map(|id| Selection::Key(keys::handle(id))).into_iter().collect();
    let guarded = Guarded::read(datastore, selection).await?;
    let handle = guarded.stored(0, Handle::from_json)?;
    let mut transaction = guarded.transaction();
    let left = give_back(&block, &[ordinal], &mut transaction);
    if let Some(id) = id {
        count_again(id, handle.as_ref(), &left, &mut transaction);
    }
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
            && let Some(allocation) = Allocation::read(&block.value, ordinal)
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

impl From<&Allocation> for SeenAddress {
    fn from(allocation: &Allocation) -> Self {
        Self {
            address: allocation.address,
            handle: allocation.handle.as_deref().map(str::to_owned),
            sequence: allocation.sequence,
        }
    }
}

/// A number as text: it exceeds what many JSON readers keep of a number.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(number: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        number.map(|number| number.to_string()).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<u64>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}
