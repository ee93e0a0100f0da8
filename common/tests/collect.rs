//! Giving back what is stale, over a datastore: in which blocks, with which
//! handles, past errors and past others' changes.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use serde_json::json;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::{
    AttachmentName, CollectScope, Collected, Collection, Evidence, Rule, collect, collect_few,
};
use weir_common::ipam::{
    ATTRIBUTE_BOOT, ATTRIBUTE_NODE, Affinity, Assignee, Attribute, Block, Error, Family, engine,
    handle_id,
};
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const BOTH: &[Family] = &[Family::V4, Family::V6];

fn names(containers: &[&str]) -> BTreeSet<AttachmentName> {
    let name = |container: &&str| AttachmentName {
        container_id: (*container).to_owned(),
        interface: "eth0".to_owned(),
    };
    containers.iter().map(name).collect()
}

fn listed(host: &str, containers: &[&str]) -> Collection {
    let rule = Rule::Listed(names(containers));
    Collection { host: host.to_owned(), machine: None, network: "net".to_owned(), rule }
}

fn after_reboot(boot_id: &str) -> Collection {
    let evidence = Evidence { boot_id: Some(boot_id.to_owned()), ..Evidence::default() };
    let rule = Rule::Proved(evidence);
    Collection { host: "n1".to_owned(), machine: None, network: "net".to_owned(), rule }
}

fn request_in(host: &str, container: &str, boot_id: &str) -> Request {
    let facts = BTreeMap::from([(ATTRIBUTE_BOOT.to_owned(), boot_id.to_owned())]);
    Request { facts, ..request(host, container, BOTH) }
}

/// Two families with blocks of four IPv4 addresses, so that a host soon has
/// several.
fn cluster() -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/26", json!({"blockSize": 30}));
    pool(&store, "six", "fd00::/120", json!({"blockSize": 124}));
    store
}

async fn all(store: &Memory, collection: &Collection) -> Collected {
    let collected = collect(store, collection, CollectScope::AllBlocks, &|_| true).await;
    assert_consistent(store);
    collected
}

fn handles(store: &Memory) -> BTreeSet<String> {
    allocations(store).into_values().collect()
}

fn ids(containers: &[&str]) -> BTreeSet<String> {
    containers.iter().map(|container| handle_id("net", container)).collect()
}

#[tokio::test]
async fn what_is_not_listed_goes_and_only_of_this_host_and_network() {
    let store = cluster();
    for container in ["a", "b", "c", "d", "e"] {
        assign(&store, &request("n1", container, BOTH)).await.unwrap();
    }
    assign(&store, &request("n2", "elsewhere", BOTH)).await.unwrap();
    let mut other = request("n1", "x", BOTH);
    other.assignee = Assignee::interface("n1", "other", "x", "eth0");
    assign(&store, &other).await.unwrap();
    let collected = all(&store, &listed("n1", &["b", "d"])).await;
    assert!(collected.errors.is_empty(), "{:?}", collected.errors);
    assert_eq!(collected.released.len(), 6);
    let mut left = ids(&["b", "d", "elsewhere"]);
    left.insert("other.x".to_owned());
    assert_eq!(handles(&store), left);
    // Again there is nothing to do.
    assert!(all(&store, &listed("n1", &["b", "d"])).await.released.is_empty());
    all(&store, &listed("n1", &[])).await;
    assert_eq!(handles(&store), ["net.elsewhere", "other.x"].map(str::to_owned).into());
}

#[tokio::test]
async fn borrowed_addresses_are_found_where_all_blocks_are_looked_into() {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/30", json!({"blockSize": 30}));
    assign(&store, &request("n1", "a", &[Family::V4])).await.unwrap();
    assign(&store, &request("n2", "b", &[Family::V4])).await.unwrap();
    let own = collect(&store, &listed("n2", &[]), CollectScope::OwnBlocks, &|_| true).await;
    assert!(own.released.is_empty() && own.errors.is_empty());
    assert_eq!(all(&store, &listed("n2", &[])).await.released.len(), 1);
    assert_eq!(handles(&store), ids(&["a"]));
}

/// Gives n2 a block of one address, which a container has.
fn seed_block(store: &Memory, number: u32) {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    let mut block = Block::new(IpAddr::from(address).into(), "n2", 1);
    let id = handle_id("net", &number.to_string());
    let secondary = Some(BTreeMap::from([(ATTRIBUTE_NODE.to_owned(), "n2".to_owned())]));
    block.assign(0, Attribute { handle_id: Some(id.clone()), secondary, ..Attribute::default() });
    put(store, keys::handle(&id), json!({"block": {block.cidr.to_string(): 1}}));
    store.seed([
        (keys::affinity("n2", block.cidr), Affinity::default().to_json()),
        (keys::block(block.cidr), block.to_json()),
    ]);
}

#[tokio::test]
async fn few_blocks_are_all_looked_into_and_of_many_the_first() {
    let store = Memory::new();
    (0..512).for_each(|number| seed_block(&store, number));
    let (collected, all) = collect_few(&store, &listed("n1", &[]), &|_| true).await;
    assert!(all && collected.errors.is_empty() && collected.released.is_empty());
    seed_block(&store, 512);
    let (collected, all) = collect_few(&store, &listed("n2", &[]), &|_| true).await;
    assert!(!all && collected.errors.is_empty());
    assert_eq!(collected.released.len(), 512);
    assert_consistent(&store);
}

#[tokio::test]
async fn a_large_block_takes_several_transactions() {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/24", json!({"blockSize": 24}));
    for container in 0..250 {
        assign(&store, &request("n1", &container.to_string(), &[Family::V4])).await.unwrap();
    }
    let collected = all(&store, &listed("n1", &["7"])).await;
    assert!(collected.errors.is_empty(), "{:?}", collected.errors);
    assert_eq!(collected.released.len(), 249);
    assert_eq!(handles(&store), ids(&["7"]));
}

#[tokio::test]
async fn an_error_does_not_keep_the_rest() {
    let store = cluster();
    for container in ["a", "b", "c", "d", "e", "f"] {
        assign(&store, &request("n1", container, &[Family::V4])).await.unwrap();
    }
    put(&store, keys::handle("net.b"), json!({"block": {"ten": 1}}));
    let broken = keys::block("10.0.0.64/30".parse().unwrap());
    put(&store, broken.clone(), json!({"cidr": "nonsense"}));
    let collected = collect(&store, &listed("n1", &[]), CollectScope::AllBlocks, &|_| true).await;
    let named: BTreeSet<String> = collected.errors.iter().map(ToString::to_string).collect();
    assert_eq!(collected.errors.len(), 2, "{named:?}");
    assert!(named.iter().any(|error| error.contains("net.b")), "{named:?}");
    assert!(named.iter().any(|error| error.contains(&broken)), "{named:?}");
    let released: BTreeSet<String> = collected.released.into_iter().map(|(_, id)| id).collect();
    assert_eq!(released, ids(&["a", "c", "d", "e", "f"]));
}

#[tokio::test]
async fn others_changes_are_read_again() {
    for fault in [CommitFault::Conflict, CommitFault::AnswerLost] {
        let store = cluster();
        for container in ["a", "b"] {
            assign(&store, &request("n1", container, &[Family::V4])).await.unwrap();
        }
        let process = store.another_process();
        process.fail_commit(1, fault);
        let collected =
            collect(&process, &listed("n1", &["b"]), CollectScope::OwnBlocks, &|_| true).await;
        assert!(collected.errors.is_empty(), "{fault:?}: {:?}", collected.errors);
        assert_eq!(handles(&store), ids(&["b"]), "{fault:?}");
        assert_consistent(&store);
    }
}

#[tokio::test]
async fn a_closed_store_is_said_once_and_left_alone() {
    let store = cluster();
    for container in ["a", "b", "c", "d", "e"] {
        assign(&store, &request("n1", container, BOTH)).await.unwrap();
    }
    let information = json!({
        "kind": "ClusterInformation", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default"}, "spec": {"datastoreReady": false},
    });
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), information);
    let before = store.dump();
    let collected = all(&store, &listed("n1", &[])).await;
    assert!(matches!(collected.errors[..], [Error::NotReady]), "{:?}", collected.errors);
    assert_eq!(before, store.dump());
}

#[tokio::test]
async fn a_reboot_ends_what_was_made_before_it() {
    let store = cluster();
    assign(&store, &request_in("n1", "old", "one")).await.unwrap();
    assign(&store, &request_in("n2", "elsewhere", "one")).await.unwrap();
    assign(&store, &request("n1", "unknown", BOTH)).await.unwrap();
    assert!(all(&store, &after_reboot("one")).await.released.is_empty());
    assign(&store, &request_in("n1", "new", "two")).await.unwrap();
    let collected = all(&store, &after_reboot("two")).await;
    assert_eq!(collected.released.len(), 2, "{collected:?}");
    assert_eq!(handles(&store), ids(&["new", "elsewhere", "unknown"]));
}

#[tokio::test]
async fn who_comes_back_under_the_old_id_keeps_the_address_and_lives_on() {
    let store = cluster();
    let before = assign(&store, &request_in("n1", "a", "one")).await.unwrap();
    let after = assign(&store, &request_in("n1", "a", "two")).await.unwrap();
    assert_eq!(before, after);
    assert_consistent(&store);
    assert!(all(&store, &after_reboot("two")).await.released.is_empty());
}

#[tokio::test]
async fn who_comes_back_under_a_boot_that_is_not_known_is_not_taken_for_dead() {
    let store = cluster();
    let before = assign(&store, &request_in("n1", "a", "one")).await.unwrap();
    let later = now().checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
    let unknown = request("n1", "a", BOTH);
    let again = engine::assign(&store, &unknown, &[], later).await.unwrap();
    assert_eq!(addresses(&again.addresses), before);
    assert!(all(&store, &after_reboot("two")).await.released.is_empty());
    assert_eq!(handles(&store), ids(&["a"]));
}

#[derive(Clone, Debug)]
enum Operation {
    Add { host: u8, container: u8 },
    Collect { host: u8, listed: BTreeSet<u8> },
    Reboot { host: u8 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let listed = prop::collection::btree_set(0u8..8, 0..8);
    prop_oneof![
        6 => (0u8..2, 0u8..8).prop_map(|(host, container)| Operation::Add { host, container }),
        1 => (0u8..2, listed).prop_map(|(host, listed)| Operation::Collect { host, listed }),
        1 => (0u8..2).prop_map(|host| Operation::Reboot { host }),
    ]
}

/// Who lives where, with which addresses, since which boot.
#[derive(Default)]
struct Model {
    boots: BTreeMap<u8, u32>,
    alive: BTreeMap<(u8, u8), (Vec<IpAddr>, u32)>,
}

impl Model {
    async fn perform(&mut self, store: &Memory, operation: &Operation) {
        match operation {
            Operation::Add { host, container } => {
                let boot = *self.boots.entry(*host).or_default();
                let request =
                    request_in(&format!("n{host}"), &id(*host, *container), &boot.to_string());
                if let Ok(got) = assign(store, &request).await {
                    self.alive.insert((*host, *container), (got, boot));
                }
            }
            Operation::Collect { host, listed } => {
                let names: Vec<String> =
                    listed.iter().map(|container| id(*host, *container)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                all(store, &self::listed(&format!("n{host}"), &names)).await;
                self.alive.retain(|(of, container), _| of != host || listed.contains(container));
            }
            Operation::Reboot { host } => {
                let boot = self.boots.entry(*host).or_default();
                *boot += 1;
                let boot = *boot;
                let mut collection = after_reboot(&boot.to_string());
                collection.host = format!("n{host}");
                all(store, &collection).await;
                self.alive.retain(|(of, _), (_, since)| of != host || *since == boot);
            }
        }
    }
}

fn id(host: u8, container: u8) -> String {
    format!("h{host}c{container}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any collections and reboots exactly those have addresses that live,
    /// and these are the ones they were given.
    #[test]
    fn nothing_leaks_and_nothing_that_lives_is_lost(
        operations in prop::collection::vec(operation(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = cluster();
            let mut model = Model::default();
            for operation in &operations {
                model.perform(&store, operation).await;
                let mut expected = BTreeMap::new();
                for ((host, container), (addresses, _)) in &model.alive {
                    let handle = handle_id("net", &id(*host, *container));
                    expected.extend(addresses.iter().map(|address| (*address, handle.clone())));
                }
                assert_eq!(allocations(&store), expected, "{operation:?}");
            }
        });
    }
}
