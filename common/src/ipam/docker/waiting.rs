//! Which address that waits is the one that a repeated call of dockerd's means.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::allocation::Allocation;
use super::super::collect::may_be_in_progress;
use super::super::error::Error;
use super::super::family::Family;
use super::super::handle::Handle;
use super::super::knowledge::{Blocks, read_block};
use super::super::machine::MachineId;
use super::super::ownership::MachineRecord;
use super::waiting;
use crate::datastore::{Datastore, Selection, keys};
use crate::link::MacAddress;

/// How many addresses of a family can wait with one hardware address at once.
pub const MAX_WAITING: u32 = 8;

/// What waits for endpoints with one hardware address, by number from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting(Vec<Vec<Allocation>>);

/// Which address is asked for.
#[derive(Clone, Copy, Debug)]
pub enum WantedAddress<'a> {
    /// This very one.
    Exactly(IpAddr),
    /// One of this family.
    Any {
        /// The family.
        family: Family,
        /// In one of these ranges; in any if there are none.
        ranges: &'a [IpNet],
    },
}

/// Where a request finds its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingPlace {
    /// It waits already: an earlier call got it, whose answer was lost.
    Found(IpAddr),
    /// It is to be assigned under this number.
    New(u32),
}

impl Waiting {
    /// Reads it; one round trip where nothing waits.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Datastore`].
    pub async fn read(
        datastore: &dyn Datastore,
        (host, machine): (&str, Option<&MachineId>),
        mac: MacAddress,
    ) -> Result<Self, Error> {
        let assignees: Vec<_> =
            (1..=MAX_WAITING).map(|nth| waiting(host, mac, nth).on(machine.cloned())).collect();
        let handles = assignees.iter().map(|it| Selection::Key(keys::handle(&it.handle_id)));
        let selections: Vec<_> = handles.chain([Selection::Key(keys::machine(host))]).collect();
        let snapshot = datastore.read(&selections).await?;
        let recorded = MachineRecord::read(snapshot.entry(assignees.len()))?;
        let recorded = recorded.map(|record| record.value.machine);
        let mut numbered = Vec::new();
        for (index, assignee) in assignees.iter().enumerate() {
            let handle = snapshot.stored(index, Handle::from_json)?;
            let cidrs: Vec<IpNet> = handle.iter().flat_map(|it| it.value.blocks()).collect();
            let blocks = match cidrs.is_empty() {
                true => Vec::new(),
                false => datastore.read(&Blocks::selections(&cidrs)).await?.selected,
            };
            let mut allocations = Vec::new();
            for entry in blocks.iter().flatten() {
                allocations.extend(Allocation::all_of(&read_block(entry)?.value));
            }
            allocations.retain(|it| it.is_of(assignee, recorded.as_ref()));
            numbered.push(allocations);
        }
        Ok(Self(numbered))
    }

    /// Where a request at the moment `now` finds its address; `None` where too many wait.
    ///
    /// An address that waits is another call's than a repeated one when it is outside of the
    /// ranges, or older than any call.
    pub fn place(&self, wanted: WantedAddress<'_>, now: Timestamp) -> Option<WaitingPlace> {
        let is_wanted = |it: &Allocation| match wanted {
            WantedAddress::Exactly(address) => it.address == address,
            WantedAddress::Any { family, ranges } => {
                Family::of(it.address) == family
                    && (ranges.is_empty() || ranges.iter().any(|range| range.contains(&it.address)))
            }
        };
        let fits = |it: &&Allocation| {
            is_wanted(it) && it.made.is_some_and(|made| may_be_in_progress(made, now))
        };
        if let Some(found) = self.0.iter().flatten().find(fits) {
            return Some(WaitingPlace::Found(found.address));
        }
        let family = match wanted {
            WantedAddress::Exactly(address) => Family::of(address),
            WantedAddress::Any { family, .. } => family,
        };
        let is_free =
            |waiting: &Vec<Allocation>| waiting.iter().all(|it| Family::of(it.address) != family);
        let free = self.0.iter().position(is_free)?;
        Some(WaitingPlace::New(u32::try_from(free).ok()? + 1))
    }
}
