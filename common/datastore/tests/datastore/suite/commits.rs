//! Transactions.

use weir_common::datastore::{Compare, Datastore, Error, Outcome, Revision, Transaction, Write};
use weir_datastore::OPERATIONS_LIMIT;

use super::{
    Place, assert_conflict, committed, delete, increment, put, put_of, transaction, value,
};

pub async fn a_created_key_is_there(place: &impl Place) {
    let store = place.open().await;
    let create = transaction(|it| {
        it.create("/a".to_owned(), b"one".to_vec());
    });
    let revision = committed(&*store, create.clone()).await;
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.revision), (&b"one"[..], revision));
    assert_conflict(&*store, create).await;
    assert_eq!(place.open().await.get("/a").await.unwrap(), Some(entry));
}

pub async fn an_update_needs_the_revision(place: &impl Place) {
    let store = place.open().await;
    let update = |revision| {
        transaction(|it| {
            it.update("/a".to_owned(), revision, b"new".to_vec());
        })
    };
    assert_conflict(&*store, update(Revision(0))).await;
    let first = put(&*store, &[("/a", "old")]).await;
    assert_conflict(&*store, update(Revision(first.0 + 1))).await;
    assert_eq!(value(&*store, "/a").await.as_deref(), Some("old"));
    let second = committed(&*store, update(first)).await;
    assert!(second > first);
    assert_conflict(&*store, update(first)).await;
    assert_eq!(store.get("/a").await.unwrap().unwrap().revision, second);
}

pub async fn a_deletion_needs_the_revision(place: &impl Place) {
    let store = place.open().await;
    let deletion = |revision| {
        transaction(|it| {
            it.delete("/a".to_owned(), revision);
        })
    };
    let first = put(&*store, &[("/a", "1"), ("/b", "1")]).await;
    let second = put(&*store, &[("/a", "2")]).await;
    assert_conflict(&*store, deletion(first)).await;
    let third = committed(&*store, deletion(second)).await;
    assert!(third > second);
    assert_eq!(value(&*store, "/a").await, None);
    assert_eq!(value(&*store, "/b").await.as_deref(), Some("1"));
    assert_conflict(&*store, deletion(second)).await;
    assert_conflict(&*store, deletion(Revision(0))).await;
    // A key that comes back is a new one.
    put(&*store, &[("/a", "3")]).await;
    assert_conflict(&*store, deletion(second)).await;
}

pub async fn comparisons_can_stand_alone(place: &impl Place) {
    let store = place.open().await;
    let revision = put(&*store, &[("/a", "1")]).await;
    let holds = transaction(|it| {
        it.unchanged("/a".to_owned(), revision).absent("/b".to_owned());
    });
    assert_eq!(committed(&*store, holds).await, revision);
    assert_conflict(&*store, transaction(|it| _ = it.absent("/a".to_owned()))).await;
    assert_conflict(&*store, transaction(|it| _ = it.unchanged("/b".to_owned(), revision))).await;
}

pub async fn none_newer_sees_creation_and_change(place: &impl Place) {
    let store = place.open().await;
    let none_newer = |revision| Transaction {
        compares: vec![Compare::NoneNewer { prefix: "/set/".to_owned(), revision }],
        writes: vec![],
    };
    committed(&*store, none_newer(Revision(0))).await;

    let created = put(&*store, &[("/set/a", "1"), ("/set/b", "1")]).await;
    assert_conflict(&*store, none_newer(Revision(created.0 - 1))).await;
    committed(&*store, none_newer(created)).await;

    put(&*store, &[("/set", "beside"), ("/set0", "beside"), ("/other", "beside")]).await;
    committed(&*store, none_newer(created)).await;

    let changed = put(&*store, &[("/set/b", "2")]).await;
    assert_conflict(&*store, none_newer(created)).await;
    committed(&*store, none_newer(changed)).await;

    delete(&*store, "/set/a").await;
    committed(&*store, none_newer(changed)).await;
    put(&*store, &[("/set/c", "1")]).await;
    assert_conflict(&*store, none_newer(changed)).await;
}

pub async fn all_writes_or_none(place: &impl Place) {
    let store = place.open().await;
    let revision = put(&*store, &[("/a", "1"), ("/b", "1")]).await;
    let changes = |compare: Compare| Transaction {
        compares: vec![Compare::Unchanged { key: "/a".to_owned(), revision }, compare],
        writes: vec![
            put_of("/a", b"2"),
            Write::Delete { key: "/b".to_owned() },
            put_of("/c", b"2"),
        ],
    };
    assert_conflict(&*store, changes(Compare::Absent { key: "/b".to_owned() })).await;
    assert_eq!(value(&*store, "/a").await.as_deref(), Some("1"));
    assert_eq!(value(&*store, "/b").await.as_deref(), Some("1"));
    assert_eq!(value(&*store, "/c").await, None);
    let unchanged = store.read(&[]).await.unwrap().revision;

    let applied = committed(&*store, changes(Compare::Absent { key: "/c".to_owned() })).await;
    assert!(applied > unchanged);
    assert_eq!(value(&*store, "/b").await, None);
    for key in ["/a", "/c"] {
        assert_eq!(store.get(key).await.unwrap().unwrap().revision, applied);
    }
}

pub async fn no_increment_is_lost(place: &impl Place) {
    const TASKS: usize = 8;
    const EACH: usize = 15;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let store = place.open().await;
        tasks.spawn(async move {
            for _ in 0..EACH {
                increment(&*store, "/count").await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let total = value(&*place.open().await, "/count").await;
    assert_eq!(total, Some((TASKS * EACH).to_string()));
}

pub async fn what_etcd_refuses_is_refused(place: &impl Place) {
    let store = place.open().await;
    let writes = |writes| Transaction { compares: vec![], writes };
    let refused = [
        writes(vec![put_of("/a", b"1"), put_of("/a", b"2")]),
        writes(vec![put_of("/a", b"1"), Write::Delete { key: "/a".to_owned() }]),
        writes(vec![put_of("", b"1")]),
        writes((0..=OPERATIONS_LIMIT).map(|n| put_of(&format!("/{n}"), b"1")).collect()),
    ];
    for transaction in refused {
        let error = store.commit(transaction).await.unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    }
    assert_eq!(everything(&*store).await, 0);
}

pub async fn what_changes_nothing_has_no_revision(place: &impl Place) {
    let store = place.open().await;
    let before = put(&*store, &[("/a", "1")]).await;
    assert_eq!(committed(&*store, Transaction::default()).await, before);
    assert_eq!(delete(&*store, "/missing").await, before);
    assert_eq!(store.read(&[]).await.unwrap().revision, before);
    assert_eq!(put(&*store, &[("/a", "1")]).await, Revision(before.0 + 1));
}

pub async fn bytes_are_kept(place: &impl Place) {
    let store = place.open().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = every_byte.iter().copied().cycle().take(1 << 20).collect();
    for (key, value) in [("/empty", vec![]), ("/bytes", every_byte), ("/large", large)] {
        let write = put_of(key, &value);
        committed(&*store, Transaction { compares: vec![], writes: vec![write] }).await;
        assert!(store.get(key).await.unwrap().unwrap().value == value, "{key}");
    }
}

pub async fn the_largest_transaction_fits(place: &impl Place) {
    let store = place.open().await;
    let full = transaction(|it| {
        for n in 0..OPERATIONS_LIMIT {
            it.create(format!("/{n}"), b"1".to_vec());
        }
    });
    assert!(matches!(store.commit(full).await.unwrap(), Outcome::Committed(_)));
    assert_eq!(everything(&*store).await, OPERATIONS_LIMIT);
}

async fn everything(store: &dyn Datastore) -> usize {
    store.list("", None, usize::MAX).await.unwrap().entries.len()
}
