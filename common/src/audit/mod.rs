//! What is damaged in a store, and how it is repaired.
//!
//! [`audit`] is pure: it compares blocks, handles, affinities and pools with one another
//! and with the attachments in a node's kernel. [`plan_repair`] is pure too: from the
//! current values of one finding's keys it makes the transaction that repairs it.
//! [`engine`] reads, looks again and commits. Each kind of damage has a file in `kinds`
//! that finds, describes and repairs it. `docs/audit.md` has the kinds and what a repair
//! never does.

pub mod engine;
mod finding;
mod kind;
mod kinds;
mod node;
mod outcome;
mod plan;
pub mod release_one;
mod report;
mod scope;
mod unjudged;
mod unjudged_reason;
mod values;

pub use finding::Finding;
pub use kind::DamageKind;
pub use node::{Attached, DockerAnswer, ThisNode, Unjudged};
pub use plan::{RepairPlan, plan_repair};
pub use report::{Report, ReportToRelease};
pub use scope::{AuditContext, hosts_gone};
pub use unjudged::{UnjudgedAddresses, unjudged_addresses};
pub use unjudged_reason::UnjudgedReason;
pub use values::CurrentValues;

use crate::ipam::IpamSnapshot;
use scope::Scope;

/// Finds what is damaged, in order of kind and key.
///
/// A snapshot of a store that others write to meanwhile is not of one moment:
/// then [`engine::confirm`] tells what is damaged from what was in motion.
pub fn audit(snapshot: &IpamSnapshot, context: &AuditContext<'_>) -> Vec<Finding> {
    let scope = Scope { snapshot, context };
    let found = DamageKind::ALL.iter().flat_map(|kind| (kind.damage().find)(&scope));
    let mut findings: Vec<Finding> = found.collect();
    findings.sort_by_cached_key(Finding::subject);
    findings
}
