//! Weir's requests as etcd's, and etcd's answers as Weir's.

use etcd_client::{
    CompareOp, Error, EventType, GetOptions, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use weir_common::datastore::{
    Compare, Entry, Event, History, Revision, Selection, Transaction, Write,
};

use crate::request::range_end;

/// The first key under a prefix. etcd knows no empty key; its first one is a
/// zero byte.
pub(super) fn first_key(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.into() }
}

pub(super) fn transaction(transaction: Transaction) -> Txn {
    let Transaction { compares, writes } = transaction;
    let compares: Vec<_> = compares.into_iter().flat_map(compare).collect();
    let writes: Vec<_> = writes
        .into_iter()
        .map(|write| match write {
            Write::Put { key, value } => TxnOp::put(key, value, None),
            Write::Delete { key } => TxnOp::delete(key, None),
        })
        .collect();
    Txn::new().when(compares).and_then(writes)
}

/// etcd compares a key that is not there as if its revisions were zero.
fn compare(compare: Compare) -> Vec<etcd_client::Compare> {
    match compare {
        Compare::Absent { key } => {
            vec![etcd_client::Compare::create_revision(key, CompareOp::Equal, 0)]
        }
        Compare::Unchanged { key, revision } => {
            let is_there = (revision.0 <= 0)
                .then(|| etcd_client::Compare::create_revision(key.clone(), CompareOp::Greater, 0));
            let unchanged = etcd_client::Compare::mod_revision(key, CompareOp::Equal, revision.0);
            is_there.into_iter().chain([unchanged]).collect()
        }
        Compare::NoneNewer { prefix, revision } => {
            let later = revision.0.saturating_add(1);
            vec![
                etcd_client::Compare::mod_revision(first_key(&prefix), CompareOp::Less, later)
                    .with_range(range_end(&prefix)),
            ]
        }
    }
}

pub(super) fn get(selection: &Selection, at: Option<Revision>) -> TxnOp {
    let options = match at {
        Some(revision) => GetOptions::new().with_revision(revision.0),
        None => GetOptions::new(),
    };
    match selection {
        Selection::Key(key) => TxnOp::get(key.as_str(), Some(options)),
        Selection::Prefix(prefix) => {
            TxnOp::get(first_key(prefix), Some(options.with_range(range_end(prefix))))
        }
    }
}

/// The first key under a prefix that was created or changed after a revision,
/// without its value. With the answer comes the number of all keys under the
/// prefix, which etcd counts before it sorts out (`server/etcdserver/txn`).
pub(super) fn get_newer(prefix: &str, after: Revision) -> TxnOp {
    let options = GetOptions::new()
        .with_range(range_end(prefix))
        .with_min_mod_revision(after.0.saturating_add(1))
        .with_keys_only()
        .with_limit(1);
    TxnOp::get(first_key(prefix), Some(options))
}

/// How many keys each range of such a transaction has, and whether any is newer.
pub(super) fn counted(response: &TxnResponse) -> Result<(Vec<usize>, bool), Error> {
    let (mut counts, mut newer) = (Vec::new(), false);
    for response in response.op_responses() {
        let TxnOpResponse::Get(found) = response else {
            return Err(not_a_read());
        };
        counts.push(usize::try_from(found.count()).unwrap_or_default());
        newer |= !found.kvs().is_empty();
    }
    Ok((counts, newer))
}

fn not_a_read() -> Error {
    Error::Internal("etcd answered a read with something else".to_owned())
}

/// The entries of each range of a transaction that only reads.
pub(super) fn selected(response: &TxnResponse) -> Result<Vec<Vec<Entry>>, Error> {
    response
        .op_responses()
        .into_iter()
        .map(|response| match response {
            TxnOpResponse::Get(mut found) => entries(found.take_kvs()),
            _ => Err(not_a_read()),
        })
        .collect()
}

pub(super) fn entries(found: Vec<KeyValue>) -> Result<Vec<Entry>, Error> {
    found.into_iter().map(entry).collect()
}

fn entry(found: KeyValue) -> Result<Entry, Error> {
    let revision = Revision(found.mod_revision());
    let (key, value) = found.into_key_value();
    let key = String::from_utf8(key).map_err(|error| Error::Utf8Error(error.utf8_error()))?;
    Ok(Entry { key, value, revision })
}

pub(super) fn event(kind: EventType, changed: KeyValue) -> Result<Event, Error> {
    let entry = entry(changed)?;
    Ok(match kind {
        EventType::Put => Event::Put(entry),
        EventType::Delete => Event::Delete { key: entry.key, revision: entry.revision },
    })
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> Result<Revision, Error> {
    header
        .map(|header| Revision(header.revision()))
        .ok_or_else(|| Error::Internal("etcd answered without a header".to_owned()))
}

/// The history of an answer. Only of a linearizable read is the term never behind
/// that of an earlier answer.
pub(super) fn history(header: Option<&ResponseHeader>) -> History {
    header.map_or_else(History::default, |header| History {
        cluster: header.cluster_id(),
        term: header.raft_term(),
    })
}
