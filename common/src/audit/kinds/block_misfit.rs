//! Kind 10: a block that overlaps another, or has another size than its pool says.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::audit::finding::{Finding, listed};
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};
use crate::ipam::BlockUse;
use crate::resources::IpPool;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    if !scope.snapshot.pools_are_known() {
        return Vec::new();
    }
    let pools = &scope.snapshot.pools;
    let overlaps = overlaps(pools, scope.snapshot.blocks.keys().copied());
    let misfit = |(block, content): (&IpNet, &BlockUse)| {
        let pool = pools_around(pools, *block).next().filter(|_| !has_right_size(pools, *block));
        let overlaps = overlaps.get(block).cloned().unwrap_or_default();
        (pool.is_some() || !overlaps.is_empty()).then(|| describe(*block, content, pool, overlaps))
    };
    scope.snapshot.blocks.iter().filter_map(misfit).collect()
}

fn describe(
    block: IpNet,
    content: &BlockUse,
    pool: Option<&IpPool>,
    overlaps: Vec<IpNet>,
) -> Finding {
    let size = pool.map(|pool| format!("pool {} has /{}", pool.name, pool.block_size));
    let over = overlaps.iter().map(|other| format!("block {other} overlaps it"));
    let problem = format!("block {block} does not fit: {}", listed(size.into_iter().chain(over)));
    let in_use = content.allocations.len();
    let obstacle = (in_use > 0).then(|| {
        format!(
            "{in_use} addresses in it are in use; disable its pool, move the containers to              another one, and repair again"
        )
    });
    let host = content.owner.host().map(AsRef::as_ref);
    let remedy = "delete the block when nothing in it is in use";
    let finding = Finding::of_block(DamageKind::BlockMisfit, host, block, problem, remedy);
    let mut finding = finding.left(obstacle);
    finding.keys.extend(overlaps.iter().map(|other| keys::block(*other)));
    finding.rests_on_blocks = overlaps;
    finding
}

fn pools_around(pools: &[IpPool], block: IpNet) -> impl Iterator<Item = &IpPool> {
    pools.iter().filter(move |pool| pool.cidr.contains(&block))
}

fn has_right_size(pools: &[IpPool], block: IpNet) -> bool {
    pools_around(pools, block).any(|pool| pool.block_size == block.prefix_len())
}

/// The blocks that overlap others, each with those it overlaps. Of two, the one
/// that does not fit its pool is at fault, else the smaller one.
fn overlaps(pools: &[IpPool], blocks: impl Iterator<Item = IpNet>) -> BTreeMap<IpNet, Vec<IpNet>> {
    let fits = |block| has_right_size(pools, block);
    let mut found: BTreeMap<IpNet, Vec<IpNet>> = BTreeMap::new();
    // In key order a block comes right after those that contain it.
    let mut around: Vec<IpNet> = Vec::new();
    for inner in blocks {
        while around.last().is_some_and(|outer| !outer.contains(&inner)) {
            around.pop();
        }
        for outer in around.iter().copied() {
            let (at_fault, other) =
                if fits(inner) && !fits(outer) { (outer, inner) } else { (inner, outer) };
            found.entry(at_fault).or_default().push(other);
        }
        around.push(inner);
    }
    found
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    values.delete_block(found, tx)?;
    values.require_blocks(&found.rests_on_blocks, tx);
    Some(())
}
