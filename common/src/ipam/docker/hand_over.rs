//! Addresses that wait for an endpoint become the endpoint's, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::Assigned;
use super::super::assign::describe;
use super::super::assignee::Assignee;
use super::super::block::{ATTRIBUTE_NETWORK, ATTRIBUTE_TIMESTAMP, Attribute, Block};
use super::super::error::Error;
use super::super::find::FoundAddress;
use super::super::handle::Handle;
use super::super::machine::MachineId;
use super::super::ownership::MachineRecord;
use super::super::pending_changes::timestamp;
use super::super::ready::Guarded;
use super::hand_over_barrier::HandOverBarrier;
use super::waiting::MAX_WAITING;
use super::{ATTRIBUTE_DOCKER_NETWORK, ATTRIBUTE_MAC, named_by, waiting};
use crate::datastore::{Datastore, Decision, Selection, Stored, keys, transact};
use crate::link::MacAddress;

/// The interface that addresses are handed over to.
#[derive(Clone, Copy, Debug)]
pub struct EndpointFacts<'a> {
    /// The network of Docker's, by its id.
    pub network: &'a str,
    /// The hardware address under which the addresses wait.
    pub mac: MacAddress,
    /// From when on it has them.
    pub now: Timestamp,
}

/// Hands addresses that wait for an endpoint with this hardware address over to it, all or none,
/// and records these facts with them. Repeated it finds them handed over.
///
/// # Errors
/// [`Error::NotHandedOver`] for an address that is not a waiting one of Docker's on this node;
/// [`Error::NotReady`], [`Error::Malformed`], [`Error::Contended`], [`Error::Datastore`].
pub async fn hand_over(
    datastore: &dyn Datastore,
    to: &Assignee,
    addresses: &[IpAddr],
    facts: EndpointFacts<'_>,
) -> Result<Vec<Assigned>, Error> {
    transact(datastore, |_| decide(datastore, to, addresses, facts)).await
}

async fn decide(
    datastore: &dyn Datastore,
    to: &Assignee,
    addresses: &[IpAddr],
    facts: EndpointFacts<'_>,
) -> Result<Decision<Vec<Assigned>>, Error> {
    let mut selections = vec![Selection::Key(keys::machine(&to.host))];
    selections.extend(addresses.iter().flat_map(|address| FoundAddress::selections(*address)));
    let guarded = Guarded::read(datastore, selections).await?;
    let recorded = MachineRecord::read(guarded.entry(0))?.map(|record| record.value.machine);
    let mut hand_over = HandOver {
        to,
        facts,
        recorded,
        blocks: BTreeMap::new(),
        handles: BTreeSet::new(),
        assigned: Vec::new(),
    };
    for address in addresses {
        let found = FoundAddress::read(*address, guarded.selected[1..].iter().flatten())?;
        let added = hand_over.add(found);
        added.map_err(|barrier| Error::NotHandedOver { address: *address, barrier })?;
    }
    if hand_over.blocks.is_empty() {
        return Ok(Decision::Done(hand_over.assigned));
    }
    let ids = hand_over.handles.iter().map(|id| Selection::Key(keys::handle(id)));
    let handles = datastore.read(&ids.collect::<Vec<_>>()).await?;
    let mut transaction = guarded.transaction();
    for (index, id) in hand_over.handles.iter().enumerate() {
        let stored = handles.stored(index, Handle::from_json)?;
        let mut handle = stored.as_ref().map(|it| it.value.clone()).unwrap_or_default();
        for (cidr, block) in &hand_over.blocks {
            let count = block.value.held_by(|holder| holder.is_of(id)).len();
            handle.set(*cidr, count as u64);
        }
        let (key, revision) = (keys::handle(id), stored.map(|it| it.revision));
        match revision {
            Some(revision) if handle.is_empty() => transaction.delete(key, revision),
            None if handle.is_empty() => transaction.absent(key),
            _ => transaction.put(key, revision, handle.to_json()),
        };
    }
    for mut block in hand_over.blocks.into_values() {
        block.value.advance();
        transaction.update(block.key, block.revision, block.value.to_json());
    }
    Ok(Decision::Commit(transaction, hand_over.assigned))
}

/// What is to be handed over, as far as it is known.
struct HandOver<'a> {
    to: &'a Assignee,
    facts: EndpointFacts<'a>,
    /// The machine that the host's name is recorded for.
    recorded: Option<MachineId>,
    /// The blocks that change.
    blocks: BTreeMap<IpNet, Stored<Block>>,
    /// The handles that change.
    handles: BTreeSet<String>,
    assigned: Vec<Assigned>,
}

impl HandOver<'_> {
    /// Adds an address, as it was found.
    fn add(&mut self, found: Option<FoundAddress>) -> Result<(), HandOverBarrier> {
        let holder = found.as_ref().and_then(|it| it.holder()).filter(|it| !it.is_cooling_down());
        let (Some(holder), Some(found)) = (holder, &found) else {
            return Err(HandOverBarrier::NotAssigned);
        };
        let (block, address) = (&found.block, found.block.value.address(found.ordinal));
        self.assigned.push(Assigned { address, block: block.value.cidr });
        if self.to.has(holder, self.recorded.as_ref()) {
            return Ok(());
        }
        self.require_waiting(holder)?;
        self.handles.extend(holder.handle_id.clone());
        self.handles.insert(self.to.handle_id.clone());
        let changed = self.blocks.entry(block.value.cidr).or_insert_with(|| block.clone());
        changed.value.reassign(found.ordinal, taken_over(holder, self.to, self.facts));
        Ok(())
    }

    /// Refuses an address that does not wait for an endpoint on this machine.
    fn require_waiting(&self, holder: &Attribute) -> Result<(), HandOverBarrier> {
        let id = holder.handle_id.clone().unwrap_or_default();
        if named_by(&id).is_none() {
            return Err(HandOverBarrier::NotDockers(describe(holder)));
        }
        let its_own = Assignee { handle_id: id, ..self.to.clone() };
        if !its_own.has(holder, self.recorded.as_ref()) {
            return Err(HandOverBarrier::OfOtherNode(describe(holder)));
        }
        if holder.fact(ATTRIBUTE_MAC).is_none() {
            return Err(HandOverBarrier::OfNetwork);
        }
        // It may have been given back, and to another container, since dockerd was told of it.
        let waits = |nth| waiting(&self.to.host, self.facts.mac, nth);
        match (1..=MAX_WAITING).any(|nth| waits(nth).handle_id == its_own.handle_id) {
            true => Ok(()),
            false => Err(HandOverBarrier::OfOtherEndpoint(describe(holder))),
        }
    }
}

/// What is recorded of a holder once its address is another's.
fn taken_over(holder: &Attribute, to: &Assignee, facts: EndpointFacts<'_>) -> Attribute {
    let mut taken = holder.clone();
    taken.handle_id = Some(to.handle_id.clone());
    let known = taken.secondary.get_or_insert_default();
    known.extend([
        (ATTRIBUTE_DOCKER_NETWORK.to_owned(), facts.network.to_owned()),
        (ATTRIBUTE_MAC.to_owned(), facts.mac.to_string()),
        (ATTRIBUTE_TIMESTAMP.to_owned(), timestamp(facts.now)),
    ]);
    known.extend(to.network_to_record().map(|it| (ATTRIBUTE_NETWORK.to_owned(), it.to_owned())));
    taken
}
