//! What has been read of the datastore, as values to decide on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Assigned;
use super::affinity::Affinity;
use super::assignee::Assignee;
use super::block::{Attribute, Block};
use super::error::Error;
use super::family::Family;
use super::handle::Handle;
use super::machine::MachineId;
use super::ownership::MachineRecord;
use super::ready::ReadyFlag;
use super::request::Request;
use super::reserved::{Reserved, ReservedBy, edges_of};
use crate::datastore::{Entry, Revision, Selection, Snapshot, keys};
pub use crate::datastore::{Stored, Unreadable};
use crate::resources::{self, IpPool, IpReservation, IpamConfig, Node, overlap, special_ranges};

impl From<Unreadable> for Error {
    fn from(Unreadable { key, reason }: Unreadable) -> Self {
        Self::Malformed { key, reason }
    }
}

/// What says which addresses an attachment has, besides their blocks; one round
/// trip. A damaged pool is no obstacle to giving addresses back: nothing else
/// is read for that.
#[derive(Clone, Debug, PartialEq)]
pub struct Holdings {
    /// The cluster's ready flag.
    pub ready: ReadyFlag,
    /// The attachment's handle.
    pub handle: Option<Stored<Handle>>,
    /// The machine that has the host's name.
    pub machine: Option<Stored<MachineRecord>>,
}

impl Holdings {
    /// What to read for an assignee.
    pub fn selections(Assignee { host, handle_id, .. }: &Assignee) -> Vec<Selection> {
        Self::selections_of(host, handle_id)
    }

    /// What to read for a handle on a host.
    pub(super) fn selections_of(host: &str, handle_id: &str) -> Vec<Selection> {
        let keys = [keys::handle(handle_id), keys::machine(host)].map(Selection::Key);
        std::iter::once(ReadyFlag::selection()).chain(keys).collect()
    }

    /// Understands the answer to [`Holdings::selections`].
    ///
    /// # Errors
    /// [`Error::Malformed`] with the key of a value that cannot be used.
    pub fn parse(snapshot: &Snapshot) -> Result<Self, Error> {
        Ok(Self {
            ready: ReadyFlag::parse(snapshot.entry(0))?,
            handle: snapshot.stored(1, Handle::from_json)?,
            machine: snapshot.stored(2, MachineRecord::from_json)?,
        })
    }

    /// The machine that the host's name is recorded for.
    pub fn machine(&self) -> Option<&MachineId> {
        self.machine.as_ref().map(|record| &record.value.machine)
    }

    /// The blocks that the handle names.
    pub fn blocks(&self) -> Vec<IpNet> {
        self.handle.as_ref().map(|handle| handle.value.blocks().collect()).unwrap_or_default()
    }

    /// Those of the handle's blocks that have not been looked at yet.
    ///
    /// # Errors
    /// [`Error::Malformed`] when one cannot be used: what the attachment has can
    /// then not be told.
    pub fn unread(&self, blocks: &Blocks) -> Result<Vec<IpNet>, Error> {
        let cidrs = self.blocks();
        match cidrs.iter().find_map(|cidr| blocks.unreadable(*cidr)) {
            Some(unreadable) => Err(unreadable.clone().into()),
            None => Ok(blocks.unknown(cidrs.into_iter())),
        }
    }

    /// The assignee's addresses, as far as the handle's blocks are known.
    pub fn addresses(&self, assignee: &Assignee, blocks: &Blocks) -> Vec<Assigned> {
        self.addresses_of(|holder| assignee.has(holder, self.machine()), blocks)
    }

    /// The addresses that a holder `has`, as far as the handle's blocks are known.
    pub(super) fn addresses_of(
        &self,
        has: impl Fn(&Attribute) -> bool,
        blocks: &Blocks,
    ) -> Vec<Assigned> {
        let mut addresses = Vec::new();
        for stored in self.blocks().into_iter().filter_map(|cidr| blocks.get(cidr)?) {
            let block = &stored.value;
            for ordinal in block.held_by(&has) {
                addresses.push(Assigned { address: block.address(ordinal), block: block.cidr });
            }
        }
        addresses
    }
}

/// All that an assignment needs to know besides blocks; one round trip.
#[derive(Clone, Debug)]
pub struct View {
    /// What the attachment has already.
    pub holdings: Holdings,
    /// The configuration of IPAM.
    pub config: IpamConfig,
    /// All pools, in the order of their names.
    pub pools: Vec<Stored<IpPool>>,
    /// The labels of this node; none when it is not registered.
    pub labels: BTreeMap<String, String>,
    /// This host's affinities, by block.
    pub affinities: BTreeMap<IpNet, Stored<Affinity>>,
    /// Those of the host's blocks that are noted to have no address left.
    pub full: BTreeSet<IpNet>,
    /// Ranges from which no address is handed out by itself.
    pub reserved: Vec<Reserved>,
    /// The only range from which addresses of its family are handed out by themselves, and what
    /// reserves the others.
    pub within: Option<(IpNet, ReservedBy)>,
    /// The addresses that have been looked up on the network around the node; `None` where
    /// none need be.
    pub looked_up: Option<BTreeSet<IpAddr>>,
    /// The datastore's revision when this was read.
    pub revision: Revision,
}

impl View {
    /// The view for a request: without the gateways of its network, which no container is
    /// given, and with its range.
    pub fn serving(self, Request { gateways, within, .. }: &Request) -> Self {
        let by = ReservedBy::Gateway;
        let own = gateways.iter().map(|it| Reserved { range: it.addr().into(), by: by.clone() });
        let edges = gateways.iter().flat_map(|gateway| edges_of(*gateway));
        let within = within.map(|range| (range, ReservedBy::OutsideRange(range)));
        Self { within, ..self.reserving(own.chain(edges)) }
    }

    /// The view in which these are not handed out.
    pub fn reserving(mut self, more: impl IntoIterator<Item = Reserved>) -> Self {
        self.reserved.extend(more);
        self
    }

    /// The view for a decision that looks up what it hands out on the network around the node,
    /// except what is `known` to be good.
    pub fn looking_up(mut self, known: impl IntoIterator<Item = IpAddr>) -> Self {
        self.looked_up = Some(known.into_iter().collect());
        self
    }

    /// Takes in what was found when `addresses` were looked up.
    pub fn learn_reserved(&mut self, addresses: Vec<IpAddr>, found: Vec<Reserved>) {
        if let Some(looked_up) = &mut self.looked_up {
            looked_up.extend(addresses);
        }
        let new: Vec<Reserved> =
            found.into_iter().filter(|it| !self.reserved.contains(it)).collect();
        self.reserved.extend(new);
    }

    /// Those of these addresses that are still to be looked up.
    pub(super) fn to_look_up(&self, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let Some(looked_up) = &self.looked_up else { return Vec::new() };
        addresses.filter(|address| !looked_up.contains(address)).collect()
    }

    /// What reserves an address, if anything does.
    pub(super) fn reserves(&self, address: IpAddr) -> Option<&ReservedBy> {
        self.keeping(address).next().or_else(|| self.excludes(address.into()))
    }

    /// What keeps an address even from a container that asks for it.
    pub(super) fn withholds(&self, address: IpAddr) -> Option<&ReservedBy> {
        self.keeping(address).find(|by| !by.may_be_asked_for())
    }

    /// What reserves an address for every network.
    pub(super) fn keeping(&self, address: IpAddr) -> impl Iterator<Item = &ReservedBy> {
        let around = self.reserved.iter().filter(move |it| it.range.contains(&address));
        around.map(|reserved| &reserved.by)
    }

    /// Why no address of a block is handed out by itself to this network, if it lies outside of
    /// its range.
    pub(super) fn excludes(&self, block: IpNet) -> Option<&ReservedBy> {
        let excludes = |range: IpNet| {
            Family::of(range.addr()) == Family::of(block.addr()) && !overlap(range, block)
        };
        self.within.as_ref().filter(|(range, _)| excludes(*range)).map(|(_, by)| by)
    }

    /// What to read for an assignee.
    pub fn selections(assignee: &Assignee) -> Vec<Selection> {
        let host = &assignee.host;
        let mut selections = Holdings::selections(assignee);
        selections.extend([
            Selection::Key(keys::IPAM_CONFIG.to_owned()),
            Selection::Key(keys::node(host)),
            Selection::Prefix(keys::POOLS.to_owned()),
            Selection::Prefix(keys::RESERVATIONS.to_owned()),
            Selection::Prefix(keys::affinities_of(host)),
            Selection::Prefix(keys::full_of(host)),
        ]);
        selections
    }

    /// Understands the answer to [`View::selections`].
    ///
    /// # Errors
    /// [`Error::Malformed`] with the key of a value that cannot be used.
    pub fn parse(snapshot: &Snapshot) -> Result<Self, Error> {
        let config = snapshot.stored(3, IpamConfig::from_json)?;
        let node = snapshot.stored(4, Node::from_json)?;
        let mut reserved = Vec::new();
        for entry in snapshot.entries(6) {
            let IpReservation { name, reserved_cidrs } =
                Stored::read(entry, IpReservation::from_json)?.value;
            reserved.extend(
                reserved_cidrs
                    .into_iter()
                    .map(|range| Reserved { range, by: ReservedBy::Reservation(name.clone()) }),
            );
        }
        let pools = read_pools(snapshot.entries(5))?;
        let special = pools.iter().flat_map(|pool| special_ranges(pool.value.cidr));
        reserved.extend(
            special.map(|(range, purpose)| Reserved { range, by: ReservedBy::Special(purpose) }),
        );
        let affinities = snapshot.entries(7).iter();
        let full = snapshot.entries(8).iter();
        Ok(Self {
            holdings: Holdings::parse(snapshot)?,
            config: config.map(|config| config.value).unwrap_or_default(),
            pools,
            labels: node.map(|node| node.value.labels).unwrap_or_default(),
            affinities: affinities.map(read_affinity).collect::<Result<_, Unreadable>>()?,
            full: full.filter_map(|entry| keys::parse_full(&entry.key)).collect(),
            reserved,
            within: None,
            looked_up: None,
            revision: snapshot.revision,
        })
    }
}

/// Reads a pool that stands under its own name: the key is made of that again.
///
/// # Errors
/// [`Unreadable`].
pub fn read_pool(entry: &Entry) -> Result<Stored<IpPool>, Unreadable> {
    read_pool_as(entry, IpPool::from_json)
}

/// Reads all pools, to give addresses from: one that is flawed says so.
///
/// # Errors
/// [`Unreadable`].
pub fn read_pools(entries: &[Entry]) -> Result<Vec<Stored<IpPool>>, Unreadable> {
    entries.iter().map(|entry| read_pool_as(entry, IpPool::for_assignment)).collect()
}

fn read_pool_as(
    entry: &Entry,
    read: impl FnOnce(&[u8]) -> Result<IpPool, resources::Error>,
) -> Result<Stored<IpPool>, Unreadable> {
    let pool = Stored::read(entry, read)?;
    let name = pool.value.name.clone();
    pool.under(&keys::pool(&name), format_args!("pool {name:?}"))
}

fn read_affinity(entry: &Entry) -> Result<(IpNet, Stored<Affinity>), Unreadable> {
    let Some((_, block)) = keys::parse_affinity(&entry.key) else {
        let reason = "its key names no block".to_owned();
        return Err(Unreadable { key: entry.key.clone(), reason });
    };
    Ok((block, Stored::read(entry, Affinity::from_json)?))
}

/// The blocks that have been looked at so far; those that are not there are
/// known to be absent, and those that cannot be used are known as such: they
/// matter only to a decision that comes to need them.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    known: HashMap<IpNet, Result<Option<Stored<Block>>, Unreadable>>,
}

impl Blocks {
    /// What is known of a block's content: nothing, that it is absent, or what
    /// it is.
    pub fn get(&self, cidr: IpNet) -> Option<Option<&Stored<Block>>> {
        self.known.get(&cidr)?.as_ref().ok().map(Option::as_ref)
    }

    /// Why a block that was looked at cannot be used, if so.
    pub fn unreadable(&self, cidr: IpNet) -> Option<&Unreadable> {
        self.known.get(&cidr)?.as_ref().err()
    }

    /// Of these blocks, those not looked at yet.
    pub fn unknown(&self, cidrs: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
        cidrs.filter(|cidr| !self.known.contains_key(cidr)).collect()
    }

    /// What to read to learn of these blocks.
    pub fn selections(cidrs: &[IpNet]) -> Vec<Selection> {
        cidrs.iter().map(|cidr| Selection::Key(keys::block(*cidr))).collect()
    }

    /// Takes in the answer to [`Blocks::selections`] for the same blocks.
    pub fn learn(&mut self, cidrs: &[IpNet], selected: &[Vec<Entry>]) {
        for (cidr, entries) in cidrs.iter().zip(selected) {
            let block = entries.first().map(read_block).transpose();
            self.known.insert(*cidr, block);
        }
    }
}

/// Reads a block that stands under its own key.
///
/// # Errors
/// [`Unreadable`].
pub fn read_block(entry: &Entry) -> Result<Stored<Block>, Unreadable> {
    let block = Stored::read(entry, Block::from_json)?;
    let cidr = block.value.cidr;
    // Not the key of its CIDR, which would pass over host bits.
    if keys::parse_block(&entry.key) == Some(cidr) {
        return Ok(block);
    }
    Err(Unreadable { key: entry.key.clone(), reason: format!("it holds block {cidr}") })
}
