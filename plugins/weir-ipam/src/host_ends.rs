//! What the host ends of this node's containers have lost, brought back: by their addresses
//! in the datastore. Used by ADD, GC, the agent and `weirctl node repair`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::ipam::engine::lookup;
use weir_common::ipam::{self, Assignee, MachineId};
use weir_common::network::{AttachmentIdentity, HostEnd, Step};
use weir_kernel::Kernel;
use weir_process::AttachmentLocks;

use crate::gc::Claims;

/// Whose attachments are meant, and where their addresses are.
#[derive(Clone, Copy)]
pub struct HostEnds<'a> {
    /// The datastore.
    pub datastore: &'a dyn Datastore,
    /// The node's name.
    pub node: &'a str,
    /// This machine.
    pub machine: Option<&'a MachineId>,
}

/// What a repair of host ends came to.
#[derive(Debug, Default)]
pub struct HostEndRepair {
    /// What was done for each attachment.
    pub repaired: Vec<(AttachmentIdentity, Vec<Step>)>,
    /// What could not be done, with the attachment that it concerns.
    pub failures: Vec<(AttachmentIdentity, String)>,
    /// The numbers of links that a call is at work on: they were passed over.
    pub busy: BTreeSet<u32>,
}

impl HostEndRepair {
    /// Logs what was repaired, and what could not be.
    pub fn log(&self) {
        for (identity, steps) in &self.repaired {
            let (container_id, link) = (identity.container_id(), identity.host_interface());
            for step in steps {
                tracing::warn!(container_id, link, "repaired what a container had lost: {step}");
            }
        }
        for (identity, error) in &self.failures {
            let (container_id, link) = (identity.container_id(), identity.host_interface());
            tracing::warn!(
                container_id,
                link,
                error,
                "the link of a container is not whole; delete and add the container again"
            );
        }
    }
}

impl HostEnds<'_> {
    /// Repairs those that have visibly lost something ([`HostEnd::looks_whole`]), and asks the
    /// datastore too for those that are `suspect`. Those that a call is at work on are passed
    /// over.
    ///
    /// # Errors
    /// [`Code::Kernel`] when the kernel cannot be read; the locks cannot be opened.
    pub async fn repair(
        &self,
        kernel: &Kernel,
        is_suspect: &(dyn Fn(&HostEnd) -> bool + Sync),
    ) -> Result<HostEndRepair, Error> {
        let failed = |error: weir_kernel::Error| Error::caused(Code::Kernel, &error);
        let claims = Claims::new("", AttachmentLocks::open()?);
        let is_wanted = |end: &HostEnd| is_suspect(end) || !end.looks_whole();
        let mut outcome = HostEndRepair::default();
        let mut claimed = BTreeSet::new();
        for end in kernel.host_ends().await.map_err(failed)?.iter().filter(|end| is_wanted(end)) {
            match claims.claim_link(&end.state.identity.host_interface())? {
                true => _ = claimed.insert(end.index),
                false => _ = outcome.busy.insert(end.index),
            }
        }
        if claimed.is_empty() {
            return Ok(outcome);
        }
        // What a call was doing until its lock was free counts.
        let ends = kernel.host_ends().await.map_err(failed)?.into_iter();
        for end in ends.filter(|end| claimed.contains(&end.index) && is_wanted(end)) {
            self.repair_one(kernel, end, &mut outcome).await;
        }
        Ok(outcome)
    }

    /// Does what can be done without the datastore where it does not answer.
    async fn repair_one(&self, kernel: &Kernel, end: HostEnd, outcome: &mut HostEndRepair) {
        let identity = &end.state.identity;
        let addresses = self.addresses_of(identity).await.unwrap_or_else(|error| {
            outcome.failures.push((identity.clone(), weir_common::error_chain(&error)));
            Vec::new()
        });
        let mut done = Vec::new();
        for step in end.repair(&addresses) {
            match kernel.apply(std::slice::from_ref(&step)).await {
                Ok(_) => done.push(step),
                Err(error) => outcome.failures.push((identity.clone(), error.to_string())),
            }
        }
        if !done.is_empty() {
            outcome.repaired.push((end.state.identity, done));
        }
    }

    async fn addresses_of(
        &self,
        identity: &AttachmentIdentity,
    ) -> Result<Vec<IpAddr>, ipam::Error> {
        let (network, container_id) = (identity.network(), identity.container_id());
        let assignee = Assignee::interface(self.node, network, container_id, identity.interface());
        let assigned = lookup(self.datastore, &assignee.on(self.machine.cloned())).await?;
        Ok(assigned.into_iter().map(|it| it.address).collect())
    }
}
