//! What an input of the target says.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use serde_json::{Map, Value};
use weir_common::cni::is_identifier;
use weir_common::datastore::keys;
use weir_common::ipam::Family;
use weir_common::ipam::assign::Want;
use weir_datastore::Memory;

/// The most keys in a store, and addresses wanted.
const MOST: usize = 200;
const MOST_WANTS: usize = 3;

/// A store, and who asks for which addresses.
pub struct Input {
    /// Keys and their values.
    pub entries: BTreeMap<String, Vec<u8>>,
    /// The host; names that configuration refuses are taken for `n1`.
    pub host: String,
    /// What each attachment wants.
    pub wants: Vec<Want>,
}

impl Input {
    /// Reads `{"store": {KEY: VALUE, …}, "host": NAME, "wants": ["4", "6", ADDRESS]}`.
    ///
    /// A value that is text is stored as these bytes (each character below U+0100
    /// is one byte), any other value as JSON. What is no such document is the value
    /// of one block beside a pool.
    pub fn read(input: &[u8]) -> Self {
        let document: Map<String, Value> = serde_json::from_slice(input).unwrap_or_default();
        let entries = match document.get("store").and_then(Value::as_object) {
            Some(store) => {
                store.iter().take(MOST).map(|(key, value)| (key.clone(), bytes(value))).collect()
            }
            None => beside_a_pool(input),
        };
        let host = document.get("host").and_then(Value::as_str);
        let host = host.filter(|name| is_identifier(name)).unwrap_or("n1").to_owned();
        let wants = document.get("wants").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut wants: Vec<Want> = wants.iter().filter_map(want).take(MOST_WANTS).collect();
        // The configuration asks for an address once only.
        let mut asked = HashSet::new();
        wants.retain(|want| match want {
            Want::Exactly(address) => asked.insert(*address),
            Want::Any { .. } => true,
        });
        if wants.is_empty() {
            wants.push(Want::Any { family: Family::V4, pools: vec![] });
        }
        Self { entries, host, wants }
    }

    /// The store.
    pub fn store(&self) -> Memory {
        let store = Memory::new();
        for (key, value) in &self.entries {
            store.seed([(key.clone(), value.clone())]);
        }
        store
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let Value::String(text) = value else { return value.to_string().into_bytes() };
    let mut bytes = Vec::new();
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(character.to_string().bytes()),
        }
    }
    bytes
}

fn beside_a_pool(input: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut entries = crate::call::pools().dump();
    let block = format!("{}ipv4/block/10.0.0.0-26", keys::BLOCKS);
    let affinity = format!("{}n1/ipv4/block/10.0.0.0-26", keys::HOSTS);
    entries.insert(block, input.to_vec());
    entries.insert(affinity, br#"{"state":"confirmed"}"#.to_vec());
    entries
}

fn want(value: &Value) -> Option<Want> {
    let any = |family| Want::Any { family, pools: vec![] };
    match value.as_str()? {
        "4" => Some(any(Family::V4)),
        "6" => Some(any(Family::V6)),
        address => Some(Want::Exactly(address.parse::<IpAddr>().ok()?)),
    }
}
