//! Watches.

use std::time::Duration;

use weir_common::datastore::{
    Datastore, Entry, Error, Event, Revision, Selection, Transaction, Watch, Write,
};

use super::{Place, committed, delete, put, put_of};

/// Bounds a wait that would otherwise last for ever when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn put_event(key: &str, value: &str, revision: Revision) -> Event {
    Event::Put(Entry { key: key.to_owned(), value: value.as_bytes().to_vec(), revision })
}

fn delete_event(key: &str, revision: Revision) -> Event {
    Event::Delete { key: key.to_owned(), revision }
}

async fn now(store: &dyn Datastore) -> Revision {
    store.read(&[]).await.unwrap().revision
}

async fn next(watch: &mut Box<dyn Watch>) -> Result<Vec<Event>, Error> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch said nothing")
}

/// Collects batches until there are `count` events; no commit may be split.
async fn collect(watch: &mut Box<dyn Watch>, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.len() < count {
        let batch = next(watch).await.unwrap();
        assert!(!batch.is_empty());
        assert!(batch.is_sorted_by_key(Event::revision));
        if let Some(last) = events.last() {
            assert!(last.revision() < batch[0].revision(), "a commit in two batches");
        }
        events.extend(batch);
    }
    events
}

pub async fn a_watch_goes_on_behind_its_revision(place: &impl Place) {
    let store = place.open().await;
    let one = put(&*store, &[("/w/a", "1")]).await;
    let two = put(&*store, &[("/w/b", "2")]).await;
    put(&*store, &[("/elsewhere", "x"), ("/w", "x"), ("/w0", "x")]).await;
    let three = delete(&*store, "/w/a").await;
    let expected =
        [put_event("/w/a", "1", one), put_event("/w/b", "2", two), delete_event("/w/a", three)];
    let prefixes = ["/w/".to_owned()];
    let mut from_start = store.watch(&prefixes, Revision(one.0 - 1)).await.unwrap();
    assert_eq!(collect(&mut from_start, 3).await, expected);
    let mut from_one = store.watch(&prefixes, one).await.unwrap();
    assert_eq!(collect(&mut from_one, 2).await, expected[1..]);
    // Later changes come too, and only they.
    let mut from_now = store.watch(&prefixes, three).await.unwrap();
    put(&*store, &[("/elsewhere", "y")]).await;
    let four = put(&*store, &[("/w/b", "4")]).await;
    for watch in [&mut from_start, &mut from_one, &mut from_now] {
        assert_eq!(collect(watch, 1).await, [put_event("/w/b", "4", four)]);
    }
}

pub async fn one_commit_is_one_batch(place: &impl Place) {
    let store = place.open().await;
    let before = put(&*store, &[("/b/old", "x")]).await;
    let prefixes = ["/c/".to_owned(), "/a/".to_owned(), "/b/".to_owned()];
    let mut live = store.watch(&prefixes, before).await.unwrap();
    let writes = vec![
        put_of("/c/1", b"x"),
        put_of("/bb", b"between the prefixes"),
        Write::Delete { key: "/b/old".to_owned() },
        put_of("/a/1", b"x"),
    ];
    let revision = committed(&*store, Transaction { compares: vec![], writes }).await;
    let mut expected = vec![
        put_event("/a/1", "x", revision),
        delete_event("/b/old", revision),
        put_event("/c/1", "x", revision),
    ];
    let mut late = store.watch(&prefixes, before).await.unwrap();
    for watch in [&mut live, &mut late] {
        let mut batch = next(watch).await.unwrap();
        batch.sort_by(|one, other| one.key().cmp(other.key()));
        assert_eq!(batch, expected);
    }
    // As many changes at once as a transaction can have.
    let writes = (0..weir_datastore::OPERATIONS_LIMIT)
        .map(|n| put_of(&format!("/a/{n:03}"), &[0; 1000]))
        .collect();
    let revision = committed(&*store, Transaction { compares: vec![], writes }).await;
    expected = next(&mut live).await.unwrap();
    assert_eq!(expected.len(), weir_datastore::OPERATIONS_LIMIT);
    assert!(expected.iter().all(|event| event.revision() == revision));
}

pub async fn a_waiting_watch_is_woken(place: &impl Place) {
    let (store, other) = (place.open().await, place.open().await);
    let mut watch = store.watch(&["/w/".to_owned()], now(&*store).await).await.unwrap();
    let first = tokio::join!(next(&mut watch), put(&*other, &[("/w/a", "1")]));
    assert_eq!(first.0.unwrap(), [put_event("/w/a", "1", first.1)]);
    let second = tokio::join!(next(&mut watch), delete(&*other, "/w/a"));
    assert_eq!(second.0.unwrap(), [delete_event("/w/a", second.1)]);
}

/// A reader that goes on by a watch sees every change once, whatever others do
/// in between.
pub async fn a_watch_misses_nothing_after_a_read(place: &impl Place) {
    const CHANGES: usize = 100;
    let (store, other) = (place.open().await, place.open().await);
    let writing = tokio::spawn(async move {
        for n in 0..CHANGES {
            put(&*other, &[("/w/count", &n.to_string())]).await;
            tokio::task::yield_now().await;
        }
    });
    let (mut seen, mut snapshot) = (None, None);
    while seen.is_none() {
        let current = store.read(&[Selection::Prefix("/w/".to_owned())]).await.unwrap();
        seen = current.selected[0].first().map(|it| it.value.clone());
        snapshot = Some(current);
        tokio::task::yield_now().await;
    }
    let mut watch = store.watch(&["/w/".to_owned()], snapshot.unwrap().revision).await.unwrap();
    let mut last: usize = String::from_utf8(seen.unwrap()).unwrap().parse().unwrap();
    while last + 1 < CHANGES {
        for event in next(&mut watch).await.unwrap() {
            let Event::Put(entry) = event else { panic!("nothing was deleted") };
            let count: usize = String::from_utf8(entry.value).unwrap().parse().unwrap();
            assert_eq!(count, last + 1);
            last = count;
        }
    }
    writing.await.unwrap();
}

pub async fn a_watch_sees_each_change_of_a_key(place: &impl Place) {
    let store = place.open().await;
    let mut watch = store.watch(&["/w/".to_owned()], now(&*store).await).await.unwrap();
    let mut expected = Vec::new();
    for value in ["1", "2", "2"] {
        expected.push(put_event("/w/a", value, put(&*store, &[("/w/a", value)]).await));
    }
    expected.push(delete_event("/w/a", delete(&*store, "/w/a").await));
    delete(&*store, "/w/a").await;
    expected.push(put_event("/w/a", "3", put(&*store, &[("/w/a", "3")]).await));
    assert_eq!(collect(&mut watch, expected.len()).await, expected);
}

pub async fn forgotten_history_is_reported(place: &impl Place) {
    let store = place.open().await;
    let prefixes = ["/w/".to_owned()];
    let mut started_before = store.watch(&prefixes, now(&*store).await).await.unwrap();
    put(&*store, &[("/w/a", "1")]).await;
    collect(&mut started_before, 1).await;
    let old = put(&*store, &[("/w/a", "2")]).await;
    for n in 3..8 {
        put(&*store, &[("/w/a", &n.to_string())]).await;
    }
    place.compact(now(&*store).await).await;
    for after in [Revision(0), old] {
        let mut watch = store.watch(&prefixes, after).await.unwrap();
        let error = next(&mut watch).await.unwrap_err();
        assert!(matches!(error, Error::Compacted { after: it } if it == after), "{error:?}");
    }
    // What is there is still there, and watching goes on from there.
    let snapshot = store.read(&[Selection::Prefix("/w/".to_owned())]).await.unwrap();
    assert_eq!(snapshot.selected[0][0].value, b"7");
    let mut watch = store.watch(&prefixes, snapshot.revision).await.unwrap();
    let revision = put(&*store, &[("/w/a", "8")]).await;
    assert_eq!(collect(&mut watch, 1).await, [put_event("/w/a", "8", revision)]);
}
