//! The plan after a change that concerns a few ranges, in proportion to that change.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::change::Change;
use super::cluster_state::ClusterState;
use super::plan::{ClusterPlan, Planner, RouteKind};
use super::underlay::Underlay;

impl ClusterPlan {
    /// Plans the routes to `ranges` again, after a change that concerns only these
    /// ([`super::StateDiff`]): the plan becomes what [`super::plan_cluster`] returns. Returns the
    /// changes of routes, ordered as those of [`super::diff`].
    ///
    /// Returns `None`, and leaves the plan as it is, if a range has a problem, is left to
    /// others or waits for its node, before or now: then the plan has to be made as a whole.
    pub fn update(
        &mut self,
        node: &str,
        state: &ClusterState,
        underlay: &Underlay,
        ranges: &BTreeSet<IpNet>,
    ) -> Option<Vec<Change>> {
        let planner = Planner::new(node, state, underlay);
        let plan = |&range: &IpNet| {
            let was_plain = !self.with_problems.contains(&range)
                && !self.left_to_others.contains_key(&range)
                && !self.awaited.contains_key(&range);
            let planned = planner.range(range);
            (was_plain && planned.is_plain()).then_some((range, planned.route))
        };
        let planned: Vec<(IpNet, Option<RouteKind>)> =
            ranges.iter().map(plan).collect::<Option<_>>()?;
        let announces = self.bgp_need.is_some();
        let (announced, silent): (Vec<IpNet>, Vec<IpNet>) =
            ranges.iter().partition(|range| planner.is_announced(**range));
        let withdrawn = silent.into_iter().filter(|it| self.announced.remove(it) && announces);
        let mut changes: Vec<Change> = withdrawn.map(Change::Withdraw).collect();
        let mut deletions = Vec::new();
        for (range, route) in planned {
            let before = self.routes.remove(&range);
            self.routes.extend(route.clone().map(|route| (range, route)));
            match (before, route) {
                (Some(before), Some(route)) if before != route => {
                    changes.push(Change::ReplaceRoute(range, route));
                }
                (None, Some(route)) => changes.push(Change::AddRoute(range, route)),
                (Some(before), None) => deletions.push(Change::DeleteRoute(range, Some(before))),
                _ => {}
            }
        }
        let announced = announced.into_iter();
        let announced = announced.filter(|range| self.announced.insert(*range) && announces);
        changes.extend(announced.map(Change::Announce));
        changes.append(&mut deletions);
        Some(changes)
    }
}
