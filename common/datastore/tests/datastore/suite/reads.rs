//! Reads and listings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_common::datastore::{Entry, Revision, Selection, Transaction};

use super::{Place, committed, delete, put, put_of};

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

fn key(key: &str) -> Selection {
    Selection::Key(key.to_owned())
}

fn prefix(prefix: &str) -> Selection {
    Selection::Prefix(prefix.to_owned())
}

pub async fn selections_are_answered_in_order(place: &impl Place) {
    let store = place.open().await;
    let first = put(&*store, &[("/b/2", "x"), ("/b/1", "x"), ("/a", "x")]).await;
    let second = put(&*store, &[("/b/10", "y")]).await;
    let asked = [key("/b/2"), prefix("/b/"), key("/none"), prefix("/none"), key("/a")];
    let snapshot = store.read(&asked).await.unwrap();
    let found: Vec<Vec<&str>> = snapshot.selected.iter().map(|found| keys(found)).collect();
    let expected: [&[&str]; 5] = [&["/b/2"], &["/b/1", "/b/10", "/b/2"], &[], &[], &["/a"]];
    assert_eq!(found, expected);
    assert_eq!(snapshot.revision, second);
    assert_eq!(snapshot.selected[1][0].revision, first);
    assert_eq!(snapshot.selected[1][1].revision, second);
    assert_eq!(snapshot.selected[1][1].value, b"y");

    let nothing = store.read(&[]).await.unwrap();
    assert_eq!((nothing.selected.len(), nothing.revision), (0, second));
}

pub async fn a_prefix_is_no_more_than_a_prefix(place: &impl Place) {
    let store = place.open().await;
    let all = ["/A/b", "/a", "/a%", "/a/", "/a/b", "/a/é", "/a/\u{10ffff}", "/a0", "/a_", "/b"];
    for name in all {
        put(&*store, &[(name, "x")]).await;
    }
    for wanted in ["/a/", "/a", "/a%", "/a_", "/a/é", "/", ""] {
        let snapshot = store.read(&[prefix(wanted)]).await.unwrap();
        let mut expected: Vec<&str> =
            all.into_iter().filter(|name| name.starts_with(wanted)).collect();
        expected.sort_unstable();
        assert_eq!(keys(&snapshot.selected[0]), expected, "under {wanted:?}");
        let page = store.list(wanted, None, 100).await.unwrap();
        assert_eq!(keys(&page.entries), expected, "under {wanted:?}");
    }
}

/// A writer keeps three keys equal; whoever sees them differ has seen two
/// moments.
pub async fn a_read_is_one_moment(place: &impl Place) {
    let (reader, writer) = (place.open().await, place.open().await);
    put(&*reader, &[("/a", "0"), ("/b/1", "0"), ("/b/2", "0")]).await;
    let done = Arc::new(AtomicBool::new(false));
    let done_too = Arc::clone(&done);
    let writing = tokio::spawn(async move {
        for n in 1..=60 {
            let n = n.to_string();
            put(&*writer, &[("/a", &n), ("/b/1", &n), ("/b/2", &n)]).await;
            tokio::task::yield_now().await;
        }
        done_too.store(true, Ordering::Relaxed);
    });
    while !done.load(Ordering::Relaxed) {
        let snapshot = reader.read(&[key("/a"), prefix("/b/")]).await.unwrap();
        let entries: Vec<&Entry> = snapshot.selected.iter().flatten().collect();
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().all(|entry| entry.value == entries[0].value));
        assert!(entries.iter().all(|entry| entry.revision == snapshot.revision));
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
}

pub async fn many_keys_are_read_at_once(place: &impl Place) {
    let store = place.open().await;
    let names: Vec<String> = (0..300).map(|n| format!("/key/{n:03}")).collect();
    for part in names.chunks(100) {
        let writes = part.iter().map(|name| put_of(name, name.as_bytes())).collect();
        committed(&*store, Transaction { compares: vec![], writes }).await;
    }
    let asked: Vec<Selection> = names.iter().rev().map(|name| key(name)).collect();
    let snapshot = store.read(&asked).await.unwrap();
    assert_eq!(snapshot.selected.len(), 300);
    for (found, name) in snapshot.selected.iter().zip(names.iter().rev()) {
        assert_eq!(keys(found), [name]);
        assert_eq!(found[0].value, name.as_bytes());
    }
}

/// More than the 4 MiB that gRPC libraries accept in one message by default.
pub async fn large_answers_are_read(place: &impl Place) {
    let store = place.open().await;
    for n in 0..8 {
        let write = put_of(&format!("/large/{n}"), &vec![n; 1 << 20]);
        committed(&*store, Transaction { compares: vec![], writes: vec![write] }).await;
    }
    let snapshot = store.read(&[prefix("/large/")]).await.unwrap();
    assert_eq!(snapshot.selected[0].len(), 8);
    assert!(snapshot.selected[0].iter().all(|entry| entry.value.len() == 1 << 20));
    assert_eq!(store.list("/large/", None, 8).await.unwrap().entries, snapshot.selected[0]);
}

pub async fn pages_cover_everything_once(place: &impl Place) {
    let store = place.open().await;
    let names: Vec<String> = (0..20).map(|n| format!("/p/{n:02}")).collect();
    let writes = names.iter().map(|name| put_of(name, b"x")).collect();
    let revision = committed(&*store, Transaction { compares: vec![], writes }).await;
    put(&*store, &[("/o", "before"), ("/p", "before"), ("/q", "behind")]).await;
    for limit in [1, 6, 10, 19, 20, 21, usize::MAX] {
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut after: Option<String> = None;
        loop {
            let page = store.list("/p/", after.as_deref(), limit).await.unwrap();
            assert!(page.entries.len() <= limit);
            assert!(page.revision > revision);
            found.extend(page.entries.into_iter().map(|entry| entry.key));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, names, "in pages of {limit}");
        assert_eq!(pages, names.len().div_ceil(limit), "in pages of {limit}");
    }
}

pub async fn a_page_starts_behind_its_key(place: &impl Place) {
    let store = place.open().await;
    put(&*store, &[("/p/a", "x"), ("/p/b", "x"), ("/p/c", "x"), ("/q", "x")]).await;
    let first = store.list("/p/", None, 2).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("/p/b"));
    // The key that the next page starts behind may be gone by then.
    delete(&*store, "/p/b").await;
    let cases: [(&str, &[&str]); 5] = [
        ("/p/b", &["/p/c"]),
        ("/p/a", &["/p/c"]),
        ("/a", &["/p/a", "/p/c"]),
        ("/p/c", &[]),
        ("/z", &[]),
    ];
    for (after, expected) in cases {
        let page = store.list("/p/", Some(after), 5).await.unwrap();
        assert_eq!(keys(&page.entries), expected, "behind {after}");
        assert_eq!(page.next, None);
    }
    // A page of nothing would never come to an end.
    assert_eq!(keys(&store.list("/p/", None, 0).await.unwrap().entries), ["/p/a"]);
}

pub async fn a_tally_tells_of_every_change(place: &impl Place) {
    let store = place.open().await;
    let prefixes = ["/p/", "/q", "/none/"];
    let first = put(&*store, &[("/p/a", "x"), ("/p/b", "x"), ("/q", "x"), ("/r", "x")]).await;
    let all = store.tally(&prefixes, Revision(0)).await.unwrap();
    assert_eq!((all.counts, all.newer, all.revision), (vec![2, 1, 0], true, first));
    assert!(!store.tally(&prefixes, first).await.unwrap().newer);
    // What is elsewhere does not count, nor what was there before.
    let elsewhere = put(&*store, &[("/pa", "x"), ("/r", "y")]).await;
    let same = store.tally(&prefixes, first).await.unwrap();
    assert_eq!((same.counts, same.newer, same.revision), (vec![2, 1, 0], false, elsewhere));
    let changed = put(&*store, &[("/p/b", "y")]).await;
    assert!(store.tally(&prefixes, elsewhere).await.unwrap().newer);
    delete(&*store, "/p/a").await;
    let fewer = store.tally(&prefixes, changed).await.unwrap();
    assert_eq!((fewer.counts, fewer.newer), (vec![1, 1, 0], false));
}
