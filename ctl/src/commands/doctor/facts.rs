//! What was read of a node, as data.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_common::audit::Report;
use weir_common::network::{
    ActualState, AttachmentState, ClusterState, ForwardFilters, HostEnd, NamedNode, NodeState,
    PolicyRule, Underlay,
};
use weir_kernel::Occupied;

use crate::kernel_modules::KernelModule;
use crate::location::Location;
use crate::same_cluster::SameCluster;

/// A fact, or why it could not be had.
pub type Fact<T> = Result<T, String>;

/// All of them.
#[derive(Clone, Debug)]
pub struct ExaminedNode {
    /// The CNI configuration.
    pub networks: NetworkFacts,
    /// The plugins that Weir's networks name.
    pub programs: Vec<ProgramFacts>,
    /// The datastore.
    pub store: StoreFacts,
    /// The node's name.
    pub names: NameFacts,
    /// The kernel.
    pub kernel: Fact<KernelFacts>,
    /// The version of the program nft.
    pub nft: Fact<String>,
    /// What the datastore says of the cluster.
    pub cluster: Fact<ClusterState>,
    /// The next address of each network, or why there is none.
    pub next: Fact<Vec<NextAddress>>,
    /// What `ipam check` finds.
    pub audit: Fact<Report>,
    /// The agent.
    pub agent: AgentFacts,
}

impl ExaminedNode {
    /// The same without what the datastore says, for this reason.
    pub fn without_cluster(&self, why: &str) -> Self {
        let cluster = self.cluster.as_ref().map_err(String::clone).and(Err(why.to_owned()));
        let next = self.next.as_ref().map_err(String::clone).and(Err(why.to_owned()));
        let audit = self.audit.as_ref().map_err(String::clone).and(Err(why.to_owned()));
        Self { cluster, next, audit, ..self.clone() }
    }
}

/// The files of the CNI configuration.
#[derive(Clone, Debug, Default)]
pub struct NetworkFacts {
    /// Where they are.
    pub directory: PathBuf,
    /// Those that can be read, with their text.
    pub files: Vec<(PathBuf, String)>,
    /// The others.
    pub unreadable: Vec<PathBuf>,
    /// Whether dockerd finds Weir's driver.
    pub has_docker: bool,
}

/// A plugin that a network of Weir's names.
#[derive(Clone, Debug)]
pub struct ProgramFacts {
    /// Its type.
    pub name: String,
    /// The file whose network names it.
    pub file: PathBuf,
    /// The version of the CNI specification that the network asks for.
    pub cni_version: String,
    /// Where it is, if it is anywhere.
    pub path: Option<PathBuf>,
    /// Where it was looked for.
    pub directories: String,
    /// The versions of the specification that it supports, by its own answer.
    pub supports: Fact<Vec<String>>,
    /// The version of a program of Weir's.
    pub release: Option<String>,
}

/// The datastore.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    /// Where it is, and who said so.
    pub location: Fact<Location>,
    /// The file of an embedded one, if it is not there.
    pub missing: Option<PathBuf>,
    /// How long it took to open it and to read one key.
    pub answer: Fact<Duration>,
    /// Whether it could be written to.
    pub writable: Fact<()>,
    /// The networks of Weir's whose addresses are not, or perhaps not, in it, each with the
    /// place of its datastore.
    pub elsewhere: Vec<(PathBuf, String, SameCluster)>,
    /// By etcd's endpoint, how many seconds its clock is ahead of this node's.
    pub clocks: Vec<(String, Fact<i64>)>,
}

/// The node's name, from all sources.
#[derive(Clone, Debug)]
pub struct NameFacts {
    /// By the networks' files: the name, and where it comes from.
    pub networks: Vec<(PathBuf, Fact<NamedNode>)>,
    /// Without any network.
    pub default: Fact<NamedNode>,
    /// The names in Weir's own file and in Calico's.
    pub kept: BTreeMap<PathBuf, String>,
    /// What is wrong if the name belongs to another machine.
    pub clash: Option<String>,
}

impl NameFacts {
    /// The name in use.
    pub fn own(&self) -> Option<String> {
        let named = self.networks.first().map_or(&self.default, |(_, named)| named);
        named.as_ref().ok().map(|named| named.name.clone())
    }
}

/// The kernel.
#[derive(Clone, Debug)]
pub struct KernelFacts {
    /// Its release.
    pub release: String,
    /// The modules that it certainly lacks.
    pub missing_modules: Vec<&'static KernelModule>,
    /// Whether this is the node's network namespace, if that is known.
    pub is_node: Option<bool>,
    /// What it forwards.
    pub state: NodeState,
    /// `net.ipv4.conf.all.rp_filter`.
    pub rp_filter: String,
    /// The attachments.
    pub attachments: Vec<AttachmentState>,
    /// Their host ends.
    pub host_ends: Vec<HostEnd>,
    /// Whether there is NAT of Weir's.
    pub has_nat: Fact<bool>,
    /// Whether there is the filter of what containers send.
    pub has_source_filter: Fact<bool>,
    /// The filters of what the node forwards.
    pub filters: ForwardFilters,
    /// The policy rules.
    pub rules: Vec<PolicyRule>,
    /// The ranges that the node uses itself.
    pub occupied: Vec<Occupied>,
    /// The links to other nodes.
    pub underlay: Underlay,
    /// The node's part in the cluster.
    pub actual: ActualState,
    /// The MTU in bytes towards the default route.
    pub uplink_mtu: u32,
}

/// What the next container of a network gets.
#[derive(Clone, Debug)]
pub struct NextAddress {
    /// The network's file.
    pub file: PathBuf,
    /// The addresses, or why there are none.
    pub outcome: Fact<Vec<IpAddr>>,
}

/// The agent.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts {
    /// Whether it runs.
    pub runs: bool,
    /// The node and the place of the datastore that it keeps.
    pub keeps: Option<(NamedNode, String)>,
    /// Where its health is asked for.
    pub address: String,
    /// Whether it is well, and its own words.
    pub health: Option<Fact<(bool, String)>>,
}
