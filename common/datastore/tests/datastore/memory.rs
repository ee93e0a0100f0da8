//! The datastore in memory: the suite, and its faults.

use async_trait::async_trait;
use weir_common::datastore::{Datastore, Error, Outcome, Revision, Selection};
use weir_datastore::memory::{CommitFault, Crashed, Memory, MemoryCall};

use crate::suite::{self, Place, put, transaction, value};

struct InMemory(Memory);

#[async_trait]
impl Place for InMemory {
    async fn open(&self) -> Box<dyn Datastore> {
        Box::new(self.0.another_process())
    }

    async fn compact(&self, revision: Revision) {
        self.0.compact(revision);
    }
}

async fn place() -> InMemory {
    InMemory(Memory::new())
}

suite::behaviour!(place());

fn create(key: &str) -> weir_common::datastore::Transaction {
    transaction(|it| {
        it.create(key.to_owned(), b"1".to_vec());
    })
}

fn is_unavailable<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(error @ Error::Unavailable { .. }) if !Crashed::caused(error))
}

#[tokio::test]
async fn only_the_nth_commit_fails() {
    let store = Memory::new();
    store.fail_commit(2, CommitFault::Conflict);
    store.fail_commit(3, CommitFault::Unavailable);
    let mut outcomes = Vec::new();
    for key in ["/a", "/b", "/c", "/d"] {
        outcomes.push(store.commit(create(key)).await);
    }
    assert!(matches!(outcomes[0], Ok(Outcome::Committed(_))));
    assert!(matches!(outcomes[1], Ok(Outcome::Conflict)));
    assert!(is_unavailable(&outcomes[2]));
    assert!(matches!(outcomes[3], Ok(Outcome::Committed(_))));
    assert_eq!(store.dump().into_keys().collect::<Vec<_>>(), ["/a", "/d"]);
    let counters = store.counters();
    assert_eq!((counters.commits, counters.conflicts, counters.failures), (3, 1, 1));
}

#[tokio::test]
async fn a_lost_answer_leaves_the_commit() {
    let store = Memory::new();
    store.fail_commit(1, CommitFault::AnswerLost);
    assert!(is_unavailable(&store.commit(create("/a")).await));
    assert!(!store.crashed());
    assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_dead_process_changes_nothing_more() {
    for (fault, left) in [(CommitFault::CrashBefore, None), (CommitFault::CrashAfter, Some("1"))] {
        let store = Memory::new();
        store.fail_commit(1, fault);
        assert!(Crashed::caused(&store.commit(create("/a")).await.unwrap_err()));
        assert!(store.crashed());
        assert!(Crashed::caused(&store.clone().commit(create("/b")).await.unwrap_err()));
        assert!(Crashed::caused(&store.read(&[]).await.unwrap_err()));
        assert!(Crashed::caused(&store.list("", None, 1).await.unwrap_err()));

        let survivor = store.another_process();
        assert!(!survivor.crashed());
        assert_eq!(value(&survivor, "/a").await.as_deref(), left);
        assert_eq!(value(&survivor, "/b").await, None);
    }
}

#[tokio::test]
async fn reads_fail_on_cue() {
    let store = Memory::new();
    store.fail_read(1);
    store.fail_read(3);
    assert!(is_unavailable(&store.read(&[]).await));
    assert!(store.list("", None, 1).await.is_ok());
    assert!(is_unavailable(&store.list("", None, 1).await));
    store.set_available(false);
    assert!(is_unavailable(&store.read(&[]).await));
    assert!(is_unavailable(&store.commit(create("/a")).await));
    assert!(store.watch(&[], Revision(0)).await.is_err());
    store.set_available(true);
    assert!(store.dump().is_empty());
    assert!(store.read(&[]).await.is_ok());
}

#[tokio::test]
async fn others_are_quicker_on_cue() {
    let store = Memory::new();
    assert!(store.commit(create("/a")).await.is_ok());
    store.before_each(MemoryCall::Commit, |nth, other| async move {
        if nth == 2 {
            put(&other, &[("/c", "theirs")]).await;
        }
    });
    store.before_each(MemoryCall::Read, |nth, other| async move {
        put(&other, &[("/read", &nth.to_string())]).await;
    });
    assert!(matches!(store.commit(create("/b")).await, Ok(Outcome::Committed(_))));
    assert!(matches!(store.commit(create("/c")).await, Ok(Outcome::Conflict)));
    assert_eq!(value(&store, "/read").await.as_deref(), Some("1"));
    assert_eq!(store.list("/read", None, 1).await.unwrap().entries[0].value, b"2");
    let counters = store.counters();
    assert_eq!((counters.commits, counters.round_trips()), (3, 5), "its own calls alone");
    assert_eq!(value(&store.another_process(), "/read").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn keys_read_are_counted() {
    let store = Memory::new();
    let revision = store.seed((0..50).map(|n| (format!("/k/{n:02}"), vec![])));
    assert_eq!(store.counters().round_trips(), 0);
    let asked = [Selection::Key("/k/01".to_owned()), Selection::Key("/none".to_owned())];
    assert_eq!(store.read(&asked).await.unwrap().revision, revision);
    assert_eq!(store.counters().keys_read, 1);
    store.list("/k/", None, 10).await.unwrap();
    put(&store, &[("/k/new", "x")]).await;
    let counters = store.counters();
    assert_eq!((counters.keys_read, counters.round_trips()), (11, 3));
    store.reset_counters();
    assert_eq!(store.counters(), Default::default());
}
