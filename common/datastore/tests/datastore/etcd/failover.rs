//! Endpoints that are dead, hung, or die.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_common::datastore::{
    Datastore, Error, EtcdConfiguration, LastEndpoint, Outcome, Transaction, Watch,
};
use weir_datastore::Etcd;

use super::server::{Server, refusing_url};
use super::{cause, refusal};
use crate::suite::{self, put, put_of, transaction, value};

/// Short, as the tests wait for it; a healthy etcd needs a few milliseconds.
const SHORT: Duration = Duration::from_millis(700);

async fn open(endpoints: Vec<String>) -> Etcd {
    let configuration = EtcdConfiguration {
        connect_timeout: SHORT,
        request_timeout: SHORT,
        ..EtcdConfiguration::new(endpoints)
    };
    Etcd::open(&configuration).await.unwrap()
}

/// A watch that has told of a change, and the second server, which stands for a member with the
/// same history.
async fn watched(store: &Etcd, second: &Server) -> (Box<dyn Watch>, Etcd) {
    let revision = put(store, &[("/w/a", "1")]).await;
    let mut watch = store.watch(&["/w/".to_owned()], revision).await.unwrap();
    let next = put(store, &[("/w/a", "2")]).await;
    assert_eq!(watch.next().await.unwrap()[0].revision(), next);
    let member = second.open().await;
    put(&member, &[("/w/a", "1")]).await;
    put(&member, &[("/w/a", "2")]).await;
    (watch, member)
}

#[tokio::test]
async fn a_refusing_endpoint_is_passed_over() {
    let server = Server::start();
    let store = open(vec![refusing_url(), refusing_url(), server.url()]).await;
    // Without a comparison, too: nothing is sent twice.
    put(&store, &[("/a", "1")]).await;
    suite::increment(&store, "/a").await;
    assert_eq!(value(&store, "/a").await.as_deref(), Some("2"));
    assert_eq!(store.list("/", None, 1).await.unwrap().entries.len(), 1);
    assert!(store.watch(&["/".to_owned()], Default::default()).await.is_ok());
}

#[tokio::test]
async fn a_hung_endpoint_is_passed_over_and_remembered() {
    let (hung, server) = (Server::start(), Server::start());
    hung.hang();
    let store = open(vec![hung.url(), server.url()]).await;
    let started = Instant::now();
    put(&store, &[("/a", "1")]).await;
    assert!(started.elapsed() < 2 * SHORT, "its time limit: {:?}", started.elapsed());
    // Now the good one is known, and no longer waited for the other.
    let started = Instant::now();
    for _ in 0..5 {
        suite::increment(&store, "/a").await;
    }
    assert!(started.elapsed() < SHORT, "{:?}", started.elapsed());
    assert_eq!(value(&server.open().await, "/a").await.as_deref(), Some("6"));
}

#[tokio::test]
async fn an_endpoint_that_dies_is_replaced() {
    let (mut first, second) = (Server::start(), Server::start());
    put(&second.open().await, &[("/who", "second")]).await;
    let store = open(vec![first.url(), second.url()]).await;
    put(&store, &[("/who", "first")]).await;
    first.kill();
    assert_eq!(value(&store, "/who").await.as_deref(), Some("second"));
    let create = transaction(|it| {
        it.create("/new".to_owned(), vec![]);
    });
    assert!(matches!(store.commit(create).await.unwrap(), Outcome::Committed(_)));
}

#[tokio::test]
async fn every_endpoint_is_named_when_none_answers() {
    let hung = Server::start();
    hung.hang();
    let refusing = refusing_url();
    let store = open(vec![refusing.clone(), hung.url()]).await;
    let error = store.read(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("{refusing},{}", hung.url())), "{error}");
    let cause = cause(&error);
    let (first, second) = cause.split_once("; ").unwrap();
    assert!(first.starts_with(&refusing) && first.contains("Connection refused"), "{cause}");
    assert!(second.starts_with(&hung.url()) && second.contains("no answer within"), "{cause}");
}

/// What one process after another leaves, and how often.
#[derive(Clone, Default)]
struct Memory {
    left: Arc<Mutex<Vec<String>>>,
}

impl LastEndpoint for Memory {
    fn recall(&self) -> Option<String> {
        self.left.lock().unwrap().last().cloned()
    }

    fn leave(&self, url: &str) {
        self.left.lock().unwrap().push(url.to_owned());
    }
}

#[tokio::test]
async fn the_next_process_begins_with_the_one_that_answered() {
    let (mut first, second) = (Server::start(), Server::start());
    let configuration = EtcdConfiguration::new(vec![first.url(), second.url()]);
    let memory = Memory::default();
    let open = async || Etcd::open_with(&configuration, Box::new(memory.clone())).await.unwrap();
    put(&open().await, &[("/who", "first")]).await;
    assert!(memory.left.lock().unwrap().is_empty(), "the first one needs no memory");
    first.hang();
    put(&open().await, &[("/who", "second")]).await;
    put(&open().await, &[("/who", "second again")]).await;
    assert_eq!(*memory.left.lock().unwrap(), [second.url()], "written only when it changes");
    first.resume();
    let store = open().await;
    assert_eq!(value(&store, "/who").await.as_deref(), Some("second again"));
    // What is left of another configuration is no memory.
    memory.leave("http://192.0.2.1:1");
    assert_eq!(value(&open().await, "/who").await.as_deref(), Some("first"));
    first.kill();
    drop(store);
}

/// A write is not raced, and not sent anywhere while the endpoint that has it may answer.
#[tokio::test]
async fn a_write_is_not_sent_to_another_while_its_endpoint_is_silent() {
    let (first, second) = (Server::start(), Server::start());
    let store = open(vec![first.url(), second.url()]).await;
    put(&store, &[("/a", "1")]).await;
    let create = transaction(|it| {
        it.create("/new".to_owned(), vec![]);
    });
    first.hang();
    let late = async {
        // Longer than any head start, shorter than the time limit.
        tokio::time::sleep(SHORT / 2).await;
        first.resume();
    };
    let (outcome, ()) = tokio::join!(store.commit(create), late);
    assert!(matches!(outcome.unwrap(), Outcome::Committed(_)));
    assert_eq!(value(&second.open().await, "/new").await, None);
    assert!(value(&first.open().await, "/new").await.is_some());
}

#[tokio::test]
async fn an_endpoint_that_hangs_later_is_replaced_and_its_watch_moves() {
    let (first, second) = (Server::start(), Server::start());
    // With the usual time limits, which are longer than what follows.
    let configuration = EtcdConfiguration::new(vec![first.url(), second.url()]);
    let store = Etcd::open(&configuration).await.unwrap();
    let (mut watch, member) = watched(&store, &second).await;
    first.hang();
    let started = Instant::now();
    let (events, later) = tokio::join!(watch.next(), async {
        assert!(store.read(&[]).await.is_ok());
        put(&member, &[("/w/a", "3")]).await
    });
    assert_eq!(events.unwrap()[0].revision(), later);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// What a hung etcd does when it wakes up cannot be known beforehand; what it
/// must not do is to apply a guarded commit twice.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_takes_effect_once() {
    let server = Server::start();
    // The same etcd twice, as two members of one cluster would be.
    let other_name = server.url().replace("127.0.0.1", "localhost");
    let store = open(vec![server.url(), other_name]).await;
    let before = put(&store, &[("/count", "1")]).await;
    server.hang();
    let update = transaction(|it| {
        it.update("/count".to_owned(), before, b"2".to_vec());
    });
    let error = store.commit(update).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(cause(&error).matches("no answer within").count(), 2, "{error:?}");
    server.resume();
    // One that tries again finds out by what it reads.
    let patient = server.open().await;
    suite::increment(&patient, "/count").await;
    let entry = patient.get("/count").await.unwrap().unwrap();
    let history = history_of(&server, "/count").await;
    assert_eq!(history.last(), Some(&entry.value));
    assert!(history == [b"1", b"2"] || history == [b"1", b"2", b"3"], "{history:?}");
}

#[tokio::test]
async fn an_unguarded_commit_is_not_sent_twice() {
    let (hung, other) = (Server::start(), Server::start());
    let store = open(vec![hung.url(), other.url()]).await;
    put(&store, &[("/a", "1")]).await;
    hung.hang();
    let unguarded = Transaction { compares: vec![], writes: vec![put_of("/a", b"2")] };
    let error = store.commit(unguarded).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(!cause(&error).contains(&other.url()), "{error:?}");
    assert_eq!(value(&other.open().await, "/a").await, None);
    // The next one finds the other endpoint.
    put(&store, &[("/a", "3")]).await;
    assert_eq!(value(&other.open().await, "/a").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_watch_goes_on_at_another_endpoint() {
    let (mut first, second) = (Server::start(), Server::start());
    let store = open(vec![first.url(), second.url()]).await;
    let (mut watch, member) = watched(&store, &second).await;
    first.kill();
    let later = put(&member, &[("/w/a", "3")]).await;
    let events = watch.next().await.unwrap();
    assert_eq!(events.iter().map(|it| it.revision()).collect::<Vec<_>>(), [later]);
    drop(second);
    assert!(matches!(watch.next().await, Err(Error::Unavailable { .. })));
}

/// Silence up to a revision that was told already would hide everything until
/// then.
#[tokio::test]
async fn a_watch_does_not_go_on_at_an_older_state() {
    let (mut first, second) = (Server::start(), Server::start());
    let store = open(vec![first.url(), second.url()]).await;
    let revision = put(&store, &[("/w/a", "1")]).await;
    let mut watch = store.watch(&["/w/".to_owned()], revision).await.unwrap();
    let next = put(&store, &[("/w/a", "2")]).await;
    assert_eq!(watch.next().await.unwrap()[0].revision(), next);
    // The second one stands for what a backup brought back.
    put(&second.open().await, &[("/w/a", "1")]).await;
    first.kill();
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, Error::Compacted { after } if after == next), "{error:?}");
}

#[tokio::test]
async fn what_is_no_endpoint_is_refused() {
    for url in ["127.0.0.1:2379", "ftp://127.0.0.1", "http://", "http://bad host:2379", ""] {
        let error = refusal(&EtcdConfiguration::new(vec![url.to_owned()])).await;
        let Error::Misconfigured { field, value, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*field, value.as_str()), ("etcd_endpoints", url));
    }
    let none = refusal(&EtcdConfiguration::new(vec![])).await;
    assert!(matches!(none, Error::Misconfigured { field: "etcd_endpoints", .. }));
}

async fn history_of(server: &Server, key: &str) -> Vec<Vec<u8>> {
    let store = server.open().await;
    let mut watch = store.watch(&[key.to_owned()], Default::default()).await.unwrap();
    let last = store.get(key).await.unwrap().unwrap().revision;
    let mut values = Vec::new();
    loop {
        for event in watch.next().await.unwrap() {
            let weir_common::datastore::Event::Put(entry) = event else { continue };
            values.push(entry.value);
            if entry.revision == last {
                return values;
            }
        }
    }
}
