//! Fills an empty store with a healthy cluster of many addresses, for
//! `scripts/bench-check.sh` and `scripts/bench-agent.sh`: nodes of 172.29.0.0/16
//! with ten blocks each.
//!
//! ```text
//! cargo run --release --example crowd -p weir-datastore -- STORE [ADDRESSES BLOCK_SIZE]
//! ```
//! STORE is a file, or an etcd's URL.

use std::error::Error;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use weir_common::datastore::{
    Datastore, DatastoreConfiguration, EtcdConfiguration, Transaction, Write, keys,
};
use weir_common::ipam::{Affinity, Attribute, Block, Handle};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let place = arguments.first().ok_or("name a file or an URL")?;
    let configuration = match place.starts_with("http") {
        true => DatastoreConfiguration::Etcd(EtcdConfiguration::new(vec![place.clone()])),
        false => DatastoreConfiguration::Embedded { path: place.into() },
    };
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (addresses, block_size) = (number(1, 100_000)?, number(2, 26)? as u8);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = weir_datastore::open(&configuration).await?;
        if store.get(&keys::pool("crowd")).await?.is_some() {
            return Err("the store is full already".into());
        }
        fill(store.as_ref(), addresses, block_size).await
    })
}

async fn fill(store: &dyn Datastore, addresses: usize, length: u8) -> Result<(), Box<dyn Error>> {
    let pool = format!(
        r#"{{"metadata":{{"name":"crowd"}},"spec":{{"cidr":"10.0.0.0/8","blockSize":{length}}}}}"#
    );
    let mut writes = vec![Write::Put { key: keys::pool("crowd"), value: pool.into_bytes() }];
    let size = 1usize << (32 - length);
    for number in 0..addresses.div_ceil(size) {
        let host = format!("host-{}.cluster.example", number / 10);
        let first = Ipv4Addr::from_bits((10 << 24) + u32::try_from(number * size)?);
        let cidr = IpNet::new(first.into(), length)?;
        let mut block = Block::new(cidr, &host, 1_795_405_217_284_097_480);
        for ordinal in 0..size.min(addresses - number * size) {
            let id = format!("cluster-network.{:064x}", number * size + ordinal);
            block.assign(ordinal, holder(&id, &host));
            block.advance();
            let mut handle = Handle::default();
            handle.set(cidr, 1);
            writes.push(Write::Put { key: keys::handle(&id), value: handle.to_json() });
        }
        writes.push(Write::Put { key: keys::block(cidr), value: block.to_json() });
        if number % 10 == 0 {
            let address = Ipv4Addr::from_bits(0xac1d_0001 + u32::try_from(number / 10)?);
            let node = format!(
                r#"{{"metadata":{{"name":"{host}"}},"spec":{{"bgp":{{"ipv4Address":"{address}/16"}}}}}}"#
            );
            writes.push(Write::Put { key: keys::node(&host), value: node.into_bytes() });
        }
        let affinity = Affinity::default().to_json();
        writes.push(Write::Put { key: keys::affinity(&host, cidr), value: affinity });
        while writes.len() >= 100 {
            let rest = writes.split_off(100);
            store.commit(Transaction { compares: vec![], writes }).await?;
            writes = rest;
        }
    }
    store.commit(Transaction { compares: vec![], writes }).await?;
    Ok(())
}

fn holder(id: &str, host: &str) -> Attribute {
    let facts = [
        ("interface", "eth0"),
        ("namespace", "production"),
        ("node", host),
        ("pod", "frontend-6c8b449b8f-x7k2p"),
        ("timestamp", "2026-11-23 03:40:17.28409748 +0000 UTC"),
    ];
    let facts = facts.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    Attribute {
        handle_id: Some(id.to_owned()),
        secondary: Some(facts.collect()),
        ..Attribute::default()
    }
}
