//! The node's reconcile: from what is known of the cluster to what the kernel has.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::error::Error as StdError;

use ipnet::IpNet;
use weir_common::network::{
    ActualState, BgpNeed, Change, ClusterPlan, ClusterState, Difference, Nat, NodeNeeds, Problem,
    TunnelFilter, Underlay, diff, plan_cluster, plan_node,
};
use weir_common::tunnel::TunnelKind;

use super::actual::ListedTable;
use super::interface::LinksAndAddresses;
use crate::error::Error;
use crate::sources::are_checked;
use crate::{Kernel, sysctl};

/// What a reconcile leaves as it is, because what is known of the cluster may not say all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The kinds of tunnels whose devices keep their addresses, where the datastore knows none
    /// for the node.
    pub tunnel_addresses: BTreeSet<TunnelKind>,
    /// Routes to single addresses that other nodes have borrowed: they are not known.
    pub borrowed: bool,
    /// What is announced, where nothing known asks for BGP: it is not known what is configured.
    pub announcing: bool,
    /// Why BGP counts as needed, where nothing known asks for it.
    pub bgp_need: Option<BgpNeed>,
}

/// What a reconcile came to.
#[derive(Debug)]
pub struct Reconciled {
    /// What the node should have.
    pub plan: ClusterPlan,
    /// The links that the plan rests on.
    pub underlay: Underlay,
    /// Whether another program's routes conflict with the plan's, or are missing.
    pub has_conflicts: bool,
    /// What was changed in the kernel.
    pub changes: Vec<Change>,
    /// What it refused. It is tried again by the next reconcile.
    pub failures: Vec<Box<dyn StdError + Send + Sync>>,
    /// What could not be done as the pools ask, and where another program's routes conflict.
    pub problems: BTreeSet<Problem>,
    /// The kinds of tunnels that routes go by which stay until the planned ones can be had.
    pub still_used: BTreeSet<TunnelKind>,
}

/// What applying a cluster's plan came to.
#[derive(Debug, Default)]
pub struct PlanOutcome {
    /// What was changed in the kernel.
    pub changes: Vec<Change>,
    /// What it refused.
    pub failures: Vec<Error>,
    /// Where another program's routes conflict.
    pub problems: BTreeSet<Problem>,
    /// The kinds of tunnels that routes go by which stay until the planned ones can be had.
    pub still_used: BTreeSet<TunnelKind>,
}

impl Kernel {
    /// Gives `node` what its part in the cluster asks for: forwarding, NAT, tunnel devices,
    /// their filter and routes. The agent does it after each change, and a plugin where no agent
    /// runs. A part that fails does not keep the others from being done.
    ///
    /// # Errors
    /// The node's links cannot be read: without them no other node would seem to be
    /// reachable, and every route would go.
    pub async fn reconcile(
        &self,
        node: &str,
        mut state: Cow<'_, ClusterState>,
        keep: Keep,
    ) -> Result<Reconciled, Error> {
        let links = self.links_and_addresses().await?;
        let table = self.main_table(&links.links).await;
        // Without them a plan is good for the NAT, and not applied to routes.
        let next_hops = table.as_ref().map(ListedTable::next_hops).unwrap_or_default();
        let underlay = Underlay { next_hops, ..links.underlay() };
        state = self.keeping_tunnel_addresses(node, &keep.tunnel_addresses, state).await?;
        let mut plan = plan_cluster(node, &state, &underlay);
        plan.keeps_addresses = keep.borrowed;
        plan.keeps_announcing = keep.announcing;
        plan.bgp_need = plan.bgp_need.or(keep.bgp_need);
        let mut failures = Vec::new();
        let has = |v4: bool| state.pools.values().any(|pool| pool.cidr.addr().is_ipv4() == v4);
        // A pool somewhere asks nothing of a kernel that has no IPv6: there it has no containers.
        let ipv6 = has(false) && sysctl::has_ipv6();
        let forwarding = NodeNeeds { ipv4: has(true), ipv6, nat: Nat::AsItIs };
        failures.extend(self.ensure_node(&forwarding).await.err());
        let nat = NodeNeeds { nat: Nat::Exactly(plan.nat.clone()), ..NodeNeeds::default() };
        failures.extend(self.ensure_node(&nat).await.err());
        failures.extend(self.guard_sources(&links).await.err().map(Into::into));
        let applied = match table {
            Ok(table) => self.apply_cluster_with(&plan, &links, &table).await,
            Err(error) => PlanOutcome { failures: vec![error], ..PlanOutcome::default() },
        };
        let has_conflicts = !applied.problems.is_empty();
        failures.extend(applied.failures.into_iter().map(Into::into));
        let problems = plan.problems.union(&applied.problems).cloned().collect();
        Ok(Reconciled {
            plan,
            underlay,
            has_conflicts,
            changes: applied.changes,
            failures,
            problems,
            still_used: applied.still_used,
        })
    }

    /// Keeps the filter of what containers send, where any are checked.
    async fn guard_sources(&self, links: &LinksAndAddresses) -> Result<(), Error> {
        match are_checked(&links.links) {
            true => self.ensure_source_filter().await,
            false => Ok(()),
        }
    }

    /// What was applied stays, whatever fails later: there is nothing to undo it for.
    async fn ensure_node(&self, needs: &NodeNeeds) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let state = self.node_state(needs.ipv6)?;
        let _applied = self.apply(&plan_node(needs, &state)).await?;
        Ok(())
    }

    /// Makes the tunnel devices, their filter and the routes what `plan` says; not the
    /// NAT. A part that fails does not keep the others from being done.
    ///
    /// The filter comes before a tunnel is in service and goes after it, so that no
    /// tunnel takes packets from others than nodes. Without its filter a tunnel that
    /// is not in service yet stays out of it.
    pub async fn apply_cluster(&self, plan: &ClusterPlan) -> PlanOutcome {
        let listed = async {
            let links = self.links_and_addresses().await?;
            let table = self.main_table(&links.links).await?;
            Ok((links, table))
        };
        match listed.await {
            Ok((links, table)) => self.apply_cluster_with(plan, &links, &table).await,
            Err(error) => PlanOutcome { failures: vec![error], ..PlanOutcome::default() },
        }
    }

    async fn apply_cluster_with(
        &self,
        plan: &ClusterPlan,
        links: &LinksAndAddresses,
        table: &ListedTable,
    ) -> PlanOutcome {
        let mut outcome = PlanOutcome::default();
        let actual = match self.actual_state_with(links, table).await {
            Ok(actual) => actual,
            Err(error) => {
                outcome.failures.push(error);
                return outcome;
            }
        };
        let claimed = claimed(&actual);
        let before = &claimed | &in_service(plan, &claimed);
        let filter = TunnelFilter::new(before.iter().copied(), plan, &actual);
        let mut plan = Cow::Borrowed(plan);
        let mut is_guarded = true;
        if filter.is_some()
            && let Err(error) = self.ensure_tunnel_filter(filter.as_ref()).await
        {
            outcome.failures.push(error);
            plan = Cow::Owned(plan.into_owned().without_tunnels(&(&before - &claimed)));
            is_guarded = false;
        }
        let Difference { changes: planned, problems, mut still_used } = diff(&plan, &actual);
        let run = self.run(&planned).await;
        let changes = run.made(planned.clone());
        still_used.extend(unreplaced(&planned, &changes, &actual));
        outcome.failures.extend(run.failures.into_iter().map(|(_, error)| error));
        // One that could not be taken out of service is guarded still, as it was.
        let retired = retired(&changes);
        let after = &in_service(&plan, &claimed) | &(&claimed - &retired);
        let mut left = actual;
        left.tunnels.retain(|kind, _| !retired.contains(kind));
        let last = TunnelFilter::new(after, &plan, &left);
        if is_guarded && (filter.is_none() || last != filter) {
            outcome.failures.extend(self.ensure_tunnel_filter(last.as_ref()).await.err());
        }
        PlanOutcome { changes, problems, still_used, ..outcome }
    }
}

/// The kinds of tunnels that Weir has in service.
fn claimed(actual: &ActualState) -> BTreeSet<TunnelKind> {
    let claimed = actual.tunnels.iter().filter(|(_, tunnel)| tunnel.claimed);
    claimed.map(|(kind, _)| *kind).collect()
}

/// The kinds that a plan keeps in service or puts there. One that no pool needs is not made.
fn in_service(plan: &ClusterPlan, claimed: &BTreeSet<TunnelKind>) -> BTreeSet<TunnelKind> {
    let planned = plan.tunnels.iter();
    let planned = planned.filter(|(kind, tunnel)| tunnel.is_needed || claimed.contains(kind));
    planned.map(|(kind, _)| *kind).collect()
}

/// The kinds whose devices were taken out of service, be it to be made again.
fn retired(changes: &[Change]) -> BTreeSet<TunnelKind> {
    let retired = changes.iter().filter_map(|change| match change {
        Change::DeleteTunnel(kind) | Change::DisclaimTunnel(kind) => Some(*kind),
        _ => None,
    });
    retired.collect()
}

/// The kinds of tunnels by which routes go on that were to be replaced and were not.
fn unreplaced<'a>(
    planned: &'a [Change],
    made: &'a [Change],
    actual: &'a ActualState,
) -> impl Iterator<Item = TunnelKind> + 'a {
    let replaced = |change: &Change| match change {
        Change::ReplaceRoute(range, _) => Some(*range),
        _ => None,
    };
    let made: BTreeSet<IpNet> = made.iter().filter_map(replaced).collect();
    let stay = planned.iter().filter_map(replaced).filter(move |range| !made.contains(range));
    stay.filter_map(|range| actual.routes.get(&range)?.as_ref()?.tunnel_kind())
}
