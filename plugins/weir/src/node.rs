//! The node's part in the cluster, where no agent keeps it: used by ADD, GC and STATUS.
//!
//! A plugin runs for a moment only, so each call leaves what it made of the node in the
//! state file. As long as nothing has changed in the datastore since, nothing is done here.
//! [`LocalNode::find`] says who keeps the node, [`LocalNode::is_outdated`] whether anything changed,
//! [`LocalNode::read_cluster`] reads what there is, and [`LocalNode::reconcile`] makes the kernel
//! what that asks for. `docs/agent.md` gives the reasons.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::datastore::{Datastore, DatastoreConfiguration, Revision};
use weir_common::ipam::cluster_guid;
use weir_common::network::{
    ClusterCache, ClusterSnapshot, ClusterState, Mtu, MtuSource, NamedNode, Nat, NatPool, NatTable,
    PlanSummary, Problem, SavedState, SourceAddresses, TunnelNeed, Writer, any_tunnels,
    needs_tunnel, plan_cluster, pod_mtu,
};
use weir_common::node::{LocalFacts, TunnelOutcome, reconcile_tunnel_address};
use weir_common::resources::IpPool;
use weir_ipam::{Claims, Ipam};
use weir_kernel::{Keep, Kernel, Reconciled};
use weir_process::{
    AGENT_LOCK, AttachmentLocks, CLUSTER, FoundName, Limit, Lock, NODE_LOCK, STATE_FILE,
    TUNNEL_ADDRESS, Timing, agent_runs, boot_id, read_state, read_whole_state, within, within_ipam,
    write_state,
};

use crate::failure;

/// The most affinities in a cluster for which blocks are read: about ten megabytes
/// of them.
const MOST_BLOCKS: usize = 1000;

/// Who keeps the node, and what was made of it last.
#[derive(Clone)]
pub struct LocalNode {
    /// Whether the agent keeps it, and not each call.
    by_agent: bool,
    /// The datastore of the call's network, by its place.
    datastore: String,
    /// What was made of the node last; where no agent keeps it, by a call on the same
    /// datastore.
    state: Option<SavedState>,
}

/// What there is in the cluster, after the node has taken its tunnel address.
pub struct ClusterReading {
    node: NamedNode,
    listing: ClusterSnapshot,
    /// What became of the node's tunnel address; `None` if that failed, which the next
    /// call tries again.
    tunnel: Option<TunnelOutcome>,
    /// The MTU for containers, where the cluster decides it.
    pub pod_mtu: Option<Mtu>,
}

impl LocalNode {
    /// Who keeps it at this moment. An agent that has not reconciled the node yet does not:
    /// until then the calls do.
    pub fn find(call: &Call) -> Self {
        let datastore = call.configuration.datastore.as_ref().map(DatastoreConfiguration::place);
        let datastore = datastore.unwrap_or_default();
        let state = read_state(Path::new(STATE_FILE));
        let by_agent = is_agents(state.as_ref());
        let state = state.filter(|state| by_agent || state.datastore == datastore);
        Self { by_agent, datastore, state }
    }

    /// Whether the agent keeps it.
    pub fn is_kept_by_agent(&self) -> bool {
        self.by_agent
    }

    /// The MTU for containers, where it is known from the cluster.
    pub fn pod_mtu(&self) -> Option<Mtu> {
        self.state.as_ref()?.pod_mtu.map(of_cluster)
    }

    /// The same from the node's uplink as it is now, should the last call have found
    /// another one.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn pod_mtu_now(&self, kernel: &Kernel) -> Result<Option<Mtu>, weir_kernel::Error> {
        if self.by_agent {
            // It follows the uplink.
            return Ok(self.pod_mtu());
        }
        let inventory = self.known_inventory();
        let modes = inventory.pools.values().map(|pool| pool.ipip_mode);
        Ok(Some(of_cluster(pod_mtu(kernel.uplink_mtu().await?, modes))))
    }

    /// The addresses that the node sends to its containers from, as far as they are known.
    pub fn sources(&self) -> SourceAddresses {
        self.state.as_ref().map(|state| state.sources).unwrap_or_default()
    }

    /// What keeps the node's containers from those of other nodes because it has no address of
    /// their family, as far as is known.
    pub fn not_registered(&self) -> Vec<Problem> {
        let of_node = |state: &SavedState| {
            let node = &state.node.name;
            let problem = |&family| Problem::NotRegistered { node: node.clone(), family };
            state.not_registered.iter().map(problem).collect()
        };
        self.state.as_ref().map(of_node).unwrap_or_default()
    }

    /// Whether the tunnel device should be in service, as far as is known.
    pub fn tunnel(&self) -> TunnelNeed {
        self.state.as_ref().map(|state| state.tunnel).unwrap_or_default()
    }

    /// The pools for which the node's NAT was made last, if that NAT is gone; none where
    /// the agent keeps the node.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn pools_without_nat(&self, kernel: &Kernel) -> Result<Vec<NatPool>, weir_kernel::Error> {
        let pools: Vec<NatPool> =
            self.known_inventory().pools.values().map(NatPool::from).collect();
        // A kernel without nftables cannot be asked where no pool wants NAT.
        let is_lost = pools.iter().any(|pool| pool.nat_outgoing) && !kernel.has_nat()?;
        Ok(if is_lost { pools } else { Vec::new() })
    }

    /// The NAT that an ADD makes sure of, by the `pools` of its snapshot. What a restored
    /// datastore has lost counts too: then the last reconcile knows better.
    pub fn nat(&self, pools: Option<&[IpPool]>) -> Nat {
        let retains = self.state.as_ref().is_some_and(|state| state.retained > 0);
        match pools.filter(|_| !retains) {
            None => Nat::AsItIs,
            Some(pools) => {
                let pools: Vec<NatPool> = pools.iter().map(NatPool::from).collect();
                Nat::Exactly(NatTable::from_pools(&pools))
            }
        }
    }

    /// What there was in the cluster when it was read last; nothing where the agent keeps
    /// the node.
    fn known_inventory(&self) -> ClusterState {
        match self.by_agent {
            true => ClusterState::default(),
            false => self.left_behind().state().into_owned(),
        }
    }

    /// What was known of the cluster by whoever kept the node before, on this datastore.
    fn left_behind(&self) -> ClusterCache {
        let whole = read_whole_state(Path::new(STATE_FILE));
        let whole = whole.filter(|(state, _)| state.datastore == self.datastore);
        whole.map(|(_, cache)| cache).unwrap_or_default()
    }

    /// Refuses an ADD under another name than that of the agent which keeps this machine on
    /// the same datastore: other nodes would not find its containers.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] with both names.
    pub fn require_agents_name(&self, found: &FoundName) -> Result<(), Error> {
        let agent = self.state.as_ref().filter(|state| {
            self.by_agent && state.datastore == self.datastore && state.node.name != found.name
        });
        let Some(agent) = agent.map(|state| &state.node) else { return Ok(()) };
        let message = format!(
            "this node is called {} (from {}), but its agent runs as {} (from {}); give both one \
             name, and restart the agent where it is the agent's that changes",
            found.name, found.source, agent.name, agent.source
        );
        Err(Error::new(Code::InvalidConfiguration, message))
    }

    /// Refuses an ADD on another cluster's datastore than that of the agent which keeps this
    /// machine: the agent knows nothing of its pools, so that its containers would have no NAT
    /// and no routes from other nodes.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] with both datastores.
    pub async fn require_agents_cluster(&self, datastore: &dyn Datastore) -> Result<(), Error> {
        let Some((agent, agents)) =
            self.agent_elsewhere().and_then(|it| Some((it, it.cluster_guid.as_ref()?)))
        else {
            return Ok(());
        };
        match cluster_guid(datastore).await {
            Ok(Some(own)) if own != *agents => Err(Error::new(
                Code::InvalidConfiguration,
                format!(
                    "this network has its addresses in {}, but the agent of this node keeps the \
                     routes and NAT of another cluster, in {}; give both one datastore, and \
                     restart the agent where it is the agent's that changes",
                    self.datastore, agent.datastore
                ),
            )),
            // One datastore, spelt in two ways; or nothing is known.
            _ => Ok(()),
        }
    }

    /// What the agent left, where it keeps the node on a datastore that is spelt in another way
    /// than the call's.
    fn agent_elsewhere(&self) -> Option<&SavedState> {
        let state = self.state.as_ref();
        state.filter(|state| self.by_agent && state.datastore != self.datastore)
    }

    /// As [`LocalNode::require_agents_cluster`], for STATUS, which has no datastore open.
    ///
    /// # Errors
    /// [`Code::NotAvailable`] with both datastores, or what opening it says.
    pub async fn require_agents_cluster_of(&self, call: &Call, limit: Limit) -> Result<(), Error> {
        if self.agent_elsewhere().is_none() {
            return Ok(());
        }
        let required = async {
            let ipam = Ipam::open(call, limit).await?;
            let required = self.require_agents_cluster(ipam.datastore.as_ref());
            within_ipam("comparing the datastore with the agent's", limit, required).await
        };
        required.await.map_err(|error| Error { code: Code::NotAvailable, ..error })
    }

    /// Whether anything changed in the cluster since the node was made what it is; never
    /// where the agent keeps it. A datastore that cannot tell is asked for the cluster
    /// itself.
    pub async fn is_outdated(&self, datastore: &dyn Datastore) -> bool {
        if self.by_agent {
            return false;
        }
        let Some(observed) = self.state.as_ref().and_then(|state| state.observed.as_ref()) else {
            return true;
        };
        let _timing = Timing::of("changes");
        observed.is_outdated(datastore).await.unwrap_or(true)
    }

    /// Reads what there is in the cluster, and takes a tunnel address if the node needs
    /// one. `None` when it cannot be read, which is logged: the addresses of an ADD are
    /// good without.
    pub async fn read_cluster(&self, ipam: &Ipam<'_>, limit: Limit) -> Option<ClusterReading> {
        let _timing = Timing::of("inventory");
        let datastore = ipam.datastore.as_ref();
        let reading = async {
            let listing = ClusterSnapshot::read(datastore, MOST_BLOCKS).await;
            listing.map_err(|error| Error::caused(Code::TryAgainLater, &error))
        };
        let limit = limit.at_most(CLUSTER);
        let mut listing = match within("reading the cluster", NEXT_ADD, limit, reading).await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(
                    %error,
                    details = error.details,
                    "the routes to other nodes stay as they are: the cluster could not be read; \
                     the next ADD tries again"
                );
                return None;
            }
        };
        if listing.without_blocks {
            tracing::warn!(
                most = MOST_BLOCKS,
                "too many blocks to look for borrowed addresses on other nodes, which are not \
                 routed; start the agent (weirctl node run)"
            );
        }
        let completed = async {
            let kernel = Kernel::open()?;
            let tunnel = self.ensure_tunnel_address(&kernel, ipam, &mut listing).await;
            let node = named(&ipam.node);
            let pod_mtu = cluster_mtu(&kernel, &node.name, &listing.state).await?;
            Ok::<_, weir_kernel::Error>(ClusterReading { node, listing, tunnel, pod_mtu })
        };
        let completed = completed.await.inspect_err(|error| {
            tracing::warn!(%error, "the routes to other nodes stay as they are");
        });
        completed.ok()
    }

    /// Takes a tunnel address if the node needs one, also for what a restored datastore has
    /// lost, and notes it in the listing. `None` if that failed. Giving it back is left to
    /// the agent: it knows what such a datastore has lost, and may still need the tunnel for.
    async fn ensure_tunnel_address(
        &self,
        kernel: &Kernel,
        ipam: &Ipam<'_>,
        listing: &mut ClusterSnapshot,
    ) -> Option<TunnelOutcome> {
        let node = ipam.node.name.as_str();
        let mut cache = self.left_behind();
        cache.replace(listing.state.clone(), &listing.observed);
        let (state, is_holding) = (cache.state(), cache.retained() > 0);
        if !listing.state.nodes.contains_key(node) || !needs_tunnel(node, &state) {
            return Some(TunnelOutcome::Unchanged);
        }
        let taking = async {
            let failed = |error: weir_kernel::Error| Error::caused(Code::TryAgainLater, &error);
            let facts = kernel.local_facts(node, &state, is_holding).await.map_err(failed)?;
            let facts = LocalFacts { machine: ipam.machine.clone(), ..facts };
            let (datastore, now) = (ipam.datastore.as_ref(), Timestamp::now());
            let outcome = reconcile_tunnel_address(datastore, node, &state, &facts, now).await;
            outcome.map_err(|error| Error::caused(Code::TryAgainLater, &error))
        };
        let limit = Limit::of(TUNNEL_ADDRESS);
        let outcome = within("taking a tunnel address", NEXT_ADD, limit, taking).await;
        match &outcome {
            Ok(TunnelOutcome::Taken(address)) => {
                if let Some(own) = listing.state.nodes.get_mut(node) {
                    own.tunnel = Some(*address);
                }
            }
            Ok(TunnelOutcome::Unavailable(error)) => tracing::warn!("{error}"),
            Ok(_) => {}
            Err(error) => tracing::warn!(
                %error,
                details = error.details,
                "the tunnel address is not as it should be; the next ADD tries again"
            ),
        }
        outcome.ok()
    }

    /// Makes the kernel what `cluster` asks for, and leaves the state to the next call.
    /// What cannot be done is logged, and tried again by the next ADD: the container that
    /// is being added can be reached on its node all the same.
    pub async fn reconcile(&self, kernel: &Kernel, cluster: ClusterReading, limit: Limit) {
        let _timing = Timing::of("cluster");
        let _lock = match Lock::wait(Path::new(NODE_LOCK), limit).await {
            Ok(lock) => lock,
            Err(error) => {
                return tracing::warn!(%error, "the routes to other nodes stay as they are");
            }
        };
        // An agent that has begun meanwhile does all of this.
        let state = read_state(Path::new(STATE_FILE));
        if is_agents(state.as_ref()) {
            return;
        }
        let (before, listed) = (self.revision(), cluster.listing.observed.revision);
        let state = state.filter(|state| state.datastore == self.datastore);
        if state.is_some_and(|state| state.overtakes(before, listed)) {
            return tracing::debug!(%listed, "another ADD has made the node newer");
        }
        self.reconcile_alone(kernel, cluster).await;
    }

    /// The node's lock must be held.
    async fn reconcile_alone(&self, kernel: &Kernel, cluster: ClusterReading) {
        let ClusterReading { node, listing, tunnel, pod_mtu } = cluster;
        let mut cache = self.left_behind();
        if cache.replace(listing.state, &listing.observed) {
            tracing::warn!(
                retained = cache.retained(),
                "the datastore has gone back in time (restored from a snapshot?); what it has \
                 lost is kept; run \"weirctl ipam check --repair\" on each node"
            );
        }
        let keep = Keep {
            tunnel_address: !matches!(tunnel, Some(TunnelOutcome::Unavailable(_))),
            borrowed: listing.without_blocks,
            // An ADD reads nothing of BGP's resources.
            announcing: true,
            bgp_need: None,
        };
        let done = match kernel.reconcile(&node.name, cache.state(), keep).await {
            Ok(done) => done,
            Err(error) => {
                return tracing::warn!(%error, "the routes to other nodes stay as they are");
            }
        };
        log(&done);
        let boot_id = boot_id();
        let datastore = self.datastore.as_str();
        let pod_mtu = pod_mtu.map(|mtu| mtu.bytes);
        let summary = PlanSummary { pod_mtu, ..PlanSummary::of(&done.plan) };
        let mut state = SavedState::new(Writer::Plugin, node, datastore, boot_id, &cache, summary);
        if tunnel.is_some() && done.failures.is_empty() {
            state.observed = Some(listing.observed);
        }
        if let Err(error) = write_state(Path::new(STATE_FILE), &state, &cache) {
            let file = STATE_FILE;
            tracing::warn!(file, %error, "it cannot be written: every ADD reads the whole cluster");
        }
    }

    /// Where no agent does, brings back what the host ends of the node's containers have lost.
    /// What fails is logged, and tried again by the next call.
    pub async fn repair_host_ends(&self, kernel: &Kernel, ipam: &Ipam<'_>) {
        if self.by_agent {
            return;
        }
        let ends = ipam.host_ends();
        let repair = ends.repair(kernel, &|_| false);
        let limit = Limit::of(REPAIR);
        match within("repairing the links of other containers", NEXT_ADD, limit, repair).await {
            Ok(outcome) => outcome.log(),
            Err(error) => tracing::warn!(%error, "the links of other containers are not looked at"),
        }
    }

    /// The same where some have lost all of their routes, which one list of routes tells, and
    /// no call is at work on them.
    pub async fn repair_unrouted(&self, kernel: &Kernel, call: &Call, limit: Limit) {
        if self.by_agent {
            return;
        }
        let _timing = Timing::of("other containers");
        let suspects = async {
            let unrouted = kernel.unrouted_host_ends().await.map_err(failure::of_kernel)?;
            let claims = Claims::new("", AttachmentLocks::open()?);
            let is_idle = |name: &String| claims.claim_link(name).unwrap_or_default();
            Ok::<_, Error>(unrouted.iter().any(is_idle))
        };
        match suspects.await {
            Ok(false) => {}
            Ok(true) => match Ipam::open(call, limit).await {
                Ok(ipam) => self.repair_host_ends(kernel, &ipam).await,
                Err(error) => tracing::warn!(%error, "containers without routes stay as they are"),
            },
            Err(error) => tracing::warn!(%error, "the links of other containers are not looked at"),
        }
    }

    /// Up to where the datastore was read for what was made of the node last.
    fn revision(&self) -> Revision {
        self.state.as_ref().map(|state| state.revision).unwrap_or_default()
    }
}

/// How long a call may repair what other containers have lost: its own result waits for that.
const REPAIR: Duration = Duration::from_secs(2);

/// What to do when reading or writing the cluster takes too long.
const NEXT_ADD: &str = "the next ADD tries again";

/// Whether the agent keeps the node: it runs, and has reconciled it.
fn is_agents(state: Option<&SavedState>) -> bool {
    state.is_some_and(|state| state.writer == Writer::Agent) && agent_runs(Path::new(AGENT_LOCK))
}

fn named(found: &FoundName) -> NamedNode {
    NamedNode { name: found.name.clone(), source: found.source.to_string() }
}

fn of_cluster(bytes: u32) -> Mtu {
    Mtu { bytes, source: MtuSource::Cluster }
}

/// The MTU for containers, where the cluster decides it.
async fn cluster_mtu(
    kernel: &Kernel,
    node: &str,
    inventory: &ClusterState,
) -> Result<Option<Mtu>, weir_kernel::Error> {
    let modes = || inventory.pools.values().map(|pool| pool.ipip_mode);
    let bytes = if inventory.nodes.contains_key(node) {
        Some(plan_cluster(node, inventory, &kernel.underlay().await?).pod_mtu)
    } else if any_tunnels(modes()) {
        // This node will too once it is registered.
        Some(pod_mtu(kernel.uplink_mtu().await?, modes()))
    } else {
        None
    };
    Ok(bytes.map(of_cluster))
}

/// Tells what was done, and what could not be.
fn log(done: &Reconciled) {
    let (changes, routes) = (done.changes.len(), done.plan.routes.len());
    tracing::debug!(changes, routes, "reconciled the node");
    for change in &done.changes {
        tracing::debug!("{change}");
    }
    for problem in &done.problems {
        tracing::warn!("{problem}");
    }
    for error in &done.failures {
        tracing::warn!(%error, "the node's part in the cluster is not whole; the next ADD tries again");
    }
}
