//! Kind 3: a handle of which no block holds an address.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let held = scope.held_by_handle();
    let empty = scope.handles().filter(|(handle, _)| !held.contains_key(handle));
    let describe = |(handle, says): (&str, &Vec<_>)| {
        let (kind, problem) =
            (DamageKind::HandleWithoutAddress, format!("handle {handle} has no address"));
        let named = says.iter().map(|(block, _)| *block).collect();
        Finding::of_handle(kind, handle, named, problem, "delete the handle")
    };
    empty.map(describe).collect()
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let handle = found.handle.as_deref()?;
    tx.delete(keys::handle(handle), values.handles.get(handle)?.revision);
    values.require_blocks(&found.rests_on_blocks, tx);
    Some(())
}
