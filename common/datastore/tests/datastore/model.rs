//! Random operations against a map that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_common::datastore::{
    Compare, Datastore, Entry, Event, Outcome, Revision, Selection, Transaction, Write,
};
use weir_datastore::{Embedded, Memory};

/// Few keys, so that operations meet.
const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/20", "/b/1", "/b", "/c/1"];
const PREFIXES: [&str; 5] = ["/a/", "/a/2", "/b", "", "/none"];

#[derive(Clone, Debug)]
enum Operation {
    Commit(Transaction),
    Read(Vec<Selection>),
    List { prefix: &'static str, after: Option<&'static str>, limit: usize },
    Tally { prefix: &'static str, after: Revision },
}

/// The whole datastore, each commit's events kept for ever.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    events: Vec<Event>,
    revision: i64,
}

impl Model {
    fn under(&self, prefix: &str) -> Vec<Entry> {
        self.entries.values().filter(|it| it.key.starts_with(prefix)).cloned().collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent { key } => !self.entries.contains_key(key),
            Compare::Unchanged { key, revision } => {
                self.entries.get(key).map(|it| it.revision) == Some(*revision)
            }
            Compare::NoneNewer { prefix, revision } => {
                self.under(prefix).iter().all(|it| it.revision <= *revision)
            }
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Outcome {
        if !transaction.compares.iter().all(|compare| self.holds(compare)) {
            return Outcome::Conflict;
        }
        let revision = Revision(self.revision + 1);
        for write in &transaction.writes {
            match write.clone() {
                Write::Put { key, value } => {
                    let entry = Entry { key: key.clone(), value, revision };
                    self.entries.insert(key, entry.clone());
                    self.events.push(Event::Put(entry));
                }
                Write::Delete { key } => {
                    if self.entries.remove(&key).is_some() {
                        self.events.push(Event::Delete { key, revision });
                    }
                }
            }
        }
        if self.events.last().is_some_and(|last| last.revision() == revision) {
            self.revision = revision.0;
        }
        Outcome::Committed(Revision(self.revision))
    }
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

fn revision() -> impl Strategy<Value = Revision> {
    (0..20_i64).prop_map(Revision)
}

fn compare() -> impl Strategy<Value = Compare> {
    let prefix = prop::sample::select(&PREFIXES[..]).prop_map(str::to_owned);
    prop_oneof![
        key().prop_map(|key| Compare::Absent { key }),
        (key(), revision()).prop_map(|(key, revision)| Compare::Unchanged { key, revision }),
        (prefix, revision()).prop_map(|(prefix, revision)| Compare::NoneNewer { prefix, revision }),
    ]
}

/// At most one write a key; a value of `None` deletes.
fn writes() -> impl Strategy<Value = Vec<Write>> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..4));
    prop::collection::btree_map(key(), value, 0..4).prop_map(|changes| {
        changes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Write::Put { key, value },
                None => Write::Delete { key },
            })
            .collect()
    })
}

fn selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        key().prop_map(Selection::Key),
        prop::sample::select(&PREFIXES[..]).prop_map(|it| Selection::Prefix(it.to_owned())),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let commit = (prop::collection::vec(compare(), 0..2), writes())
        .prop_map(|(compares, writes)| Operation::Commit(Transaction { compares, writes }));
    let list = (
        prop::sample::select(&PREFIXES[..]),
        prop::option::of(prop::sample::select(&KEYS[..])),
        1..5_usize,
    )
        .prop_map(|(prefix, after, limit)| Operation::List { prefix, after, limit });
    let tally = (prop::sample::select(&PREFIXES[..]), revision())
        .prop_map(|(prefix, after)| Operation::Tally { prefix, after });
    prop_oneof![
        5 => commit,
        2 => prop::collection::vec(selection(), 0..4).prop_map(Operation::Read),
        1 => list,
        1 => tally,
    ]
}

/// Carries the operations out on both and compares every answer, then what a
/// watch tells from each revision on.
async fn check(store: &dyn Datastore, operations: &[Operation]) {
    let mut model = Model::default();
    for operation in operations {
        check_one(store, &mut model, operation).await;
    }
    let watched = ["/a/".to_owned(), "/b".to_owned()];
    let of_interest = |it: &&Event| watched.iter().any(|prefix| it.key().starts_with(prefix));
    for after in (0..=model.revision).map(Revision) {
        let expected: Vec<Event> = model
            .events
            .iter()
            .filter(|it| it.revision() > after)
            .filter(of_interest)
            .cloned()
            .collect();
        let mut watch = store.watch(&watched, after).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            seen.extend(watch.next().await.unwrap());
        }
        assert_eq!(seen, expected, "after {after}");
    }
}

async fn check_one(store: &dyn Datastore, model: &mut Model, operation: &Operation) {
    match operation {
        Operation::Commit(transaction) => {
            let outcome = store.commit(transaction.clone()).await.unwrap();
            assert_eq!(outcome, model.commit(transaction));
        }
        Operation::Read(selections) => {
            let snapshot = store.read(selections).await.unwrap();
            let expected: Vec<Vec<Entry>> = selections
                .iter()
                .map(|selection| match selection {
                    Selection::Key(key) => model.entries.get(key).cloned().into_iter().collect(),
                    Selection::Prefix(prefix) => model.under(prefix),
                })
                .collect();
            assert_eq!(snapshot.selected, expected);
            assert_eq!(snapshot.revision, Revision(model.revision));
        }
        Operation::List { prefix, after, limit } => {
            let page = store.list(prefix, *after, *limit).await.unwrap();
            let mut expected = model.under(prefix);
            expected.retain(|it| after.is_none_or(|after| it.key.as_str() > after));
            let more = expected.len() > *limit;
            expected.truncate(*limit);
            let next = expected.last().filter(|_| more).map(|it| it.key.clone());
            assert_eq!((page.entries, page.next), (expected, next));
        }
        Operation::Tally { prefix, after } => {
            let tally = store.tally(&[prefix], *after).await.unwrap();
            let expected = model.under(prefix);
            assert_eq!(tally.counts, [expected.len()]);
            assert_eq!(tally.newer, expected.iter().any(|entry| entry.revision > *after));
            assert_eq!(tally.revision, Revision(model.revision));
        }
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn memory_is_as_the_model(operations in prop::collection::vec(operation(), 0..40)) {
        run(check(&Memory::new(), &operations));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn embedded_is_as_the_model(operations in prop::collection::vec(operation(), 0..40)) {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let store = Embedded::open(&directory.path().join("weir.db")).await.unwrap();
            check(&store, &operations).await;
        });
    }
}
