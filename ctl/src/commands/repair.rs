//! Finding damage and repairing it: what several commands about addresses share.

use std::collections::BTreeSet;

use clap::Args;
use weir_common::audit::engine::{self, RepairOutcome, RepairRun};
use weir_common::audit::{AuditContext, Finding, ThisNode, audit};
use weir_common::datastore::Revision;
use weir_common::ipam::{Error, IpamSnapshot};
use weir_common::{printable, shell_word};

use super::report;
use crate::session::{Failure, Session};

/// The hosts that are gone for good.
#[derive(Args, Clone, Debug, Default)]
pub struct GoneHostArgs {
    /// A host that is gone for good, so that what it had may be taken back; may be
    /// given several times
    #[arg(long = "gone-host", value_name = "NAME")]
    names: Vec<String>,
}

impl GoneHostArgs {
    /// The names.
    pub fn names(&self) -> BTreeSet<String> {
        self.names.iter().cloned().collect()
    }
}

/// One scan of the store and of this node.
pub struct Scan {
    /// What is in the store.
    pub snapshot: IpamSnapshot,
    /// What this node has.
    pub node: Option<ThisNode>,
    /// What is damaged.
    pub findings: Vec<Finding>,
}

impl Scan {
    /// Reads the store, then the kernel, and compares.
    ///
    /// # Errors
    /// [`Failure`] when one of the `gone` hosts is there; when the datastore or
    /// the kernel fails.
    pub async fn run(session: &Session<'_>, gone: &BTreeSet<String>) -> Result<Self, Failure> {
        let told = |entries| session.environment.reading(entries);
        let snapshot = IpamSnapshot::list_telling(session.datastore, &told).await;
        let snapshot = snapshot.map_err(explain)?;
        // Before the kernel is read: what comes into it later is younger.
        let now = session.environment.now();
        let node = session.environment.this_node().await?;
        check_gone(gone, &snapshot, node.as_ref())?;
        let context = AuditContext { node: node.as_ref(), gone, now };
        let findings = audit(&snapshot, &context);
        let findings = engine::confirm(session.datastore, &snapshot, findings, &context).await;
        let findings = findings.map_err(explain)?;
        Ok(Self { snapshot, node, findings })
    }

    /// Repairs findings, each by its own transaction, and says of each what became
    /// of it. What an earlier scan found, too, has that scan's revision in `since`.
    ///
    /// Before one that rests on the kernel is repaired, the kernel is read again,
    /// while no address is assigned on this host.
    ///
    /// # Errors
    /// [`Failure`] when the datastore or the kernel fails; what was repaired until
    /// then stays repaired.
    pub async fn repair(
        &self,
        findings: Vec<Finding>,
        since: Revision,
        session: &Session<'_>,
        gone: &BTreeSet<String>,
    ) -> Result<Vec<(Finding, RepairOutcome)>, Failure> {
        let mut run = RepairRun::new(session.datastore, &self.snapshot, since);
        let mut outcomes = Vec::with_capacity(findings.len());
        let total = findings.len();
        for finding in engine::in_turn(findings) {
            session.environment.progress(outcomes.len(), total);
            let now = session.environment.now();
            let still = match self.node.is_some() && finding.rests_on_kernel() {
                true => Some(session.environment.still_node().await?),
                false => None,
            };
            let node = still.as_ref().map_or(self.node.as_ref(), |still| still.node.as_ref());
            let context = AuditContext { node, gone, now };
            let outcome = run.repair(&finding, &context).await.map_err(explain)?;
            outcomes.push((finding, outcome));
        }
        Ok(outcomes)
    }
}

/// Refuses to call a host gone that is there.
fn check_gone(
    gone: &BTreeSet<String>,
    snapshot: &IpamSnapshot,
    node: Option<&ThisNode>,
) -> Result<(), Failure> {
    for host in gone {
        let shown = printable(host);
        if node.is_some_and(|node| node.host == *host) {
            return Err(Failure::new(format!(
                "--gone-host {shown}: this is host {shown}; name one that is gone, or run the command \
                 elsewhere; those that may be gone are listed by: weirctl ipam reclaim --dry-run"
            )));
        }
        if snapshot.has_node(host) {
            return Err(Failure::new(format!(
                "--gone-host {shown}: this host is registered; if it is gone, delete it first: \
                 weirctl delete node {}",
                shell_word(host)
            )));
        }
    }
    Ok(())
}

/// A failure of the IPAM engine, with what to do about it.
pub fn explain(error: Error) -> Failure {
    match error {
        Error::Datastore(error) => Failure::new(report::with_advice(&error.into())),
        error => error.into(),
    }
}
