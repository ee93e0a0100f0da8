//! One address is given back only as long as its holder is the one that was
//! seen, and blocks are taken back only while they are empty.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use serde_json::json;
use support::stores::*;
use support::*;
use weir_common::audit::release_one::{Release, SeenAddress, look_up, release};
use weir_common::audit::{self, AuditContext, Report, ReportToRelease, hosts_gone};
use weir_common::datastore::keys;
use weir_common::ipam::reclaim::{EmptyBlock, plan, reclaim};
use weir_common::ipam::{Block, Error, Family, IpamSnapshot, engine};
use weir_datastore::Memory;
use weir_datastore::memory::{CommitFault, MemoryCall};

const V4: &[Family] = &[Family::V4];

#[tokio::test]
async fn an_address_is_released_with_its_handle() {
    let (store, _) = healthy().await;
    let [v4, v6] =
        assign(&store, &request("n1", "x", &[Family::V4, Family::V6])).await.unwrap()[..]
    else {
        panic!("two addresses")
    };
    for (address, handle_stays) in [(v4, true), (v6, false)] {
        let seen = SeenAddress::from(&look_up(&store, address).await.unwrap().unwrap());
        assert_eq!(seen.handle.as_deref(), Some("net.x"));
        assert_eq!(release(&store, &seen).await.unwrap(), Release::Released);
        assert_eq!(release(&store, &seen).await.unwrap(), Release::NotInUse);
        assert_eq!(store.dump().contains_key(&keys::handle("net.x")), handle_stays);
        assert_eq!(check(&store, None).await, []);
    }
    assert_eq!(look_up(&store, "192.0.2.1".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn an_address_that_came_to_another_stays() {
    let store = Memory::new();
    pool(&store, "one", "10.0.0.0/32", json!({"blockSize": 32}));
    let first = request("n1", "a", V4);
    let address = assign(&store, &first).await.unwrap()[0];
    let seen = SeenAddress::from(&look_up(&store, address).await.unwrap().unwrap());
    // Even the same container has it under another number now.
    engine::release(&store, &first.assignee, &Default::default()).await.unwrap();
    assert_eq!(assign(&store, &first).await.unwrap(), [address]);
    let before = store.dump();
    assert!(matches!(release(&store, &seen).await.unwrap(), Release::Reassigned(_)));
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn a_release_is_tried_again_and_waits_for_a_migration() {
    let (store, _) = healthy().await;
    let address = assign(&store, &request("n1", "x", V4)).await.unwrap()[0];
    let seen = SeenAddress::from(&look_up(&store, address).await.unwrap().unwrap());
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), json!({"spec": {"datastoreReady": false}}));
    assert!(matches!(release(&store, &seen).await, Err(Error::NotReady)));
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), json!({"spec": {"datastoreReady": true}}));
    store.fail_commit(1, CommitFault::Conflict);
    assert_eq!(release(&store, &seen).await.unwrap(), Release::Released);
}

#[tokio::test]
async fn the_last_address_of_nobodys_block_takes_the_block_along() {
    let (store, _) = healthy().await;
    let seen = look_up(&store, "10.1.0.67".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(release(&store, &SeenAddress::from(&seen)).await.unwrap(), Release::Released);
    assert!(!store.dump().contains_key(&keys::block(cidr("10.1.0.64/29"))));
}

#[tokio::test]
async fn a_report_names_what_can_be_released() {
    let (store, mut here) = healthy().await;
    let address = assign(&store, &request("n1", "x", V4)).await.unwrap()[0];
    here.attachments.retain(|attached| attached.identity.container_id() != "x");
    delete(&store, keys::handle("net.n2-a")).await;
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let context = AuditContext::new(Some(&here), later());
    let findings = audit::audit(&snapshot, &context);
    let report = Report::new(&snapshot, &findings, &context);
    let json = serde_json::to_string(&report).unwrap();
    let again: ReportToRelease = serde_json::from_str(&json).unwrap();
    let [seen] = again.addresses().try_into().unwrap();
    assert_eq!((seen.address, seen.handle.as_deref()), (address, Some("net.x")));
    assert_eq!(release(&store, &seen).await.unwrap(), Release::Released);
}

/// The form that scripts read.
#[tokio::test]
async fn a_finding_has_a_stable_form() {
    let (store, here) = healthy().await;
    put(&store, keys::affinity("n1", cidr("10.1.0.224/29")), json!({"state": "confirmed"}));
    let [finding] = check(&store, Some(&here)).await.try_into().unwrap();
    assert_eq!(
        serde_json::to_value(&finding).unwrap(),
        json!({
            "kind": "affinity-without-block",
            "keys": ["/calico/ipam/v2/host/n1/ipv4/block/10.1.0.224-29"],
            "host": "n1",
            "block": "10.1.0.224/29",
            "problem": "host n1 has block 10.1.0.224/29, which is not there",
            "remedy": "delete the affinity",
            "safe": true,
        })
    );
}

fn empty_block(store: &Memory, block: &str, host: Option<&str>, state: &str) {
    let mut block = Block::new(cidr(block), host.unwrap_or_default(), 1);
    if host.is_none() {
        block.affinity = None;
    }
    store.seed([(keys::block(block.cidr), block.to_json())]);
    if let Some(host) = host {
        put(store, keys::affinity(host, block.cidr), json!({"state": state}));
    }
}

fn empty(block: &str, host: Option<&str>) -> EmptyBlock {
    EmptyBlock { block: cidr(block), host: host.map(str::to_owned) }
}

#[tokio::test]
async fn a_host_keeps_one_block_in_each_enabled_pool() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({"blockSize": 29}));
    pool(&store, "off", "10.1.0.0/24", json!({"blockSize": 29, "disabled": true}));
    node(&store, "n1");
    node(&store, "n2");
    let used = assign(&store, &request("n1", "a", V4)).await.unwrap()[0];
    let free = |n: u8| {
        format!(
            "10.0.0.{}/29",
            (u8::from(used > "10.0.0.127".parse::<std::net::IpAddr>().unwrap()) ^ 1) * 128 + n * 8
        )
    };
    empty_block(&store, &free(0), Some("n1"), "confirmed");
    empty_block(&store, &free(1), Some("n2"), "confirmed");
    empty_block(&store, &free(2), Some("n2"), "confirmed");
    empty_block(&store, &free(3), Some("n2"), "pending");
    empty_block(&store, &free(4), None, "");
    empty_block(&store, &free(5), Some("n9"), "confirmed");
    empty_block(&store, "10.1.0.0/29", Some("n2"), "confirmed");
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let expected = [
        empty(&free(0), Some("n1")),
        empty(&free(2), Some("n2")),
        empty(&free(4), None),
        empty("10.1.0.0/29", Some("n2")),
    ];
    assert_eq!(
        plan(&snapshot, &hosts_gone(&snapshot, &AuditContext::new(None, later()))),
        expected
    );
    for block in &expected {
        assert!(reclaim(&store, block).await.unwrap());
        assert!(!reclaim(&store, block).await.unwrap(), "it is gone");
    }
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    assert_eq!(plan(&snapshot, &hosts_gone(&snapshot, &AuditContext::new(None, later()))), []);
    assert_eq!(in_use(&store).into_keys().collect::<Vec<_>>(), [used]);
}

#[tokio::test]
async fn a_block_that_is_used_meanwhile_is_not_taken_back() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/29", json!({"blockSize": 29}));
    let request = request("n1", "a", V4);
    assign(&store, &request).await.unwrap();
    let block = empty("10.0.0.0/29", Some("n1"));
    assert!(!reclaim(&store, &block).await.unwrap(), "it is in use");
    engine::release(&store, &request.assignee, &Default::default()).await.unwrap();
    let other = empty("10.0.0.0/29", Some("n2"));
    assert!(!reclaim(&store, &other).await.unwrap(), "it is another's");
    store.fail_commit(1, CommitFault::Conflict);
    assert!(reclaim(&store, &block).await.unwrap());
    assert_consistent(&store);
    assert!(!store.dump().keys().any(|key| key.starts_with(keys::BLOCKS)));
}

/// Somebody begins to move the store just before it is changed.
fn move_meanwhile(store: &Memory) {
    store.before_each(MemoryCall::Commit, async |_, other| {
        let moving = json!({"spec": {"datastoreReady": false}});
        put(&other, keys::CLUSTER_INFORMATION.to_owned(), moving);
    });
}

/// The flag was not there when it was read.
#[tokio::test]
async fn nothing_is_given_back_once_the_datastore_is_being_moved() {
    let (store, _) = healthy().await;
    let address = *in_use(&store).keys().next().unwrap();
    let seen = SeenAddress::from(&look_up(&store, address).await.unwrap().unwrap());
    move_meanwhile(&store);
    assert!(matches!(release(&store, &seen).await, Err(Error::NotReady)));
    assert!(look_up(&store, address).await.unwrap().is_some());
    let (store, _) = healthy().await;
    empty_block(&store, "10.1.0.128/29", Some("n1"), "confirmed");
    let block = empty("10.1.0.128/29", Some("n1"));
    move_meanwhile(&store);
    assert!(matches!(reclaim(&store, &block).await, Err(Error::NotReady)));
    assert!(store.dump().contains_key(&keys::block(block.block)));
}
