//! One address, found without knowing its pool.

use std::net::IpAddr;

use super::allocation::Allocation;
use super::block::{Attribute, Block, MAX_BLOCK_BITS, block_of};
use super::error::Error;
use super::family::Family;
use crate::datastore::{Datastore, Entry, Selection, Stored, keys};

/// An address in use or cooling down, and the block that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundAddress {
    /// The block.
    pub block: Stored<Block>,
    /// The address's ordinal in it.
    pub ordinal: usize,
}

impl FoundAddress {
    /// What to read for an address: every block that could hold it, one for each size there
    /// is, so that no pool needs to be there.
    pub fn selections(address: IpAddr) -> impl Iterator<Item = Selection> {
        let longest = match Family::of(address) {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let blocks = (longest - MAX_BLOCK_BITS..=longest)
            .filter_map(move |length| block_of(address, length));
        blocks.map(|block| Selection::Key(keys::block(block)))
    }

    /// Looks for an address in the entries that were found for its selections; `None` when it
    /// is free.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn read<'a>(
        address: IpAddr,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Option<Self>, Error> {
        for entry in entries {
            let block = Stored::read(entry, Block::from_json)?;
            if let Some(ordinal) = block.value.ordinal(address)
                && block.value.holder(ordinal).is_some()
            {
                return Ok(Some(Self { block, ordinal }));
            }
        }
        Ok(None)
    }

    /// Looks for an address in the datastore; one round trip.
    ///
    /// # Errors
    /// [`Error::Datastore`], [`Error::Malformed`].
    pub async fn find(datastore: &dyn Datastore, address: IpAddr) -> Result<Option<Self>, Error> {
        let selections: Vec<Selection> = Self::selections(address).collect();
        Self::read(address, datastore.read(&selections).await?.selected.iter().flatten())
    }

    /// All that is recorded about its holder.
    pub fn holder(&self) -> Option<&Attribute> {
        self.block.value.holder(self.ordinal)
    }

    /// Its holder, condensed.
    pub fn allocation(&self) -> Option<Allocation> {
        Allocation::read(&self.block.value, self.ordinal)
    }
}
