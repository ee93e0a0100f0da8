//! How a finding is repaired: one transaction, from the values it rests on.

use super::audit;
use super::finding::Finding;
use super::scope::AuditContext;
use super::values::CurrentValues;
use crate::datastore::{Compare, Transaction, keys};
use crate::printable::printable;

/// The most comparisons that one transaction may hold (etcd's default
/// `--max-txn-ops`).
const MAX_COMPARES: usize = 128;

/// What is to be done about a finding.
#[derive(Clone, Debug, PartialEq)]
pub enum RepairPlan {
    /// This repairs it.
    Commit(Transaction),
    /// It is not there any more.
    Gone,
    /// It is not safe to repair, for this reason.
    Left(String),
}

/// Makes the transaction that repairs a finding, if the finding still holds of
/// what was read, and it is safe.
///
/// The transaction compares every value that the finding rests on, so that it
/// changes nothing when one of them changed meanwhile. An attachment without
/// its address is not repaired here but by an assignment
/// ([`super::engine::RepairRun::repair`]).
pub fn plan_repair(
    finding: &Finding,
    values: &CurrentValues,
    context: &AuditContext<'_>,
) -> RepairPlan {
    let mut found = audit(&values.snapshot, context).into_iter();
    let Some(found) = found.find(|found| found.subject() == finding.subject()) else {
        return RepairPlan::Gone;
    };
    if let Some(obstacle) = found.obstacle {
        return RepairPlan::Left(obstacle);
    }
    let mut transaction = values.guarded.transaction();
    if (found.kind.damage().repair)(&found, values, &mut transaction).is_none() {
        return RepairPlan::Gone;
    }
    if let Some(key) = unreadable_key(&transaction, values) {
        return RepairPlan::Left(format!(
            "{} cannot be read, and Weir does not overwrite it",
            printable(key)
        ));
    }
    if let Some(host) = found.host.as_deref().filter(|_| found.rests_on_kernel()) {
        values.require_machine(host, &mut transaction);
    }
    if found.rests_on_pools() {
        transaction.none_newer(keys::POOLS.to_owned(), values.guarded.revision);
    }
    if transaction.compares.len() > MAX_COMPARES {
        let reason = "it takes more changes than one transaction may hold";
        return RepairPlan::Left(reason.to_owned());
    }
    RepairPlan::Commit(transaction)
}

/// A key that a transaction takes for absent, because its value cannot be read.
fn unreadable_key<'a>(transaction: &'a Transaction, values: &CurrentValues) -> Option<&'a str> {
    transaction.compares.iter().find_map(|compare| match compare {
        Compare::Absent { key } if values.snapshot.unreadable.contains_key(key) => {
            Some(key.as_str())
        }
        _ => None,
    })
}
