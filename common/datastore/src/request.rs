//! What all datastores refuse alike, and how prefixes become key ranges.

use std::collections::HashSet;

use weir_common::datastore::{Compare, Error, Transaction, Write};

/// The most comparisons, and the most writes, that one transaction may hold:
/// etcd's default (`--max-txn-ops`).
pub const OPERATIONS_LIMIT: usize = 128;

/// A request that no datastore carries out.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("a transaction writes the key {0:?} twice; write each key once")]
    WrittenTwice(String),
    #[error("a transaction names an empty key; name the key")]
    EmptyKey,
    #[error("a transaction has {0} {1}, at most {OPERATIONS_LIMIT} are allowed; split it")]
    TooMany(usize, &'static str),
}

/// Refuses what etcd would refuse (`checkTxnRequest` in etcd's
/// `server/etcdserver/api/v3rpc/key.go`), so that a transaction which passes
/// one datastore passes all. etcd allows to delete a key twice; here that is
/// refused as well.
///
/// # Errors
/// [`Error::Failed`] for a key written twice, an empty key, or more than
/// [`OPERATIONS_LIMIT`] comparisons or writes.
pub(crate) fn check(transaction: &Transaction, location: &str) -> Result<(), Error> {
    find_fault(transaction).map_or(Ok(()), |refused| {
        Err(Error::Failed { location: location.to_owned(), cause: Box::new(refused) })
    })
}

fn find_fault(transaction: &Transaction) -> Option<Refused> {
    let Transaction { compares, writes } = transaction;
    for (count, what) in [(compares.len(), "comparisons"), (writes.len(), "writes")] {
        if count > OPERATIONS_LIMIT {
            return Some(Refused::TooMany(count, what));
        }
    }
    let compares_empty_key = compares.iter().any(|compare| match compare {
        Compare::Absent { key } | Compare::Unchanged { key, .. } => key.is_empty(),
        Compare::NoneNewer { .. } => false,
    });
    if compares_empty_key || writes.iter().any(|write| write.key().is_empty()) {
        return Some(Refused::EmptyKey);
    }
    let mut written = HashSet::new();
    writes
        .iter()
        .map(Write::key)
        .find(|key| !written.insert(*key))
        .map(|key| Refused::WrittenTwice(key.to_owned()))
}

/// The first key behind all keys that begin with `prefix`, in byte order. For
/// the empty prefix, a byte that no UTF-8 text contains.
pub(crate) fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // UTF-8 has no byte 0xff, so this cannot overflow.
        Some(last) => *last += 1,
        None => end.push(0xff),
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_common::datastore::Revision;

    fn put(key: &str) -> Write {
        Write::Put { key: key.to_owned(), value: vec![] }
    }

    fn reason(transaction: &Transaction) -> Option<String> {
        check(transaction, "here").err().map(|error| match error {
            Error::Failed { cause, .. } => cause.to_string(),
            other => other.to_string(),
        })
    }

    #[test]
    fn a_key_is_written_once() {
        let delete = Write::Delete { key: "/a".to_owned() };
        for second in [put("/a"), delete] {
            let twice =
                Transaction { compares: vec![], writes: vec![put("/a"), put("/b"), second] };
            assert!(reason(&twice).unwrap().contains("\"/a\""));
        }
    }

    #[test]
    fn keys_are_not_empty() {
        let written = Transaction { compares: vec![], writes: vec![put("")] };
        let mut compared = Transaction::default();
        compared.unchanged(String::new(), Revision(1));
        assert!(reason(&written).is_some());
        assert!(reason(&compared).is_some());
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let writes: Vec<Write> = (0..=OPERATIONS_LIMIT).map(|n| put(&format!("/{n}"))).collect();
        let over = Transaction { compares: vec![], writes };
        let mut at = over.clone();
        at.writes.pop();
        assert_eq!(reason(&at), None);
        assert!(reason(&over).unwrap().contains("129 writes"));
    }
}
