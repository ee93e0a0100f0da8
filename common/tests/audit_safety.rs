//! What a repair must not touch: hosts that may be there, containers that come
//! back, what others are changing.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::net::IpAddr;

use serde_json::json;
use support::stores::*;
use support::*;
use weir_common::audit::engine::{self, RepairOutcome, RepairRun};
use weir_common::audit::{DamageKind, Finding, ThisNode, audit};
use weir_common::datastore::{Datastore, Outcome, keys};
use weir_common::ipam::{Family, IpamSnapshot};
use weir_datastore::Memory;

#[tokio::test]
async fn without_registered_nodes_no_host_is_gone_unless_it_is_named() {
    let (store, here) = healthy().await;
    held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
    for node in ["n1", "n2"] {
        delete(&store, keys::node(node)).await;
    }
    assert_eq!(check(&store, Some(&here)).await, []);
    assert_eq!(kinds(&check_in(&store, &at_n1(&here)).await), [DamageKind::HostGone]);
    assert_eq!(repair_in(&store, &at_n1(&here)).await, []);
}

#[tokio::test]
async fn a_host_that_is_only_not_registered_keeps_what_it_has() {
    for registered in [true, false] {
        let (store, here) = healthy().await;
        held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
        if !registered {
            delete(&store, keys::node("n1")).await;
        }
        let before = store.dump();
        let left = repair(&store, Some(&here)).await;
        assert_eq!(kinds(&left), [DamageKind::HostGone]);
        assert!(left.iter().all(|it| it.obstacle.as_ref().unwrap().contains("--gone-host=n9")));
        assert_eq!(store.dump(), before);
    }
}

#[tokio::test]
async fn a_host_that_is_there_is_not_gone_whoever_says_so() {
    let (store, mut here) = healthy().await;
    held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
    // Of the host that the audit runs on, its address's container is another finding.
    here.host = "n9".to_owned();
    here.networks.clear();
    here.attachments.clear();
    assert_eq!(check_in(&store, &at_n1(&here)).await, []);
    here.host = "n1".to_owned();
    let context = at_n1(&here);
    let transactions = plans(&store, &context).await;
    assert_eq!(transactions.len(), 2, "of the address and of the block");
    node(&store, "n9");
    let before = store.dump();
    for transaction in transactions {
        assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
    }
    assert_eq!(check_in(&store, &context).await, []);
    assert_eq!(store.dump(), before);
}

/// What `here` finds, and its repair.
async fn look(store: &Memory, here: &ThisNode) -> (IpamSnapshot, Vec<Finding>) {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let findings = audit(&snapshot, &at_n1(here));
    (snapshot, findings)
}

#[tokio::test]
async fn a_container_that_is_restarted_with_its_id_keeps_its_address() {
    let (store, mut here) = healthy().await;
    let was_there = here.clone();
    let gone = here.attachments.remove(0);
    let (snapshot, findings) = look(&store, &here).await;
    assert_eq!(kinds(&findings), [DamageKind::AddressWithoutAttachment]);
    let mut repair = RepairRun::new(&store, &snapshot, snapshot.revision);
    let before = store.dump();
    // Its ADD is over: the kernel has it again.
    for finding in &findings {
        let done = repair.repair(finding, &at_n1(&was_there)).await.unwrap();
        assert_eq!(done, RepairOutcome::Gone);
    }
    assert_eq!(store.dump(), before);
    // Its ADD goes on: it has its addresses, but no link yet.
    let container = gone.identity.container_id();
    let request = request("n1", container, &[Family::V4, Family::V6]);
    let again = weir_common::ipam::engine::assign(&store, &request, &[], later()).await.unwrap();
    assert_eq!(addresses(&again.addresses), gone.addresses);
    for finding in &findings {
        assert_eq!(repair.repair(finding, &at_n1(&here)).await.unwrap(), RepairOutcome::Gone);
    }
    assert_eq!(check(&store, Some(&here)).await, [], "it is on its way");
    assert_eq!(in_use(&store).len(), in_use(&copy_of(before)).len());
}

fn copy_of(entries: std::collections::BTreeMap<String, Vec<u8>>) -> Memory {
    let copy = Memory::new();
    copy.seed(entries);
    copy
}

#[tokio::test]
async fn an_attachment_that_is_gone_by_now_is_not_recorded() {
    let (store, mut here) = healthy().await;
    here.attachments.push(attached("unknown", "eth0", &[ip("10.0.0.235")]));
    let (snapshot, findings) = look(&store, &here).await;
    let mut repair = RepairRun::new(&store, &snapshot, snapshot.revision);
    here.attachments.pop();
    let before = store.dump();
    assert_eq!(repair.repair(&findings[0], &at_n1(&here)).await.unwrap(), RepairOutcome::Gone);
    assert_eq!(store.dump(), before);
}

/// An ordinal that is neither free nor taken may be a container's that the store
/// has forgotten.
#[tokio::test]
async fn an_ordinal_becomes_free_only_where_nobody_can_use_it() {
    let (store, mut here) = healthy().await;
    let forget = |store: &Memory, container: &str, count: usize| {
        edit(store, block_key(store, container), |block| {
            block["unallocated"].as_array_mut().unwrap().drain(..count);
        });
    };
    let block = block_of_container(&store, "n1-a");
    let free: Vec<IpAddr> = block.free().map(|ordinal| block.address(ordinal)).collect();
    forget(&store, "n1-a", 3);
    forget(&store, "n2-a", 1);
    here.routed.insert(free[0]);
    here.attachments.push(attached("forgotten", "eth0", &[free[1]]));
    here.routed.insert(free[1]);
    let done = repair_once(&store, &at_n1(&here)).await.unwrap();
    let outcomes: Vec<_> =
        done.iter().map(|(it, done)| (it.kind, it.host.as_deref(), done)).collect();
    assert_eq!(
        outcomes[..2],
        [
            (DamageKind::AttachmentWithoutAddress, Some("n1"), &RepairOutcome::Repaired),
            (DamageKind::BlockUnsound, Some("n1"), &RepairOutcome::Repaired),
        ]
    );
    assert!(matches!(outcomes[2], (DamageKind::BlockUnsound, Some("n2"), RepairOutcome::Left(_))));
    let left = repair(&store, Some(&here)).await;
    assert_eq!(kinds(&left), [DamageKind::BlockUnsound]);
    let obstacle = |host| {
        left.iter().find(|it| it.host.as_deref() == Some(host)).unwrap().obstacle.clone().unwrap()
    };
    assert!(obstacle("n1").starts_with(&format!("{} may be in use", free[0])));
    assert!(obstacle("n2").contains("on node n2"), "{}", obstacle("n2"));
    assert_eq!(in_use(&store)[&free[1]].0.as_deref(), Some("net.forgotten"));
    let block = block_of_container(&store, "n1-a");
    let still_free: Vec<IpAddr> = block.free().map(|ordinal| block.address(ordinal)).collect();
    assert!(still_free.contains(&free[2]) && !still_free.contains(&free[0]));
}

#[tokio::test]
async fn what_others_are_changing_is_left_alone() {
    let (store, here) = healthy().await;
    let key = keys::handle("net.nothing");
    let nothing = json!({"block": {"10.0.0.0/29": 1}});
    put(&store, key.clone(), nothing.clone());
    let (snapshot, findings) = look(&store, &here).await;
    let mut repair = RepairRun::new(&store, &snapshot, snapshot.revision);
    put(&store, key, nothing);
    let done = repair.repair(&findings[0], &at_n1(&here)).await.unwrap();
    assert_eq!(done, RepairOutcome::Left("others are changing it".to_owned()));
    let (snapshot, findings) = look(&store, &here).await;
    let mut repair = RepairRun::new(&store, &snapshot, snapshot.revision);
    assert_eq!(repair.repair(&findings[0], &at_n1(&here)).await.unwrap(), RepairOutcome::Repaired);
}

#[tokio::test]
async fn only_what_two_looks_saw_alike_counts() {
    let (store, here) = healthy().await;
    let wrong = |count| json!({"block": {"10.0.0.0/29": count}});
    put(&store, keys::handle("net.first"), wrong(1));
    put(&store, keys::handle("net.n2-a"), wrong(3));
    let (_, earlier) = look(&store, &here).await;
    put(&store, keys::handle("net.n2-a"), wrong(4));
    put(&store, keys::handle("net.second"), wrong(1));
    let (_, later) = look(&store, &here).await;
    assert_eq!((earlier.len(), later.len()), (2, 3));
    let twice = engine::seen_twice(&earlier, &later);
    let twice: Vec<_> = twice.into_iter().map(|it| it.handle).collect();
    assert_eq!(twice, [Some("net.first".to_owned())]);
}

#[tokio::test]
async fn what_goes_with_an_unreadable_value_is_left_and_the_value_named() {
    let (store, here) = healthy().await;
    empty_block(&store, "192.168.9.0/29", "n1");
    let key = keys::affinity("n1", cidr("192.168.9.0/29"));
    put(&store, key.clone(), json!({"state": "pendingDel:etion"}));
    let before = store.dump();
    let done = repair_once(&store, &at_n1(&here)).await.unwrap();
    let homeless = done.iter().find(|(finding, _)| finding.kind == DamageKind::BlockWithoutPool);
    match homeless {
        Some((_, RepairOutcome::Left(reason))) => assert!(reason.contains(&key), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.dump(), before);
}
