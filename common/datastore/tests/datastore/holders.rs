//! Who had which address, as the embedded datastore's commits record it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::Connection;
use weir_common::datastore::{Datastore, Transaction, Write, keys};
use weir_common::ipam::history::{HistoryQuestion, PastTenures, answer};
use weir_common::ipam::{Attribute, Block};
use weir_datastore::Embedded;

/// A block of four addresses with these holders.
fn block(number: u8, holders: &[Option<u8>]) -> Block {
    let mut block = Block::new(format!("10.7.0.{}/30", number * 4).parse().unwrap(), "n1", 0);
    for (ordinal, holder) in holders.iter().enumerate() {
        if let Some(holder) = holder {
            let handle_id = Some(format!("pods.{holder}"));
            block.assign(ordinal, Attribute { handle_id, ..Attribute::default() });
        }
    }
    block
}

fn write(block: &Block) -> Write {
    Write::Put { key: keys::block(block.cidr), value: block.to_json() }
}

async fn commit(store: &Embedded, writes: Vec<Write>) {
    store.commit(Transaction { compares: Vec::new(), writes }).await.unwrap();
}

async fn told(store: &Embedded, address: IpAddr) -> PastTenures {
    answer(&HistoryQuestion::Address(address), store.holders().await.unwrap())
}

/// The handles that had an address, the present one last, and whether it is one's now.
async fn holders(store: &Embedded, address: IpAddr) -> (Vec<String>, bool) {
    let tenures = told(store, address).await.tenures;
    let is_held = tenures.last().is_some_and(|tenure| tenure.until.is_none());
    (tenures.into_iter().map(|tenure| tenure.holder.handle.unwrap()).collect(), is_held)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is committed, the records say who has each address, and who had it before.
    #[test]
    fn each_commit_is_recorded(
        commits in prop::collection::vec(
            prop::collection::vec(
                (0u8..3, prop::option::of(prop::collection::vec(prop::option::of(0u8..3), 4))),
                1..3,
            ),
            0..12,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store = Embedded::open(&directory.path().join("weir.db")).await.unwrap();
            let mut had: BTreeMap<IpAddr, (Vec<String>, bool)> = BTreeMap::new();
            for changes in commits {
                let changes: BTreeMap<u8, _> = changes.into_iter().collect();
                let mut writes = Vec::new();
                for (number, holders) in &changes {
                    let whole = block(*number, holders.as_deref().unwrap_or(&[None; 4]));
                    for ordinal in 0..4 {
                        let holder = whole.holder(ordinal).and_then(|it| it.handle_id.clone());
                        let (before, is_held) = had.entry(whole.address(ordinal)).or_default();
                        if let Some(holder) = &holder
                            && !(*is_held && before.last() == Some(holder))
                        {
                            before.push(holder.clone());
                        }
                        *is_held = holder.is_some();
                    }
                    writes.push(match holders {
                        Some(_) => write(&whole),
                        None => Write::Delete { key: keys::block(whole.cidr) },
                    });
                }
                commit(&store, writes).await;
            }
            for (address, expected) in &had {
                prop_assert_eq!(&holders(&store, *address).await, expected, "{}", address);
            }
            Ok(())
        })?;
    }
}

/// As an earlier Weir commits, which knows nothing of records.
fn commit_as_before(file: &Path, block: &Block) {
    let connection = Connection::open(file).unwrap();
    let (key, value) = (keys::block(block.cidr), block.to_json());
    connection
        .execute(
            "INSERT INTO entries (key, value, revision) VALUES (?1, ?2, 1000)
             ON CONFLICT (key) DO UPDATE SET value = ?2, revision = 1000",
            (key.as_bytes(), value),
        )
        .unwrap();
    connection.execute("UPDATE state SET revision = revision + 1", []).unwrap();
}

#[tokio::test]
async fn what_an_earlier_weir_commits_is_caught_up_with() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.db");
    let store = Embedded::open(&file).await.unwrap();
    let address = "10.7.0.0".parse().unwrap();
    commit_as_before(&file, &block(0, &[Some(1)]));
    assert_eq!(store.holders().await.unwrap(), [], "nothing was recorded yet");
    // Whatever is committed first.
    let other = Write::Put { key: "/calico/other".to_owned(), value: b"{}".to_vec() };
    commit(&store, vec![other]).await;
    let found = told(&store, address).await;
    assert_eq!(found.tenures[0].from.earliest(), jiff::Timestamp::UNIX_EPOCH, "nobody knows");
    assert!(found.since.is_some() && found.gaps.is_empty());
    let until = found.until;
    commit_as_before(&file, &block(0, &[Some(2), Some(3)]));
    let away = told(&store, address).await;
    assert!(away.until <= until, "not all was seen: {away:?}");
    commit(&store, vec![write(&block(1, &[Some(4)]))]).await;
    let found = told(&store, address).await;
    assert_eq!(holders(&store, address).await, (vec!["pods.1".into(), "pods.2".into()], true));
    assert_eq!(found.gaps.len(), 1);
    let until = found.tenures[0].until.unwrap();
    assert!(until.after.is_some(), "some time in between: {until:?}");
    assert_eq!(holders(&store, "10.7.0.4".parse().unwrap()).await, (vec!["pods.4".into()], true));
}

#[tokio::test]
async fn the_records_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.db");
    let store = Embedded::open(&file).await.unwrap();
    commit(&store, vec![write(&block(0, &[Some(1)]))]).await;
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM holders", [], |row| row.get(0)).unwrap()
    };
    {
        let connection = Connection::open(&file).unwrap();
        connection
            .execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 102500)
                 INSERT INTO holders (line) SELECT '{\"t\":1}' FROM n",
                [],
            )
            .unwrap();
    }
    for turn in 0..2000 {
        commit(&store, vec![write(&block(1, &[Some(turn as u8 % 2)]))]).await;
    }
    let count = count(&Connection::open(&file).unwrap());
    assert!((99_000..=101_001).contains(&count), "{count}");
    let found = told(&store, "10.7.0.4".parse().unwrap()).await;
    assert!(found.since.is_some());
    assert!(found.tenures.last().unwrap().until.is_none());
}
