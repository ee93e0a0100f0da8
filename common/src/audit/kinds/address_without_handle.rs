//! Kind 4: addresses whose handle is not there, or that name none.

use std::collections::BTreeMap;

use crate::audit::finding::{Finding, listed};
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};
use crate::ipam::{Allocation, Handle};

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let snapshot = scope.snapshot;
    let mut missing: BTreeMap<&str, Vec<&Allocation>> = BTreeMap::new();
    for (allocation, handle) in snapshot.unmatched() {
        if !snapshot.handles.contains_key(handle)
            && !snapshot.unreadable.contains_key(&keys::handle(handle))
        {
            missing.entry(handle).or_default().push(allocation);
        }
    }
    let unnamed = snapshot.allocations().filter(|it| it.needs_handle() && it.handle.is_none());
    let missing = missing.into_iter().map(|(handle, addresses)| describe(handle, &addresses));
    missing.chain(unnamed.map(describe_unnamed)).collect()
}

fn describe(handle: &str, allocations: &[&Allocation]) -> Finding {
    let addresses = listed(allocations.iter().map(|it| it.address));
    let problem = format!("handle {handle} is not there, but has {addresses}");
    let mut blocks: Vec<_> = allocations.iter().map(|it| it.block).collect();
    blocks.dedup();
    let kind = DamageKind::AddressWithoutHandle;
    Finding {
        host: allocations.first().and_then(|it| it.node()).map(str::to_owned),
        addresses: allocations.iter().copied().map(Into::into).collect(),
        ..Finding::of_handle(kind, handle, blocks, problem, "make the handle again")
    }
}

fn describe_unnamed(allocation: &Allocation) -> Finding {
    let address = allocation.address;
    let problem = format!("address {address} is in use under no handle");
    let remedy = format!("if it is not in use: weirctl ipam release --ip={address}");
    Finding::of_address(DamageKind::AddressWithoutHandle, allocation, problem, &remedy)
        .left(Some("it may be in use".to_owned()))
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let handle = found.handle.as_deref()?;
    let content = values.count(Handle::default(), handle, &found.rests_on_blocks);
    tx.create(keys::handle(handle), content.to_json());
    values.require_blocks(&found.rests_on_blocks, tx);
    Some(())
}
