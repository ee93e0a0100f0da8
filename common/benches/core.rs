//! Micro-benchmarks of the pure core: `scripts/bench.sh --micro`.
//!
//! A cluster of 1,000 nodes with 10 blocks each, as `scripts/bench-agent.sh` has it.

#![allow(clippy::unwrap_used, reason = "not production code")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use divan::{Bencher, black_box};
use ipnet::IpNet;
use jiff::Timestamp;
use weir_common::datastore::{Datastore, Entry, Event, Revision, keys};
use weir_common::ipam::assign::{Request, Want, decide};
use weir_common::ipam::history::{Ledger, Moment};
use weir_common::ipam::{Assignee, Attribute, Block, Blocks, Family, Purpose, View};
use weir_common::network::{
    ActualState, ClusterCache, ClusterState, ObservedRevision, Underlay, UnderlayLink, diff,
    plan_bgp, plan_cluster,
};
use weir_datastore::Memory;

const NODES: usize = 1000;
const BLOCKS: usize = 10_000;

fn main() {
    divan::main();
}

fn node_name(number: usize) -> String {
    format!("n{number}")
}

fn block(number: usize) -> IpNet {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number as u32 * 16;
    format!("{}/28", Ipv4Addr::from(first)).parse().unwrap()
}

fn put(key: String, value: &str) -> Entry {
    Entry { key, value: value.into(), revision: Revision(1) }
}

const POOL: &str = r#"{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/12","blockSize":28}}"#;

fn node(number: usize) -> Entry {
    let (name, address) = (node_name(number), Ipv4Addr::from(0xac10_0000 + number as u32 + 1));
    let bgp = format!(r#"{{"ipv4Address":"{address}/16"}}"#);
    let value = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"bgp":{bgp}}}}}"#);
    put(keys::node(&name), &value)
}

fn claim(number: usize) -> Entry {
    let key = keys::affinity(&node_name(number % NODES), block(number));
    put(key, r#"{"state":"confirmed","deleted":"false"}"#)
}

fn content(number: usize) -> Entry {
    let block = Block::new(block(number), &node_name(number % NODES), 1);
    put(keys::block(block.cidr), &serde_json::to_string(&block).unwrap())
}

fn entries() -> Vec<Entry> {
    let nodes = (0..NODES).map(node);
    let blocks = (0..BLOCKS).flat_map(|number| [claim(number), content(number)]);
    [put(keys::pool("p"), POOL)].into_iter().chain(nodes).chain(blocks).collect()
}

fn state() -> ClusterState {
    let mut state = ClusterState::default();
    for entry in entries() {
        state.put(&entry);
    }
    assert_eq!((state.nodes.len(), state.blocks.len()), (NODES, BLOCKS));
    state
}

fn cache() -> ClusterCache {
    let mut cache = ClusterCache::default();
    cache.replace(state(), &ObservedRevision::default());
    cache
}

fn underlay() -> Underlay {
    let addresses = vec!["172.16.0.1/16".parse().unwrap()];
    Underlay {
        links: vec![UnderlayLink { name: "eth0".to_owned(), mtu: 1500, addresses }],
        ..Underlay::default()
    }
}

/// Reading 21,001 entries into the cluster's state.
#[divan::bench(sample_count = 20)]
fn cluster_state_from_entries(bencher: Bencher) {
    let entries = entries();
    bencher.bench_local(|| {
        let mut state = ClusterState::default();
        for entry in &entries {
            state.put(entry);
        }
        state
    });
}

/// One block's affinity and content come into the cache.
#[divan::bench]
fn cluster_cache_apply_one_block(bencher: Bencher) {
    let mut cache = cache();
    let put = [claim(BLOCKS), content(BLOCKS)].map(Event::Put);
    let delete = [claim(BLOCKS), content(BLOCKS)]
        .map(|Entry { key, revision, .. }| Event::Delete { key, revision });
    bencher.bench_local(move || (cache.apply(&put), cache.apply(&delete)));
}

#[divan::bench(sample_count = 20)]
fn plan_10_000_blocks(bencher: Bencher) {
    let (state, underlay) = (state(), underlay());
    bencher.bench_local(|| plan_cluster("n0", black_box(&state), &underlay));
}

/// The incremental path of the agent: one block more and less.
#[divan::bench]
fn plan_update_one_block(bencher: Bencher) {
    let (with, underlay) = (
        {
            let mut state = state();
            state.put(&claim(BLOCKS));
            state
        },
        underlay(),
    );
    let without = state();
    let mut plan = plan_cluster("n0", &without, &underlay);
    let ranges = [block(BLOCKS)].into();
    bencher.bench_local(move || {
        let more = plan.update("n0", &with, &underlay, &ranges).unwrap();
        let less = plan.update("n0", &without, &underlay, &ranges).unwrap();
        assert_eq!((more.len(), less.len()), (1, 1));
    });
}

#[divan::bench(sample_count = 20)]
fn diff_10_000_routes_that_agree(bencher: Bencher) {
    let plan = plan_cluster("n0", &state(), &underlay());
    let routes = plan.routes.iter().map(|(range, route)| (*range, Some(route.clone()))).collect();
    let announced = plan.bgp_need.as_ref().map(|_| plan.announced.clone()).unwrap_or_default();
    let actual = ActualState { routes, announced, ..ActualState::default() };
    bencher.bench_local(|| diff(black_box(&plan), black_box(&actual)));
}

/// The decision on an address from a block that the node has.
#[divan::bench]
fn ipam_decide(bencher: Bencher) {
    let assignee = Assignee {
        host: node_name(0),
        machine: None,
        network: Some("pods".to_owned()),
        handle_id: "pods.c1".to_owned(),
        purpose: Purpose::Interface("eth0".to_owned()),
    };
    let store = Memory::new();
    let entries = [put(keys::pool("p"), POOL), node(0), claim(0), content(0)];
    store.seed(entries.map(|Entry { key, value, .. }| (key, value)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = |selections: &[_]| runtime.block_on(store.read(selections)).unwrap();
    let view = View::parse(&read(&View::selections(&assignee))).unwrap();
    let mut blocks = Blocks::default();
    blocks.learn(&[block(0)], &read(&Blocks::selections(&[block(0)])).selected);
    let wants = vec![Want::Any { family: Family::V4, pools: vec![] }];
    let request =
        Request { assignee, facts: BTreeMap::new(), wants, gateways: vec![], within: None };
    let now = Timestamp::UNIX_EPOCH;
    bencher.bench_local(|| decide(black_box(&request), &view, &blocks, now).unwrap());
}

/// The sessions of one node of a mesh of 1,000.
#[divan::bench]
fn bgp_of_a_node(bencher: Bencher<'_, '_>) {
    let mut state = ClusterState::default();
    for number in 0..NODES {
        state.put(&node(number));
    }
    bencher.bench(|| plan_bgp(black_box("n0"), &state, &Underlay::default()));
}

/// What the agent does for the history at each change of a block, and what it does besides to
/// read the value.
#[divan::bench(args = [false, true])]
fn history_of_a_change(bencher: Bencher, with_history: bool) {
    let mut block = Block::new("10.0.0.0/26".parse().unwrap(), "n1", 1);
    for ordinal in 0..40 {
        let handle_id = Some(format!("pods.{}{ordinal}", "c0ffee01".repeat(8)));
        block.assign(ordinal, Attribute { handle_id, ..Attribute::default() });
    }
    let mut ledger = Ledger::default();
    let moment = Moment::exactly(Timestamp::UNIX_EPOCH);
    ledger.take(&block, moment);
    let full = block.to_json();
    block.release(&[7]);
    let values = [block.to_json(), full];
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let block = Block::from_json(black_box(&values[turn % 2])).unwrap();
        if with_history { ledger.take(&block, moment) } else { Vec::new() }
    });
}
