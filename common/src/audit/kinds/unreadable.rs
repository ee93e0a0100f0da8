//! A value that cannot be read.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let describe = |(key, reason): (&String, &String)| {
        let problem = format!("{key} cannot be read: {}", reason.trim_end().replace('\n', " "));
        let remedy = "correct or delete it with the datastore's client";
        let obstacle = "Weir does not overwrite what it cannot read; correct or delete it with the \
                        datastore's client";
        Finding::new(DamageKind::Unreadable, key.clone(), problem, remedy)
            .left(Some(obstacle.to_owned()))
    };
    scope.snapshot.unreadable.iter().map(describe).collect()
}

/// It has no repair.
pub(super) fn repair(_: &Finding, _: &CurrentValues, _: &mut Transaction) -> Option<()> {
    None
}
