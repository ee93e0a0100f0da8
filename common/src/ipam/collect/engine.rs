//! Gives addresses back, block by block.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::knowledge::{first, read_block};
use super::super::release::count_again;
use super::super::release::give_back;
use super::super::{Block, Error, Handle, MachineId, MachineRecord, ReadyFlag, Stored};
use super::{AttachmentName, Collection};
use crate::datastore::MAX_ATTEMPTS;
use crate::datastore::{self, Datastore, Entry, Outcome, Selection, Snapshot, Transaction, keys};

/// How many handles change in one transaction at the most: with the block, the
/// ready flag and a note it stays within the 128 operations that etcd allows.
const MAX_HANDLES: usize = 100;
/// How many blocks are read in one round trip.
const PAGE: usize = 64;
/// How many pages of blocks [`collect_few`] looks into.
const FEW_PAGES: usize = 8;

/// Which blocks are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
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
    scope: Scope,
    claim: Claim<'_>,
) -> Collected {
    let mut run = Run::new(datastore, collection, claim);
    let outcome = match scope {
        Scope::OwnBlocks => run.collect_own().await,
        Scope::AllBlocks => run.collect_pages(usize::MAX).await.map(|_| ()),
    };
    run.collected.errors.extend(outcome.err());
    run.collected
}

/// As [`collect`] in all blocks, but in the first 512 alone. Answers also whether these
/// are all there are.
pub async fn collect_few(
    datastore: &dyn Datastore,
    collection: &Collection,
    claim: Claim<'_>,
) -> (Collected, bool) {
    let mut run = Run::new(datastore, collection, claim);
    let outcome = run.collect_pages(FEW_PAGES).await;
    let all = *outcome.as_ref().unwrap_or(&false);
    run.collected.errors.extend(outcome.err());
    (run.collected, all)
}

/// A collection at work.
struct Run<'a> {
    datastore: &'a dyn Datastore,
    collection: &'a Collection,
    claim: Claim<'a>,
    /// The machine that has the host's name, as last read.
    machine: Option<Stored<MachineRecord>>,
    collected: Collected,
}

impl<'a> Run<'a> {
    fn new(datastore: &'a dyn Datastore, collection: &'a Collection, claim: Claim<'a>) -> Self {
        Self { datastore, collection, claim, machine: None, collected: Collected::default() }
    }

    fn recorded(&self) -> Option<&MachineId> {
        self.machine.as_ref().map(|record| &record.value.machine)
    }

    async fn collect_own(&mut self) -> Result<(), Error> {
        let host = &self.collection.host;
        let selections =
            [Selection::Key(keys::machine(host)), Selection::Prefix(keys::affinities_of(host))];
        let snapshot = self.datastore.read(&selections).await?;
        self.machine = MachineRecord::read(first(&snapshot, 0))?;
        let entries = snapshot.selected.iter().skip(1).flatten();
        let blocks: Vec<IpNet> =
            entries.filter_map(|entry| Some(keys::parse_affinity(&entry.key)?.1)).collect();
        for part in blocks.chunks(PAGE) {
            let selections: Vec<Selection> =
                part.iter().map(|block| Selection::Key(keys::block(*block))).collect();
            let snapshot = self.datastore.read(&selections).await?;
            let entries: Vec<Entry> = snapshot.selected.into_iter().flatten().collect();
            self.collect_in(&entries).await?;
        }
        Ok(())
    }

    /// Answers whether all blocks there are were looked into.
    async fn collect_pages(&mut self, most: usize) -> Result<bool, Error> {
        let record = self.datastore.get(&keys::machine(&self.collection.host)).await?;
        self.machine = MachineRecord::read(record.as_ref())?;
        let mut after = None;
        for _ in 0..most {
            let page = self.datastore.list(keys::BLOCKS, after.as_deref(), PAGE).await?;
            self.collect_in(&page.entries).await?;
            match page.next {
                None => return Ok(true),
                next => after = next,
            }
        }
        Ok(false)
    }

    /// Goes through blocks that were read.
    ///
    /// # Errors
    /// Those that every other block would meet too.
    async fn collect_in(&mut self, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            let outcome = match keys::parse_block(&entry.key) {
                None => continue,
                Some(cidr) => self.collect_block(cidr, entry).await,
            };
            match outcome {
                Err(error @ (Error::Datastore(_) | Error::NotReady)) => return Err(error),
                outcome => self.collected.errors.extend(outcome.err()),
            }
        }
        Ok(())
    }

    async fn collect_block(&mut self, cidr: IpNet, entry: &Entry) -> Result<(), Error> {
        let mut entry = Some(entry.clone());
        let mut unreadable = BTreeSet::new();
        let mut conflicts = 0;
        let mut others = 0;
        while let Some(found) = &entry {
            let block = read_block(cidr, found)?;
            others = self.collection.of_other_machines(&block.value, self.recorded());
            let Some(share) = Share::of(self, &block, &unreadable) else { break };
            let snapshot = self.datastore.read(&share.selections(&self.collection.host)).await?;
            let machine = MachineRecord::read(first(&snapshot, 1))?;
            if machine != self.machine {
                self.machine = machine;
                continue;
            }
            let transaction = match share.transaction(self, &block, &snapshot) {
                Err(Error::Malformed { key, reason }) if share.reads(&key) => {
                    unreadable.extend(keys::parse_handle(&key).map(str::to_owned));
                    self.collected.errors.push(Error::Malformed { key, reason });
                    continue;
                }
                transaction => transaction?,
            };
            match self.datastore.commit(transaction).await {
                Ok(Outcome::Committed(_)) => self.collected.released.extend(share.released),
                Ok(Outcome::Conflict) => conflicts += 1,
                // It may have taken effect: what is there tells.
                Err(datastore::Error::Unavailable { .. }) if conflicts == 0 => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
            if conflicts == MAX_ATTEMPTS {
                return Err(crate::datastore::Contended::new(vec![keys::block(cidr)]).into());
            }
            entry = self.datastore.get(&keys::block(cidr)).await?;
        }
        self.collected.of_other_machines += others;
        Ok(())
    }
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
    fn of(run: &Run<'_>, block: &Stored<Block>, unreadable: &BTreeSet<String>) -> Option<Self> {
        let block = &block.value;
        let mut share =
            Self { ordinals: Vec::new(), handles: BTreeSet::new(), released: Vec::new() };
        for ordinal in run.collection.stale(block, run.recorded()) {
            let holder = block.holder(ordinal);
            let Some(handle) = holder
                .and_then(|holder| holder.handle_id.clone())
                .filter(|handle| !unreadable.contains(handle))
            else {
                continue;
            };
            let attachment = holder.and_then(|holder| run.collection.attachment(holder));
            if attachment.is_some_and(|attachment| !(run.claim)(&attachment)) {
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

    fn reads(&self, key: &str) -> bool {
        keys::parse_handle(key).is_some_and(|id| self.handles.contains(id))
    }

    fn selections(&self, host: &str) -> Vec<Selection> {
        let mut selections = vec![ReadyFlag::selection(), Selection::Key(keys::machine(host))];
        selections.extend(self.handles.iter().map(|id| Selection::Key(keys::handle(id))));
        selections
    }

    /// The transaction, from the answer to [`Share::selections`].
    fn transaction(
        &self,
        run: &Run<'_>,
        block: &Stored<Block>,
        snapshot: &Snapshot,
    ) -> Result<Transaction, Error> {
        let ready = ReadyFlag::parse(first(snapshot, 0))?;
        ready.require()?;
        let mut transaction = Transaction::default();
        let left = give_back(block, &self.ordinals, &mut transaction);
        for (index, id) in self.handles.iter().enumerate() {
            let handle =
                first(snapshot, index + 2).map(|entry| Stored::read(entry, Handle::from_json));
            count_again(id, handle.transpose()?.as_ref(), &left, &mut transaction);
        }
        let name = keys::machine(&run.collection.host);
        match &run.machine {
            None => transaction.absent(name),
            Some(record) => transaction.unchanged(name, record.revision),
        };
        ready.guard(&mut transaction);
        Ok(transaction)
    }
}
