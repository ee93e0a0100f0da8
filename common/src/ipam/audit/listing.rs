//! What an audit looks at: all that a store says about addresses, condensed.
//!
//! A store of 100,000 addresses has as many handles; kept as they are stored
//! they would take hundreds of megabytes. So each value is condensed as soon as
//! it is read, and names that occur again and again are kept once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::super::affinity::{Affinity, AffinityState};
use super::super::block::{Block, InvalidBlock, affinity_of_host};
use super::super::handle::Handle;
use super::super::knowledge::{read_pool, reason};
use super::super::machine::MachineId;
use super::super::ownership::MachineRecord;
use super::allocation::Allocation;
use crate::datastore::{Entry, keys};
use crate::resources::IpPool;

/// Whom a block belongs to, as the block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A host.
    Host(Arc<str>),
    /// Nobody: what is left of it when its host was removed while addresses in
    /// it were in use.
    Nobody,
    /// Something else than a host, which Weir leaves alone (Calico's
    /// `virtual:load-balancer`).
    Other,
}

impl Owner {
    /// The host, if it is one.
    pub fn host(&self) -> Option<&Arc<str>> {
        match self {
            Self::Host(host) => Some(host),
            Self::Nobody | Self::Other => None,
        }
    }
}

/// A block, condensed.
#[derive(Clone, Debug)]
pub(in crate::ipam) struct BlockUse {
    pub owner: Owner,
    /// What is in use, by ordinal.
    pub allocations: Vec<Allocation>,
    /// Ordinals that are free and allocated, or free twice.
    pub both: Vec<usize>,
    /// Ordinals that are neither free nor allocated.
    pub neither: Vec<usize>,
}

/// How many addresses in which blocks, in the order of the blocks.
pub(in crate::ipam) type Counts = Vec<(IpNet, u64)>;

/// All that was listed of a store, condensed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub(in crate::ipam) pools: Arc<Vec<IpPool>>,
    pub(in crate::ipam) nodes: Arc<BTreeSet<String>>,
    pub(in crate::ipam) blocks: BTreeMap<IpNet, BlockUse>,
    pub(in crate::ipam) affinities: BTreeMap<IpNet, Vec<(Arc<str>, AffinityState)>>,
    pub(in crate::ipam) handles: HashMap<Arc<str>, Counts>,
    pub(in crate::ipam) unreadable: BTreeMap<String, String>,
    /// The machines that nodes' names are recorded for.
    machines: BTreeMap<String, MachineId>,
    names: HashSet<Arc<str>>,
}

impl Listing {
    /// The prefixes of all keys that a listing takes in.
    pub const PREFIXES: [&'static str; 6] =
        [keys::POOLS, keys::NODES, keys::MACHINES, keys::BLOCKS, keys::HOSTS, keys::HANDLES];

    /// A listing with the pools and nodes of this one and nothing else.
    pub(super) fn surroundings(&self) -> Self {
        let unreadable = self.unreadable.clone().into_iter();
        Self {
            pools: Arc::clone(&self.pools),
            nodes: Arc::clone(&self.nodes),
            unreadable: unreadable.filter(|(key, _)| key.starts_with(keys::POOLS)).collect(),
            ..Self::default()
        }
    }

    /// The same without its pools, to read them again.
    pub(super) fn forget_pools(&mut self) {
        self.pools = Arc::default();
        self.unreadable.retain(|key, _| !key.starts_with(keys::POOLS));
    }

    /// The same without this node, to read it again.
    pub(super) fn forget_node(&mut self, name: &str) {
        if self.nodes.contains(name) {
            Arc::make_mut(&mut self.nodes).remove(name);
        }
    }

    /// Whether a node of this name is registered.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains(name)
    }

    /// The machine that a node's name is recorded for.
    pub fn machine(&self, node: &str) -> Option<&MachineId> {
        self.machines.get(node)
    }

    /// Takes in one entry. A value that cannot be read is remembered as such;
    /// entries under other prefixes are passed over.
    pub fn learn(&mut self, entry: &Entry) {
        let key = entry.key.as_str();
        let learned = if key.starts_with(keys::BLOCKS) {
            self.learn_block(entry)
        } else if key.starts_with(keys::HANDLES) {
            self.learn_handle(entry)
        } else if key.starts_with(keys::HOSTS) {
            self.learn_affinity(entry)
        } else if key.starts_with(keys::POOLS) {
            self.learn_pool(entry)
        } else if let Some(node) = key.strip_prefix(keys::MACHINES) {
            self.learn_machine(node, entry)
        } else if let Some(node) = key.strip_prefix(keys::NODES) {
            Arc::make_mut(&mut self.nodes).insert(node.to_owned());
            Ok(())
        } else {
            Ok(())
        };
        if let Err(reason) = learned {
            self.unreadable.insert(entry.key.clone(), reason);
        }
    }

    fn learn_pool(&mut self, entry: &Entry) -> Result<(), String> {
        let pool = read_pool(entry).map_err(|unreadable| unreadable.reason)?;
        Arc::make_mut(&mut self.pools).push(pool.value);
        Ok(())
    }

    fn learn_machine(&mut self, node: &str, entry: &Entry) -> Result<(), String> {
        let record = MachineRecord::from_json(&entry.value).map_err(|error| reason(&error))?;
        self.machines.insert(node.to_owned(), record.machine);
        Ok(())
    }

    fn learn_block(&mut self, entry: &Entry) -> Result<(), String> {
        let block = parse_block(entry)?;
        let owner = match (block.host(), &block.affinity) {
            (Some(host), _) => Owner::Host(self.name(host)),
            (None, None) => Owner::Nobody,
            (None, Some(_)) => Owner::Other,
        };
        let (both, neither) = unsound_ordinals(&block);
        let held = block.held_by(|_| true);
        let condense = |ordinal| Allocation::read(&block, ordinal, |name| self.name(name));
        let allocations = held.into_iter().filter_map(condense).collect();
        self.blocks.insert(block.cidr, BlockUse { owner, allocations, both, neither });
        Ok(())
    }

    fn learn_affinity(&mut self, entry: &Entry) -> Result<(), String> {
        let (host, cidr) =
            keys::parse_affinity(&entry.key).ok_or("its key names no host and block")?;
        let affinity = Affinity::from_json(&entry.value).map_err(|error| reason(&error))?;
        let host = self.name(host);
        self.affinities.entry(cidr).or_default().push((host, affinity.state));
        Ok(())
    }

    fn learn_handle(&mut self, entry: &Entry) -> Result<(), String> {
        let handle = Handle::from_json(&entry.value).map_err(|error| reason(&error))?;
        let counts = handle.block.iter();
        let mut counts: Counts =
            counts.filter_map(|(block, count)| Some((block.parse().ok()?, *count))).collect();
        counts.sort_unstable();
        let id = self.name(keys::parse_handle(&entry.key).unwrap_or_default());
        self.handles.insert(id, counts);
        Ok(())
    }

    /// The one copy of a name.
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    /// What is in use, block by block.
    pub(in crate::ipam) fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.blocks.values().flat_map(|block| &block.allocations)
    }

    /// How many addresses each handle has in which blocks, as the blocks say.
    pub(in crate::ipam) fn held_by_handle(&self) -> HashMap<&str, Counts> {
        let mut held: HashMap<&str, Counts> = HashMap::new();
        for allocation in self.allocations().filter(|allocation| allocation.needs_handle()) {
            let Some(handle) = allocation.handle.as_deref() else { continue };
            let counts = held.entry(handle).or_default();
            match counts.last_mut().filter(|(block, _)| *block == allocation.block) {
                Some((_, count)) => *count += 1,
                None => counts.push((allocation.block, 1)),
            }
        }
        held
    }

    /// The blocks that are there but cannot be read: nothing can be said about
    /// what they hold.
    pub(in crate::ipam) fn unreadable_blocks(&self) -> Vec<IpNet> {
        self.unreadable.keys().filter_map(|key| keys::parse_block(key)).collect()
    }

    /// Whether all pools could be read: what lies in none of them lies in no
    /// pool only then.
    pub(in crate::ipam) fn pools_are_known(&self) -> bool {
        !self.unreadable.keys().any(|key| key.starts_with(keys::POOLS))
    }
}

/// A block whose parts fit together and that stands where it belongs.
fn parse_block(entry: &Entry) -> Result<Block, String> {
    let block = Block::from_json(&entry.value).map_err(|error: InvalidBlock| reason(&error))?;
    if keys::block(block.cidr) != entry.key || block.cidr != block.cidr.trunc() {
        return Err(format!("it holds block {}", block.cidr));
    }
    debug_assert!(block.host().is_none_or(|host| block.affinity == Some(affinity_of_host(host))));
    Ok(block)
}

/// The ordinals that are free and allocated or free twice, and those that are
/// neither free nor allocated.
fn unsound_ordinals(block: &Block) -> (Vec<usize>, Vec<usize>) {
    let mut times_free = vec![0u32; block.allocations.len()];
    for ordinal in &block.unallocated {
        times_free[*ordinal] += 1;
    }
    let (mut both, mut neither) = (Vec::new(), Vec::new());
    for (ordinal, allocation) in block.allocations.iter().enumerate() {
        match times_free[ordinal] + u32::from(allocation.is_some()) {
            0 => neither.push(ordinal),
            1 => {}
            _ => both.push(ordinal),
        }
    }
    (both, neither)
}
