//! The agent's node, for what runs beside the agent's loop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch::Receiver;
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::MachineId;
use weir_common::network::SourceAddresses;
use weir_ipam::HostEnds;

use crate::this_node::Networks;

/// The node, its datastore and its networks, and what the agent's loop tells of them.
pub struct AgentNode {
    /// The datastore.
    pub datastore: Arc<dyn Datastore>,
    /// The same, as configured.
    pub in_use: DatastoreConfiguration,
    /// The CNI configuration.
    pub network_directory: PathBuf,
    /// The node's name.
    pub name: String,
    /// This machine.
    pub machine: Option<MachineId>,
    /// The blocks that the node borrows from.
    pub borrowed_from: Receiver<BTreeSet<IpNet>>,
    /// Whether damage is looked for in the whole datastore.
    pub is_auditor: Receiver<bool>,
    /// The addresses that the node is to send from.
    pub sources: Receiver<SourceAddresses>,
}

impl AgentNode {
    /// The networks of the CNI configuration, as it is now.
    pub async fn networks(&self) -> Networks {
        Networks::read(&self.network_directory, &self.in_use, self.datastore.as_ref()).await
    }

    /// The host ends of its containers.
    pub fn host_ends(&self) -> HostEnds<'_> {
        let (datastore, machine) = (self.datastore.as_ref(), self.machine.as_ref());
        HostEnds { datastore, node: &self.name, machine }
    }
}
