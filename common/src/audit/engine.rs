//! Looks again at what was found, and repairs it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::finding::Finding;
use super::kinds::attachment_without_address;
pub use super::outcome::RepairOutcome;
use super::plan::{RepairPlan, plan_repair};
use super::scope::AuditContext;
use super::values::CurrentValues;
use crate::datastore::{Datastore, Decision, Revision, transact};
use crate::ipam::{Error, IpamSnapshot};

/// What others do step by step looks like damage for a moment: what two looks found that lie
/// this far apart is damage ([`seen_twice`]).
pub const SETTLING_TIME: Duration = Duration::from_secs(2);

/// Why a repair leaves what is being changed.
const IN_MOTION: &str = "others are changing it";

/// Of these findings, those that still hold when all that each rests on is read
/// as of one moment.
///
/// What others were changing while the store was read looks like damage. So
/// does a change that Calico makes step by step, for a few milliseconds: see
/// [`seen_twice`].
///
/// # Errors
/// See [`Error`].
pub async fn confirm(
    datastore: &dyn Datastore,
    snapshot: &IpamSnapshot,
    findings: Vec<Finding>,
    context: &AuditContext<'_>,
) -> Result<Vec<Finding>, Error> {
    // What the kernel has was read a moment later than the store.
    if snapshot.steady && !findings.iter().any(Finding::rests_on_kernel) {
        return Ok(findings);
    }
    let mut confirmed = Vec::new();
    for finding in findings {
        let holds = match (&finding.attachment, context.node) {
            (Some(attached), Some(node)) => {
                attachment_without_address::holds(datastore, node, attached).await?
            }
            _ => {
                let values = CurrentValues::read(datastore, &finding, snapshot).await?;
                plan_repair(&finding, &values, context) != RepairPlan::Gone
            }
        };
        if holds {
            confirmed.push(finding);
        }
    }
    Ok(confirmed)
}

/// Of the findings of the later of two looks, those that the earlier one had
/// alike.
///
/// What others do step by step looks like damage for a moment: a repair begins
/// with what was there some seconds before.
pub fn seen_twice(earlier: &[Finding], later: &[Finding]) -> Vec<Finding> {
    let known: HashMap<_, &Finding> = earlier.iter().map(|it| (it.subject(), it)).collect();
    let is_known = |it: &&Finding| known.get(&it.subject()).is_some_and(|known| known.is_alike(it));
    later.iter().filter(is_known).cloned().collect()
}

/// Findings in the order in which a repair goes through them. One may stand in the way
/// of another, and repairing one may show another: audit again until nothing is
/// repaired any more.
pub fn in_turn(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.kind.turn());
    findings
}

/// A repair of what was found in one snapshot.
pub struct RepairRun<'a> {
    datastore: &'a dyn Datastore,
    snapshot: &'a IpamSnapshot,
    since: Revision,
    /// The keys that it changed itself.
    ours: BTreeSet<String>,
}

impl<'a> RepairRun<'a> {
    /// A repair of what was found in `snapshot`, and in an earlier one that
    /// began at the revision `since` of the store.
    pub fn new(datastore: &'a dyn Datastore, snapshot: &'a IpamSnapshot, since: Revision) -> Self {
        Self { datastore, snapshot, since, ours: BTreeSet::new() }
    }

    /// Repairs one finding by its own transaction, if it is safe.
    ///
    /// Findings come [`in_turn`]. For one that rests on the kernel
    /// ([`Finding::rests_on_kernel`]) the node must have been read just now,
    /// while no address is assigned on this host, and none until this returns:
    /// see `docs/audit.md`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn repair(
        &mut self,
        finding: &Finding,
        context: &AuditContext<'_>,
    ) -> Result<RepairOutcome, Error> {
        match (&finding.attachment, &finding.obstacle) {
            (Some(_), Some(obstacle)) => Ok(RepairOutcome::Left(obstacle.clone())),
            (Some(attached), None) => {
                let AuditContext { node, now, .. } = *context;
                attachment_without_address::record(self.datastore, node, attached, now).await
            }
            (None, _) => self.commit(finding, context).await,
        }
    }

    async fn commit(
        &mut self,
        finding: &Finding,
        context: &AuditContext<'_>,
    ) -> Result<RepairOutcome, Error> {
        let decided = transact(self.datastore, |_| self.decide(finding, context)).await;
        let (outcome, written) = decided?;
        self.ours.extend(written);
        Ok(outcome)
    }

    /// What is to be done, and the keys that this changes.
    async fn decide(
        &self,
        finding: &Finding,
        context: &AuditContext<'_>,
    ) -> Result<Decision<(RepairOutcome, Vec<String>)>, Error> {
        let values = CurrentValues::read(self.datastore, finding, self.snapshot).await?;
        let outcome = match plan_repair(finding, &values, context) {
            RepairPlan::Gone => RepairOutcome::Gone,
            RepairPlan::Left(obstacle) => RepairOutcome::Left(obstacle),
            RepairPlan::Commit(_) if values.is_in_motion(finding, self.since, &self.ours) => {
                RepairOutcome::Left(IN_MOTION.to_owned())
            }
            RepairPlan::Commit(transaction) => {
                let written = transaction.keys();
                return Ok(Decision::Commit(transaction, (RepairOutcome::Repaired, written)));
            }
        };
        Ok(Decision::Done((outcome, Vec::new())))
    }
}
