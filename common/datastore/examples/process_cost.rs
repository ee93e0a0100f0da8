//! Prints what a short-lived process pays for its datastore: opening it,
//! one read of three keys and a prefix, one guarded commit of three keys of
//! realistic size, and letting go of it again.
//!
//! ```text
//! cargo run --release --example process_cost -p weir-datastore [-- ENDPOINT]
//! ```
//! Without an endpoint, on an embedded store in a temporary directory.
#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::time::{Duration, Instant};

use weir_common::datastore::{
    DatastoreConfiguration, EtcdConfiguration, Outcome, Selection, Transaction, Write,
};

const ROUNDS: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let configuration = match std::env::args().nth(1) {
        Some(endpoint) => DatastoreConfiguration::Etcd(EtcdConfiguration::new(vec![endpoint])),
        None => DatastoreConfiguration::Embedded { path: directory.path().join("weir.db") },
    };
    // The first one makes the database.
    measure(&configuration, 0)?;
    let mut all = Vec::new();
    for round in 1..=ROUNDS {
        all.push(measure(&configuration, round)?);
    }
    for (name, part) in [("open", 0), ("read", 1), ("commit", 2), ("close", 3)] {
        report(name, all.iter().map(|times| times[part]).collect());
    }
    report("together", all.iter().map(|times| times.iter().sum()).collect());
    Ok(())
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let [median, ninetieth, last] = [50, 90, 99].map(|part| times[times.len() * part / 100]);
    println!("{name:9} median {median:>10.1?}  p90 {ninetieth:>10.1?}  p99 {last:>10.1?}");
}

/// One process's use of its datastore, in a runtime of its own.
fn measure(
    configuration: &DatastoreConfiguration,
    round: usize,
) -> Result<[Duration; 4], Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let started = Instant::now();
        let store = weir_datastore::open(configuration).await?;
        let opened = Instant::now();
        let block = "/measure/block/10.0.0.0-26".to_owned();
        let selections = [
            Selection::Key("/measure/config".to_owned()),
            Selection::Key(block.clone()),
            Selection::Prefix("/measure/pool/".to_owned()),
        ];
        let snapshot = store.read(&selections).await?;
        let read = Instant::now();
        let mut transaction = Transaction::default();
        match snapshot.selected[1].first() {
            Some(entry) => transaction.update(block, entry.revision, vec![b'x'; 4000]),
            None => transaction.create(block, vec![b'x'; 4000]),
        };
        let small = |key: String| Write::Put { key, value: vec![b'x'; 300] };
        transaction.writes.push(small(format!("/measure/handle/{}", round % 100)));
        transaction.writes.push(small("/measure/affinity".to_owned()));
        if store.commit(transaction).await? == Outcome::Conflict {
            return Err("something else writes to this datastore".into());
        }
        let committed = Instant::now();
        drop(store);
        Ok([opened - started, read - opened, committed - read, committed.elapsed()])
    })
}
