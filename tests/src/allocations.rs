//! Reads who has which address out of a store, in Calico's format.
//!
//! Written apart from Weir's own code, so that the two check each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::store::Entries;

const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const HANDLES: &str = "/calico/ipam/v2/handle/";
const HOSTS: &str = "/calico/ipam/v2/host/";

/// All taken addresses with the handles that have them.
pub fn allocations(entries: &Entries) -> BTreeMap<IpAddr, String> {
    blocks(entries).flat_map(|block| block.allocations()).collect()
}

/// The ids of all handles.
pub fn handles(entries: &Entries) -> BTreeSet<String> {
    entries.keys().filter_map(|key| key.strip_prefix(HANDLES)).map(str::to_owned).collect()
}

/// Requires that blocks, handles and affinities agree: every ordinal is free
/// or taken once, every handle counts its addresses, every block has its
/// host's affinity and the other way round, and no two blocks overlap.
pub fn assert_consistent(entries: &Entries) {
    let mut counted: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut affinities = BTreeSet::new();
    let mut cidrs: Vec<IpNet> = Vec::new();
    for block in blocks(entries) {
        block.assert_partition();
        for (_, handle) in block.allocations() {
            *counted.entry(handle).or_default().entry(block.cidr.to_string()).or_default() += 1;
        }
        affinities.extend(block.affinity_key());
        let overlaps = cidrs.iter().find(|cidr| cidr.contains(&block.cidr.network()));
        assert_eq!(overlaps, None, "{} overlaps with another block", block.cidr);
        cidrs.push(block.cidr);
    }
    assert_eq!(counted, recorded_counts(entries), "what blocks hold (left), what handles say");
    let recorded = entries.keys().filter(|key| key.starts_with(HOSTS)).cloned().collect();
    assert_eq!(affinities, recorded, "affinities of blocks (left), affinities of hosts");
}

fn recorded_counts(entries: &Entries) -> BTreeMap<String, BTreeMap<String, u64>> {
    let handles =
        entries.iter().filter_map(|(key, value)| Some((key.strip_prefix(HANDLES)?, value)));
    let counts = |value: &String| {
        let handle = parse(value);
        let counts = handle["block"].as_object().expect("a handle has blocks").clone();
        let number = |count: Value| count.as_u64().expect("a handle counts");
        counts.into_iter().map(|(cidr, count)| (cidr, number(count))).collect()
    };
    handles.map(|(id, value)| (id.to_owned(), counts(value))).collect()
}

fn blocks(entries: &Entries) -> impl Iterator<Item = Block> {
    let values = entries.iter().filter(|(key, _)| key.starts_with(BLOCKS));
    values.map(|(key, value)| Block::read(key, value))
}

struct Block {
    cidr: IpNet,
    value: Value,
}

impl Block {
    fn read(key: &str, value: &str) -> Self {
        let value = parse(value);
        let cidr: IpNet =
            value["cidr"].as_str().and_then(|cidr| cidr.parse().ok()).expect("a CIDR");
        let dashed = format!("/block/{}-{}", cidr.addr(), cidr.prefix_len());
        assert!(key.ends_with(&dashed), "the key {key} should name {cidr}");
        Self { cidr, value }
    }

    fn list(&self, member: &str) -> &[Value] {
        self.value[member].as_array().map(Vec::as_slice).expect("a block has lists")
    }

    fn allocations(&self) -> Vec<(IpAddr, String)> {
        let taken = self.list("allocations").iter().enumerate();
        let taken = taken.filter_map(|(ordinal, index)| Some((ordinal, index.as_u64()?)));
        taken.map(|(ordinal, index)| (self.address(ordinal), self.handle_at(index))).collect()
    }

    fn handle_at(&self, index: u64) -> String {
        let attributes = &self.value["attributes"][usize::try_from(index).expect("a small index")];
        attributes["handle_id"].as_str().expect("an address has a handle").to_owned()
    }

    fn address(&self, ordinal: usize) -> IpAddr {
        let ordinal = u32::try_from(ordinal).expect("blocks are small");
        match self.cidr.network() {
            IpAddr::V4(first) => IpAddr::V4((u32::from(first) + ordinal).into()),
            IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(ordinal)).into()),
        }
    }

    fn affinity_key(&self) -> Option<String> {
        let host = self.value["affinity"].as_str()?.strip_prefix("host:")?;
        let family = if self.cidr.addr().is_ipv4() { "ipv4" } else { "ipv6" };
        let (address, length) = (self.cidr.addr(), self.cidr.prefix_len());
        Some(format!("{HOSTS}{host}/{family}/block/{address}-{length}"))
    }

    fn assert_partition(&self) {
        let taken = self.list("allocations").iter().enumerate();
        let free_by_allocations: Vec<u64> =
            taken.filter(|(_, index)| index.is_null()).map(|(ordinal, _)| ordinal as u64).collect();
        let mut unallocated: Vec<u64> =
            self.list("unallocated").iter().map(|it| it.as_u64().expect("an ordinal")).collect();
        unallocated.sort_unstable();
        assert_eq!(free_by_allocations, unallocated, "free ordinals of {}", self.cidr);
        let used: BTreeSet<u64> =
            self.list("allocations").iter().filter_map(Value::as_u64).collect();
        let attributes: BTreeSet<u64> = (0..self.list("attributes").len() as u64).collect();
        assert_eq!(used, attributes, "attributes in use in {}", self.cidr);
    }
}

fn parse(value: &str) -> Value {
    serde_json::from_str(value).expect("stored values are JSON")
}
