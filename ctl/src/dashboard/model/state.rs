//! Everything that the page shows at once.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use weir_common::audit::Finding;
use weir_common::network::{BlockUsage, Peer};

use super::ClusterView;
use super::problems::{self, ProblemRow};
use super::reach::short_name;

/// What there is to say besides what the datastore has.
#[derive(Debug, Default)]
pub struct Circumstances {
    /// Which datastore it is, without secrets.
    pub datastore: String,
    /// The node that the page is looked at from, where it is known.
    pub here: Option<String>,
    /// What was changed last.
    pub generation: u64,
    /// Why nothing newer is known.
    pub offline: Option<Offline>,
    /// What was found damaged.
    pub damage: Vec<Finding>,
    /// When the datastore was looked at for damage.
    pub checked: Option<Timestamp>,
}

/// A datastore that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offline {
    /// Since when.
    pub since: String,
    /// What it says, or what says that it is away.
    pub error: String,
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct StateDocument<'a> {
    version: &'static str,
    generation: u64,
    time: String,
    datastore: &'a str,
    here: Option<&'a str>,
    offline: Option<&'a Offline>,
    nodes: Vec<NodeRow<'a>>,
    pools: Vec<PoolRow<'a>>,
    problems: Vec<ProblemRow>,
    checked: Option<String>,
}

/// A node: one that is registered, or has blocks or addresses.
#[derive(Debug, Serialize)]
struct NodeRow<'a> {
    name: &'a str,
    ipv4: Option<IpNet>,
    ipv6: Option<IpNet>,
    blocks: usize,
    addresses: u64,
    problems: usize,
}

/// A pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolRow<'a> {
    name: &'a str,
    cidr: IpNet,
    block_size: Option<u8>,
    disabled: bool,
    encapsulation: String,
    nat: bool,
    total: Number,
    used: Number,
    free: Number,
    reserved: Number,
    cooling: Number,
    borrowed: Number,
    blocks: Vec<BlockRow>,
}

/// A block: its CIDR, the index of its node or -1, and how many of its addresses are used, there
/// are, reserved, and cooling down.
type BlockRow = (IpNet, i64, u64, u64, u64, u64);

/// The most problems that are told one by one.
const MOST_PROBLEMS: usize = 200;

/// The largest number that every reader of JSON takes as it is (2^53). No block has so many
/// addresses, but a key of the datastore may say so.
const LARGEST: u128 = 1 << 53;

fn bounded(number: u128) -> u64 {
    // It fits.
    number.min(LARGEST) as u64
}

/// A number that may be larger than JSON's readers take: a text.
#[derive(Clone, Copy, Debug)]
struct Number(u128);

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'a> StateDocument<'a> {
    /// What is so now.
    pub fn of(view: &'a ClusterView, around: &'a Circumstances, now: Timestamp) -> Self {
        let usage: Vec<(IpNet, BlockUsage)> = view.cluster.block_usage().collect();
        let mut problems = problems::problems(view, &around.damage);
        let nodes = nodes(view, &usage, &problems);
        let untold = problems.len().saturating_sub(MOST_PROBLEMS);
        if untold > 0 {
            problems.truncate(MOST_PROBLEMS);
            problems.push(ProblemRow::untold(untold));
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            generation: around.generation,
            time: now.to_string(),
            datastore: &around.datastore,
            here: around.here.as_deref().filter(|here| nodes.iter().any(|it| it.name == *here)),
            offline: around.offline.as_ref(),
            pools: pools(view, &usage, &nodes),
            nodes,
            problems,
            checked: around.checked.map(|it| it.to_string()),
        }
    }
}

fn nodes<'a>(
    view: &'a ClusterView,
    usage: &[(IpNet, BlockUsage)],
    problems: &[ProblemRow],
) -> Vec<NodeRow<'a>> {
    let row = |(name, peer): (&'a str, &Peer)| {
        let (blocks, addresses, problems) = (0, 0, 0);
        NodeRow { name, ipv4: peer.ipv4, ipv6: peer.ipv6, blocks, addresses, problems }
    };
    let registered = view.cluster.nodes.iter().map(|(name, peer)| (name.as_str(), peer));
    let mut rows: BTreeMap<&str, NodeRow<'_>> = registered.map(|it| (it.0, row(it))).collect();
    let unregistered = Peer::default();
    for (block, of_block) in usage {
        let Some(host) = view.host_of(*block) else { continue };
        let node = rows.entry(host).or_insert_with(|| row((host, &unregistered)));
        node.blocks += 1;
        node.addresses += bounded(of_block.used.saturating_sub(of_block.borrowed));
    }
    for node in view.cluster.borrowed.values().flat_map(BTreeMap::values) {
        rows.entry(node).or_insert_with(|| row((node, &unregistered))).addresses += 1;
    }
    for node in problems.iter().filter_map(ProblemRow::node) {
        if let Some(row) = rows.get_mut(node) {
            row.problems += 1;
        }
    }
    rows.into_values().collect()
}

fn pools<'a>(
    view: &'a ClusterView,
    usage: &[(IpNet, BlockUsage)],
    nodes: &[NodeRow<'_>],
) -> Vec<PoolRow<'a>> {
    let mut of_pools = view.cluster.pool_usage();
    let mut blocks: BTreeMap<&str, Vec<BlockRow>> = BTreeMap::new();
    for (block, it) in usage {
        let Some((pool, _)) = view.cluster.pool_of(*block) else { continue };
        let host = view.host_of(*block);
        let index = host.and_then(|host| nodes.binary_search_by(|it| it.name.cmp(host)).ok());
        let index = index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1);
        let [used, size, reserved, cooling] =
            [it.used, it.size, it.reserved, it.cooling].map(bounded);
        let row = (*block, index, used, size, reserved, cooling);
        blocks.entry(pool).or_default().push(row);
    }
    let row = |(name, cluster): (&'a String, &weir_common::network::ClusterPool)| {
        let usage = of_pools.remove(name.as_str()).unwrap_or_default();
        let pool = view.kept.pools.get(name);
        let encapsulation = pool.and_then(|pool| pool.tunnel()).map_or_else(
            || "none".to_owned(),
            |(kind, mode)| format!("{} {mode}", short_name(kind)),
        );
        PoolRow {
            name,
            cidr: cluster.cidr,
            block_size: pool.map(|pool| pool.block_size),
            disabled: pool.is_some_and(|pool| pool.disabled),
            encapsulation,
            nat: cluster.nat_outgoing,
            total: Number(usage.size),
            used: Number(usage.used),
            free: Number(usage.free()),
            reserved: Number(usage.reserved),
            cooling: Number(usage.cooling),
            borrowed: Number(usage.borrowed),
            blocks: blocks.remove(name.as_str()).unwrap_or_default(),
        }
    };
    view.cluster.pools.iter().map(row).collect()
}
