//! Weir's IPAM as CNI calls: pool, block, address.
//!
//! One call is one [`Ipam`]. The decisions are in `weir_common::ipam`, the datastores in
//! `weir_datastore`; here they are connected. The main plugin `weir` calls this library,
//! and the program `weir-ipam` is the same for other main plugins.
#![warn(missing_docs)]

mod add;
mod check;
mod connections;
mod del;
mod evidence;
mod gc;
mod host_ends;
mod probe;
mod status;
mod sweep;
mod wiring;

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error, IpamConfiguration};
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::collect::{Collected, Collection, Rule};
use weir_common::ipam::{Error as IpamError, MachineId};
use weir_datastore::Absent;
use weir_process::{
    AttachmentLocks, DEFAULT_LOCK_FILE, EndpointFile, FoundName, Limit, Lock, Timing, boot_id,
    machine_id, node_name,
};

pub use add::{Added, note_assigned};
pub use connections::{forget, forget_released};
pub use gc::{Claims, remove_unfinished};
pub use host_ends::{HostEndRepair, HostEnds, RepairFailure};
pub use probe::NodeNetwork;
pub use wiring::{
    WiringError, allow_sources, ensure_source_filter, part_sources, plan_of_node, remove,
};

/// The IPAM of one call.
pub struct Ipam<'a> {
    call: &'a Call,
    configuration: &'a IpamConfiguration,
    /// This node's name, and where it comes from.
    pub node: FoundName,
    /// This machine; `None` where it has no identity.
    pub machine: Option<MachineId>,
    boot_id: Option<&'static str>,
    limit: Limit,
    /// The datastore of the call's network.
    pub datastore: Box<dyn Datastore>,
}

impl<'a> Ipam<'a> {
    /// Finds the node's name and opens the datastore, as the call's configuration says.
    /// All that follows ends with the limit.
    ///
    /// # Errors
    /// The configuration has no `ipam` section, the node's name is not known, or the
    /// datastore cannot be used.
    pub async fn open(call: &'a Call, limit: Limit) -> Result<Self, Error> {
        let configuration = call.configuration.require_ipam()?;
        let node = node_name(&call.configuration.node_name.clone()?)?;
        let datastore = call.configuration.datastore.clone()?;
        // weirctl makes one, where it is asked for: in one that a call made by a misspelt name
        // there would be no pool anyway.
        let datastore: Box<dyn Datastore> = match weir_datastore::missing_file(&datastore) {
            Some(path) => Box::new(Absent::new(path)),
            None => {
                let memory = Box::new(EndpointFile::of(&datastore));
                weir_datastore::open_with(&datastore, memory).await?
            }
        };
        let (machine, boot_id) = (machine_id(), boot_id());
        Ok(Self { call, configuration, node, machine, boot_id, limit, datastore })
    }

    /// The host ends of the node's containers.
    pub fn host_ends(&self) -> HostEnds<'_> {
        HostEnds {
            datastore: self.datastore.as_ref(),
            node: &self.node.name,
            machine: self.machine.as_ref(),
        }
    }

    /// The error of a decision as the runtime gets it. Where pools are missing it names the
    /// datastore: another one may have been meant.
    fn error(&self, error: IpamError) -> Error {
        let looked_in = match &self.call.configuration.datastore {
            Ok(datastore) if error.lacks_pools() => {
                let by = match *datastore == DatastoreConfiguration::default() {
                    true => "the default; the network configuration names no other one",
                    false => "named by the network configuration",
                };
                let there = match weir_datastore::missing_file(datastore) {
                    Some(_) => {
                        ", where there is none; make it: weirctl init \
                                --datastore-type=embedded"
                    }
                    None => "",
                };
                format!("; looked in {datastore} ({by}){there}")
            }
            _ => String::new(),
        };
        let error = Error::from(error);
        Error { message: error.message + &looked_in, ..error }
    }

    fn lock_file(&self) -> &'a Path {
        self.configuration.lock_file.as_deref().unwrap_or(Path::new(DEFAULT_LOCK_FILE))
    }

    /// Waits for this host's other calls that change allocations. The node may have been
    /// renamed meanwhile.
    async fn lock(&self) -> Result<Lock, Error> {
        let _timing = Timing::of("wait for the host's lock");
        let lock = Lock::wait(self.lock_file(), self.limit).await?;
        let now = node_name(&self.call.configuration.node_name.clone()?)?;
        if now != self.node {
            let (before, now) = (&self.node.name, &now.name);
            let message = format!("node {before} was renamed to {now} meanwhile; try again");
            return Err(Error::new(Code::TryAgainLater, message));
        }
        Ok(lock)
    }

    /// What of this host's attachments in the call's network is to be given back.
    fn collection(&self, rule: Rule) -> Collection {
        Collection {
            host: self.node.name.clone(),
            machine: self.machine.clone(),
            network: self.call.configuration.network.clone(),
            rule,
        }
    }

    /// Logs what was given back, and `why`; and what was not judged.
    fn log_collected(&self, collected: &Collected, why: &str) {
        for (address, handle) in &collected.released {
            tracing::info!(%address, handle, "given back: {why}");
        }
        let (addresses, node) = (collected.of_other_machines, &self.node.name);
        if addresses > 0 {
            tracing::warn!(
                addresses,
                node,
                "left alone: they belong to another machine of this name"
            );
        }
        if collected.of_calico > 0 {
            tracing::info!(
                addresses = collected.of_calico,
                node,
                "not judged: Calico assigned them; a DEL of their containers releases them; see: \
                 weirctl ipam check"
            );
        }
    }

    /// The claims of a GC: none so far.
    ///
    /// # Errors
    /// The file of the locks cannot be opened.
    pub fn claims(&self) -> Result<Claims, Error> {
        Ok(Claims::new(&self.call.configuration.network, AttachmentLocks::open()?))
    }
}
