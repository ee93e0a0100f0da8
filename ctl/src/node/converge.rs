//! One comparison of the kernel with the plan.

use std::borrow::Cow;
use std::collections::BTreeSet;

use weir_common::network::{
    ClusterPlan, Inventory, Nat, NodeNeeds, Problem, plan_cluster, plan_node,
};
use weir_kernel::{Converged, Error, Kernel};

use crate::session::chain;

/// What a comparison came to.
#[derive(Debug)]
pub struct Outcome {
    /// What the node should have.
    pub plan: ClusterPlan,
    /// How many changes were made in the kernel.
    pub changes: usize,
    /// What it refused, in words. It is tried again.
    pub failures: Vec<String>,
    /// What could not be done as the pools ask.
    pub problems: BTreeSet<Problem>,
}

/// Makes the kernel what `node`'s part in the cluster is. A part that fails does
/// not keep the others from being done. `keeps_tunnel` lets a tunnel device that the
/// datastore knows no address for have its own.
///
/// # Errors
/// The node's links cannot be read: without them there would be no way to
/// anybody, and every route would go.
pub async fn converge(
    kernel: &Kernel,
    node: &str,
    mut inventory: Cow<'_, Inventory>,
    keeps_tunnel: bool,
) -> Result<Outcome, Error> {
    let underlay = kernel.underlay().await?;
    if keeps_tunnel {
        inventory = kernel.keeping_tunnel_address(node, inventory).await?;
    }
    let plan = plan_cluster(node, &inventory, &underlay);
    let problems = plan.problems.clone();
    let mut outcome = Outcome { plan, changes: 0, failures: Vec::new(), problems };
    let has = |v4: bool| inventory.pools.values().any(|pool| pool.cidr.addr().is_ipv4() == v4);
    let forwarding = NodeNeeds { ipv4: has(true), ipv6: has(false), nat: Nat::AsItIs };
    ensure_node(kernel, &forwarding, &mut outcome).await;
    let nat = Nat::Exactly(outcome.plan.nat.clone());
    ensure_node(kernel, &NodeNeeds { nat, ..NodeNeeds::default() }, &mut outcome).await;
    let Converged { changes, failures, problems } = kernel.converge(&outcome.plan).await;
    for change in &changes {
        tracing::debug!("{change}");
    }
    outcome.changes = changes.len();
    outcome.failures.extend(failures.iter().map(|error| chain(error)));
    outcome.problems.extend(problems);
    Ok(outcome)
}

async fn ensure_node(kernel: &Kernel, needs: &NodeNeeds, outcome: &mut Outcome) {
    // What was applied stays: there is nothing to undo it for.
    let applied = match kernel.node_state(needs.ipv6) {
        Ok(state) => kernel.apply(&plan_node(needs, &state)).await.map_err(|error| chain(&*error)),
        Err(error) => Err(chain(&error)),
    };
    outcome.failures.extend(applied.err());
}
