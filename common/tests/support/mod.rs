//! Stores to begin with, and what must hold of every store.
#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "test code")]

pub mod condition;
pub mod crowd;
pub mod faults;
pub mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};
use weir_common::datastore::{Entry, Revision, keys};
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::{Affinity, Assigned, Assignee, Block, Error, Family, Handle, engine};
use weir_common::network::ClusterState;
use weir_datastore::Memory;

/// The moment of every test.
pub fn now() -> Timestamp {
    Timestamp::new(1_795_405_217, 284_097_480).unwrap()
}

/// Puts a pool; `spec` is laid over what Calico fills in.
pub fn pool(store: &Memory, name: &str, cidr: &str, spec: Value) {
    let mut full = json!({
        "cidr": cidr, "vxlanMode": "Never", "ipipMode": "Never",
        "blockSize": if cidr.contains(':') { 122 } else { 26 }, "nodeSelector": "all()",
        "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
    });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pool = json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": full,
    });
    put(store, keys::pool(name), pool);
}

/// Puts a JSON value.
pub fn put(store: &Memory, key: String, value: Value) {
    store.seed([(key, value.to_string().into_bytes())]);
}

/// A container's `eth0` on a host.
pub fn assignee(host: &str, container: &str) -> Assignee {
    Assignee::interface(host, "net", container, "eth0")
}

/// A request of a container's `eth0` for any address of these families.
pub fn request(host: &str, container: &str, families: &[Family]) -> Request {
    let any = |family: &Family| Want::Any { family: *family, pools: vec![] };
    Request {
        assignee: assignee(host, container),
        facts: BTreeMap::new(),
        wants: families.iter().map(any).collect(),
        gateways: vec![],
        within: None,
    }
}

/// Assigns and returns the addresses.
pub async fn assign(store: &Memory, request: &Request) -> Result<Vec<IpAddr>, Error> {
    let assigned = engine::assign(store, request, &[], now()).await?;
    Ok(addresses(&assigned.addresses))
}

/// The addresses alone.
pub fn addresses(assigned: &[Assigned]) -> Vec<IpAddr> {
    assigned.iter().map(|assigned| assigned.address).collect()
}

/// All blocks of a store.
pub fn blocks(store: &Memory) -> Vec<Block> {
    let dump = store.dump();
    let blocks = dump.iter().filter(|(key, _)| key.starts_with(keys::BLOCKS));
    blocks
        .map(|(key, value)| {
            Block::from_json(value).unwrap_or_else(|error| panic!("{key}: {error}"))
        })
        .collect()
}

/// Every address in use, with the handle that has it.
pub fn allocations(store: &Memory) -> BTreeMap<IpAddr, String> {
    let mut allocations = BTreeMap::new();
    for block in blocks(store) {
        for ordinal in block.held_by(|_| true) {
            let handle = block.holder(ordinal).unwrap().handle_id.clone().unwrap_or_default();
            allocations.insert(block.address(ordinal), handle);
        }
    }
    allocations
}

/// Panics unless blocks, handles and affinities agree with one another.
pub fn assert_consistent(store: &Memory) {
    let dump = store.dump();
    let mut by_handle: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let blocks = blocks(store);
    for block in &blocks {
        assert_block(block);
        for ordinal in block.held_by(|_| true) {
            let handle = block.holder(ordinal).unwrap().handle_id.clone().unwrap();
            *by_handle.entry(handle).or_default().entry(block.cidr.to_string()).or_default() += 1;
        }
        if let Some(host) = block.host() {
            assert!(
                dump.contains_key(&keys::affinity(host, block.cidr)),
                "{} has no affinity",
                block.cidr
            );
        }
    }
    let handles: BTreeMap<String, BTreeMap<String, u64>> = dump
        .iter()
        .filter_map(|(key, value)| {
            let id = keys::parse_handle(key)?;
            Some((id.to_owned(), Handle::from_json(value).unwrap().block))
        })
        .collect();
    assert_eq!(handles, by_handle, "handles and blocks disagree");
    for (key, value) in dump.iter().filter(|(key, _)| key.starts_with(keys::HOSTS)) {
        let (host, cidr) = keys::parse_affinity(key).unwrap();
        Affinity::from_json(value).unwrap();
        let owner = blocks.iter().find(|block| block.cidr == cidr).and_then(Block::host);
        assert_eq!(owner, Some(host), "affinity {key} without its block");
    }
}

fn assert_block(block: &Block) {
    let free: BTreeSet<usize> = block.unallocated.iter().copied().collect();
    assert_eq!(free.len(), block.unallocated.len(), "an ordinal is free twice: {block:?}");
    for (ordinal, allocation) in block.allocations.iter().enumerate() {
        assert_ne!(allocation.is_some(), free.contains(&ordinal), "ordinal {ordinal} of {block:?}");
    }
    let used: BTreeSet<usize> = block.allocations.iter().flatten().copied().collect();
    assert_eq!(used, (0..block.attributes.len()).collect(), "holders of {block:?}");
}

/// A store that Calico wrote.
pub fn recorded(name: &str) -> Memory {
    fixture(&format!("calico-3.31/{name}"))
}

/// A store in the form that Calico writes, by hand.
pub fn by_hand(name: &str) -> Memory {
    fixture(&format!("by-hand/{name}"))
}

fn fixture(directory: &str) -> Memory {
    let file = format!("{}/../tests/fixtures/{directory}/store.jsonl", env!("CARGO_MANIFEST_DIR"));
    #[expect(clippy::disallowed_methods, reason = "fixtures are files")]
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let store = Memory::new();
    store.seed(text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (text("key"), text("value").into_bytes())
    }));
    store
}

/// A Node's `spec`.
pub fn spec(store: &Memory, node: &str) -> Value {
    let node: Value = serde_json::from_slice(&store.dump()[&keys::node(node)]).unwrap();
    node["spec"].clone()
}

/// What is stored, as the agent knows it.
pub fn inventory(store: &Memory) -> ClusterState {
    let mut state = ClusterState::default();
    for (key, value) in store.dump() {
        state.put(&Entry { key, value, revision: Revision(1) });
    }
    state
}
