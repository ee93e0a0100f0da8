//! The cluster as the datastore has it, as far as routes depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::bgp_resources::{BgpResources, replace};
use super::fingerprints::Fingerprints;
use crate::datastore::{Entry, Event, keys};
use crate::ipam::{
    ATTRIBUTE_NODE, Affinity, AffinityState, Attribute, Block, Family, MachineId, MachineRecord,
    affinity_of_host, host_bits, nth_address,
};
use crate::link::MacAddress;
use crate::network::nat::NatPool;
use crate::network::route::SourceAddresses;
use crate::resources::{
    AllowedUse, EncapsulationMode, FelixConfiguration, IpPool, IpReservation, Node,
};
use crate::tunnel::TunnelKind;

/// The addresses of a node, as registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its IPv4 address with the prefix length of its subnet.
    pub ipv4: Option<IpNet>,
    /// Its IPv6 address, likewise.
    pub ipv6: Option<IpNet>,
    /// The addresses of its tunnel devices.
    #[serde(default)]
    pub tunnels: BTreeMap<TunnelKind, IpAddr>,
    /// The hardware addresses of its tunnel devices, where they do not follow from its name.
    #[serde(default)]
    pub tunnel_macs: BTreeMap<TunnelKind, MacAddress>,
    /// What selectors look at.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its AS number, where it is not the cluster's.
    #[serde(default)]
    pub as_number: Option<u32>,
    /// The cluster id of a route reflector.
    #[serde(default)]
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}

impl Peer {
    /// Its addresses, without their subnets.
    pub fn sources(&self) -> SourceAddresses {
        let mut sources = SourceAddresses::default();
        for address in [self.ipv4, self.ipv6].into_iter().flatten() {
            match address.addr() {
                IpAddr::V4(address) => sources.ipv4 = Some(address),
                IpAddr::V6(address) => sources.ipv6 = Some(address),
            }
        }
        sources
    }

    /// The hardware address of its tunnel device of this kind, if it carries Ethernet frames;
    /// `name` is the node's.
    pub fn mac(&self, kind: TunnelKind, name: &str) -> Option<MacAddress> {
        self.tunnel_macs.get(&kind).copied().or_else(|| kind.mac(name))
    }

    /// The same as a list.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [self.ipv4, self.ipv6].into_iter().flatten().map(|address| address.addr())
    }

    /// Its own address, by which tunnels of this kind reach it.
    pub fn address_for(&self, kind: TunnelKind) -> Option<IpNet> {
        let [ipv4, ipv6] = [(self.ipv4, false), (self.ipv6, true)]
            .map(|(address, is_ipv6)| address.filter(|it| it.addr().is_ipv6() == is_ipv6));
        if kind.row().is_ipv6 { ipv6 } else { ipv4 }
    }

    /// Its address in the family of `like`.
    pub fn address(&self, like: IpAddr) -> Option<IpNet> {
        match like {
            IpAddr::V4(_) => self.ipv4,
            IpAddr::V6(_) => self.ipv6,
        }
    }
}

/// How the packets of a pool are wrapped between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolTunnel {
    /// The kind of tunnel.
    pub kind: TunnelKind,
    /// Whether only packets to nodes in other subnets are wrapped.
    pub cross_subnet: bool,
}

impl PoolTunnel {
    /// Whether packets are wrapped that a node with the address `own`, in its subnet, sends to
    /// the node at `next_hop`, of the same family.
    pub fn wraps(self, own: Option<IpNet>, next_hop: IpAddr) -> bool {
        !self.cross_subnet || !own.is_some_and(|subnet| subnet.contains(&next_hop))
    }
}

/// What a pool means for the routes between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPool {
    /// Its range.
    pub cidr: IpNet,
    /// By which tunnel packets go between nodes, if by any.
    pub tunnel: Option<PoolTunnel>,
    /// Whether what leaves it for outside of all pools is masqueraded.
    pub nat_outgoing: bool,
    /// Whether nodes may have the addresses of their tunnel devices out of it.
    pub has_tunnel_addresses: bool,
    /// Whether its addresses are announced by BGP (not `disableBGPExport`).
    #[serde(default = "exported")]
    pub is_exported: bool,
}

/// What a state that was kept by an earlier version means.
fn exported() -> bool {
    true
}

impl ClusterPool {
    /// Whether packets between nodes may be wrapped.
    pub fn has_tunnels(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Whether packets between nodes may be wrapped by this kind of tunnel.
    pub fn is_of(&self, kind: TunnelKind) -> bool {
        self.tunnel.is_some_and(|tunnel| tunnel.kind == kind)
    }

    /// Whether only packets to nodes in other subnets are wrapped.
    pub fn is_cross_subnet(&self) -> bool {
        self.tunnel.is_some_and(|tunnel| tunnel.cross_subnet)
    }
}

impl From<&IpPool> for ClusterPool {
    fn from(pool: &IpPool) -> Self {
        Self {
            cidr: pool.cidr,
            tunnel: pool.tunnel().map(|(kind, mode)| PoolTunnel {
                kind,
                cross_subnet: mode == EncapsulationMode::CrossSubnet,
            }),
            nat_outgoing: pool.nat_outgoing,
            has_tunnel_addresses: pool.tunnel().is_some() && pool.allows(AllowedUse::Tunnel),
            is_exported: !pool.disable_bgp_export,
        }
    }
}

impl From<&ClusterPool> for NatPool {
    fn from(pool: &ClusterPool) -> Self {
        Self { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing }
    }
}

/// Nodes, pools, and who has which block, condensed from the values of the
/// datastore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
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
    /// The addresses in use in each block, where blocks were read: a block with a node or a
    /// router in it is not routed as a whole. Not handed on: the next process reads the blocks.
    #[serde(skip)]
    pub used: BTreeMap<IpNet, UsedAddresses>,
    /// The ranges that each `IPReservation` keeps back, where those were read. No route depends
    /// on them.
    #[serde(skip)]
    pub reservations: BTreeMap<String, Vec<IpNet>>,
    /// The machines that nodes' names are recorded for.
    #[serde(default)]
    pub machines: BTreeMap<String, MachineId>,
    /// The settings of tunnels by name: `default`, and `node.NAME` of single nodes
    /// ([`ClusterState::tunnel_settings`]).
    #[serde(default)]
    pub felix: BTreeMap<String, FelixConfiguration>,
    /// What is configured of BGP; nothing where it was not read.
    #[serde(default)]
    pub bgp: BgpResources,
    /// Values that cannot be read, by key, and why. What the value was before
    /// still counts.
    pub unreadable: BTreeMap<String, String>,
    /// The addresses among `nodes` that are wrong in the datastore: what they were
    /// before still counts.
    #[serde(default)]
    pub wrong: BTreeSet<(String, Family)>,
    /// Values with fields that cannot be read and are not needed here, by key, and
    /// what is wrong with them.
    #[serde(default)]
    pub flawed: BTreeMap<String, String>,
    /// Fingerprints of the entries that all of this comes from.
    #[serde(default)]
    pub fingerprints: Fingerprints,
}

impl ClusterState {
    /// The prefixes of all keys that the state is made of, pools, nodes and the settings of
    /// tunnels first: together they say how a block is reached once it is known.
    pub const PREFIXES: [&'static str; 10] = [
        keys::POOLS,
        keys::NODES,
        keys::FELIX_CONFIGURATIONS,
        keys::HOSTS,
        keys::BLOCKS,
        keys::MACHINES,
        keys::BGP_CONFIGURATIONS,
        keys::BGP_PEERS,
        keys::BGP_FILTERS,
        keys::RESERVATIONS,
    ];

    /// Applies a change, and returns whether it made a difference.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Put(entry) => self.put(entry),
            Event::Delete { key, .. } => self.delete(key),
        }
    }

    /// Records what a key has now, and returns whether that made a difference.
    /// A value that cannot be read leaves what was known before, and is listed
    /// in `unreadable`: a route is not withdrawn because of a typing error.
    pub fn put(&mut self, entry: &Entry) -> bool {
        self.fingerprints.put(entry);
        let before = self.flawed.remove(&entry.key);
        let (changed, unread) = match self.try_put(&entry.key, &entry.value) {
            Ok(put) => put,
            Err(error) => (false, Some(error)),
        };
        let is_new = match unread {
            None => self.unreadable.remove(&entry.key).is_some(),
            Some(why) => self.unreadable.insert(entry.key.clone(), why.clone()) != Some(why),
        };
        changed | is_new | (self.flawed.get(&entry.key) != before.as_ref())
    }

    /// Records that a key is gone, and returns whether that made a difference.
    pub fn delete(&mut self, key: &str) -> bool {
        self.fingerprints.delete(key);
        let was_unreadable =
            self.unreadable.remove(key).is_some() | self.flawed.remove(key).is_some();
        let changed = if let Some(name) = key.strip_prefix(keys::POOLS) {
            self.pools.remove(name).is_some()
        } else if let Some(name) = key.strip_prefix(keys::RESERVATIONS) {
            self.reservations.remove(name);
            false
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            self.wrong.retain(|(node, _)| node != name);
            self.nodes.remove(name).is_some()
        } else if let Some(name) = key.strip_prefix(keys::FELIX_CONFIGURATIONS) {
            self.felix.remove(name).is_some()
        } else if let Some(node) = key.strip_prefix(keys::MACHINES) {
            self.machines.remove(node).is_some()
        } else if let Some((host, block)) = keys::parse_affinity(key) {
            self.set_affinity(block, host, false)
        } else if let Some(block) = keys::parse_block(key) {
            self.homes.remove(&block).is_some()
                | self.borrowed.remove(&block).is_some()
                | self.used.remove(&block).is_some()
        } else {
            self.bgp.delete(key)
        };
        changed | was_unreadable
    }

    /// Takes over from an earlier state what the values said that cannot be
    /// read now.
    pub(super) fn carry_over(&mut self, earlier: &Self) {
        let unreadable: Vec<String> = self.unreadable.keys().cloned().collect();
        for key in &unreadable {
            if self.carry_addresses_over(key, earlier) {
                continue;
            }
            if let Some(name) = key.strip_prefix(keys::POOLS) {
                let pool = earlier.pools.get(name);
                self.pools.extend(pool.map(|pool| (name.to_owned(), pool.clone())));
            } else if let Some(name) = key.strip_prefix(keys::NODES) {
                let peer = earlier.nodes.get(name);
                self.nodes.extend(peer.map(|peer| (name.to_owned(), peer.clone())));
            } else if let Some(name) = key.strip_prefix(keys::FELIX_CONFIGURATIONS) {
                let known = earlier.felix.get(name);
                self.felix.extend(known.map(|known| (name.to_owned(), known.clone())));
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
                let used = earlier.used.get(&block);
                self.used.extend(used.map(|used| (block, used.clone())));
            } else {
                self.bgp.carry_over(key, &earlier.bgp);
            }
        }
    }

    /// Takes over those addresses of the node at `key` that are wrong, and says whether
    /// that was all that cannot be read of it.
    pub(super) fn carry_addresses_over(&mut self, key: &str, earlier: &Self) -> bool {
        let Some(name) = key.strip_prefix(keys::NODES) else { return false };
        let is_wrong = |family| self.wrong.contains(&(name.to_owned(), family));
        let [v4, v6] = [Family::V4, Family::V6].map(is_wrong);
        if let (Some(peer), Some(earlier)) = (self.nodes.get_mut(name), earlier.nodes.get(name)) {
            peer.ipv4 = if v4 { earlier.ipv4 } else { peer.ipv4 };
            peer.ipv6 = if v6 { earlier.ipv6 } else { peer.ipv6 };
        }
        v4 || v6
    }

    /// The other nodes than `node`.
    pub fn peers_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a String, &'a Peer)> {
        self.nodes.iter().filter(move |(name, _)| *name != node)
    }

    /// Whether a node is registered with an address in `range`.
    pub(super) fn has_node_in(&self, range: IpNet) -> bool {
        let is_in = |address: Option<IpNet>| address.is_some_and(|it| range.contains(&it.addr()));
        self.nodes.values().any(|peer| is_in(peer.ipv4) || is_in(peer.ipv6))
    }

    /// The pool that an address or block lies in.
    pub fn pool_of(&self, range: IpNet) -> Option<(&str, &ClusterPool)> {
        let mut pools = self.pools.iter();
        pools.find(|(_, pool)| pool.cidr.contains(&range)).map(|(name, pool)| (name.as_str(), pool))
    }

    /// Whether it made a difference, and what of it cannot be read.
    fn try_put(&mut self, key: &str, value: &[u8]) -> Result<(bool, Option<String>), String> {
        if let Some(name) = key.strip_prefix(keys::NODES) {
            return self.try_put_node(key, name, value);
        }
        Ok((self.try_put_whole(key, value)?, None))
    }

    fn try_put_node(
        &mut self,
        key: &str,
        name: &str,
        value: &[u8],
    ) -> Result<(bool, Option<String>), String> {
        self.wrong.retain(|(node, _)| node != name);
        let read = Node::for_routes(value).map_err(|error| error.to_string())?;
        let [v4, v6] = read.wrong;
        let known = self.nodes.get(name).cloned().unwrap_or_default();
        let peer = Peer {
            ipv4: if v4 { known.ipv4 } else { read.node.ipv4_address },
            ipv6: if v6 { known.ipv6 } else { read.node.ipv6_address },
            tunnels: read.node.tunnel_addresses,
            tunnel_macs: read.node.tunnel_macs,
            labels: read.node.labels,
            as_number: read.node.as_number,
            route_reflector_cluster_id: read.node.route_reflector_cluster_id,
        };
        let changed = replace(&mut self.nodes, name, peer);
        let wrong = [(v4, Family::V4), (v6, Family::V6)].into_iter().filter(|(is, _)| *is);
        self.wrong.extend(wrong.map(|(_, family)| (name.to_owned(), family)));
        let flaw = read.flaw.map(|flaw| flaw.to_string());
        if v4 || v6 {
            return Ok((changed, flaw));
        }
        self.flawed.extend(flaw.map(|flaw| (key.to_owned(), flaw)));
        Ok((changed, None))
    }

    fn try_put_whole(&mut self, key: &str, value: &[u8]) -> Result<bool, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if let Some(name) = key.strip_prefix(keys::POOLS) {
            let (pool, flaw) = IpPool::for_routes(value).map_err(|error| text(&error))?;
            self.flawed.extend(flaw.map(|flaw| (key.to_owned(), flaw.to_string())));
            Ok(replace(&mut self.pools, name, ClusterPool::from(&pool)))
        } else if let Some(name) = key.strip_prefix(keys::FELIX_CONFIGURATIONS) {
            let (read, flaw) =
                FelixConfiguration::for_tunnels(value).map_err(|error| text(&error))?;
            self.flawed.extend(flaw.map(|flaw| (key.to_owned(), flaw.to_string())));
            Ok(replace(&mut self.felix, name, read))
        } else if let Some(name) = key.strip_prefix(keys::RESERVATIONS) {
            // Only counted, so that one that cannot be read is no problem of the routes'.
            if let Ok(read) = IpReservation::from_json(value) {
                self.reservations.insert(name.to_owned(), read.reserved_cidrs);
            }
            Ok(false)
        } else if let Some(node) = key.strip_prefix(keys::MACHINES) {
            let record = MachineRecord::from_json(value).map_err(|error| text(&error))?;
            Ok(replace(&mut self.machines, node, record.machine))
        } else if let Some((host, block)) = keys::parse_affinity(key) {
            let affinity = Affinity::from_json(value).map_err(|error| text(&error))?;
            let confirmed = affinity.state == AffinityState::Confirmed && !affinity.deleted;
            Ok(self.set_affinity(block, host, confirmed))
        } else if let Some(cidr) = keys::parse_block(key) {
            let block = Block::from_json(value).map_err(|error| text(&error))?;
            let borrowed = Some(borrowed_addresses(&block)).filter(|borrowed| !borrowed.is_empty());
            let home = block.host().map(str::to_owned);
            let before = self.used.insert(cidr, UsedAddresses::of(&block));
            let is_other = before.is_some_and(|before| self.used.get(&cidr) != Some(&before));
            Ok(settle(&mut self.homes, cidr, home)
                | settle(&mut self.borrowed, cidr, borrowed)
                | (is_other && self.has_node_in(cidr)))
        } else {
            self.bgp.put(key, value).map_err(|error| text(&error))
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

/// The addresses of a block that are in use, a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedAddresses {
    words: Vec<u64>,
    /// How many of them were given back and wait to be used again.
    cooling: usize,
}

impl UsedAddresses {
    fn of(block: &Block) -> Self {
        let word = |holders: &[Option<usize>]| {
            let used = holders.iter().enumerate().filter(|(_, holder)| holder.is_some());
            used.fold(0, |word, (bit, _)| word | 1 << bit)
        };
        Self {
            words: block.allocations.chunks(64).map(word).collect(),
            cooling: block.held_by(Attribute::is_cooling_down).len(),
        }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many of them were given back and wait to be used again.
    pub fn cooling(&self) -> usize {
        self.cooling
    }

    /// The addresses, of this block.
    pub fn of_block(&self, block: IpNet) -> impl Iterator<Item = IpAddr> {
        let is_used = |ordinal: &usize| self.words[ordinal / 64] & 1 << (ordinal % 64) != 0;
        // A damaged value may be of a larger block than its key.
        let size = 1usize.checked_shl(host_bits(block).into()).unwrap_or(usize::MAX);
        let used = (0..size.min(self.words.len() * 64)).filter(is_used);
        used.map(move |ordinal| nth_address(block, ordinal as u128))
    }
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
