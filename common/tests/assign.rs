//! What an attachment gets in each situation, against a store in memory.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::{
    AddressProbe, Affinity, Assignee, Attribute, Block, Error, Family, PassedOver, PoolReference,
    Reserved, ReservedBy, engine, handle_id, walk,
};
use weir_common::resources::AllowedUse;
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const V4: &[Family] = &[Family::V4];
const BOTH: &[Family] = &[Family::V4, Family::V6];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn store_with_pool() -> Memory {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({}));
    store
}

fn exactly(host: &str, container: &str, address: &str) -> Request {
    Request { wants: vec![Want::Exactly(ip(address))], ..request(host, container, &[]) }
}

fn asking(container: &str, pools: &[&str]) -> Request {
    let pools = pools.iter().map(|pool| pool.parse().unwrap()).collect();
    Request {
        wants: vec![Want::Any { family: Family::V4, pools }],
        ..request("n1", container, &[])
    }
}

/// Marks the addresses of a block as taken by others.
fn fill(store: &Memory, block: &str, host: &str, taken: usize) {
    let mut block = Block::new(cidr(block), host, 1);
    let handle = format!("others.{}", block.cidr.addr());
    for ordinal in 0..taken {
        let holder = Attribute { handle_id: Some(handle.clone()), ..Attribute::default() };
        block.assign(ordinal, holder);
    }
    let count = json!({"block": {block.cidr.to_string(): taken}, "deleted": false});
    if taken > 0 {
        put(store, keys::handle(&handle), count);
    }
    store.seed([
        (keys::block(block.cidr), block.to_json()),
        (keys::affinity(host, block.cidr), Affinity::default().to_json()),
    ]);
}

#[tokio::test]
async fn a_first_address_claims_a_block_in_one_transaction() {
    let store = store_with_pool();
    let first = assign(&store, &request("n1", "a", V4)).await.unwrap();
    let block = walk(cidr("10.0.0.0/24"), 26, "n1").next().unwrap();
    assert_eq!(first, [block.addr()]);
    assert_eq!(store.counters().commits, 1);
    assert_consistent(&store);
}

#[tokio::test]
async fn a_steady_assignment_takes_three_round_trips() {
    let store = store_with_pool();
    assign(&store, &request("n1", "a", V4)).await.unwrap();
    store.reset_counters();
    let second = assign(&store, &request("n1", "b", V4)).await.unwrap();
    let counters = store.counters();
    assert_eq!((counters.reads, counters.commits), (2, 1));
    let block = walk(cidr("10.0.0.0/24"), 26, "n1").next().unwrap();
    assert_eq!(second, [support::blocks(&store)[0].address(1)]);
    assert!(block.contains(&second[0]));
}

#[tokio::test]
async fn a_block_read_in_advance_saves_a_round_trip_and_changes_nothing_else() {
    let stores = [store_with_pool(), store_with_pool()];
    let likely =
        [cidr("10.0.0.0/26"), cidr("10.0.0.64/26"), cidr("10.0.0.128/26"), cidr("10.0.0.192/26")];
    for container in ["a", "b"] {
        let request = request("n1", container, V4);
        assign(&stores[0], &request).await.unwrap();
        engine::assign(&stores[1], &request, &likely, now()).await.unwrap();
    }
    assert_eq!(stores[0].dump(), stores[1].dump());
    assert_eq!(stores[0].counters().reads - stores[1].counters().reads, 2);
    let held = blocks(&stores[1])[0].cidr;
    let other = likely.iter().find(|cidr| **cidr != held).unwrap();
    put(&stores[1], keys::block(*other), json!("nonsense"));
    let request = request("n1", "c", V4);
    engine::assign(&stores[1], &request, &likely, now()).await.unwrap();
}

#[tokio::test]
async fn repeating_returns_the_same_addresses() {
    let store = store_with_pool();
    pool(&store, "six", "fd00::/64", json!({}));
    let request = request("n1", "a", BOTH);
    let first = assign(&store, &request).await.unwrap();
    let dump = store.dump();
    assert_eq!(assign(&store, &request).await.unwrap(), first);
    assert_eq!(store.dump(), dump, "an ADD whose answer was lost changes nothing");
}

/// Who saw the allocation before a repeated ADD must not take it for the one
/// after it.
#[tokio::test]
async fn a_repeated_add_is_a_new_allocation_of_the_same_addresses() {
    let store = store_with_pool();
    pool(&store, "six", "fd00::/64", json!({}));
    let request = request("n1", "a", BOTH);
    let first = assign(&store, &request).await.unwrap();
    let before = stores::in_use(&store);
    let later = now() + jiff::SignedDuration::from_secs(3600);
    let again = engine::assign(&store, &request, &[], later).await.unwrap();
    assert_eq!(addresses(&again.addresses), first);
    assert_consistent(&store);
    let after = stores::in_use(&store);
    for (address, (handle, sequence)) in before {
        let (handle_after, sequence_after) = &after[&address];
        assert_eq!(*handle_after, handle);
        assert!(*sequence_after > sequence, "{address}: {sequence_after:?}");
    }
    for block in blocks(&store) {
        let stamp = block.attributes[0].fact("timestamp").unwrap();
        assert!(stamp.starts_with("2026-11-23 04:40:17"), "{stamp}");
    }
}

#[tokio::test]
async fn two_interfaces_of_a_container_are_told_apart() {
    let store = store_with_pool();
    let eth0 = request("n1", "a", V4);
    let assignee = Assignee::interface("n1", "net", "a", "eth1");
    let eth1 = Request { assignee, ..eth0.clone() };
    let first = assign(&store, &eth0).await.unwrap();
    let second = assign(&store, &eth1).await.unwrap();
    assert_ne!(first, second);
    assert_consistent(&store);
    engine::release(&store, &eth0.assignee, &Default::default()).await.unwrap();
    assert_consistent(&store);
    assert_eq!(allocations(&store).into_keys().collect::<Vec<_>>(), second);
    engine::release(&store, &eth1.assignee, &Default::default()).await.unwrap();
    assert_eq!(allocations(&store).len(), 0);
    assert_consistent(&store);
}

#[tokio::test]
async fn a_dual_stack_attachment_is_one_handle_and_one_commit() {
    let store = store_with_pool();
    pool(&store, "six", "fd00::/64", json!({}));
    assert_eq!(assign(&store, &request("n1", "a", BOTH)).await.unwrap().len(), 2);
    assert_eq!(store.counters().commits, 1);
    assert_consistent(&store);
}

#[tokio::test]
async fn dual_stack_is_all_or_nothing() {
    let store = store_with_pool();
    let before = store.dump();
    let error = assign(&store, &request("n1", "a", BOTH)).await.unwrap_err();
    assert!(matches!(error, Error::NoPool(Family::V6)), "{error}");
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn freed_addresses_come_last() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/30", json!({"blockSize": 30}));
    for container in ["a", "b"] {
        assign(&store, &request("n1", container, V4)).await.unwrap();
    }
    engine::release(&store, &assignee("n1", "a"), &Default::default()).await.unwrap();
    let mut next = Vec::new();
    for container in ["c", "d", "e"] {
        next.extend(assign(&store, &request("n1", container, V4)).await.unwrap());
    }
    assert_eq!(next, [ip("10.0.0.2"), ip("10.0.0.3"), ip("10.0.0.0")]);
}

#[tokio::test]
async fn reserved_addresses_are_passed_over_and_kept() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/29", json!({"blockSize": 29}));
    let reservation = json!({
        "kind": "IPReservation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "kept"}, "spec": {"reservedCIDRs": ["10.0.0.0/31", "10.0.0.3"]},
    });
    put(&store, keys::reservation("kept"), reservation);
    let mut got = Vec::new();
    for container in ["a", "b"] {
        got.extend(assign(&store, &request("n1", container, V4)).await.unwrap());
    }
    assert_eq!(got, [ip("10.0.0.2"), ip("10.0.0.4")]);
    assert_eq!(blocks(&store)[0].unallocated[..3], [0, 1, 3]);
    let asked = assign(&store, &exactly("n1", "c", "10.0.0.3")).await.unwrap();
    assert_eq!(asked, [ip("10.0.0.3")], "a reserved address may be asked for");
}

#[tokio::test]
async fn a_wholly_reserved_block_is_not_claimed() {
    let store = store_with_pool();
    let first = walk(cidr("10.0.0.0/24"), 26, "n1").next().unwrap();
    let reservation = json!({
        "kind": "IPReservation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "kept"}, "spec": {"reservedCIDRs": [first.to_string()]},
    });
    put(&store, keys::reservation("kept"), reservation);
    let got = assign(&store, &request("n1", "a", V4)).await.unwrap();
    assert!(!first.contains(&got[0]), "{got:?}");
}

#[tokio::test]
async fn a_wholly_reserved_ipv6_pool_is_refused_and_not_walked_for_ever() {
    let store = Memory::new();
    pool(&store, "six", "fd00::/64", json!({}));
    let reservation = json!({
        "kind": "IPReservation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "all"}, "spec": {"reservedCIDRs": ["fd00::/48"]},
    });
    put(&store, keys::reservation("all"), reservation);
    let config = json!({"strict_affinity": true, "auto_allocate_blocks": true});
    put(&store, keys::IPAM_CONFIG.to_owned(), config);
    let error = assign(&store, &request("n1", "a", &[Family::V6])).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { .. }), "{error}");
}

#[tokio::test]
async fn a_pool_for_some_namespaces_must_be_asked_for() {
    let store = Memory::new();
    pool(&store, "shop", "10.0.0.0/24", json!({"namespaceSelector": "team == 'shop'"}));
    let error = assign(&store, &request("n1", "a", V4)).await.unwrap_err();
    assert!(error.to_string().contains("team == 'shop'"), "{error}");
    assign(&store, &asking("a", &["shop"])).await.unwrap();
}

#[tokio::test]
async fn an_address_asked_for_claims_its_block() {
    let store = store_with_pool();
    let got = assign(&store, &exactly("n1", "a", "10.0.0.77")).await.unwrap();
    assert_eq!(got, [ip("10.0.0.77")]);
    assert_eq!(blocks(&store)[0].cidr, cidr("10.0.0.64/26"));
    assert_consistent(&store);
    assert_eq!(assign(&store, &exactly("n1", "a", "10.0.0.77")).await.unwrap(), got);
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_refused() {
    let store = store_with_pool();
    assign(&store, &exactly("n1", "a", "10.0.0.77")).await.unwrap();
    let before = store.dump();
    let taken = assign(&store, &exactly("n1", "b", "10.0.0.77")).await.unwrap_err();
    assert!(taken.to_string().contains("handle net.a on node n1"), "{taken}");
    let outside = assign(&store, &exactly("n1", "b", "10.9.0.1")).await.unwrap_err();
    assert!(outside.to_string().contains("blue (10.0.0.0/24)"), "{outside}");
    let other = assign(&store, &exactly("n1", "a", "10.0.0.78")).await.unwrap_err();
    assert!(matches!(other, Error::HoldsOther { .. }), "{other}");
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn an_address_of_another_hosts_block_is_borrowed_unless_affinity_is_strict() {
    let store = store_with_pool();
    fill(&store, "10.0.0.64/26", "n2", 3);
    assign(&store, &exactly("n1", "a", "10.0.0.77")).await.unwrap();
    assert_consistent(&store);
    put(
        &store,
        keys::IPAM_CONFIG.to_owned(),
        json!({"strict_affinity": true, "auto_allocate_blocks": true}),
    );
    let error = assign(&store, &exactly("n1", "b", "10.0.0.78")).await.unwrap_err();
    assert!(error.to_string().contains("host n2"), "{error}");
}

#[tokio::test]
async fn own_blocks_then_claims_then_borrowing_then_refusal() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/29", json!({"blockSize": 30}));
    let mut got = Vec::new();
    fill(&store, "10.0.0.0/30", "n2", 2);
    for container in 0..6 {
        got.extend(assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap());
    }
    assert!(got[..4].iter().all(|address| cidr("10.0.0.4/30").contains(address)), "{got:?}");
    assert_eq!(got[4..], [ip("10.0.0.2"), ip("10.0.0.3")], "borrowed from n2");
    let error = assign(&store, &request("n1", "7", V4)).await.unwrap_err();
    assert!(error.to_string().contains("blue (10.0.0.0/29)"), "{error}");
    assert_consistent(&store);
}

#[tokio::test]
async fn a_limit_of_blocks_is_said() {
    let store = store_with_pool();
    put(
        &store,
        keys::IPAM_CONFIG.to_owned(),
        json!({"strict_affinity": true, "auto_allocate_blocks": true, "maxBlocksPerHost": 1}),
    );
    for container in 0..64 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let error = assign(&store, &request("n1", "64", V4)).await.unwrap_err();
    assert!(error.to_string().contains("maxBlocksPerHost"), "{error}");
}

#[tokio::test]
async fn that_no_block_may_be_claimed_is_said() {
    let store = store_with_pool();
    put(&store, keys::IPAM_CONFIG.to_owned(), json!({"strict_affinity": true}));
    let error = assign(&store, &request("n1", "a", V4)).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "no IPv4 address is left for node n1 in the blocks that it may use of blue (10.0.0.0/24); \
         it may claim no other block because autoAllocateBlocks is off, turn it on: weirctl patch \
         ipamconfig default -p 'spec: {autoAllocateBlocks: true}'; see: weirctl ipam show \
         --show-blocks"
    );
}

#[tokio::test]
async fn strict_affinity_forbids_borrowing() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/30", json!({"blockSize": 30}));
    fill(&store, "10.0.0.0/30", "n2", 1);
    put(
        &store,
        keys::IPAM_CONFIG.to_owned(),
        json!({"strict_affinity": true, "auto_allocate_blocks": true}),
    );
    let error = assign(&store, &request("n1", "a", V4)).await.unwrap_err();
    assert!(matches!(error, Error::Exhausted { .. }), "{error}");
}

#[tokio::test]
async fn pools_are_taken_in_the_order_asked_else_by_name() {
    let store = Memory::new();
    pool(&store, "a-manual", "10.1.0.0/24", json!({"assignmentMode": "Manual"}));
    pool(&store, "b-disabled", "10.2.0.0/24", json!({"disabled": true}));
    pool(&store, "c-elsewhere", "10.3.0.0/24", json!({"nodeSelector": "zone == 'edge'"}));
    pool(&store, "d-tunnels", "10.4.0.0/24", json!({"allowedUses": ["Tunnel"]}));
    pool(&store, "e-usual", "10.5.0.0/24", json!({}));
    let from = async |container: &str, pools: &[&str]| {
        assign(&store, &asking(container, pools)).await.map(|got| got[0])
    };
    assert!(cidr("10.5.0.0/24").contains(&from("a", &[]).await.unwrap()));
    assert!(cidr("10.1.0.0/24").contains(&from("b", &["a-manual"]).await.unwrap()));
    assert!(cidr("10.3.0.0/24").contains(&from("c", &["10.3.0.0/24"]).await.unwrap()));
    let why = |error: Error| match error {
        Error::UnusablePool { why, .. } => why,
        other => panic!("{other}"),
    };
    assert_eq!(why(from("d", &["b-disabled"]).await.unwrap_err()), PassedOver::Disabled);
    assert_eq!(
        why(from("d", &["d-tunnels"]).await.unwrap_err()),
        PassedOver::NotFor(AllowedUse::Workload)
    );
    for unknown in ["nope", "10.5.0.0/25"] {
        let error = from("d", &[unknown]).await.unwrap_err();
        assert!(matches!(error, Error::UnknownPool { .. }), "{error}");
        assert!(error.to_string().contains("e-usual (10.5.0.0/24)"), "{error}");
    }
}

/// Whatever order they were made in.
/// As a newer Calico may write it: the other pools serve all the same.
#[tokio::test]
async fn a_pool_with_a_value_that_cannot_be_read_serves_nobody() {
    let store = Memory::new();
    pool(&store, "a-newer", "10.1.0.0/24", json!({"allowedUses": ["Workload", "Teleport"]}));
    let from = async |container: &str, pools: &[&str]| {
        engine::assign(&store, &asking(container, pools), &[], now()).await
    };
    let alone = from("a", &[]).await.unwrap_err();
    assert!(alone.to_string().contains("Teleport"), "{alone}");
    pool(&store, "b", "10.2.0.0/24", json!({}));
    let assigned = from("b", &[]).await.unwrap();
    let range: IpNet = "10.2.0.0/24".parse().unwrap();
    assert!(range.contains(&assigned.addresses[0].address), "{assigned:?}");
    let told: Vec<_> = assigned.pools.iter().filter_map(|pool| pool.flaw.as_deref()).collect();
    assert!(told.len() == 1 && told[0].contains("Teleport"), "{told:?}");
    let asked = from("c", &["a-newer"]).await.unwrap_err();
    assert!(asked.to_string().contains("Teleport"), "{asked}");
    // Without its range nobody knows which addresses are its own.
    pool(&store, "c", "10.3.0.0/24", json!({"cidr": "nonsense"}));
    from("d", &[]).await.unwrap_err();
}

#[tokio::test]
async fn a_second_automatic_pool_serves_when_the_first_is_full() {
    let store = Memory::new();
    pool(&store, "b-second", "10.2.0.0/30", json!({"blockSize": 31}));
    pool(&store, "c-off", "10.0.0.0/30", json!({"blockSize": 31, "disabled": true}));
    pool(&store, "a-first", "10.3.0.0/31", json!({"blockSize": 31}));
    let mut given = Vec::new();
    for container in 0..6 {
        let request = request("n1", &container.to_string(), V4);
        given.push(assign(&store, &request).await.unwrap()[0]);
    }
    assert_eq!(given[..2], [ip("10.3.0.0"), ip("10.3.0.1")]);
    // Where the walk through a pool begins follows from the node's name.
    let mut second = [ip("10.2.0.0"), ip("10.2.0.1"), ip("10.2.0.2"), ip("10.2.0.3")];
    if given[2] == second[2] {
        second.rotate_left(2);
    }
    assert_eq!(given[2..], second, "block after block of the second pool");
    let refused = assign(&store, &request("n1", "more", V4)).await.unwrap_err();
    assert!(matches!(refused, Error::Exhausted { .. }), "{refused}");
}

#[tokio::test]
async fn a_node_that_no_pool_selects_is_told_why() {
    let store = Memory::new();
    pool(&store, "edge", "10.3.0.0/24", json!({"nodeSelector": "zone == 'edge'"}));
    let error = assign(&store, &request("n1", "a", V4)).await.unwrap_err();
    assert!(error.to_string().contains("zone == 'edge'"), "{error}");
    put(
        &store,
        keys::node("n1"),
        json!({
            "kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "n1", "labels": {"zone": "edge"}}, "spec": {},
        }),
    );
    assign(&store, &request("n1", "a", V4)).await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_while_the_datastore_is_moved() {
    let store = store_with_pool();
    assign(&store, &request("n1", "a", V4)).await.unwrap();
    put(
        &store,
        keys::CLUSTER_INFORMATION.to_owned(),
        json!({
            "kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "default"}, "spec": {"datastoreReady": false},
        }),
    );
    let before = store.dump();
    let add = assign(&store, &request("n1", "b", V4)).await.unwrap_err();
    let del = engine::release(&store, &assignee("n1", "a"), &Default::default()).await.unwrap_err();
    assert!(matches!((add, del), (Error::NotReady, Error::NotReady)));
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn a_malformed_block_is_named_and_left_alone() {
    let store = store_with_pool();
    assign(&store, &request("n1", "a", V4)).await.unwrap();
    let key = keys::block(blocks(&store)[0].cidr);
    put(&store, key.clone(), json!({"cidr": "10.0.0.0/26"}));
    let before = store.dump();
    let error = assign(&store, &request("n1", "b", V4)).await.unwrap_err();
    assert!(error.to_string().contains(&key), "{error}");
    assert_eq!(store.dump(), before);
}

/// A transaction that compares another key than the one read would never come
/// through.
#[tokio::test]
async fn a_value_that_stands_under_the_key_of_another_is_named() {
    let affinity = json!({"state": "confirmed"});
    let pool = json!({"metadata": {"name": "red"}, "spec": {"cidr": "10.1.0.0/24"}});
    for (key, value) in [
        (keys::pool("blue"), pool),
        (format!("{}n1/ipv6/block/10.0.0.64-26", keys::HOSTS), affinity.clone()),
        (format!("{}n1/ipv4/block/10.0.0.65-26", keys::HOSTS), affinity),
        (keys::handle("net.b"), json!({"block": {"10.0.0.1/26": 1}})),
    ] {
        let store = store_with_pool();
        put(&store, key.clone(), value);
        let before = store.dump();
        let error = assign(&store, &request("n1", "b", V4)).await.unwrap_err();
        assert!(matches!(&error, Error::Malformed { key: named, .. } if *named == key), "{error}");
        assert_eq!(store.dump(), before);
    }
}

#[tokio::test]
async fn a_claim_left_halfway_is_finished() {
    let block = walk(cidr("10.0.0.0/24"), 26, "n1").next().unwrap();
    let pending = json!({"state": "pending", "deleted": false, "since": "yesterday"});
    for with_block in [false, true] {
        let store = store_with_pool();
        if with_block {
            fill(&store, &block.to_string(), "n1", 0);
        }
        put(&store, keys::affinity("n1", block), pending.clone());
        assign(&store, &request("n1", "a", V4)).await.unwrap();
        assert_consistent(&store);
        let affinity = &store.dump()[&keys::affinity("n1", block)];
        let affinity: serde_json::Value = serde_json::from_slice(affinity).unwrap();
        assert_eq!(affinity, json!({"state": "confirmed", "deleted": false, "since": "yesterday"}));
    }
}

#[tokio::test]
async fn an_affinity_to_a_block_of_another_host_is_not_used() {
    let store = store_with_pool();
    fill(&store, "10.0.0.64/26", "n2", 0);
    put(
        &store,
        keys::affinity("n1", cidr("10.0.0.64/26")),
        json!({"state": "confirmed", "deleted": false}),
    );
    let got = assign(&store, &request("n1", "a", V4)).await.unwrap();
    assert!(!cidr("10.0.0.64/26").contains(&got[0]), "{got:?}");
}

#[tokio::test]
async fn claiming_a_block_reads_few_keys_among_many() {
    let store = Memory::new();
    pool(&store, "large", "10.0.0.0/8", json!({}));
    let taken: BTreeSet<IpNet> = (0..60)
        .flat_map(|host| walk(cidr("10.0.0.0/8"), 26, &format!("n{host}")).take(1000))
        .collect();
    assert!(taken.len() > 50_000, "{} blocks", taken.len());
    store.seed(
        taken.iter().map(|cidr| (keys::block(*cidr), Block::new(*cidr, "other", 1).to_json())),
    );
    for host in 100..120 {
        store.reset_counters();
        assign(&store, &request(&format!("n{host}"), "a", V4)).await.unwrap();
        let counters = store.counters();
        assert!(counters.keys_read < 100, "{counters:?}");
        assert!(counters.round_trips() <= 6, "{counters:?}");
    }
}

/// Reads and commits of one assignment, and the keys it read.
async fn cost(store: &Memory, container: &str) -> (usize, usize, usize) {
    store.reset_counters();
    assign(store, &request("n1", container, V4)).await.unwrap();
    let counters = store.counters();
    (counters.reads, counters.commits, counters.keys_read)
}

/// 156 full blocks of 64 addresses, as moved in from elsewhere.
fn full_host() -> Memory {
    let store = Memory::new();
    pool(&store, "large", "10.0.0.0/16", json!({}));
    for block in walk(cidr("10.0.0.0/16"), 26, "n1").take(156) {
        fill(&store, &block.to_string(), "n1", 64);
    }
    store
}

#[tokio::test]
async fn a_host_with_many_full_blocks_reads_one_of_them() {
    let store = full_host();
    assign(&store, &request("n1", "claims", V4)).await.unwrap();
    let (reads, commits, _) = cost(&store, "steady").await;
    assert_eq!((reads, commits), (2, 1));
}

#[tokio::test]
async fn an_address_freed_among_many_full_blocks_is_found_at_once() {
    let store = full_host();
    // Each time a block is to be claimed the host looks at those it holds, and
    // notes some of them: three times until all are noted.
    for container in 0..3 * 64 {
        assign(&store, &request("n1", &format!("new{container}"), V4)).await.unwrap();
    }
    let full = store.dump().into_keys().filter(|key| key.starts_with(keys::FULL)).count();
    assert_eq!(full, 159);
    let block = walk(cidr("10.0.0.0/16"), 26, "n1").nth(70).unwrap();
    let others = Assignee::interface("n1", "others", &block.addr().to_string(), "eth0");
    engine::release(&store, &others, &Default::default()).await.unwrap();
    let (reads, commits, keys_read) = cost(&store, "old").await;
    assert_eq!((reads, commits), (2, 1));
    assert!(keys_read < 2 * 159 + 10, "{keys_read}");
    assert_consistent(&store);
}

#[tokio::test]
async fn an_address_freed_by_calico_is_found_before_a_block_is_claimed() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/29", json!({"blockSize": 30}));
    for container in 0..4 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let block = blocks(&store)[0].cidr;
    assert!(store.dump().contains_key(&keys::full("n1", block)));
    fill(&store, &block.to_string(), "n1", 3);
    let got = assign(&store, &request("n1", "more", V4)).await.unwrap();
    assert!(block.contains(&got[0]), "{got:?}");
    assert!(store.dump().contains_key(&keys::full("n1", block)), "full again");
}

#[tokio::test]
async fn a_pool_of_single_addresses_works_to_the_last() {
    let store = Memory::new();
    pool(&store, "solo", "10.0.0.0/28", json!({"blockSize": 32}));
    let mut got = BTreeSet::new();
    for container in 0..16 {
        let host = format!("n{}", container % 3);
        got.extend(assign(&store, &request(&host, &container.to_string(), V4)).await.unwrap());
    }
    assert_eq!(got.len(), 16);
    assert!(assign(&store, &request("n1", "one-more", V4)).await.is_err());
    assert_consistent(&store);
}

#[tokio::test]
async fn a_pool_disabled_meanwhile_is_not_used() {
    let store = store_with_pool();
    let other = store.another_process();
    let request = request("n1", "a", V4);
    let adding = engine::assign(&store, &request, &[], now());
    // The other process changes the pool between this one's read and commit.
    let disabling = async {
        tokio::task::yield_now().await;
        pool(&other, "blue", "10.0.0.0/24", json!({"disabled": true}));
    };
    let (added, ()) = tokio::join!(adding, disabling);
    assert!(matches!(added, Err(Error::NoPoolForNode { .. })), "{added:?}");
    assert_eq!(allocations(&store).len(), 0);
}

#[tokio::test]
async fn calicos_allocation_without_an_interface_is_the_attachments() {
    let store = store_with_pool();
    fill(&store, "10.0.0.64/26", "n1", 1);
    let assignee = Assignee::interface("n1", "others", "10.0.0.64", "eth0");
    let request = Request { assignee, ..request("n1", "x", V4) };
    assert_eq!(assign(&store, &request).await.unwrap(), [ip("10.0.0.64")]);
    engine::release(&store, &request.assignee, &Default::default()).await.unwrap();
    assert_eq!(allocations(&store).len(), 0);
}

#[test]
fn references_are_names_or_cidrs() {
    assert_eq!("blue".parse(), Ok(PoolReference::Name("blue".to_owned())));
    assert_eq!("fd00::/64".parse(), Ok(PoolReference::Cidr(cidr("fd00::/64"))));
}

#[tokio::test]
async fn a_gateway_is_passed_over_and_refused() {
    let store = store_with_pool();
    let first = assign(&store, &request("n1", "first", V4)).await.unwrap()[0];
    let next = cidr(&format!("{first}/31")).hosts().find(|address| *address != first).unwrap();
    let second = Request { gateways: vec![next.into()], ..request("n1", "second", V4) };
    assert_ne!(assign(&store, &second).await.unwrap(), [next]);
    let before = store.dump();
    let asked =
        Request { gateways: vec![next.into()], ..exactly("n1", "third", &next.to_string()) };
    let refused = assign(&store, &asked).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("address {next} is a gateway")), "{refused}");
    assert_eq!(store.dump(), before);
    // Another network may have another gateway.
    assert_eq!(assign(&store, &request("n1", "third", V4)).await.unwrap(), [next]);
}

/// The addresses of a network's range are used up, others of the pool can be asked for, and
/// nothing of that is noted for other networks.
#[tokio::test]
async fn a_range_restricts_what_is_not_asked_for() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({"blockSize": 29}));
    let any = assign(&store, &request("n1", "elsewhere", V4)).await.unwrap()[0];
    // Half a block and another one.
    for within in ["10.0.0.64/30", "10.0.0.80/29"].map(cidr) {
        let ranged = |container: &str| Request {
            within: Some(within),
            ..request("n1", &format!("{within}-{container}"), V4)
        };
        for container in 0..1 << (32 - within.prefix_len()) {
            let address = assign(&store, &ranged(&container.to_string())).await.unwrap()[0];
            assert!(within.contains(&address), "{address} in {within}");
        }
        let refused = assign(&store, &ranged("last")).await.unwrap_err();
        assert!(matches!(refused, Error::Exhausted { .. }), "{refused}");
        let said = format!("reserved (the network's --ip-range {within})");
        assert!(refused.to_string().contains(&said), "{refused}");
    }
    let asked = Request { within: Some(cidr("10.0.0.64/30")), ..exactly("n1", "x", "10.0.0.68") };
    assert_eq!(assign(&store, &asked).await.unwrap(), [ip("10.0.0.68")]);
    let half = keys::full("n1", cidr("10.0.0.64/29"));
    let own = keys::full("n1", cidr(&format!("{any}/29")).trunc());
    for note in [half, own] {
        assert!(!store.dump().contains_key(&note), "{note}");
    }
    assert!(store.dump().contains_key(&keys::full("n1", cidr("10.0.0.80/29"))));
}

/// An attachment that got the address before it became a gateway keeps it.
#[tokio::test]
async fn a_gateway_is_not_taken_from_who_has_it() {
    let store = store_with_pool();
    let first = assign(&store, &request("n1", "first", V4)).await.unwrap();
    let again = Request {
        gateways: first.iter().copied().map(IpNet::from).collect(),
        ..request("n1", "first", V4)
    };
    assert_eq!(assign(&store, &again).await.unwrap(), first);
}

/// What others change all the time is named.
#[tokio::test]
async fn who_is_overtaken_again_and_again_says_where() {
    let store = store_with_pool();
    let given = assign(&store, &request("n1", "a", V4)).await.unwrap()[0];
    let process = store.another_process();
    (1..=200).for_each(|nth| process.fail_commit(nth, CommitFault::Conflict));
    let block = keys::block(cidr(&format!("{given}/26")).trunc());
    let handle = |container: &str| keys::handle(&handle_id("net", container));
    let add = assign(&process, &request("n1", "b", V4)).await.unwrap_err();
    let del =
        engine::release(&process, &assignee("n1", "a"), &Default::default()).await.unwrap_err();
    for (error, handle) in [(add, handle("b")), (del, handle("a"))] {
        let said = error.to_string();
        for named in [block.as_str(), &handle, "100 attempts", "try again", "ipam check"] {
            assert!(said.contains(named), "{named}: {said}");
        }
    }
}

/// A network whose router and some nodes have these addresses.
struct Lan(Vec<IpAddr>);

#[async_trait::async_trait]
impl AddressProbe for Lan {
    async fn reserved_near(&self, addresses: &[IpAddr]) -> Result<Vec<Reserved>, Error> {
        let by = || ReservedBy::NextHop { link: "eth0".to_owned() };
        let near = |address: &IpAddr| self.0.contains(address);
        let all = self.0.iter().map(|address| Reserved { range: (*address).into(), by: by() });
        Ok(if addresses.iter().any(near) { all.collect() } else { Vec::new() })
    }
}

#[tokio::test]
async fn what_is_in_use_around_the_node_is_passed_over_and_refused() {
    let store = store_with_pool();
    let first = assign(&store, &request("n1", "first", V4)).await.unwrap();
    let block = cidr(&format!("{}/26", first[0]));
    let in_use: Vec<IpAddr> = block.hosts().filter(|it| !first.contains(it)).take(3).collect();
    let lan = Lan(in_use.clone());
    let around = async |request: Request| {
        let assigned = engine::assign_around(&store, &request, &[], now(), Some(&lan)).await;
        assigned.map(|it| addresses(&it.addresses))
    };
    for number in 0..60 {
        let got = around(request("n1", &format!("c{number}"), V4)).await.unwrap();
        assert!(!in_use.contains(&got[0]), "{got:?}");
    }
    let asked = exactly("n1", "asks", &in_use[0].to_string());
    let refused = around(asked).await.unwrap_err();
    assert!(matches!(refused, Error::Withheld { .. }), "{refused}");
    assert_consistent(&store);
    // What an attachment has stays, whoever else has it.
    let lan = Lan(first.clone());
    let again = request("n1", "first", V4);
    let again = engine::assign_around(&store, &again, &[], now(), Some(&lan)).await.unwrap();
    assert_eq!(addresses(&again.addresses), first);
}

#[tokio::test]
async fn addresses_that_are_no_containers_are_never_given() {
    let store = Memory::new();
    pool(&store, "odd", "126.0.0.0/7", json!({"blockSize": 26}));
    let exact = exactly("n1", "a", "127.0.0.7");
    let refused = assign(&store, &exact).await.unwrap_err();
    assert!(refused.to_string().contains("never a container's: loopback"), "{refused}");
    let got = assign(&store, &request("n1", "b", V4)).await.unwrap();
    assert!(!cidr("127.0.0.0/8").contains(&got[0]), "{got:?}");
}
