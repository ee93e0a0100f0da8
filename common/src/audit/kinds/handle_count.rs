//! Kind 5: a handle that counts other addresses than the blocks hold.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::audit::finding::{Finding, listed};
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};
use crate::ipam::Counts;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let held = scope.held_by_handle();
    let differs = |(handle, says)| {
        let has = held.get(handle).filter(|has| *has != says)?;
        Some(describe(handle, says, has))
    };
    scope.handles().filter_map(differs).collect()
}

fn describe(handle: &str, says: &Counts, has: &Counts) -> Finding {
    let mut counts: BTreeMap<IpNet, (u64, u64)> = BTreeMap::new();
    says.iter().for_each(|(block, count)| counts.entry(*block).or_default().0 += count);
    has.iter().for_each(|(block, count)| counts.entry(*block).or_default().1 += count);
    let wrong = counts.iter().filter(|(_, (says, has))| says != has);
    let wrong = wrong.map(|(block, (says, has))| format!("{says} in {block} where it has {has}"));
    let problem = format!("handle {handle} counts {}", listed(wrong));
    let blocks = counts.into_keys().collect();
    Finding::of_handle(DamageKind::HandleCount, handle, blocks, problem, "count again")
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let handle = found.handle.as_deref()?;
    let stored = values.handles.get(handle)?;
    let content = values.count(stored.value.clone(), handle, &found.rests_on_blocks);
    tx.update(keys::handle(handle), stored.revision, content.to_json());
    values.require_blocks(&found.rests_on_blocks, tx);
    Some(())
}
