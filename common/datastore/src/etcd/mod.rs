//! A datastore in an etcd cluster, over etcd's v3 API.

mod clock;
mod convert;
mod diagnose;
mod dial;
mod endpoints;
mod error;
mod key_usage;
mod race;
mod tls;
mod verifier;
mod watch;

pub use clock::server_date;

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::{GetOptions, KvClient, Txn};
use weir_common::datastore::{
    Compare, Datastore, Entry, Error, EtcdConfiguration, Forgetful, LastEndpoint, Outcome, Page,
    Revision, Selection, Snapshot, Tally, Transaction, Watch, Write, keys,
};

use crate::request::{self, OPERATIONS_LIMIT, range_end};
use endpoints::{Connection, Endpoints, RequestKind};

/// How often a long read starts over because the history it was reading in was
/// compacted meanwhile.
const LONG_READ_ATTEMPTS: usize = 3;

/// A block of each IP version as an ADD writes it, but under a name that none has.
const NO_BLOCKS: [&str; 2] = ["ipv4/block/weir-never-written", "ipv6/block/weir-never-written"];

/// A handle of that kind.
const NO_HANDLE: &str = "weir-never-written";

/// An etcd cluster. Clones share the connections.
#[derive(Clone)]
pub struct Etcd {
    endpoints: Arc<Endpoints>,
}

impl Etcd {
    /// As [`Etcd::open_with`], without a memory.
    ///
    /// # Errors
    /// Likewise.
    pub async fn open(configuration: &EtcdConfiguration) -> Result<Self, Error> {
        Self::open_with(configuration, Box::new(Forgetful)).await
    }

    /// Checks the configuration and reads its TLS files. Nothing is dialled
    /// before the first request. The endpoint that the memory names is asked first, the
    /// others when it fails or is silent; the memory learns which one answered.
    ///
    /// # Errors
    /// [`Error::Misconfigured`] with Calico's name of the key for an endpoint
    /// that is not a URL, or a TLS file that cannot be read or used.
    pub async fn open_with(
        configuration: &EtcdConfiguration,
        memory: Box<dyn LastEndpoint>,
    ) -> Result<Self, Error> {
        Ok(Self { endpoints: Arc::new(Endpoints::new(configuration, memory)?) })
    }
}

#[async_trait]
impl Datastore for Etcd {
    /// One etcd transaction for each 128 selections, as etcd allows no more
    /// operations in one; those behind the first read at its revision.
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        let request = |connection: Connection| read_all(connection.kv, selections);
        self.endpoints.call(RequestKind::Read, request).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        let request = |connection: Connection| list_page(connection.kv, prefix, after, limit);
        self.endpoints.call(RequestKind::Read, request).await
    }

    /// One etcd transaction for all prefixes. etcd goes through all keys under
    /// them, and sends none but the first that is newer.
    async fn tally(&self, prefixes: &[&str], after: Revision) -> Result<Tally, Error> {
        let request = |connection: Connection| tally_all(connection.kv, prefixes, after);
        self.endpoints.call(RequestKind::Read, request).await
    }

    /// A commit is sent to one endpoint, which has just answered or answers a small read. If its
    /// answer is lost, it may have been applied, and is then sent again to the next endpoint only
    /// if its comparisons make sure that it takes effect once. Such a repetition reports
    /// [`Outcome::Conflict`] when the first attempt was the one that was applied.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        request::check(&transaction, self.endpoints.location())?;
        let kind = if is_guarded(&transaction) {
            RequestKind::RepeatableWrite
        } else {
            RequestKind::Write
        };
        let transaction = convert::transaction(transaction);
        let request = |connection: Connection| commit_once(connection.kv, transaction.clone());
        self.endpoints.call(kind, request).await
    }

    /// Commits what every ADD writes, a handle and a block of either IP version, on a condition
    /// that never holds: etcd looks for permission and for room before it looks at conditions.
    async fn check_writable(&self) -> Result<(), Error> {
        let [ipv4, ipv6] = NO_BLOCKS.map(never_applied);
        let outcome = match self.commit(ipv4).await {
            Err(Error::NotPermitted { .. }) => self.commit(ipv6).await,
            outcome => outcome,
        };
        outcome.map(|_| ())
    }

    /// Needs the permission to read the whole range from the first of the
    /// prefixes to the last.
    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        let endpoints = Arc::clone(&self.endpoints);
        Ok(Box::new(watch::EtcdWatch::start(endpoints, prefixes.to_vec(), after).await?))
    }
}

/// Writes a block and a handle, if the block is there and is not there.
fn never_applied(block: &str) -> Transaction {
    let block = format!("{}{block}", keys::BLOCKS);
    let handle = format!("{}{NO_HANDLE}", keys::HANDLES);
    let mut transaction = Transaction::default();
    transaction.absent(block.clone()).unchanged(block.clone(), Revision(1));
    transaction.writes =
        [block, handle].into_iter().map(|key| Write::Put { key, value: Vec::new() }).collect();
    transaction
}

/// Whether a second attempt of a transaction that was applied meets a
/// conflict: it compares a key that it changes. One without writes may be
/// repeated as well.
fn is_guarded(transaction: &Transaction) -> bool {
    let compared = |key: &str| {
        transaction.compares.iter().any(|compare| match compare {
            Compare::Absent { key: compared } | Compare::Unchanged { key: compared, .. } => {
                compared == key
            }
            Compare::NoneNewer { .. } => false,
        })
    };
    transaction.writes.is_empty() || transaction.writes.iter().any(|write| compared(write.key()))
}

async fn commit_once(mut kv: KvClient, transaction: Txn) -> Result<Outcome, etcd_client::Error> {
    let response = kv.txn(transaction).await?;
    if !response.succeeded() {
        return Ok(Outcome::Conflict);
    }
    Ok(Outcome::Committed(convert::revision(response.header())?))
}

async fn list_page(
    mut kv: KvClient,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, etcd_client::Error> {
    let start = match after {
        // The first key behind another one is that one with a zero byte.
        Some(after) if after >= prefix => [after.as_bytes(), &[0]].concat(),
        _ => convert::first_key(prefix),
    };
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let options = GetOptions::new().with_range(range_end(prefix)).with_limit(limit);
    let mut response = kv.get(start, Some(options)).await?;
    let entries = convert::entries(response.take_kvs())?;
    let next = entries.last().filter(|_| response.more()).map(|entry| entry.key.clone());
    let header = response.header();
    let (revision, history) = (convert::revision(header)?, convert::history(header));
    Ok(Page { entries, next, revision, history })
}

async fn tally_all(
    mut kv: KvClient,
    prefixes: &[&str],
    after: Revision,
) -> Result<Tally, etcd_client::Error> {
    let gets: Vec<_> = prefixes.iter().map(|prefix| convert::get_newer(prefix, after)).collect();
    let response = kv.txn(Txn::new().and_then(gets)).await?;
    let (counts, newer) = convert::counted(&response)?;
    let header = response.header();
    let (revision, history) = (convert::revision(header)?, convert::history(header));
    Ok(Tally { counts, newer, revision, history })
}

async fn read_all(
    mut kv: KvClient,
    selections: &[Selection],
) -> Result<Snapshot, etcd_client::Error> {
    let mut attempt = 1;
    loop {
        match read_at_one_revision(&mut kv, selections).await {
            Err(error) if error::is_compacted(&error) && attempt < LONG_READ_ATTEMPTS => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn read_at_one_revision(
    kv: &mut KvClient,
    selections: &[Selection],
) -> Result<Snapshot, etcd_client::Error> {
    let (first, rest) = selections.split_at(selections.len().min(OPERATIONS_LIMIT));
    let (mut selected, revision) = read_part(kv, first, None).await?;
    for part in rest.chunks(OPERATIONS_LIMIT) {
        selected.append(&mut read_part(kv, part, Some(revision)).await?.0);
    }
    Ok(Snapshot { selected, revision })
}

async fn read_part(
    kv: &mut KvClient,
    selections: &[Selection],
    at: Option<Revision>,
) -> Result<(Vec<Vec<Entry>>, Revision), etcd_client::Error> {
    let gets: Vec<_> = selections.iter().map(|it| convert::get(it, at)).collect();
    let response = kv.txn(Txn::new().and_then(gets)).await?;
    let selected = convert::selected(&response)?;
    Ok((selected, convert::revision(response.header())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_effect_once_is_repeated() {
        let put = |key: &str| Write::Put { key: key.to_owned(), value: vec![] };
        let key = || "/a".to_owned();
        let mut guarded = Transaction::default();
        guarded.create(key(), vec![]);
        guarded.writes.push(put("/b"));
        let mut elsewhere = Transaction::default();
        elsewhere.unchanged(key(), Revision(1)).writes.push(put("/b"));
        let mut by_prefix = Transaction::default();
        by_prefix.compares.push(Compare::NoneNewer { prefix: key(), revision: Revision(1) });
        let mut reading = by_prefix.clone();
        by_prefix.writes.push(put("/a"));
        reading.absent(key());
        assert!(is_guarded(&guarded));
        assert!(is_guarded(&reading));
        assert!(!is_guarded(&elsewhere));
        assert!(!is_guarded(&by_prefix));
    }
}
