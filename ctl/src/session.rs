//! What a command works with.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use weir_common::audit::ThisNode;
use weir_common::cni::NodeName;
use weir_common::datastore::Datastore;
use weir_common::ipam::{LocalNetwork, MachineId, ensure_cluster_guid};
use weir_common::network::{ActualState, ForwardFilters, PolicyRule, Underlay};
use weir_common::printable_lines;
use weir_common::resources::Birth;
use weir_ipam::HostEndRepair;
use weir_process::Lock;

use crate::network::Network;
use crate::output::Style;
use crate::store::Observer;

/// What a command needs from outside besides the datastore.
#[async_trait]
pub trait HostEnvironment: Observer {
    /// All that is written to standard input.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    fn read_input(&self) -> std::io::Result<String>;

    /// A UID and the time, for a resource that is created.
    fn birth(&self) -> Birth;

    /// The present time.
    fn now(&self) -> Timestamp;

    /// Waits.
    async fn pause(&self, time: Duration);

    /// This node, as its kernel and its CNI configuration have it now; `None`
    /// on a machine without Weir.
    ///
    /// # Errors
    /// When the kernel, or the node's name, cannot be read.
    async fn this_node(&self) -> Result<Option<ThisNode>, Failure>;

    /// The same, while no address is handed out or given back on it.
    ///
    /// # Errors
    /// As [`HostEnvironment::this_node`], and when the host's lock cannot be had.
    async fn still_node(&self) -> Result<StillNode, Failure>;

    /// The name of this node, found as a network's configuration says.
    ///
    /// # Errors
    /// When there is none that can be used.
    fn node_name(&self, configured: &NodeName) -> Result<String, Failure>;

    /// The name of this node, found as its networks say, else as by default.
    ///
    /// # Errors
    /// When there is none that can be used.
    fn own_name(&self) -> Result<String, Failure>;

    /// Whether the agent of this node runs.
    fn agent_runs(&self) -> bool;

    /// Lets the file that keeps this node's name say `new` if it says `old`. Answers
    /// whether it did.
    ///
    /// # Errors
    /// When it cannot be written.
    fn rename_kept_name(&self, old: &str, new: &str) -> std::io::Result<bool>;

    /// This machine; `None` where it has no identity.
    fn machine(&self) -> Option<MachineId>;

    /// The network that the call is about: the one it names, else the node's
    /// first one in the datastore in use.
    fn network(&self) -> Option<Network>;

    /// The datastore in use, and who named it.
    fn datastore(&self) -> String;

    /// Tells of something that is not a failure, on standard error.
    fn warn(&self, message: &str);

    /// How many columns the terminal has, or what takes its place.
    fn width(&self) -> usize;

    /// Reads a file as UTF-8.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    fn read_file(&self, path: &Path) -> std::io::Result<String>;

    /// Writes a file, or what takes its place.
    ///
    /// # Errors
    /// When it cannot be written.
    fn write_file(&self, path: &Path, text: &str) -> std::io::Result<()>;

    /// The ranges that this node uses itself.
    ///
    /// # Errors
    /// [`Failure`] when the node cannot be asked.
    async fn occupied(&self) -> Result<Vec<OccupiedRange>, Failure>;

    /// What this node's kernel says of the addresses around it.
    ///
    /// # Errors
    /// [`Failure`] when the kernel cannot be asked.
    async fn local_network(&self) -> Result<LocalNetwork, Failure>;

    /// What this node's kernel has: the links to other nodes, and the node's
    /// part in the cluster.
    ///
    /// # Errors
    /// [`Failure`] when the kernel cannot be asked.
    async fn cluster(&self) -> Result<(Underlay, ActualState), Failure>;

    /// Repairs the host ends of this node's containers, whose addresses are in `datastore`.
    ///
    /// # Errors
    /// [`Failure`] when the kernel cannot be read, or the node has no name.
    async fn repair_host_ends(&self, datastore: &dyn Datastore) -> Result<HostEndRepair, Failure>;

    /// The rules by which other programs filter what this node forwards, and send packets by
    /// tables of their own.
    ///
    /// # Errors
    /// [`Failure`] when the kernel cannot be asked.
    async fn foreign_rules(&self) -> Result<(ForwardFilters, Vec<PolicyRule>), Failure>;
}

/// A node whose calls of `weir-ipam` wait until this is dropped.
#[derive(Debug)]
pub struct StillNode {
    /// What it has.
    pub node: Option<ThisNode>,
    /// What makes them wait.
    pub _locks: Vec<Lock>,
}

/// Addresses that the node has, or has a route to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OccupiedRange {
    /// The addresses.
    pub range: IpNet,
    /// What they are, for messages (`address 172.16.1.11/24 of eth0`).
    pub what: String,
}

/// The datastore and the environment of one call.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// The datastore.
    pub datastore: &'a dyn Datastore,
    /// Everything else.
    pub environment: &'a dyn HostEnvironment,
    /// Room and means for showing results.
    pub style: Style,
}

impl Session<'_> {
    /// Gives the cluster a GUID if it has none: done by what writes configuration. If that
    /// fails, the next such command does it.
    pub async fn ensure_cluster_guid(&self) {
        let (birth, guid) = (self.environment.birth(), self.environment.birth().uid);
        if let Err(error) = ensure_cluster_guid(self.datastore, &birth, &guid).await {
            self.environment.warn(&format!(
                "warning: the cluster has no clusterGUID: {}; add it later: weirctl init",
                chain(&error)
            ));
        }
    }
}

/// A command that did not do all that it was asked to: exit status 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What is printed all the same.
    pub output: String,
    /// What went wrong, for standard error, without a line end.
    pub message: String,
}

impl Failure {
    /// A failure with nothing to show for it. What is not printable in its lines is escaped.
    pub fn new(message: impl Into<String>) -> Self {
        Self { output: String::new(), message: printable_lines(&message.into()) }
    }
}

/// A failure caused by this error, with all its causes.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

/// What a command or a service runs in: one thread.
///
/// # Errors
/// The kernel has no room for it.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("the runtime does not start: {error}")))
}

/// What a command prints, or why it failed.
pub type CommandResult = Result<String, Failure>;

pub use weir_common::error_chain as chain;
