//! The changes that an assignment is to make.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::Assigned;
use super::affinity::{Affinity, AffinityState};
use super::block::{
    ATTRIBUTE_BOOT, ATTRIBUTE_INTERFACE, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE,
    ATTRIBUTE_TIMESTAMP, Attribute, Block,
};
use super::cooldown::Cooldown;
use super::knowledge::{Blocks, Stored, Unreadable, View};
use super::machine::MachineId;
use super::request::Request;
use crate::datastore::{Revision, Transaction, Write, keys};
use crate::resources::IpPool;

/// A block as it is to become.
struct Changed {
    block: Block,
    /// The version it replaces; `None` for a new block.
    replaces: Option<Revision>,
}

/// The changes decided on so far, over what was read.
pub(super) struct PendingChanges<'a> {
    request: &'a Request,
    view: &'a View,
    blocks: &'a Blocks,
    now: Timestamp,
    cooldown: Cooldown,
    blocks_changed: BTreeMap<IpNet, Changed>,
    affinities: BTreeMap<IpNet, Affinity>,
    pools: BTreeSet<&'a str>,
    full: BTreeSet<IpNet>,
}

/// How many blocks are noted to be full in one transaction at the most; a host
/// that comes with many from elsewhere notes them by and by.
const MAX_NOTES: usize = 64;

impl<'a> PendingChanges<'a> {
    pub(super) fn new(
        request: &'a Request,
        view: &'a View,
        blocks: &'a Blocks,
        now: Timestamp,
    ) -> Self {
        let (blocks_changed, affinities, pools, full) = Default::default();
        let cooldown = Cooldown::new(&view.config, now);
        Self { request, view, blocks, now, cooldown, blocks_changed, affinities, pools, full }
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks_changed.is_empty()
    }

    /// Says that a block of this host was found to have no address left for this network. It
    /// is noted if it has none for any.
    pub(super) fn note_full(&mut self, cidr: IpNet) {
        if self.full.len() < MAX_NOTES && self.block(cidr).is_some_and(|block| self.is_full(block))
        {
            self.full.insert(cidr);
        }
    }

    /// What is known of a block, the changes included.
    pub(super) fn known(&self, cidr: IpNet) -> BlockState<'_> {
        match (self.block(cidr), self.blocks.get(cidr), self.blocks.unreadable(cidr)) {
            (Some(block), ..) => BlockState::Content(block),
            (None, Some(_), _) => BlockState::Absent,
            (None, None, Some(why)) => BlockState::Unreadable(why),
            (None, None, None) => BlockState::Nothing,
        }
    }

    /// Takes the next free address of a block that is there.
    pub(super) fn take_next(&mut self, pool: &'a Stored<IpPool>, cidr: IpNet) -> Option<Assigned> {
        let ordinal = self.first_free(self.block(cidr)?)?;
        self.take(pool, cidr, ordinal)
    }

    /// Claims a block that is not there and takes its next free address; `None`,
    /// without claiming it, when all of it is reserved.
    pub(super) fn claim_next(&mut self, pool: &'a Stored<IpPool>, cidr: IpNet) -> Option<Assigned> {
        let ordinal = self.first_free(&self.new_block(cidr))?;
        self.claim(cidr);
        self.take(pool, cidr, ordinal)
    }

    /// Takes this address of a block, which is claimed if it is not there.
    pub(super) fn take_exactly(
        &mut self,
        pool: &'a Stored<IpPool>,
        cidr: IpNet,
        address: IpAddr,
    ) -> Option<Assigned> {
        if self.block(cidr).is_none() {
            self.claim(cidr);
        }
        let ordinal = self.block(cidr)?.ordinal(address)?;
        self.take(pool, cidr, ordinal)
    }

    /// Stamps an address that the attachment has already with the present
    /// moment and sequence number. One that was stamped by this very call, whose
    /// answer got lost, stays as it is, and so does one of Calico's, which names
    /// no interface.
    pub(super) fn renew(&mut self, has: &Assigned) {
        let Some((ordinal, holder)) = self.holding(has) else { return };
        let (stamp, boot_id) = (timestamp(self.now), self.request.facts.get(ATTRIBUTE_BOOT));
        let machine = self.request.assignee.machine.as_ref().map(MachineId::as_str);
        let stamped = holder.fact(ATTRIBUTE_TIMESTAMP) == Some(&stamp)
            && holder.fact(ATTRIBUTE_BOOT) == boot_id.map(String::as_str)
            && holder.fact(ATTRIBUTE_MACHINE) == machine;
        if stamped || holder.fact(ATTRIBUTE_INTERFACE).is_none() {
            return;
        }
        let mut renewed = holder.clone();
        let facts = renewed.secondary.get_or_insert_default();
        facts.insert(ATTRIBUTE_TIMESTAMP.to_owned(), stamp);
        facts.extend(machine.map(|id| (ATTRIBUTE_MACHINE.to_owned(), id.to_owned())));
        // A container that comes back after a reboot under its old id keeps its
        // address: it is of this boot now, or of none that is known, and in either
        // case no longer of the one that ended.
        match boot_id {
            Some(boot_id) => facts.insert(ATTRIBUTE_BOOT.to_owned(), boot_id.clone()),
            None => facts.remove(ATTRIBUTE_BOOT),
        };
        if let Some(block) = self.changed(has.block) {
            block.reassign(ordinal, renewed);
        }
    }

    /// The ordinal of an address in use, and its holder.
    fn holding(&self, has: &Assigned) -> Option<(usize, &Attribute)> {
        let block = self.block(has.block)?;
        let ordinal = block.ordinal(has.address)?;
        Some((ordinal, block.holder(ordinal)?))
    }

    /// The block as changed so far, else as read.
    fn block(&self, cidr: IpNet) -> Option<&Block> {
        match self.blocks_changed.get(&cidr) {
            Some(changed) => Some(&changed.block),
            None => self.blocks.get(cidr)?.map(|stored| &stored.value),
        }
    }

    fn first_free(&self, block: &Block) -> Option<usize> {
        let mut free = self.cooldown.free(block);
        free.find(|ordinal| self.view.reserves(block.address(*ordinal)).is_none())
    }

    /// Whether a block has no address left for any network.
    fn is_full(&self, block: &Block) -> bool {
        let mut free = self.cooldown.free(block);
        !free.any(|ordinal| self.view.keeping(block.address(ordinal)).next().is_none())
    }

    fn new_block(&self, cidr: IpNet) -> Block {
        let nanoseconds = u64::try_from(self.now.as_nanosecond()).unwrap_or_default();
        Block::new(cidr, &self.request.assignee.host, nanoseconds)
    }

    fn claim(&mut self, cidr: IpNet) {
        let block = self.new_block(cidr);
        let known = self.view.affinities.get(&cidr).map(|affinity| affinity.value.confirmed());
        self.affinities.insert(cidr, known.unwrap_or_default());
        self.blocks_changed.insert(cidr, Changed { block, replaces: None });
    }

    fn take(&mut self, pool: &'a Stored<IpPool>, cidr: IpNet, ordinal: usize) -> Option<Assigned> {
        self.confirm_affinity(cidr);
        self.pools.insert(&pool.value.name);
        let holder = self.holder();
        let block = self.changed(cidr)?;
        block.assign(ordinal, holder);
        Some(Assigned { address: block.address(ordinal), block: cidr })
    }

    /// The block to change: a copy of what was read, the first time, in which what cooled down
    /// is free.
    fn changed(&mut self, cidr: IpNet) -> Option<&mut Block> {
        let changed = match self.blocks_changed.entry(cidr) {
            Entry::Occupied(changed) => changed.into_mut(),
            Entry::Vacant(vacant) => {
                let stored = self.blocks.get(cidr)??;
                let (mut block, replaces) = (stored.value.clone(), Some(stored.revision));
                block.release(&self.cooldown.cooled(&block));
                vacant.insert(Changed { block, replaces })
            }
        };
        Some(&mut changed.block)
    }

    /// Finishes a claim that was left halfway.
    fn confirm_affinity(&mut self, cidr: IpNet) {
        let own =
            self.block(cidr).is_some_and(|block| block.host() == Some(&self.request.assignee.host));
        if let Some(affinity) = self.view.affinities.get(&cidr)
            && own
            && affinity.value.state != AffinityState::Confirmed
        {
            self.affinities.insert(cidr, affinity.value.confirmed());
        }
    }

    fn holder(&self) -> Attribute {
        let assignee = &self.request.assignee;
        let mut facts = self.request.facts.clone();
        facts.insert(ATTRIBUTE_NODE.to_owned(), assignee.host.clone());
        facts.extend([assignee.purpose.fact()]);
        let machine = assignee.machine.as_ref();
        facts.extend(machine.map(|id| (ATTRIBUTE_MACHINE.to_owned(), id.to_string())));
        let network = assignee.network_to_record();
        facts.extend(network.map(|network| (ATTRIBUTE_NETWORK.to_owned(), network.to_owned())));
        facts.insert(ATTRIBUTE_TIMESTAMP.to_owned(), timestamp(self.now));
        Attribute {
            handle_id: Some(assignee.handle_id.clone()),
            secondary: Some(facts),
            ..Attribute::default()
        }
    }

    /// Blocks, affinities and handle change together, and the host's name becomes this
    /// machine's if it had none; pools used, the ready flag and, under a limit, the
    /// host's blocks must be as they were read.
    pub(super) fn into_transaction(self) -> Transaction {
        let mut transaction = Transaction::default();
        self.write_blocks_and_handle(&mut transaction);
        self.write_affinities(&mut transaction);
        self.write_notes(&mut transaction);
        let used = |pool: &&Stored<IpPool>| self.pools.contains(pool.value.name.as_str());
        for pool in self.view.pools.iter().filter(used) {
            transaction.unchanged(keys::pool(&pool.value.name), pool.revision);
        }
        let holdings = &self.view.holdings;
        holdings.ready.guard(&mut transaction);
        let assignee = &self.request.assignee;
        assignee.ownership(holdings.machine()).claim(&assignee.host, &mut transaction);
        transaction
    }

    fn write_blocks_and_handle(&self, transaction: &mut Transaction) {
        let handle_id = self.request.assignee.handle_id.as_str();
        let stored = self.view.holdings.handle.as_ref();
        let mut handle = stored.map(|handle| handle.value.clone()).unwrap_or_default();
        for (cidr, Changed { block, replaces }) in &self.blocks_changed {
            let of_handle = |holder: &Attribute| holder.is_of(handle_id);
            handle.set(*cidr, block.held_by(of_handle).len() as u64);
            let mut block = block.clone();
            block.advance();
            transaction.put(keys::block(*cidr), *replaces, block.to_json());
        }
        let replaces = stored.map(|handle| handle.revision);
        transaction.put(keys::handle(handle_id), replaces, handle.to_json());
    }

    /// Notes which blocks have no address left, and forgets the notes on those
    /// that have one.
    fn write_notes(&self, transaction: &mut Transaction) {
        let mut notes: BTreeMap<String, bool> = BTreeMap::new();
        for cidr in self.full.difference(&self.view.full) {
            notes.insert(keys::full(&self.request.assignee.host, *cidr), true);
        }
        for (cidr, Changed { block, .. }) in &self.blocks_changed {
            let own = block.host() == Some(&self.request.assignee.host);
            let noted = own && self.view.full.contains(cidr);
            let full = self.is_full(block);
            if let Some(host) = block.host()
                && full != noted
            {
                notes.insert(keys::full(host, *cidr), full);
            }
        }
        transaction.writes.extend(notes.into_iter().map(|(key, full)| {
            if full { Write::Put { key, value: Vec::new() } } else { Write::Delete { key } }
        }));
    }

    /// Where the number of a host's blocks is limited, two claims at once must
    /// not both pass the count.
    fn write_affinities(&self, transaction: &mut Transaction) {
        let host = &self.request.assignee.host;
        for (cidr, affinity) in &self.affinities {
            let replaces = self.view.affinities.get(cidr).map(|known| known.revision);
            transaction.put(keys::affinity(host, *cidr), replaces, affinity.to_json());
        }
        if self.view.config.max_blocks_per_host > 0 && !self.affinities.is_empty() {
            transaction.none_newer(keys::affinities_of(host), self.view.revision);
        }
    }
}

/// What is known of a block, pending changes included.
pub(super) enum BlockState<'a> {
    /// It has not been looked at.
    Nothing,
    /// It is not there.
    Absent,
    /// It cannot be used.
    Unreadable(&'a Unreadable),
    /// The block's content, pending changes included.
    Content(&'a Block),
}

/// A moment as Calico records it: Go's default form, without trailing zeros.
pub(super) fn timestamp(now: Timestamp) -> String {
    let mut text = now.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let nanoseconds = now.subsec_nanosecond();
    if nanoseconds > 0 {
        text.push_str(format!(".{nanoseconds:09}").trim_end_matches('0'));
    }
    text + " +0000 UTC"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_go_s() {
        let at = |nanoseconds| timestamp(Timestamp::new(1_795_405_217, nanoseconds).unwrap());
        assert_eq!(at(284_097_480), "2026-11-23 03:40:17.28409748 +0000 UTC");
        assert_eq!(at(0), "2026-11-23 03:40:17 +0000 UTC");
    }
}
