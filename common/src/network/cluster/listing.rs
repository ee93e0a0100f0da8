//! Reading the inventory, and finding out whether it is still what there is.

use serde::{Deserialize, Serialize};

use super::inventory::Inventory;
use crate::datastore::{Datastore, Error, History, Paging, Revision, Tally, keys};

/// An inventory as it was read.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What there is.
    pub inventory: Inventory,
    /// Up to where.
    pub seen: Seen,
    /// Whether blocks were left out, because there were too many.
    pub without_blocks: bool,
}

/// How far somebody has read the datastore: enough to find out whether pools,
/// nodes or affinities changed since.
///
/// Blocks are left out, since every ADD and DEL in the cluster changes one. What
/// they tell beyond the affinities is which addresses are borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Changes after this one have not been seen, or not all of them.
    pub revision: Revision,
    /// In which history that is.
    #[serde(default)]
    pub history: History,
    /// How many pools, nodes and affinities there were: a deletion leaves
    /// no other trace.
    pub counts: [usize; 3],
}

impl Seen {
    const PREFIXES: [&'static str; 3] = [keys::POOLS, keys::NODES, keys::HOSTS];

    /// Whether something changed since. One round trip without values. A datastore
    /// that was restored counts as changed: one whose revision is lower, or whose
    /// history is another one.
    ///
    /// # Errors
    /// As [`Datastore::tally`].
    pub async fn is_outdated(&self, datastore: &dyn Datastore) -> Result<bool, Error> {
        let tally = datastore.tally(&Self::PREFIXES, self.revision).await?;
        let Tally { counts, newer, revision, history } = tally;
        let was_restored = revision < self.revision || !self.history.goes_on_in(history);
        Ok(newer || was_restored || counts != self.counts)
    }
}

impl Listing {
    /// Reads everything that an inventory is made of; blocks, which are by far the
    /// most of it, only if there are at most `most_blocks` affinities. The revision
    /// is that of the first page, so that a watch from there misses nothing.
    ///
    /// # Errors
    /// As [`Datastore::list`].
    pub async fn read(datastore: &dyn Datastore, most_blocks: usize) -> Result<Self, Error> {
        let mut listing =
            Self { inventory: Inventory::default(), seen: Seen::default(), without_blocks: false };
        let mut first = None;
        for (index, prefix) in Seen::PREFIXES.into_iter().enumerate() {
            let (count, read) = listing.take_in(datastore, prefix).await?;
            listing.seen.counts[index] = count;
            (listing.seen.revision, listing.seen.history) = *first.get_or_insert(read);
        }
        listing.take_in(datastore, keys::MACHINES).await?;
        listing.without_blocks = listing.seen.counts[2] > most_blocks;
        if !listing.without_blocks {
            listing.take_in(datastore, keys::BLOCKS).await?;
        }
        Ok(listing)
    }

    /// Reads all under a prefix: how much it was, and the first page's revision and
    /// history.
    async fn take_in(
        &mut self,
        datastore: &dyn Datastore,
        prefix: &str,
    ) -> Result<(usize, (Revision, History)), Error> {
        let (mut count, mut first) = (0, None);
        let mut after: Option<String> = None;
        let mut paging = Paging::default();
        loop {
            let page = datastore.list(prefix, after.as_deref(), paging.limit()).await?;
            paging.learn(&page);
            count += page.entries.len();
            let first = *first.get_or_insert((page.revision, page.history));
            for entry in &page.entries {
                self.inventory.put(entry);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((count, first)),
            }
        }
    }
}
