//! What the datastore says of the cluster, kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Facts;
use crate::datastore::{Entry, Event, keys};
use crate::ipam::{ATTRIBUTE_NODE, Affinity, AffinityState, Block, affinity_of_host, nth_address};
use crate::resources::{AllowedUse, EncapsulationMode, IpPool, Node};

/// The addresses of a node, as registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its IPv4 address with the prefix length of its subnet.
    pub ipv4: Option<IpNet>,
    /// Its IPv6 address, likewise.
    pub ipv6: Option<IpNet>,
    /// The address of its IPIP tunnel device.
    pub tunnel: Option<Ipv4Addr>,
}

impl Peer {
    /// Its address in the family of `like`.
    pub fn address(&self, like: IpAddr) -> Option<IpNet> {
        match like {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

/// What a pool means for the ways between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPool {
    /// Its range.
    pub cidr: IpNet,
    /// When packets between nodes are wrapped in IPIP.
    pub ipip_mode: EncapsulationMode,
    /// Whether it asks for VXLAN, which Weir does not build.
    pub vxlan: bool,
    /// Whether what leaves it for outside of all pools is masqueraded.
    pub nat_outgoing: bool,
    /// Whether nodes may have the addresses of their tunnel devices out of it.
    pub has_tunnel_addresses: bool,
}

impl From<&IpPool> for ClusterPool {
    fn from(pool: &IpPool) -> Self {
        Self {
            cidr: pool.cidr,
            ipip_mode: pool.ipip_mode,
            vxlan: pool.vxlan_mode != EncapsulationMode::Never,
            nat_outgoing: pool.nat_outgoing,
            has_tunnel_addresses: pool.ipip_mode != EncapsulationMode::Never
                && pool.allows(AllowedUse::Tunnel),
        }
    }
}

/// Nodes, pools, and who has which block, condensed from the values of the
/// datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The nodes by name.
    pub nodes: BTreeMap<String, Peer>,
    /// The pools by name; disabled ones too, since their containers live on.
    pub pools: BTreeMap<String, ClusterPool>,
    /// The hosts with a confirmed affinity to each block: one, unless the store
    /// is damaged.
    pub blocks: BTreeMap<IpNet, BTreeSet<String>>,
    /// The host that each block itself names, which decides between several in
    /// `blocks`; none where the blocks were not read.
    #[serde(default)]
    pub homes: BTreeMap<IpNet, String>,
    /// By block, the addresses in use on another node than the block's.
    pub borrowed: BTreeMap<IpNet, BTreeMap<IpAddr, String>>,
    /// Values that cannot be read, by key, and why. What the value was before
    /// still counts.
    pub unreadable: BTreeMap<String, String>,
    /// Values with fields that cannot be read and are not needed here, by key, and
    /// what is wrong with them.
    #[serde(default)]
    pub flawed: BTreeMap<String, String>,
    /// What all of this was condensed from.
    #[serde(default)]
    pub facts: Facts,
}

impl Inventory {
    /// The prefixes of all keys that an inventory is made of, pools and nodes
    /// first: together they say how a block is reached once it is known.
    pub const PREFIXES: [&'static str; 4] = [keys::POOLS, keys::NODES, keys::HOSTS, keys::BLOCKS];

    /// Takes a change in, and says whether it made a difference.
    pub fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::Put(entry) => self.put(entry),
            Event::Delete { key, .. } => self.delete(key),
        }
    }

    /// Takes in what a key now has, and says whether that made a difference.
    /// A value that cannot be read leaves what was known before, and is listed
    /// in `unreadable`: a route is not withdrawn because of a typing error.
    pub fn put(&mut self, entry: &Entry) -> bool {
        self.facts.put(entry);
        let before = self.flawed.remove(&entry.key);
        let changed = match self.try_put(&entry.key, &entry.value) {
            Ok(changed) => self.unreadable.remove(&entry.key).is_some() | changed,
            Err(error) => self.unreadable.insert(entry.key.clone(), error.clone()) != Some(error),
        };
        changed | (self.flawed.get(&entry.key) != before.as_ref())
    }

    /// Takes in that a key is gone, and says whether that made a difference.
    pub fn delete(&mut self, key: &str) -> bool {
        self.facts.delete(key);
        let was_unreadable =
            self.unreadable.remove(key).is_some() | self.flawed.remove(key).is_some();
        let changed = if let Some(name) = key.strip_prefix(keys::POOLS) {
            self.pools.remove(name).is_some()
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            self.nodes.remove(name).is_some()
        } else if let Some((host, block)) = keys::parse_affinity(key) {
            self.set_affinity(block, host, false)
        } else if let Some(block) = keys::parse_block(key) {
            self.homes.remove(&block).is_some() | self.borrowed.remove(&block).is_some()
        } else {
            false
        };
        changed | was_unreadable
    }

    /// Takes over from an earlier inventory what the values said that cannot be
    /// read now.
    pub(super) fn carry_over(&mut self, earlier: &Self) {
        for key in self.unreadable.keys() {
            if let Some(name) = key.strip_prefix(keys::POOLS) {
                let pool = earlier.pools.get(name);
                self.pools.extend(pool.map(|pool| (name.to_owned(), pool.clone())));
            } else if let Some(name) = key.strip_prefix(keys::NODES) {
                let peer = earlier.nodes.get(name);
                self.nodes.extend(peer.map(|peer| (name.to_owned(), peer.clone())));
            } else if let Some((host, block)) = keys::parse_affinity(key) {
                let has = earlier.blocks.get(&block).is_some_and(|hosts| hosts.contains(host));
                if has {
                    self.blocks.entry(block).or_default().insert(host.to_owned());
                }
            } else if let Some(block) = keys::parse_block(key) {
                let home = earlier.homes.get(&block);
                self.homes.extend(home.map(|home| (block, home.clone())));
                let borrowed = earlier.borrowed.get(&block);
                self.borrowed.extend(borrowed.map(|borrowed| (block, borrowed.clone())));
            }
        }
    }

    /// The pool that an address or block lies in.
    pub fn pool_of(&self, range: IpNet) -> Option<(&str, &ClusterPool)> {
        let mut pools = self.pools.iter();
        pools.find(|(_, pool)| pool.cidr.contains(&range)).map(|(name, pool)| (name.as_str(), pool))
    }

    fn try_put(&mut self, key: &str, value: &[u8]) -> Result<bool, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if let Some(name) = key.strip_prefix(keys::POOLS) {
            let (pool, flaw) = IpPool::for_routes(value).map_err(|error| text(&error))?;
            self.flawed.extend(flaw.map(|flaw| (key.to_owned(), flaw.to_string())));
            Ok(replace(&mut self.pools, name, ClusterPool::from(&pool)))
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            let (node, flaw) = Node::for_routes(value).map_err(|error| text(&error))?;
            self.flawed.extend(flaw.map(|flaw| (key.to_owned(), flaw.to_string())));
            let peer = Peer {
                ipv4: node.ipv4_address,
                ipv6: node.ipv6_address,
                tunnel: node.ipip_tunnel_address,
            };
            Ok(replace(&mut self.nodes, name, peer))
        } else if let Some((host, block)) = keys::parse_affinity(key) {
            let affinity = Affinity::from_json(value).map_err(|error| text(&error))?;
            let confirmed = affinity.state == AffinityState::Confirmed && !affinity.deleted;
            Ok(self.set_affinity(block, host, confirmed))
        } else if let Some(cidr) = keys::parse_block(key) {
            let block = Block::from_json(value).map_err(|error| text(&error))?;
            let borrowed = Some(borrowed_addresses(&block)).filter(|borrowed| !borrowed.is_empty());
            let home = block.host().map(str::to_owned);
            Ok(settle(&mut self.homes, cidr, home) | settle(&mut self.borrowed, cidr, borrowed))
        } else {
            Ok(false)
        }
    }

    fn set_affinity(&mut self, block: IpNet, host: &str, confirmed: bool) -> bool {
        if confirmed {
            return self.blocks.entry(block).or_default().insert(host.to_owned());
        }
        let Some(hosts) = self.blocks.get_mut(&block) else {
            return false;
        };
        let removed = hosts.remove(host);
        if hosts.is_empty() {
            self.blocks.remove(&block);
        }
        removed
    }
}

fn replace<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    if map.get(name) == Some(&value) {
        return false;
    }
    map.insert(name.to_owned(), value);
    true
}

/// Lets a block have a value or none, and says whether that made a difference.
fn settle<T: PartialEq>(map: &mut BTreeMap<IpNet, T>, block: IpNet, value: Option<T>) -> bool {
    if map.get(&block) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => drop(map.insert(block, value)),
        None => drop(map.remove(&block)),
    }
    true
}

/// The addresses of a block that are in use on another node than the block's
/// host, each with that node. In a block without a host that is every address.
fn borrowed_addresses(block: &Block) -> BTreeMap<IpAddr, String> {
    let holders = block.allocations.iter().enumerate();
    holders
        .filter_map(|(ordinal, holder)| {
            let node = block.attributes.get((*holder)?)?.fact(ATTRIBUTE_NODE)?;
            let at_home = block.affinity.as_deref() == Some(&affinity_of_host(node));
            (!at_home).then(|| (nth_address(block.cidr, ordinal as u128), node.to_owned()))
        })
        .collect()
}
