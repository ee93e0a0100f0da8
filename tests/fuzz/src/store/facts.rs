//! What a store says, read apart from Weir's own code where that can be.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use weir_common::datastore::keys;
use weir_common::ipam::{Affinity, Block, Handle};
use weir_common::resources::{ClusterInformation, IpPool, IpReservation, IpamConfig};

/// A store at one moment.
pub struct Fingerprints {
    /// Keys and values.
    pub dump: BTreeMap<String, Vec<u8>>,
    /// The addresses in use by the blocks that can be taken apart as JSON.
    pub taken: BTreeMap<IpAddr, Holder>,
    /// The keys with values that cannot be read.
    pub unreadable: BTreeSet<String>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// The handle and the node; empty where there is none.
    pub handle: String,
    pub node: String,
    /// The block that says so.
    pub block: IpNet,
}

/// What one entry says.
#[derive(Clone)]
struct Said {
    unreadable: bool,
    taken: BTreeMap<IpAddr, Holder>,
}

thread_local! {
    /// What was read of this input's entries: most stay the same all along.
    static READ: RefCell<HashMap<(String, Vec<u8>), Said>> = RefCell::default();
}

fn said(key: &str, value: &[u8]) -> Said {
    READ.with_borrow_mut(|read| {
        let entry = (key.to_owned(), value.to_owned());
        let look = || Said {
            unreadable: is_unreadable(key, value),
            taken: taken_in(key, value).unwrap_or_default(),
        };
        read.entry(entry).or_insert_with(look).clone()
    })
}

/// Forgets what was read of the input before.
pub fn forget() {
    READ.take();
}

impl Fingerprints {
    pub fn of(dump: BTreeMap<String, Vec<u8>>) -> Self {
        let (mut taken, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in &dump {
            let said = said(key, value);
            taken.extend(said.taken);
            if said.unreadable {
                unreadable.insert(key.clone());
            }
        }
        Self { dump, taken, unreadable }
    }

    /// The blocks whose values cannot be read, by their keys.
    pub fn damaged_blocks(&self) -> impl Iterator<Item = (&str, IpNet)> {
        self.unreadable.iter().filter_map(|key| Some((key.as_str(), keys::parse_block(key)?)))
    }

    /// Whether a reservation keeps an address from being given by itself.
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        let entries = self.dump.iter().filter(|(key, _)| key.starts_with(keys::RESERVATIONS));
        let mut reservations =
            entries.filter_map(|(_, value)| IpReservation::from_json(value).ok());
        reservations.any(|it| it.reserved_cidrs.iter().any(|range| range.contains(&address)))
    }

    /// Whether another block's key overlaps this block. Two such blocks hand out the
    /// same addresses; an audit finds them (`block-misfit`), and nothing that Weir
    /// or Calico does makes them.
    pub fn overlaps(&self, block: IpNet) -> bool {
        let blocks = self.dump.keys().filter_map(|key| keys::parse_block(key));
        let overlap = |other: IpNet| {
            other != block && (other.contains(&block.addr()) || block.contains(&other.addr()))
        };
        blocks.into_iter().any(overlap)
    }
}

/// The addresses in use in a block that is stored under its own key.
fn taken_in(key: &str, value: &[u8]) -> Option<BTreeMap<IpAddr, Holder>> {
    if !key.starts_with(keys::BLOCKS) {
        return None;
    }
    let block: Value = serde_json::from_slice(value).ok()?;
    let cidr: IpNet = block["cidr"].as_str()?.parse().ok()?;
    if keys::block(cidr) != key || cidr != cidr.trunc() {
        return None;
    }
    let mut taken = BTreeMap::new();
    for (ordinal, holder) in block["allocations"].as_array()?.iter().enumerate() {
        let Some(address) = nth(cidr, ordinal).filter(|_| !holder.is_null()) else { continue };
        let holder = &block["attributes"][usize::try_from(holder.as_u64()?).ok()?];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (handle, node) = (text(&holder["handle_id"]), text(&holder["secondary"]["node"]));
        taken.insert(address, Holder { handle, node, block: cidr });
    }
    Some(taken)
}

fn nth(cidr: IpNet, ordinal: usize) -> Option<IpAddr> {
    let address: IpAddr = match cidr.network() {
        IpAddr::V4(first) => {
            std::net::Ipv4Addr::from_bits(first.to_bits().checked_add(ordinal as u32)?).into()
        }
        IpAddr::V6(first) => {
            std::net::Ipv6Addr::from_bits(first.to_bits().checked_add(ordinal as u128)?).into()
        }
    };
    cidr.contains(&address).then_some(address)
}

/// Whether Weir's own reader refuses a value.
fn is_unreadable(key: &str, value: &[u8]) -> bool {
    if key.starts_with(keys::BLOCKS) {
        let named = keys::parse_block(key);
        return Block::from_json(value).ok().map(|block| block.cidr) != named || named.is_none();
    }
    if key.starts_with(keys::HOSTS) {
        return keys::parse_affinity(key).is_none() || Affinity::from_json(value).is_err();
    }
    if key.starts_with(keys::HANDLES) {
        return Handle::from_json(value).is_err();
    }
    if key.starts_with(keys::POOLS) {
        return IpPool::from_json(value).ok().map(|pool| keys::pool(&pool.name)).as_deref()
            != Some(key);
    }
    if key.starts_with(keys::NODES) {
        return !is_shaped_as_node(value);
    }
    if key.starts_with(keys::RESERVATIONS) {
        return IpReservation::from_json(value).is_err();
    }
    match key {
        keys::IPAM_CONFIG => IpamConfig::from_json(value).is_err(),
        keys::CLUSTER_INFORMATION => ClusterInformation::from_json(value).is_err(),
        _ => false,
    }
}

/// Whether the parts of a node that it writes itself are objects or absent. What is
/// in them may be wrong: its own addresses it puts right.
fn is_shaped_as_node(value: &[u8]) -> bool {
    let Ok(node @ Value::Object(_)) = serde_json::from_slice::<Value>(value) else { return false };
    let parts = [&node["metadata"], &node["spec"], &node["spec"]["bgp"]];
    parts.into_iter().all(|part| part.is_object() || part.is_null())
}
