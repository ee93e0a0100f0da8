//! Kind 6: a confirmed affinity to a block that is not there.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::{AffinityUse, Scope};
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;
use crate::ipam::AffinityState;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let without_block =
        |it: &AffinityUse<'_>| it.state == AffinityState::Confirmed && it.content.is_none();
    let describe = |AffinityUse { host, block, .. }: AffinityUse<'_>| {
        let problem = format!("host {host} has block {block}, which is not there");
        let kind = DamageKind::AffinityWithoutBlock;
        Finding::of_affinity(kind, host, block, problem, "delete the affinity")
    };
    scope.affinities_of_living().filter(without_block).map(describe).collect()
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    values.delete_affinity(found, tx)
}
