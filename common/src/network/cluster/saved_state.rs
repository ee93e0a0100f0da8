//! The state file: what the node was made last, for the next ADD or agent, and for STATUS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cache::ClusterCache;
use super::cluster_state::{ClusterState, Peer};
use super::plan::{ClusterPlan, addresses_of_peers};
use super::snapshot::ObservedRevision;
use super::tunnels::udp_ports;
use crate::datastore::Revision;
use crate::ipam::Family;
use crate::network::route::SourceAddresses;
use crate::tunnel::TunnelKind;

/// The form of the file. A file of another form is passed over.
const VERSION: u32 = 8;

/// The tunnels that a node should have in service because pools need them, each with its address;
/// none that has not been given.
pub type TunnelNeeds = BTreeMap<TunnelKind, Option<IpAddr>>;

/// Those of a plan.
pub fn tunnel_needs(plan: &ClusterPlan) -> TunnelNeeds {
    let needed = plan.tunnels.iter().filter(|(_, tunnel)| tunnel.is_needed);
    needed.map(|(kind, tunnel)| (*kind, tunnel.address)).collect()
}

/// What of a plan is left to the next call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// The tunnels that should be in service.
    pub tunnels: TunnelNeeds,
    /// The UDP ports of tunnels: NAT gives them to no connection.
    pub tunnel_ports: BTreeSet<u16>,
    /// The MTU in bytes for containers; `None` where the cluster does not decide it.
    pub pod_mtu: Option<u32>,
    /// The families in which the node is not registered and others have containers.
    pub not_registered: BTreeSet<Family>,
}

impl PlanSummary {
    /// That of a plan.
    pub fn of(plan: &ClusterPlan) -> Self {
        Self {
            tunnels: tunnel_needs(plan),
            tunnel_ports: udp_ports(&plan.tunnels),
            pod_mtu: Some(plan.pod_mtu),
            not_registered: plan.not_registered(),
        }
    }
}

/// Who wrote the state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Writer {
    /// The agent, once it has reconciled the node.
    Agent,
    /// An ADD or a GC, where no agent runs.
    Plugin,
}

/// The node under whose name the state was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedNode {
    /// The name.
    pub name: String,
    /// Where the name comes from, for messages.
    pub source: String,
}

/// What an agent or ADD leaves to the next one: the short part of the state file, which most
/// ADDs need alone. The other part is the [`ClusterCache`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedState {
    version: u32,
    boot_id: Option<String>,
    /// Who wrote it.
    pub writer: Writer,
    /// The node.
    pub node: NamedNode,
    /// Which datastore was read for it ([`NetworkConfiguration::place`]): two networks of a
    /// node may have different ones, whose revisions have nothing to do with each
    /// other.
    ///
    /// [`NetworkConfiguration::place`]: crate::datastore::DatastoreConfiguration::place
    pub datastore: String,
    /// The id of the cluster in it (`clusterGUID`), where the agent wrote the file.
    #[serde(default)]
    pub cluster_guid: Option<String>,
    /// Up to where it was read.
    pub revision: Revision,
    /// The same, to ask whether anything changed since; none when not everything
    /// could be done, so that it is tried again.
    pub observed: Option<ObservedRevision>,
    /// The MTU in bytes for containers, where the cluster decides it.
    pub pod_mtu: Option<u32>,
    /// The tunnels that should be in service.
    pub tunnels: TunnelNeeds,
    /// The UDP ports of tunnels.
    pub tunnel_ports: BTreeSet<u16>,
    /// The addresses that other nodes are registered with and that lie in pools, each with its
    /// node: no container is given one. None in most clusters.
    pub nodes_in_pools: BTreeMap<IpAddr, String>,
    /// The addresses that the node itself is registered with: what it sends to its containers
    /// from.
    #[serde(default)]
    pub sources: SourceAddresses,
    /// The families in which it is not registered and other nodes have containers, where it is
    /// registered in the other one.
    #[serde(default)]
    pub not_registered: BTreeSet<Family>,
    /// How many values count although a restored datastore has lost them.
    pub retained: usize,
}

impl SavedState {
    /// The state of a node that was reconciled with what `cache` knows of `datastore`, under the
    /// boot `boot_id`.
    pub fn new(
        writer: Writer,
        node: NamedNode,
        datastore: &str,
        boot_id: Option<&str>,
        cache: &ClusterCache,
        summary: PlanSummary,
    ) -> Self {
        let PlanSummary { tunnels, tunnel_ports, pod_mtu, not_registered } = summary;
        let cluster = cache.state();
        let nodes_in_pools = nodes_in_pools(&node.name, &cluster);
        let sources = cluster.nodes.get(&node.name).map(Peer::sources).unwrap_or_default();
        // Without any address it is not ready yet, or is meant to be alone.
        let is_registered = sources != SourceAddresses::default();
        let not_registered = if is_registered { not_registered } else { BTreeSet::new() };
        Self {
            version: VERSION,
            boot_id: boot_id.map(str::to_owned),
            writer,
            node,
            datastore: datastore.to_owned(),
            cluster_guid: None,
            revision: cache.revision(),
            observed: None,
            pod_mtu,
            tunnels,
            tunnel_ports,
            nodes_in_pools,
            sources,
            not_registered,
            retained: cache.retained(),
        }
    }

    /// Reads the first line of a state file; `None` for one of another boot than
    /// `boot_id`, since a reboot clears the kernel, or of another form.
    pub fn read(line: &str, boot_id: Option<&str>) -> Option<Self> {
        let line = line.trim_end().strip_suffix(',')?;
        let state: Self = serde_json::from_str(&format!("{line}}}")).ok()?;
        (state.version == VERSION && state.boot_id.as_deref() == boot_id).then_some(state)
    }

    /// As [`SavedState::read`] of a whole file, with what was known of the cluster.
    pub fn read_whole(text: &str, boot_id: Option<&str>) -> Option<(Self, ClusterCache)> {
        #[derive(Deserialize)]
        struct Cluster {
            cluster: ClusterCache,
        }
        let state = Self::read(text.lines().next()?, boot_id)?;
        let Cluster { cluster } = serde_json::from_str(text).ok()?;
        Some((state, cluster))
    }

    /// The text of a state file: one JSON object. Its short part is the first line, so
    /// that it can be read alone, and `cluster`, which may be megabytes, the second.
    pub fn text(&self, cache: &ClusterCache) -> String {
        // Plain data; what cannot be written reads back as no state.
        let state = serde_json::to_string(self).unwrap_or_default();
        let state = state.strip_suffix('}').unwrap_or_default();
        let cluster = serde_json::to_string(cache).unwrap_or_default();
        format!("{state},\n\"cluster\":{cluster}}}\n")
    }

    /// Whether another ADD has made the node newer meanwhile than a listing of
    /// revision `listed` would, when the state was of revision `before` before that
    /// was read. A listing below `before` is of a datastore that was restored, and
    /// not overtaken.
    pub fn overtakes(&self, before: Revision, listed: Revision) -> bool {
        let is_newer = self.revision > listed && listed >= before;
        // Of ADDs that began together one does the work of all.
        let is_same = self.revision == listed && listed > before && self.observed.is_some();
        is_newer || is_same
    }
}

fn nodes_in_pools(node: &str, state: &ClusterState) -> BTreeMap<IpAddr, String> {
    let is_in_pool = |address: &IpAddr| state.pool_of((*address).into()).is_some();
    let nodes = addresses_of_peers(node, state).into_iter();
    nodes.filter(|(address, _)| is_in_pool(address)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::network::ClusterState;

    fn state(revision: i64) -> (SavedState, ClusterCache) {
        let observed =
            ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
        let mut cache = ClusterCache::default();
        cache.replace(ClusterState::default(), &observed);
        let node = NamedNode { name: "n1".to_owned(), source: "the host's name".to_owned() };
        let writer = Writer::Plugin;
        let saved =
            SavedState::new(writer, node, "here", Some("boot"), &cache, PlanSummary::default());
        (SavedState { observed: Some(observed), ..saved }, cache)
    }

    #[test]
    fn it_is_read_back_under_the_same_boot_alone() {
        let (saved, cache) = state(7);
        let address = Some(Ipv4Addr::new(10, 0, 0, 1).into());
        let tunnels = TunnelNeeds::from([(TunnelKind::Ipip, address), (TunnelKind::Vxlan, None)]);
        let saved = SavedState { tunnels, pod_mtu: Some(1480), ..saved };
        let text = saved.text(&cache);
        serde_json::from_str::<serde_json::Value>(&text).expect("the file is one JSON object");
        let first = text.lines().next().unwrap();
        assert_eq!(SavedState::read(first, Some("boot")), Some(saved.clone()));
        let (again, known) = SavedState::read_whole(&text, Some("boot")).unwrap();
        assert_eq!((again, known.revision()), (saved, Revision(7)));
        for boot in [Some("other"), None] {
            assert_eq!(SavedState::read(first, boot), None);
        }
        let version = |number: u32| format!("\"version\":{number}");
        let newer = text.replace(&version(VERSION), &version(VERSION + 1));
        assert_eq!(SavedState::read(newer.lines().next().unwrap(), Some("boot")), None);
        for damaged in ["", "nonsense", "nonsense,", first] {
            assert!(SavedState::read_whole(damaged, Some("boot")).is_none());
        }
    }

    #[test]
    fn an_older_listing_gives_way_and_a_restored_datastore_does_not() {
        let overtakes = |is: i64, before: i64, listed: i64| {
            state(is).0.overtakes(Revision(before), Revision(listed))
        };
        // Another ADD was faster.
        assert!(overtakes(9, 5, 8));
        assert!(!overtakes(8, 5, 9));
        assert!(!overtakes(8, 8, 8));
        // Another one has done the same.
        assert!(overtakes(8, 5, 8));
        let unfinished = SavedState { observed: None, ..state(8).0 };
        assert!(!unfinished.overtakes(Revision(5), Revision(8)));
        // The datastore went back to 3.
        assert!(!overtakes(9, 9, 3));
    }
}
