//! All that a store says about addresses, read as a stream and condensed.
//!
//! A store of a million addresses has as many handles. Kept as they are stored they
//! would take gigabytes. So each value is condensed as soon as it is read, and a handle
//! that says what the blocks hold is counted and dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::affinity::{Affinity, AffinityState};
use super::allocation::Allocation;
use super::block::Block;
use super::error::Error;
use super::handle::Handle;
use super::knowledge::read_pool;
use super::machine::MachineId;
use super::ownership::MachineRecord;
use crate::datastore::{Datastore, Entry, Pages, Revision, Selection, keys};
use crate::error_chain;
use crate::resources::{IpPool, Node};

/// How many blocks are read by one request.
const BLOCKS_AT_ONCE: usize = 64;

/// Whom a block belongs to, as the block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A host.
    Host(Arc<str>),
    /// No host: what is left of a block when its host was removed while addresses in it
    /// were in use.
    NoHost,
    /// Something else than a host, which Weir leaves alone (Calico's
    /// `virtual:load-balancer`).
    Other,
}

impl Owner {
    /// The host, if it is one.
    pub fn host(&self) -> Option<&Arc<str>> {
        match self {
            Self::Host(host) => Some(host),
            Self::NoHost | Self::Other => None,
        }
    }
}

/// A block, condensed.
#[derive(Clone, Debug)]
pub(crate) struct BlockUse {
    pub owner: Owner,
    /// What is in use, by ordinal.
    pub allocations: Vec<Allocation>,
    /// Ordinals that are free and allocated, or free twice.
    pub both: Vec<usize>,
    /// Ordinals that are neither free nor allocated.
    pub neither: Vec<usize>,
}

/// What is asked of a registered node.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// What node selectors look at.
    pub labels: BTreeMap<String, String>,
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let addresses = [node.ipv4_address, node.ipv6_address];
        Self {
            addresses: addresses.into_iter().flatten().map(|it| it.addr()).collect(),
            labels: node.labels,
        }
    }
}

/// How many addresses in which blocks, in the order of the blocks.
pub(crate) type Counts = Vec<(IpNet, u64)>;

/// All that a store says about addresses, condensed.
#[derive(Clone, Debug, Default)]
pub struct IpamSnapshot {
    /// The store's revision when reading began.
    pub revision: Revision,
    /// Whether the store stayed the same meanwhile: what is found in it needs no
    /// second look.
    pub steady: bool,
    pub(crate) pools: Arc<Vec<IpPool>>,
    /// The registered nodes; `None` for what cannot be read of one.
    pub(crate) nodes: Arc<BTreeMap<String, Option<NodeFacts>>>,
    pub(crate) blocks: BTreeMap<IpNet, BlockUse>,
    pub(crate) affinities: BTreeMap<IpNet, Vec<(Arc<str>, AffinityState)>>,
    /// The handles that say something else than the blocks before them, by id.
    pub(crate) handles: BTreeMap<String, Counts>,
    /// How many handles there are in all.
    pub(crate) handle_count: usize,
    pub(crate) unreadable: BTreeMap<String, String>,
    /// The machines that nodes' names are recorded for.
    machines: BTreeMap<String, MachineId>,
    unmatched: Unmatched,
}

impl IpamSnapshot {
    /// The prefixes of all keys that are read: blocks before handles.
    pub const PREFIXES: [&'static str; 6] =
        [keys::POOLS, keys::NODES, keys::MACHINES, keys::BLOCKS, keys::HOSTS, keys::HANDLES];

    /// Reads all that a store says about addresses, page by page.
    ///
    /// # Errors
    /// [`Error::Datastore`].
    pub async fn list(datastore: &dyn Datastore) -> Result<Self, Error> {
        Self::list_telling(datastore, &|_| {}).await
    }

    /// As [`IpamSnapshot::list`]; after each page `told` is given the number of entries
    /// read so far.
    ///
    /// # Errors
    /// [`Error::Datastore`].
    pub async fn list_telling(
        datastore: &dyn Datastore,
        told: &(dyn Fn(usize) + Sync),
    ) -> Result<Self, Error> {
        let (mut snapshot, mut entries) = (Self::default(), 0);
        let mut revisions: Vec<Revision> = Vec::new();
        for prefix in Self::PREFIXES {
            let mut pages = Pages::new(datastore, prefix);
            while let Some(page) = pages.next().await? {
                revisions.push(page.revision);
                page.entries.iter().for_each(|entry| snapshot.learn(entry));
                entries += page.entries.len();
                told(entries);
            }
        }
        revisions.dedup();
        snapshot.revision = revisions.first().copied().unwrap_or_default();
        snapshot.steady = revisions.len() <= 1;
        Ok(snapshot)
    }

    /// Reads what concerns one host: its blocks and these `others`, its node and machine, and the
    /// pools. Without the handles and the other nodes only damage that rests on the host's kernel
    /// can be found in it.
    ///
    /// # Errors
    /// [`Error::Datastore`].
    pub async fn read_host(
        datastore: &dyn Datastore,
        host: &str,
        others: &BTreeSet<IpNet>,
    ) -> Result<Self, Error> {
        let read = datastore
            .read(&[
                Selection::Prefix(keys::POOLS.to_owned()),
                Selection::Key(keys::node(host)),
                Selection::Key(keys::machine(host)),
                Selection::Prefix(keys::affinities_of(host)),
            ])
            .await?;
        let mut snapshot = Self { revision: read.revision, ..Self::default() };
        read.selected.iter().flatten().for_each(|entry| snapshot.learn(entry));
        let blocks: BTreeSet<IpNet> = snapshot.affinities.keys().chain(others).copied().collect();
        let blocks: Vec<Selection> =
            blocks.into_iter().map(|block| Selection::Key(keys::block(block))).collect();
        for some in blocks.chunks(BLOCKS_AT_ONCE) {
            let read = datastore.read(some).await?;
            read.selected.iter().flatten().for_each(|entry| snapshot.learn(entry));
        }
        Ok(snapshot)
    }

    /// A snapshot with the pools and nodes of this one and nothing else.
    pub(crate) fn pools_and_nodes(&self) -> Self {
        let unreadable = self.unreadable.clone().into_iter();
        Self {
            pools: Arc::clone(&self.pools),
            nodes: Arc::clone(&self.nodes),
            unreadable: unreadable.filter(|(key, _)| key.starts_with(keys::POOLS)).collect(),
            ..Self::default()
        }
    }

    /// The same without its pools, to read them again.
    pub(crate) fn forget_pools(&mut self) {
        self.pools = Arc::default();
        self.unreadable.retain(|key, _| !key.starts_with(keys::POOLS));
    }

    /// The same without this node, to read it again.
    pub(crate) fn forget_node(&mut self, name: &str) {
        if self.nodes.contains_key(name) {
            Arc::make_mut(&mut self.nodes).remove(name);
        }
    }

    /// Whether a node of this name is registered.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
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
            let facts = Node::from_json(&entry.value).ok().map(NodeFacts::from);
            Arc::make_mut(&mut self.nodes).insert(node.to_owned(), facts);
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
        let record = MachineRecord::from_json(&entry.value).map_err(|error| error_chain(&error))?;
        self.machines.insert(node.to_owned(), record.machine);
        Ok(())
    }

    fn learn_block(&mut self, entry: &Entry) -> Result<(), String> {
        let block = parse_block(entry)?;
        let owner = match (block.host(), &block.affinity) {
            (Some(host), _) => Owner::Host(host.into()),
            (None, None) => Owner::NoHost,
            (None, Some(_)) => Owner::Other,
        };
        let (both, neither) = unsound_ordinals(&block);
        let allocations = Allocation::all_of(&block);
        for (allocation, handle) in accounted(&allocations) {
            self.unmatched.add(handle, allocation.block);
        }
        self.blocks.insert(block.cidr, BlockUse { owner, allocations, both, neither });
        Ok(())
    }

    fn learn_affinity(&mut self, entry: &Entry) -> Result<(), String> {
        let (host, cidr) =
            keys::parse_affinity(&entry.key).ok_or("its key names no host and block")?;
        let affinity = Affinity::from_json(&entry.value).map_err(|error| error_chain(&error))?;
        self.affinities.entry(cidr).or_default().push((host.into(), affinity.state));
        Ok(())
    }

    fn learn_handle(&mut self, entry: &Entry) -> Result<(), String> {
        let handle = Handle::from_json(&entry.value).map_err(|error| error_chain(&error))?;
        let counts = handle.block.iter();
        let mut counts: Counts =
            counts.filter_map(|(block, count)| Some((block.parse().ok()?, *count))).collect();
        counts.sort_unstable();
        let id = keys::parse_handle(&entry.key).unwrap_or_default();
        self.handle_count += 1;
        if !self.unmatched.settle(id, &counts) {
            self.handles.insert(id.to_owned(), counts);
        }
        Ok(())
    }

    /// What is in use, block by block.
    pub(crate) fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.blocks.values().flat_map(|block| &block.allocations)
    }

    /// What is in use and needs a handle, with the handle, as far as no handle was read
    /// that says just that.
    pub(crate) fn unmatched(&self) -> impl Iterator<Item = (&Allocation, &str)> {
        accounted(self.allocations()).filter(|(_, handle)| self.unmatched.holds(handle))
    }

    /// The blocks that are there but cannot be read: nothing can be said about
    /// what they hold.
    pub(crate) fn unreadable_blocks(&self) -> Vec<IpNet> {
        self.unreadable.keys().filter_map(|key| keys::parse_block(key)).collect()
    }

    /// Whether all pools could be read: what lies in none of them lies in no
    /// pool only then.
    pub(crate) fn pools_are_known(&self) -> bool {
        !self.unreadable.keys().any(|key| key.starts_with(keys::POOLS))
    }
}

/// The allocations for which a handle must account, with that handle.
fn accounted<'a>(
    allocations: impl IntoIterator<Item = &'a Allocation>,
) -> impl Iterator<Item = (&'a Allocation, &'a str)> {
    let needing = allocations.into_iter().filter(|it| it.needs_handle());
    needing.filter_map(|it| Some((it, it.handle.as_deref()?)))
}

/// What the blocks hold for each handle that was not read yet, as fingerprints: of the
/// handle, and summed up of what it holds. Two handles that share a fingerprint do not
/// match what is read, and are compared whole.
#[derive(Clone, Debug, Default)]
struct Unmatched {
    sums: HashMap<u64, u64>,
    hasher: RandomState,
}

impl Unmatched {
    fn add(&mut self, handle: &str, block: IpNet) {
        let sum = self.sums.entry(self.hasher.hash_one(handle)).or_default();
        *sum = sum.wrapping_add(self.hasher.hash_one((handle, block)));
    }

    /// Drops a handle that says what the blocks hold; answers whether it does.
    fn settle(&mut self, handle: &str, says: &Counts) -> bool {
        let one = |(block, count): &(IpNet, u64)| {
            self.hasher.hash_one((handle, block)).wrapping_mul(*count)
        };
        let sum = says.iter().map(one).fold(0, u64::wrapping_add);
        let key = self.hasher.hash_one(handle);
        let agrees = says.iter().all(|(_, count)| *count > 0) && self.sums.get(&key) == Some(&sum);
        if agrees {
            self.sums.remove(&key);
        }
        agrees
    }

    fn holds(&self, handle: &str) -> bool {
        !self.sums.is_empty() && self.sums.contains_key(&self.hasher.hash_one(handle))
    }
}

/// A block whose parts fit together and that stands where it belongs.
fn parse_block(entry: &Entry) -> Result<Block, String> {
    let block = Block::from_json(&entry.value).map_err(|error| error_chain(&error))?;
    if keys::block(block.cidr) != entry.key || block.cidr != block.cidr.trunc() {
        return Err(format!("it holds block {}", block.cidr));
    }
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
