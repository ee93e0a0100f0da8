//! Kind 9: a block in no pool.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    if !scope.snapshot.pools_are_known() {
        return Vec::new();
    }
    let pools = &scope.snapshot.pools;
    let blocks = scope.snapshot.blocks.iter();
    let homeless = blocks.filter(|(block, _)| !pools.iter().any(|it| it.cidr.contains(*block)));
    let describe = |(block, content): (&_, &crate::ipam::BlockUse)| {
        let in_use = content.allocations.len();
        let problem = format!("block {block} lies in no pool and has {in_use} addresses in use");
        let obstacle = (in_use > 0).then(|| {
            format!(
                "{in_use} addresses in it are in use; create a pool around it, or remove the                  containers"
            )
        });
        let host = content.owner.host().map(AsRef::as_ref);
        let remedy = "delete the block when nothing in it is in use";
        Finding::of_block(DamageKind::BlockWithoutPool, host, *block, problem, remedy)
            .left(obstacle)
    };
    homeless.map(describe).collect()
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    values.delete_block(found, tx)
}
