//! What the host ends of this node's containers have lost, brought back: by their addresses
//! in the datastore. Used by ADD, GC, the agent and `weirctl node repair`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::ipam::engine::lookup;
use weir_common::ipam::{self, Assignee, MachineId};
use weir_common::network::{AttachmentIdentity, HostEnd, Step};
use weir_kernel::Kernel;
use weir_process::{AttachmentLocks, STATE_FILE, read_state};

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
    pub failures: Vec<(AttachmentIdentity, RepairFailure)>,
    /// The numbers of links that a call is at work on: they were passed over.
    pub busy: BTreeSet<u32>,
}

/// Why an attachment's host end is not whole after a repair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairFailure {
    /// Its addresses are not known, and so neither are its routes.
    #[error(
        "its addresses cannot be read ({0}); its routes are looked at again once the datastore \
         answers"
    )]
    Unread(String),
    /// The kernel refused a step.
    #[error("{0}; delete and add the container again, if its network does not work")]
    Refused(String),
}

impl HostEndRepair {
    /// What was repaired, a line for each step.
    pub fn done(&self) -> impl Iterator<Item = String> {
        self.repaired.iter().flat_map(|(identity, steps)| {
            let container = identity.container_id();
            steps
                .iter()
                .map(move |step| format!("repaired what container {container} had lost: {step}"))
        })
    }

    /// What could not be, a line for each.
    pub fn left(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(identity, failure)| {
            let (container, link) = (identity.container_id(), identity.host_interface());
            format!("container {container} (link {link}) is not whole: {failure}")
        })
    }

    /// Logs both.
    pub fn log(&self) {
        self.done().chain(self.left()).for_each(|line| tracing::warn!("{line}"));
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
        let saved = read_state(Path::new(STATE_FILE));
        let sources = saved.map(|state| state.sources).unwrap_or_default();
        let is_wanted = |end: &HostEnd| is_suspect(end) || !end.looks_whole();
        let mut outcome = HostEndRepair::default();
        let mut claimed = BTreeSet::new();
        for end in
            kernel.host_ends(sources).await.map_err(failed)?.iter().filter(|end| is_wanted(end))
        {
            match claims.claim_link(&end.state.identity.host_interface())? {
                true => _ = claimed.insert(end.index),
                false => _ = outcome.busy.insert(end.index),
            }
        }
        if claimed.is_empty() {
            return Ok(outcome);
        }
        // What a call was doing until its lock was free counts.
        let ends = kernel.host_ends(sources).await.map_err(failed)?.into_iter();
        let mut away = None;
        for end in ends.filter(|end| claimed.contains(&end.index) && is_wanted(end)) {
            let asked = is_suspect(&end) || end.may_lack_an_address();
            self.repair_one(kernel, (end, asked), &mut away, &mut outcome).await;
        }
        Ok(outcome)
    }

    /// Repairs one, by its addresses in the datastore where it is to be `asked`. Does what can be
    /// done without where that is `away`, for this reason: it is not asked again.
    async fn repair_one(
        &self,
        kernel: &Kernel,
        (end, asked): (HostEnd, bool),
        away: &mut Option<String>,
        outcome: &mut HostEndRepair,
    ) {
        let identity = &end.state.identity;
        let addresses = match away {
            None if asked => self.addresses_of(identity).await,
            _ => Ok(Vec::new()),
        };
        let addresses = addresses.unwrap_or_else(|error| {
            *away = Some(weir_common::error_chain(&error));
            Vec::new()
        });
        if asked && let Some(error) = away {
            outcome.failures.push((identity.clone(), RepairFailure::Unread(error.clone())));
        }
        let mut done = Vec::new();
        for step in end.repair(&addresses) {
            match kernel.apply(std::slice::from_ref(&step)).await {
                Ok(_) => done.push(step),
                Err(error) => {
                    let failure = RepairFailure::Refused(error.to_string());
                    outcome.failures.push((identity.clone(), failure));
                }
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
