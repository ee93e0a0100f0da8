//! Deleting pools with what is in them.

use super::*;
use weir_common::datastore::{Compare, Outcome, Transaction, Write, keys};
use weir_datastore::memory::{CommitFault, MemoryCall};

const BLOCKS: &str = "/calico/ipam/v2/assignment/ipv4/block/";

/// The value of a block of one address, used or not.
fn block(cidr: &str, host: &str, used: bool) -> Vec<u8> {
    let (allocations, unallocated) = if used { ("0", "") } else { ("null", "0") };
    format!(
        r#"{{"cidr":"{cidr}","affinity":"host:{host}","allocations":[{allocations}],"unallocated":[{unallocated}],"attributes":[{{"handle_id":"h"}}],"sequenceNumber":1}}"#
    )
    .into_bytes()
}

/// A pool of single addresses, `count` of them held by a node and unused.
fn pool_with_blocks(memory: &Memory, count: usize) {
    let spec = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.1.0.0/16","blockSize":32}}"#;
    memory.seed([(keys::pool("p"), spec.as_bytes().to_vec())]);
    memory.seed((0..count).flat_map(|number| {
        let cidr = format!("10.1.{}.{}", number / 256, number % 256);
        let affinity = format!("/calico/ipam/v2/host/n1/ipv4/block/{cidr}-32");
        [
            (format!("{BLOCKS}{cidr}-32"), block(&format!("{cidr}/32"), "n1", false)),
            (affinity, br#"{"state":"confirmed","deleted":false}"#.to_vec()),
        ]
    }));
}

#[tokio::test]
async fn a_pool_in_use_is_not_deleted() {
    let memory = recorded_store("busy");
    let before = memory.dump();
    for line in ["delete ippool blue", "delete pool 10.7.0.0/27"] {
        let answer = call(&memory, line).await;
        assert_eq!(
            answer.output,
            "Failed to delete 'IPPool' resource: IPPool(blue) 10.7.0.0/27 has 25 address(es) in use\n\
             list them with: weirctl ipam show --show-addresses --pool=blue; remove the containers \
             that use them, then delete the pool again; or release them with it: weirctl delete \
             ippool blue --force\n"
        );
        assert_eq!(answer.exit, 1);
    }
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn empty_blocks_and_affinities_go_with_their_pool_and_no_others() {
    // Below what one transaction holds, and above it.
    for count in [0, 1, 40, 300] {
        let memory = recorded_store("small");
        let before = memory.dump();
        pool_with_blocks(&memory, count);
        let answer = call(&memory, "delete ippool p").await;
        assert_eq!(answer.output, "Successfully deleted 1 'IPPool' resource(s)\n");
        assert_eq!(memory.dump(), before, "{count} blocks");
    }
}

/// Lets somebody write a block just before each of the first commits, so many.
fn interfere(memory: &Memory, taken: (String, Vec<u8>), times: u64) {
    memory.before_each(MemoryCall::Commit, move |nth, other| {
        if nth <= times {
            other.seed([taken.clone()]);
        }
        async {}
    });
}

#[tokio::test]
async fn an_address_taken_meanwhile_stops_the_deletion() {
    for count in [1, 300] {
        let memory = Memory::new();
        pool_with_blocks(&memory, count);
        let mut expected = memory.dump();
        let taken = (format!("{BLOCKS}10.1.200.1-32"), block("10.1.200.1/32", "n2", true));
        expected.extend([taken.clone()]);
        interfere(&memory, taken, 1);
        let answer = call(&memory, "delete ippool p").await;
        assert!(answer.output.contains("1 address(es) in use"), "{}", answer.output);
        assert_eq!(memory.dump(), expected, "{count} blocks");
    }
}

#[tokio::test]
async fn who_compares_the_pool_cannot_take_an_address_from_a_deleted_one() {
    let memory = Memory::new();
    pool_with_blocks(&memory, 1);
    let pool = memory.get(&keys::pool("p")).await.unwrap().unwrap();
    assert_eq!(call(&memory, "delete ippool p").await.exit, 0);
    let assign = Transaction {
        compares: vec![Compare::Unchanged { key: pool.key, revision: pool.revision }],
        writes: vec![Write::Put { key: format!("{BLOCKS}10.1.0.9-32"), value: vec![] }],
    };
    assert_eq!(memory.commit(assign).await.unwrap(), Outcome::Conflict);
}

#[tokio::test]
async fn an_interrupted_deletion_is_finished_by_the_next() {
    for nth in 1..=8 {
        for fault in [CommitFault::CrashBefore, CommitFault::CrashAfter] {
            let memory = Memory::new();
            pool_with_blocks(&memory, 300);
            memory.fail_commit(nth, fault);
            let first = call(&memory, "delete ippool p").await;
            let next = memory.another_process();
            let second = call(&next, "delete ippool p --skip-not-exists").await;
            assert_eq!(second.exit, 0, "{first:?} {second:?}");
            assert!(next.dump().is_empty(), "{nth}: {:?}", next.dump().keys());
        }
    }
}

#[tokio::test]
async fn a_busy_neighbour_does_not_keep_a_pool_from_being_deleted() {
    for count in [1, 300] {
        let memory = Memory::new();
        pool_with_blocks(&memory, count);
        let half = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"cidr":"10.1.0.0/17","blockSize":32}}"#;
        memory.seed([(keys::pool("p"), half.into())]);
        let neighbour = (format!("{BLOCKS}10.1.200.1-32"), block("10.1.200.1/32", "n2", true));
        interfere(&memory, neighbour.clone(), u64::MAX);
        let answer = call(&memory, "delete ippool p").await;
        assert_eq!(answer.exit, 0, "{}", answer.output);
        assert_eq!(memory.dump(), [neighbour].into(), "{count} blocks");
        assert!(memory.counters().commits < 20, "one retry budget, used sparingly");
    }
}

#[tokio::test]
async fn a_deletion_that_fails_leaves_the_pool_as_it_was() {
    for nth in 1..=10 {
        for fault in [None, Some(CommitFault::Unavailable), Some(CommitFault::AnswerLost)] {
            let memory = Memory::new();
            pool_with_blocks(&memory, 300);
            let original = memory.dump().remove(&keys::pool("p"));
            match fault {
                Some(fault) => memory.fail_commit(nth, fault),
                None => memory.fail_read(nth),
            }
            let answer = call(&memory, "delete ippool p").await;
            let left = memory.dump().remove(&keys::pool("p"));
            // The answer that is lost may be the one about the pool.
            assert!(left.is_none() || left == original, "{nth} {fault:?}: {}", answer.output);
            assert!(answer.exit == 1 || left.is_none(), "{nth} {fault:?}");
            let next = memory.another_process();
            let again = call(&next, "delete ippool p --skip-not-exists").await;
            assert_eq!(again.exit, 0, "{}", again.output);
            assert!(next.dump().is_empty());
        }
    }
}

#[tokio::test]
async fn a_pool_that_stays_disabled_is_reported() {
    let memory = Memory::new();
    pool_with_blocks(&memory, 300);
    memory.fail_commit(2, CommitFault::CrashBefore);
    let answer = call(&memory, "delete ippool p").await;
    let advice = "the pool was left disabled; run the same command again";
    assert!(answer.output.contains(advice), "{}", answer.output);
    let pool = memory.dump().remove(&keys::pool("p")).unwrap();
    assert!(String::from_utf8(pool).unwrap().contains("\"disabled\":true"));
}

#[tokio::test]
async fn other_kinds_are_deleted_by_name() {
    let memory = recorded_store("busy");
    assert_eq!(call(&memory, "delete reservation kept-back").await.exit, 0);
    assert_eq!(call(&memory, "delete node n9").await.exit, 1);
    let answer = call(&memory, "delete node n9 --skip-not-exists").await;
    assert_eq!(answer.output, "Successfully deleted 1 'Node' resource(s)\n");
    let answer = call(&memory, "delete ippol x").await;
    assert!(answer.output.contains("resource type 'ippol' is not supported; write one of ippool"));
}
