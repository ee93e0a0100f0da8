//! Kind 12: an address, a block or an affinity of a host that is gone.

use ipnet::IpNet;

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::{Transaction, keys};
use crate::ipam::Allocation;
use crate::printable::shell_word;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let address = |allocation: &Allocation| {
        let host = allocation.node().filter(|host| scope.is_gone(host))?;
        Some(describe_address(allocation, host).left(obstacle(scope, host)))
    };
    let in_use = scope.snapshot.allocations().filter(|it| !it.cooling_down);
    let addresses = in_use.filter_map(address);
    let affinities = scope.affinities().map(|it| (it.host, it.block));
    let blocks = affinities.chain(scope.missing_affinities());
    let blocks = blocks.filter(|(host, _)| scope.is_gone(host));
    let blocks =
        blocks.map(|(host, block)| describe_block(host, block).left(obstacle(scope, host)));
    addresses.chain(blocks).collect()
}

/// That a host is not registered does not prove that it is gone.
fn obstacle(scope: &Scope<'_>, host: &str) -> Option<String> {
    (!scope.context.gone.contains(host)).then(|| {
        format!(
            "{host} may be there without being registered; if it is gone for good, add: \
             --gone-host={}",
            shell_word(host)
        )
    })
}

fn describe_address(allocation: &Allocation, host: &str) -> Finding {
    let address = allocation.address;
    let problem = format!(
        "address {address} is in use on host {host}, which is not among the registered nodes"
    );
    Finding::of_address(DamageKind::HostGone, allocation, problem, "release it")
}

fn describe_block(host: &str, block: IpNet) -> Finding {
    let problem =
        format!("block {block} is kept for host {host}, which is not among the registered nodes");
    let remedy = "delete the affinity, and the block if it is empty; else it belongs to no host";
    Finding::of_affinity(DamageKind::HostGone, host, block, problem, remedy)
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    match found.addresses.is_empty() {
        true => values.give_up(found, tx)?,
        false => values.release(found, tx)?,
    }
    tx.absent(keys::node(found.host.as_deref()?));
    Some(())
}
