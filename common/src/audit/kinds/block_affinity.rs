//! Kind 7: a block whose host has no affinity to it, or to which another host has one.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::{AffinityUse, Scope};
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;
use crate::ipam::{Affinity, AffinityState, Owner};

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let foreign = scope.affinities_of_living().filter_map(|it| describe_foreign(&it));
    let missing = scope.missing_affinities().filter(|(host, _)| !scope.is_gone(host));
    let missing = missing.map(|(host, block)| {
        let problem = format!("block {block} belongs to host {host}, which has no affinity to it");
        let kind = DamageKind::BlockAffinity;
        Finding::of_affinity(kind, host, block, problem, "make the affinity again")
    });
    foreign.chain(missing).collect()
}

fn describe_foreign(affinity: &AffinityUse<'_>) -> Option<Finding> {
    let AffinityUse { host, block, state, content } = affinity;
    if *state != AffinityState::Confirmed || affinity.is_owned() {
        return None;
    }
    let owner = match &(*content)?.owner {
        Owner::Host(owner) => format!("host {owner}"),
        Owner::NoHost => "no host".to_owned(),
        Owner::Other => "something other than a host".to_owned(),
    };
    let problem = format!("host {host} has an affinity to block {block}, which belongs to {owner}");
    let kind = DamageKind::BlockAffinity;
    Some(Finding::of_affinity(kind, host, *block, problem, "delete the affinity"))
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let block = found.block?;
    if values.blocks.get(&block)?.value.host() != found.host.as_deref() {
        return values.delete_affinity(found, tx);
    }
    tx.create(found.keys[0].clone(), Affinity::default().to_json());
    values.require_blocks(&[block], tx);
    Some(())
}
