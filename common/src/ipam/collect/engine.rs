//! Gives addresses back, block by block.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::block::Block;
use super::super::error::Error;
use super::super::handle::Handle;
use super::super::knowledge::read_block;
use super::super::machine::MachineId;
use super::super::ownership::MachineRecord;
use super::super::ready::Guarded;
use super::super::release::{count_again, give_back};
use super::{AttachmentName, Collection};
use crate::datastore::{Datastore, Decision, Entry, Pages, Selection, keys, transact};

/// How many handles change in one transaction at the most: with the block, the
/// ready flag and a note it stays within the 128 operations that etcd allows.
const MAX_HANDLES: usize = 100;
/// How many blocks are read in one round trip.
const BATCH: usize = 64;
/// How many blocks [`collect_few`] looks into.
const FEW_BLOCKS: usize = 512;

/// Which blocks are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CollectScope {
    /// The host's own: what a host that never borrowed an address has.
    OwnBlocks,
    /// All there are: a host may have borrowed from any.
    AllBlocks,
}

/// What became of a collection.
#[derive(Debug, Default)]
pub struct Collected {
    /// The addresses that were given back, and the handles that had them.
    pub released: Vec<(IpAddr, String)>,
    /// How many addresses other machines of the host's name have, which were not judged.
    pub of_other_machines: usize,
    /// How many addresses Calico assigned on the host, which were not judged.
    pub of_calico: usize,
    /// What could not be done; the rest was.
    pub errors: Vec<Error>,
}

/// Whether an attachment may be given up now: no call is at work on it, and none begins
/// while the caller goes on.
pub type Claim<'a> = &'a dyn Fn(&AttachmentName) -> bool;

/// Gives back all that `collection` finds stale and `claim` allows; each block in a
/// transaction of its own, decided again where others were faster. An error does not keep
/// the other blocks from being looked into, unless the datastore itself is away or closed.
pub async fn collect(
    datastore: &dyn Datastore,
    collection: &Collection,
    scope: CollectScope,
    claim: Claim<'_>,
) -> Collected {
    let mut collector = Collector::new(datastore, collection, claim);
    let outcome = match scope {
        CollectScope::OwnBlocks => collector.collect_own().await,
        CollectScope::AllBlocks => collector.collect_listed(usize::MAX).await.map(|_| ()),
    };
    collector.collected.errors.extend(outcome.err());
    collector.collected
}

/// As [`collect`] in the host's own blocks, and in these `others` too, from which it borrows.
pub async fn collect_own_and(
    datastore: &dyn Datastore,
    collection: &Collection,
    others: &BTreeSet<IpNet>,
    claim: Claim<'_>,
) -> Collected {
    let mut collector = Collector::new(datastore, collection, claim);
    let selections = others.iter().map(|block| Selection::Key(keys::block(*block)));
    let mut outcome = collector.collect_own().await;
    if outcome.is_ok() {
        outcome = collector.collect_selected(&selections.collect::<Vec<_>>()).await;
    }
    collector.collected.errors.extend(outcome.err());
    collector.collected
}

/// As [`collect`] in all blocks, but in the first 512 alone. Answers also whether these
/// are all there are.
pub async fn collect_few(
    datastore: &dyn Datastore,
    collection: &Collection,
    claim: Claim<'_>,
) -> (Collected, bool) {
    let mut collector = Collector::new(datastore, collection, claim);
    let outcome = collector.collect_listed(FEW_BLOCKS).await;
    let all = *outcome.as_ref().unwrap_or(&false);
    collector.collected.errors.extend(outcome.err());
    (collector.collected, all)
}

/// A collection at work.
struct Collector<'a> {
    datastore: &'a dyn Datastore,
    collection: &'a Collection,
    claim: Claim<'a>,
    /// The machine that has the host's name, as first read.
    machine: Option<MachineId>,
    collected: Collected,
}

impl<'a> Collector<'a> {
    fn new(datastore: &'a dyn Datastore, collection: &'a Collection, claim: Claim<'a>) -> Self {
        Self { datastore, collection, claim, machine: None, collected: Collected::default() }
    }

    async fn collect_own(&mut self) -> Result<(), Error> {
        let host = &self.collection.host;
        let selections =
            [Selection::Key(keys::machine(host)), Selection::Prefix(keys::affinities_of(host))];
        let snapshot = self.datastore.read(&selections).await?;
        let record = snapshot.stored(0, MachineRecord::from_json)?;
        self.machine = record.map(|record| record.value.machine);
        let named = |entry: &Entry| Some(Selection::Key(keys::block(block_of(entry)?)));
        let selections: Vec<Selection> = snapshot.entries(1).iter().filter_map(named).collect();
        self.collect_selected(&selections).await
    }

    async fn collect_selected(&mut self, selections: &[Selection]) -> Result<(), Error> {
        for batch in selections.chunks(BATCH) {
            let blocks = self.datastore.read(batch).await?;
            self.collect_in(blocks.selected.iter().flatten()).await?;
        }
        Ok(())
    }

    /// Answers whether all blocks there are were looked into.
    async fn collect_listed(&mut self, most: usize) -> Result<bool, Error> {
        let record = self.datastore.get(&keys::machine(&self.collection.host)).await?;
        self.machine = MachineRecord::read(record.as_ref())?.map(|record| record.value.machine);
        let (mut pages, mut left) = (Pages::new(self.datastore, keys::BLOCKS), most);
        while let Some(page) = pages.next().await? {
            let few = &page.entries[..page.entries.len().min(left)];
            self.collect_in(few.iter()).await?;
            left -= few.len();
            if left == 0 {
                return Ok(few.len() == page.entries.len() && page.next.is_none());
            }
        }
        Ok(true)
    }

    /// Goes through blocks that were read.
    ///
    /// # Errors
    /// Those that every other block would meet too.
    async fn collect_in(&mut self, entries: impl Iterator<Item = &Entry>) -> Result<(), Error> {
        for entry in entries {
            let Some(cidr) = keys::parse_block(&entry.key) else { continue };
            match self.collect_block(cidr, entry).await {
                Err(error @ (Error::Datastore(_) | Error::NotReady)) => return Err(error),
                outcome => self.collected.errors.extend(outcome.err()),
            }
        }
        Ok(())
    }

    async fn collect_block(&mut self, cidr: IpNet, entry: &Entry) -> Result<(), Error> {
        let block = read_block(entry)?.value;
        let others = self.collection.of_other_machines(&block, self.machine.as_ref());
        let calicos = self.collection.of_calico(&block, self.machine.as_ref());
        let mut unreadable = BTreeSet::new();
        let mut is_stale = Share::of(self, &block, self.machine.as_ref(), &unreadable).is_some();
        while is_stale {
            match transact(self.datastore, |_| decide(self, cidr, &unreadable)).await {
                Ok(released) => {
                    is_stale = !released.is_empty();
                    self.collected.released.extend(released);
                }
                Err(Error::Malformed { key, reason }) if keys::parse_handle(&key).is_some() => {
                    unreadable.extend(keys::parse_handle(&key).map(str::to_owned));
                    self.collected.errors.push(Error::Malformed { key, reason });
                }
                Err(error) => return Err(error),
            }
        }
        self.collected.of_other_machines += others;
        self.collected.of_calico += calicos;
        Ok(())
    }
}

fn block_of(affinity: &Entry) -> Option<IpNet> {
    Some(keys::parse_affinity(&affinity.key)?.1)
}

/// Gives back one share of what is stale in a block; the result is empty when nothing is.
async fn decide(
    collector: &Collector<'_>,
    cidr: IpNet,
    unreadable: &BTreeSet<String>,
) -> Result<Decision<Vec<(IpAddr, String)>>, Error> {
    let (datastore, name) = (collector.datastore, keys::machine(&collector.collection.host));
    let selections = [name.clone(), keys::block(cidr)].map(Selection::Key);
    let guarded = Guarded::read(datastore, selections).await?;
    let machine = guarded.stored(0, MachineRecord::from_json)?;
    let recorded = machine.as_ref().map(|record| &record.value.machine);
    let Some(entry) = guarded.entry(1) else { return Ok(Decision::Done(Vec::new())) };
    let block = read_block(entry)?;
    let Some(share) = Share::of(collector, &block.value, recorded, unreadable) else {
        return Ok(Decision::Done(Vec::new()));
    };
    let selections: Vec<Selection> =
        share.handles.iter().map(|id| Selection::Key(keys::handle(id))).collect();
    let handles = datastore.read(&selections).await?;
    let mut transaction = guarded.transaction();
    let left = give_back(&block, &share.ordinals, &mut transaction);
    for (index, id) in share.handles.iter().enumerate() {
        let handle = handles.stored(index, Handle::from_json)?;
        count_again(id, handle.as_ref(), &left, &mut transaction);
    }
    transaction.as_read(name, machine.map(|record| record.revision));
    Ok(Decision::Commit(transaction, share.released))
}

/// What of a block is given back in one transaction.
struct Share {
    ordinals: Vec<usize>,
    handles: BTreeSet<String>,
    released: Vec<(IpAddr, String)>,
}

impl Share {
    /// `None` when nothing is stale, but for what has one of the `unreadable`
    /// handles, and what may not be claimed.
    fn of(
        collector: &Collector<'_>,
        block: &Block,
        recorded: Option<&MachineId>,
        unreadable: &BTreeSet<String>,
    ) -> Option<Self> {
        let mut share =
            Self { ordinals: Vec::new(), handles: BTreeSet::new(), released: Vec::new() };
        for ordinal in collector.collection.stale(block, recorded) {
            let holder = block.holder(ordinal);
            let Some(handle) = holder
                .and_then(|holder| holder.handle_id.clone())
                .filter(|handle| !unreadable.contains(handle))
            else {
                continue;
            };
            let attachment = holder.and_then(|holder| collector.collection.attachment(holder));
            if attachment.is_some_and(|attachment| !(collector.claim)(&attachment)) {
                continue;
            }
            if share.handles.len() == MAX_HANDLES && !share.handles.contains(&handle) {
                break;
            }
            share.ordinals.push(ordinal);
            share.released.push((block.address(ordinal), handle.clone()));
            share.handles.insert(handle);
        }
        (!share.ordinals.is_empty()).then_some(share)
    }
}
