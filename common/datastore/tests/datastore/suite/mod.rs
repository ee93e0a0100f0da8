//! What every datastore does alike. [`behaviour`] makes tests of it for one.

pub mod commits;
pub mod reads;
pub mod watches;

use async_trait::async_trait;
use weir_common::datastore::{Datastore, Outcome, Revision, Transaction, Write};

/// A fresh, empty datastore, there for one test.
#[async_trait]
pub trait Place: Send + Sync {
    /// A new handle, as another process would have it.
    async fn open(&self) -> Box<dyn Datastore>;

    /// Makes the datastore forget its history up to `revision`.
    async fn compact(&self, revision: Revision);
}

/// Instantiates the suite for a place: an expression that can be awaited.
macro_rules! behaviour {
    ($place:expr) => {
        $crate::suite::behaviour!(@ $place,
            commits: [
                a_created_key_is_there, an_update_needs_the_revision, a_deletion_needs_the_revision,
                comparisons_can_stand_alone, none_newer_sees_creation_and_change,
                all_writes_or_none, no_increment_is_lost, what_etcd_refuses_is_refused,
                what_changes_nothing_has_no_revision, bytes_are_kept, the_largest_transaction_fits,
            ],
            reads: [
                selections_are_answered_in_order, a_prefix_is_no_more_than_a_prefix,
                a_read_is_one_moment, many_keys_are_read_at_once, large_answers_are_read,
                pages_cover_everything_once, a_page_starts_behind_its_key,
                a_tally_tells_of_every_change,
            ],
            watches: [
                a_watch_goes_on_behind_its_revision, one_commit_is_one_batch,
                a_waiting_watch_is_woken, a_watch_misses_nothing_after_a_read,
                a_watch_sees_each_change_of_a_key, forgotten_history_is_reported,
            ]
        );
    };
    (@ $place:expr, $($module:ident: [$($name:ident),* $(,)?]),*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                let place = $place.await;
                $crate::suite::$module::$name(&place).await;
            }
        )*)*
    };
}
pub(crate) use behaviour;

/// Puts keys in one commit without a condition and returns its revision.
pub async fn put(store: &dyn Datastore, pairs: &[(&str, &str)]) -> Revision {
    let writes = pairs.iter().map(|(key, value)| put_of(key, value.as_bytes())).collect();
    committed(store, Transaction { compares: vec![], writes }).await
}

/// Deletes a key without a condition and returns the commit's revision.
pub async fn delete(store: &dyn Datastore, key: &str) -> Revision {
    let writes = vec![Write::Delete { key: key.to_owned() }];
    committed(store, Transaction { compares: vec![], writes }).await
}

pub fn put_of(key: &str, value: &[u8]) -> Write {
    Write::Put { key: key.to_owned(), value: value.to_vec() }
}

/// Commits what cannot meet a conflict.
pub async fn committed(store: &dyn Datastore, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a conflict where there is no competitor"),
    }
}

/// Commits what must meet a conflict.
pub async fn assert_conflict(store: &dyn Datastore, transaction: Transaction) {
    assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
}

pub async fn value(store: &dyn Datastore, key: &str) -> Option<String> {
    let entry = store.get(key).await.unwrap()?;
    Some(String::from_utf8(entry.value).unwrap())
}

/// A transaction built up by a closure.
pub fn transaction(build: impl FnOnce(&mut Transaction)) -> Transaction {
    let mut transaction = Transaction::default();
    build(&mut transaction);
    transaction
}

/// Adds one to the number under a key, as often as it takes.
pub async fn increment(store: &dyn Datastore, key: &str) {
    loop {
        let next = match store.get(key).await.unwrap() {
            None => transaction(|it| {
                it.create(key.to_owned(), b"1".to_vec());
            }),
            Some(entry) => transaction(|it| {
                let count: u64 = String::from_utf8(entry.value).unwrap().parse().unwrap();
                it.update(key.to_owned(), entry.revision, (count + 1).to_string().into_bytes());
            }),
        };
        if let Outcome::Committed(_) = store.commit(next).await.unwrap() {
            return;
        }
    }
}
