//! Giving back one address, whoever has it, guarded by its sequence number.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::datastore::{Datastore, Decision, Selection, keys, transact};
use crate::ipam::release::give_back_one;
use crate::ipam::{Allocation, Attribute, Error, FoundAddress, Guarded, Handle};
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
    let found = FoundAddress::find(datastore, address).await?;
    Ok(found.and_then(|it| it.allocation()).filter(|it| !it.cooling_down))
}

/// Who has an address, with all that is recorded about the holder.
///
/// # Errors
/// As [`look_up`].
pub async fn holder(
    datastore: &dyn Datastore,
    address: IpAddr,
) -> Result<Option<Attribute>, Error> {
    let found = FoundAddress::find(datastore, address).await?;
    Ok(found.and_then(|it| it.holder().cloned()))
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
    let Some(FoundAddress { block, ordinal }) = FoundAddress::find(datastore, seen.address).await?
    else {
        return Ok(Decision::Done(Release::NotInUse));
    };
    let allocation = Allocation::read(&block.value, ordinal).filter(|it| !it.cooling_down);
    let Some(allocation) = allocation else {
        return Ok(Decision::Done(Release::NotInUse));
    };
    let present = SeenAddress::from(&allocation);
    if present != *seen {
        return Ok(Decision::Done(Release::Reassigned(present)));
    }
    let id = seen.handle.as_deref();
    let selection: Vec<_> = id.map(|id| Selection::Key(keys::handle(id))).into_iter().collect();
    let guarded = Guarded::read(datastore, selection).await?;
    let handle = guarded.stored(0, Handle::from_json)?;
    let mut transaction = guarded.transaction();
    give_back_one(&block, ordinal, handle.as_ref(), &mut transaction);
    forget_tunnel_addresses(datastore, id.as_slice(), &block.value, &mut transaction).await?;
    Ok(Decision::Commit(transaction, Release::Released))
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
