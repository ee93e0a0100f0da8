//! What pools look like when they are drawn.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use serde_json::json;
use support::stores::*;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::map::draw;
use weir_common::ipam::{Attribute, Block, IpamSnapshot};
use weir_datastore::Memory;

async fn drawn(store: &Memory, width: usize) -> String {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let text = draw(&snapshot, width, |_, cell| cell.to_owned());
    assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    text
}

fn block(store: &Memory, block: &str, host: &str, in_use: usize) {
    let mut block = Block::new(cidr(block), host, 1);
    (0..in_use).for_each(|ordinal| block.assign(ordinal, Attribute::default()));
    store.seed([(keys::block(block.cidr), block.to_json())]);
}

#[tokio::test]
async fn a_recorded_store_is_drawn() {
    let store = recorded("busy");
    assert_eq!(drawn(&store, 80).await, include_str!("golden/map-busy-80.txt"));
    assert_eq!(drawn(&store, 200).await, include_str!("golden/map-busy-200.txt"));
}

#[tokio::test]
async fn a_large_pool_is_drawn_as_far_as_it_is_used() {
    let store = Memory::new();
    pool(&store, "wide", "10.0.0.0/8", json!({"blockSize": 28}));
    block(&store, "10.0.0.0/28", "n1", 16);
    block(&store, "10.0.0.16/28", "n2", 1);
    block(&store, "10.200.7.48/28", "n1", 8);
    block(&store, "10.255.255.240/28", "n2", 0);
    assert_eq!(drawn(&store, 80).await, include_str!("golden/map-wide-80.txt"));
}

#[tokio::test]
async fn a_crowded_pool_is_drawn_in_a_screenful() {
    let store = Memory::new();
    crowd::fill(&store, 100_000, 26);
    let text = drawn(&store, 80).await;
    assert!(text.lines().count() < 60, "{text}");
    assert!(text.contains("1563 of 262144 blocks held, 100000 of 16777216 addresses in use"));
    assert!(text.contains("* 105 further hosts"));
}

#[tokio::test]
async fn a_full_pool_of_a_million_blocks_is_drawn() {
    let store = Memory::new();
    pool(&store, "full", "10.0.0.0/8", json!({"blockSize": 28}));
    for number in 0..1u32 << 16 {
        let first = std::net::Ipv4Addr::from_bits((10 << 24) + number * 256);
        block(&store, &format!("{first}/28"), &format!("n{}", number % 60), 1);
    }
    let text = drawn(&store, 80).await;
    assert!(text.lines().count() < 60, "{text}");
    assert!(text.contains("65536 of 1048576 blocks held"));
}

#[tokio::test]
async fn colour_adds_nothing_but_colour() {
    let store = recorded("busy");
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let plain = draw(&snapshot, 80, |_, cell| cell.to_owned());
    let painted = draw(&snapshot, 80, |host, cell| format!("\u{1}{host}\u{2}{cell}\u{3}"));
    assert_ne!(painted, plain);
    let mut stripped = String::new();
    let mut hidden = false;
    for character in painted.chars() {
        match character {
            '\u{1}' => hidden = true,
            '\u{2}' => hidden = false,
            '\u{3}' => {}
            _ if hidden => {}
            other => stripped.push(other),
        }
    }
    assert_eq!(stripped, plain);
}

#[tokio::test]
async fn a_store_without_pools_draws_the_legend_alone() {
    assert_eq!(drawn(&Memory::new(), 80).await.lines().count(), 2);
}
