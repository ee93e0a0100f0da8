//! Looking for damage and mending it: what several commands about addresses
//! share.

use std::collections::BTreeSet;

use clap::Args;
use weir_common::datastore::Revision;
use weir_common::ipam::Error;
use weir_common::ipam::audit::engine::{self, Listed, Repair, Repaired};
use weir_common::ipam::audit::{Circumstances, Finding, Listing, ThisNode, audit};

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

/// One look at everything.
pub struct Look {
    /// What is in the store.
    pub listing: Listing,
    /// The store's revision when the look began.
    pub revision: Revision,
    /// What this node has.
    pub node: Option<ThisNode>,
    /// What is damaged.
    pub findings: Vec<Finding>,
}

impl Look {
    /// Lists the store, reads the kernel, and compares.
    ///
    /// # Errors
    /// [`Failure`] when one of the `gone` hosts is there; when the datastore or
    /// the kernel fails.
    pub async fn take(session: &Session<'_>, gone: &BTreeSet<String>) -> Result<Self, Failure> {
        let Listed { listing, revision, steady } =
            engine::list_telling(session.datastore, &|entries| {
                session.surroundings.reading(entries);
            })
            .await
            .map_err(explain)?;
        // Before the kernel is read: what comes into it later is younger.
        let now = session.surroundings.now();
        let node = session.surroundings.this_node().await?;
        check_gone(gone, &listing, node.as_ref())?;
        let circumstances = Circumstances { node: node.as_ref(), gone, now };
        let mut findings = audit(&listing, &circumstances);
        // What the kernel has was read a moment later than the store.
        if !steady || findings.iter().any(Finding::rests_on_kernel) {
            findings = engine::confirm(session.datastore, &listing, findings, &circumstances)
                .await
                .map_err(explain)?;
        }
        Ok(Self { listing, revision, node, findings })
    }

    /// Mends findings, each by its own transaction, and says of each what became
    /// of it. What an earlier look saw, too, has that look's revision in `since`.
    ///
    /// Before one that rests on the kernel is mended, the kernel is read again,
    /// while no address is handed out on this host.
    ///
    /// # Errors
    /// [`Failure`] when the datastore or the kernel fails; what was mended until
    /// then stays mended.
    pub async fn mend(
        &self,
        findings: Vec<Finding>,
        since: Revision,
        session: &Session<'_>,
        gone: &BTreeSet<String>,
    ) -> Result<Vec<(Finding, Repaired)>, Failure> {
        let mut repair = Repair::new(session.datastore, &self.listing, since);
        let mut mended = Vec::with_capacity(findings.len());
        let total = findings.len();
        for finding in engine::in_turn(findings) {
            session.surroundings.progress(mended.len(), total);
            let now = session.surroundings.now();
            let done = if self.node.is_some() && finding.rests_on_kernel() {
                let still = session.surroundings.still_node().await?;
                let circumstances = Circumstances { node: still.node.as_ref(), gone, now };
                repair.mend(&finding, &circumstances).await
            } else {
                let circumstances = Circumstances { node: self.node.as_ref(), gone, now };
                repair.mend(&finding, &circumstances).await
            };
            mended.push((finding, done.map_err(explain)?));
        }
        Ok(mended)
    }
}

/// Refuses to call a host gone that is there.
fn check_gone(
    gone: &BTreeSet<String>,
    listing: &Listing,
    node: Option<&ThisNode>,
) -> Result<(), Failure> {
    for host in gone {
        if node.is_some_and(|node| node.host == *host) {
            return Err(Failure::new(format!(
                "--gone-host {host}: this is host {host}; name one that is gone, or run the command \
                 elsewhere; those that may be gone are listed by: weirctl ipam reclaim --dry-run"
            )));
        }
        if listing.has_node(host) {
            return Err(Failure::new(format!(
                "--gone-host {host}: this host is registered; if it is gone, delete it first: \
                 weirctl delete node {host}"
            )));
        }
    }
    Ok(())
}

/// A failure of the IPAM engine, with what to do about it.
pub fn explain(error: Error) -> Failure {
    match error {
        Error::Datastore(error) => Failure::new(report::with_advice(&error.into())),
        error => Failure::caused_by(&error),
    }
}
