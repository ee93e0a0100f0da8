//! A large store as the engine leaves one.

use std::collections::BTreeMap;

use serde_json::json;
use weir_common::datastore::keys;
use weir_common::ipam::{Affinity, Attribute, Block, Handle};
use weir_datastore::Memory;

/// Fills a store with `addresses` containers in full blocks of this prefix
/// length, ten blocks a host, and returns how many there are.
pub fn fill(store: &Memory, addresses: usize, prefix_length: u8) -> usize {
    let size = 1usize << (32 - prefix_length);
    super::pool(store, "crowd", "10.0.0.0/8", json!({"blockSize": prefix_length}));
    for number in 0..addresses.div_ceil(size) {
        let host = format!("host-{}.cluster.example", number / 10);
        let first = std::net::Ipv4Addr::from_bits((10 << 24) + (number * size) as u32);
        let cidr = ipnet::IpNet::new(first.into(), prefix_length).unwrap();
        let mut block = Block::new(cidr, &host, 1_795_405_217_284_097_480);
        for ordinal in 0..size.min(addresses - number * size) {
            let id = format!("cluster-network.{:064x}", number * size + ordinal);
            block.assign(ordinal, holder(&id, &host));
            block.advance();
            let mut handle = Handle::default();
            handle.set(cidr, 1);
            store.seed([(keys::handle(&id), handle.to_json())]);
        }
        store.seed([
            (keys::block(cidr), block.to_json()),
            (keys::affinity(&host, cidr), Affinity::default().to_json()),
        ]);
        if number % 10 == 0 {
            super::stores::node(store, &host);
        }
    }
    addresses
}

fn holder(id: &str, host: &str) -> Attribute {
    let facts = [
        ("interface", "eth0"),
        ("namespace", "production"),
        ("node", host),
        ("pod", "frontend-6c8b449b8f-x7k2p"),
        ("timestamp", "2026-11-23 03:40:17.28409748 +0000 UTC"),
    ];
    let facts: BTreeMap<String, String> =
        facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Attribute { handle_id: Some(id.to_owned()), secondary: Some(facts), ..Attribute::default() }
}
