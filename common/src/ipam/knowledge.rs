//! What has been read of the datastore, as values to decide on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Assigned;
use super::affinity::Affinity;
use super::assignee::Assignee;
use super::block::Block;
use super::error::Error;
use super::handle::Handle;
use super::machine::MachineId;
use super::ownership::MachineRecord;
use super::ready::ReadyFlag;
use crate::datastore::{Entry, Revision, Selection, Snapshot, keys};
pub use crate::datastore::{Stored, Unreadable};
use crate::resources::{IpPool, IpReservation, IpamConfig, Node};

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
        let mut addresses = Vec::new();
        for stored in self.blocks().into_iter().filter_map(|cidr| blocks.get(cidr)?) {
            let block = &stored.value;
            for ordinal in block.held_by(|holder| assignee.has(holder, self.machine())) {
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
    /// The datastore's revision when this was read.
    pub revision: Revision,
}

/// A range from which no address is handed out by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The range.
    pub range: IpNet,
    /// The reservation's name; `None` for a gateway of the network.
    pub reservation: Option<String>,
}

impl Reserved {
    /// What reserves it, in words.
    pub(super) fn by(&self) -> String {
        match &self.reservation {
            Some(name) => format!("IPReservation {name}"),
            None => "the network's gateways".to_owned(),
        }
    }
}

impl View {
    /// The view of a network with these gateways, which are not handed out unasked.
    pub fn reserving(mut self, gateways: &[IpAddr]) -> Self {
        let reserved = |gateway: &IpAddr| Reserved { range: (*gateway).into(), reservation: None };
        self.reserved.extend(gateways.iter().map(reserved));
        self
    }

    /// What reserves an address, if anything does.
    pub(super) fn reserves(&self, address: IpAddr) -> Option<&Reserved> {
        self.reserved.iter().find(|reserved| reserved.range.contains(&address))
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
                    .map(|range| Reserved { range, reservation: Some(name.clone()) }),
            );
        }
        let pools = snapshot.entries(5).iter();
        let affinities = snapshot.entries(7).iter();
        let full = snapshot.entries(8).iter();
        Ok(Self {
            holdings: Holdings::parse(snapshot)?,
            config: config.map(|config| config.value).unwrap_or_default(),
            pools: pools.map(read_pool).collect::<Result<_, Unreadable>>()?,
            labels: node.map(|node| node.value.labels).unwrap_or_default(),
            affinities: affinities.map(read_affinity).collect::<Result<_, Unreadable>>()?,
            full: full.filter_map(|entry| keys::parse_full(&entry.key)).collect(),
            reserved,
            revision: snapshot.revision,
        })
    }
}

/// Reads a pool that stands under its own name: the key is made of that again.
///
/// # Errors
/// [`Unreadable`].
pub fn read_pool(entry: &Entry) -> Result<Stored<IpPool>, Unreadable> {
    let pool = Stored::read(entry, IpPool::from_json)?;
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
    block.under(&keys::block(cidr), format_args!("block {cidr}"))
}
