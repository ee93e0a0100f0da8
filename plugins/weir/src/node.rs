//! The node's part in the cluster, where no agent keeps it: used by ADD, GC and STATUS.
//!
//! A plugin runs for a moment only, so each call leaves what it made of the node in the
//! state file. As long as nothing has changed in the datastore since, nothing is done here.
//! [`LocalNode::find`] says who keeps the node, [`LocalNode::is_outdated`] whether anything changed,
//! [`LocalNode::read_cluster`] reads what there is, and [`LocalNode::reconcile`] makes the kernel
//! what that asks for. `docs/agent.md` gives the reasons.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::datastore::{Datastore, DatastoreConfiguration, Revision};
use weir_common::ipam::cluster_guid;
use weir_common::network::{
    ClusterCache, ClusterSnapshot, ClusterState, Mtu, MtuSource, NamedNode, NatPool, Peer,
    PlanSummary, Problem, SavedState, TunnelNeeds, Writer, any_tunnels, needs_tunnel, plan_cluster,
    pod_mtu,
};
use weir_common::node::{LocalFacts, TunnelOutcome, held_tunnels, reconcile_tunnel_address};
use weir_common::tunnel::TunnelKind;
use weir_ipam::{Claims, Ipam};
use weir_kernel::{Keep, Kernel, Reconciled};
use weir_process::{
    AttachmentLocks, CLUSTER, FoundName, KeptNode, Limit, Lock, NODE_LOCK, STATE_FILE,
    TUNNEL_ADDRESS, Timing, boot_id, read_whole_state, within, within_ipam, write_state,
};

use crate::failure;

/// The most affinities in a cluster for which blocks are read: about ten megabytes
/// of them.
const MOST_BLOCKS: usize = 1000;

/// Who keeps the node, and what was made of it last.
#[derive(Clone)]
pub struct LocalNode(KeptNode);

impl Deref for LocalNode {
    type Target = KeptNode;

    fn deref(&self) -> &KeptNode {
        &self.0
    }
}

/// What there is in the cluster, after the node has taken those of its tunnel addresses that
/// wait for nothing.
pub struct ClusterReading {
    node: NamedNode,
    listing: ClusterSnapshot,
    tunnels: TunnelsAsked,
    /// The MTU for containers, where the cluster decides it.
    pub pod_mtu: Option<Mtu>,
}

/// What became of the node's tunnel addresses.
#[derive(Default)]
struct TunnelsAsked {
    /// Those that it has now, or `None` where one was given back.
    changed: BTreeMap<TunnelKind, Option<IpAddr>>,
    /// The kinds for which the node needs an address that it does not get.
    unavailable: BTreeSet<TunnelKind>,
    /// Whether anything failed, which the next call tries again.
    has_failed: bool,
}

impl TunnelsAsked {
    /// Writes what has changed into what is known of the node.
    fn enter(&self, own: Option<&mut Peer>) {
        let Some(own) = own else { return };
        for (kind, address) in &self.changed {
            match address {
                Some(address) => own.tunnels.insert(*kind, *address),
                None => own.tunnels.remove(kind),
            };
        }
    }

    fn join(&mut self, later: Self) {
        self.changed.extend(later.changed);
        self.unavailable.extend(later.unavailable);
        self.has_failed |= later.has_failed;
    }
}

impl LocalNode {
    /// Who keeps it at this moment. An agent that has not reconciled the node yet does not:
    /// until then the calls do.
    pub fn find(call: &Call) -> Self {
        let datastore = call.configuration.datastore.as_ref().map(DatastoreConfiguration::place);
        let datastore = datastore.unwrap_or_default();
        Self(KeptNode::find(datastore))
    }

    /// Whether the agent keeps it.
    pub fn is_kept_by_agent(&self) -> bool {
        self.by_agent
    }

    /// The MTU for containers from the node's uplink as it is now, should the last call have
    /// found another one.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn pod_mtu_now(&self, kernel: &Kernel) -> Result<Option<Mtu>, weir_kernel::Error> {
        if self.by_agent {
            // It follows the uplink.
            return Ok(self.pod_mtu());
        }
        let inventory = self.known_inventory();
        let node = self.state.as_ref().map_or("", |state| &state.node.name);
        let (uplink, settings) = (kernel.uplink_mtu().await?, inventory.tunnel_settings(node));
        Ok(Some(of_cluster(pod_mtu(uplink, inventory.pools.values(), &settings))))
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

    /// Which tunnels should be in service, as far as is known.
    pub fn tunnels(&self) -> TunnelNeeds {
        self.state.as_ref().map(|state| state.tunnels.clone()).unwrap_or_default()
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
        let Some(agent) = self.named_otherwise(&found.name) else { return Ok(()) };
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

    /// Reads what there is in the cluster, and looks after the node's tunnel addresses as far as
    /// nothing has to come before. `None` when it cannot be read, which is logged: the addresses of an ADD are
    /// good without.
    pub async fn read_cluster(&self, ipam: &Ipam<'_>, limit: Limit) -> Option<ClusterReading> {
        let _timing = Timing::of("inventory");
        let datastore = ipam.datastore.as_ref();
        let reading = async {
            let listing = ClusterSnapshot::read(datastore, MOST_BLOCKS).await;
            listing.map_err(|error| Error::caused(Code::TryAgainLater, &error))
        };
        let most = limit.at_most(CLUSTER);
        let mut listing = match within("reading the cluster", NEXT_ADD, most, reading).await {
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
            let node = named(&ipam.node);
            let tunnels = self.keep_tunnel_addresses(&kernel, ipam, &listing, limit).await;
            tunnels.enter(listing.state.nodes.get_mut(&node.name));
            let pod_mtu = cluster_mtu(&kernel, &node.name, &listing.state).await?;
            Ok::<_, weir_kernel::Error>(ClusterReading { node, listing, tunnels, pod_mtu })
        };
        let completed = completed.await.inspect_err(|error| {
            tracing::warn!(%error, "the routes to other nodes stay as they are");
        });
        completed.ok()
    }

    /// Sees to it that the tunnel addresses are allocated that the node has in its Node, and
    /// takes those that no other node waits for, also for what a restored datastore has lost.
    /// By the other kinds packets come as soon as the Node has an address, so that the device
    /// comes first ([`complete_tunnel_addresses`]).
    async fn keep_tunnel_addresses(
        &self,
        kernel: &Kernel,
        ipam: &Ipam<'_>,
        listing: &ClusterSnapshot,
        limit: Limit,
    ) -> TunnelsAsked {
        let node = ipam.node.name.as_str();
        let mut cache = self.left_behind();
        cache.replace(listing.state.clone(), &listing.observed);
        let (state, is_holding) = (cache.state(), cache.retained() > 0);
        let Some(own) = listing.state.nodes.get(node) else { return TunnelsAsked::default() };
        let needed = TunnelKind::ALL.into_iter().filter(|kind| needs_tunnel(*kind, node, &state));
        let waits =
            |kind: &TunnelKind| kind.row().needs_peer_address && !own.tunnels.contains_key(kind);
        let kinds = needed.filter(|kind| !waits(kind)).collect();
        ask_for(kernel, ipam, kinds, (&state, is_holding), limit.at_most(TUNNEL_ADDRESS)).await
    }

    /// Makes the kernel what `cluster` asks for, and leaves the state to the next call.
    /// What cannot be done is logged, and tried again by the next ADD: the container that
    /// is being added can be reached on its node all the same.
    pub async fn reconcile(
        &self,
        kernel: &Kernel,
        cluster: ClusterReading,
        (call, limit): (&Call, Limit),
    ) {
        let _timing = Timing::of("cluster");
        let _lock = match Lock::wait(Path::new(NODE_LOCK), limit).await {
            Ok(lock) => lock,
            Err(error) => {
                return tracing::warn!(%error, "the routes to other nodes stay as they are");
            }
        };
        // An agent that has begun meanwhile does all of this.
        let now = KeptNode::find(self.datastore.clone());
        if now.by_agent {
            return;
        }
        let (before, listed) = (self.revision(), cluster.listing.observed.revision);
        if now.state.is_some_and(|state| state.overtakes(before, listed)) {
            return tracing::debug!(%listed, "another ADD has made the node newer");
        }
        self.reconcile_alone(kernel, cluster, (call, limit)).await;
    }

    /// The node's lock must be held.
    async fn reconcile_alone(
        &self,
        kernel: &Kernel,
        cluster: ClusterReading,
        call: (&Call, Limit),
    ) {
        let ClusterReading { node, listing, mut tunnels, pod_mtu } = cluster;
        let mut cache = self.left_behind();
        if cache.replace(listing.state, &listing.observed) {
            tracing::warn!(
                retained = cache.retained(),
                "the datastore has gone back in time (restored from a snapshot?); what it has \
                 lost is kept; run \"weirctl ipam check --repair\" on each node"
            );
        }
        let keep = |tunnels: &TunnelsAsked| Keep {
            tunnel_addresses: &BTreeSet::from(TunnelKind::ALL) - &tunnels.unavailable,
            borrowed: listing.without_blocks,
            // An ADD reads nothing of BGP's resources.
            announcing: true,
            bgp_need: None,
        };
        let mut done = match kernel.reconcile(&node.name, cache.state(), keep(&tunnels)).await {
            Ok(done) => done,
            Err(error) => {
                return tracing::warn!(%error, "the routes to other nodes stay as they are");
            }
        };
        log_changes(&done);
        // Only now: what the node takes tells others that it is ready.
        let later = complete_tunnel_addresses(kernel, call, (&node.name, &cache), &done).await;
        let is_due = !later.changed.is_empty()
            || !later.unavailable.is_empty()
                && !done.plan.has_registered_addresses(cache.state().nodes.get(&node.name));
        tunnels.join(later);
        if is_due {
            let mut state = cache.state().into_owned();
            tunnels.enter(state.nodes.get_mut(&node.name));
            match kernel.reconcile(&node.name, Cow::Owned(state), keep(&tunnels)).await {
                Ok(again) => {
                    log_changes(&again);
                    done = again;
                }
                Err(error) => {
                    tracing::warn!(%error, "the tunnel addresses are not on their devices yet");
                    tunnels.has_failed = true;
                }
            }
        }
        log_troubles(&done);
        let boot_id = boot_id();
        let datastore = self.datastore.as_str();
        let pod_mtu = pod_mtu.map(|mtu| mtu.bytes);
        let summary = PlanSummary { pod_mtu, ..PlanSummary::of(&done.plan) };
        let mut state = SavedState::new(Writer::Plugin, node, datastore, boot_id, &cache, summary);
        if !tunnels.has_failed && done.failures.is_empty() {
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

fn named(found: &FoundName) -> NamedNode {
    NamedNode { name: found.name.clone(), source: found.source.to_string() }
}

fn of_cluster(bytes: u32) -> Mtu {
    Mtu { bytes, source: MtuSource::Cluster }
}

/// Takes the tunnel addresses for which the devices had to be there first, and gives back those
/// that no pool asks for, once the routes have moved: `done` is what the kernel was made by the
/// same state. What a restored datastore has lost may still need an address, which stays then.
async fn complete_tunnel_addresses(
    kernel: &Kernel,
    (call, limit): (&Call, Limit),
    (node, cache): (&str, &ClusterCache),
    done: &Reconciled,
) -> TunnelsAsked {
    let (state, is_holding) = (cache.state(), cache.retained() > 0);
    if !state.nodes.contains_key(node) || cache.has_lost(node) {
        return TunnelsAsked::default();
    }
    let lacking = match kernel.lacking_tunnels(node, &state).await {
        Ok(lacking) => lacking.into_iter(),
        Err(error) => {
            tracing::warn!(%error, "no tunnel address is taken; {NEXT_ADD}");
            return TunnelsAsked { has_failed: true, ..TunnelsAsked::default() };
        }
    };
    let mut kinds: BTreeSet<TunnelKind> =
        lacking.filter_map(|(kind, is_ready)| is_ready.then_some(kind)).collect();
    let may_give_back = done.failures.is_empty() && !is_holding;
    let is_left = |kind: &TunnelKind| {
        may_give_back && !done.still_used.contains(kind) && !needs_tunnel(*kind, node, &state)
    };
    let left: BTreeSet<TunnelKind> = TunnelKind::ALL.into_iter().filter(is_left).collect();
    if kinds.is_empty() && left.is_empty() {
        return TunnelsAsked::default();
    }
    let limit = limit.at_most(TUNNEL_ADDRESS);
    let held = async {
        let ipam = Ipam::open(call, limit).await?;
        let held = async {
            let held = held_tunnels(ipam.datastore.as_ref(), node, &left).await;
            held.map_err(|error| Error::caused(Code::TryAgainLater, &error))
        };
        let held = within("looking for tunnel addresses", NEXT_ADD, limit, held).await?;
        Ok::<_, Error>((ipam, held))
    };
    match held.await {
        Ok((ipam, held)) => {
            kinds.extend(held);
            ask_for(kernel, &ipam, kinds, (&state, is_holding), limit).await
        }
        Err(error) => {
            tracing::warn!(%error, "the tunnel addresses stay as they are; {NEXT_ADD}");
            TunnelsAsked { has_failed: true, ..TunnelsAsked::default() }
        }
    }
}

/// Takes or gives back the node's tunnel addresses of these kinds.
async fn ask_for(
    kernel: &Kernel,
    ipam: &Ipam<'_>,
    kinds: BTreeSet<TunnelKind>,
    (state, is_holding): (&ClusterState, bool),
    limit: Limit,
) -> TunnelsAsked {
    let mut asked = TunnelsAsked::default();
    if kinds.is_empty() {
        return asked;
    }
    let node = ipam.node.name.as_str();
    let asking = async {
        let failed = |error: weir_kernel::Error| Error::caused(Code::TryAgainLater, &error);
        let facts = kernel.local_facts(node, state, is_holding).await.map_err(failed)?;
        let facts = LocalFacts { machine: ipam.machine.clone(), ..facts };
        let (datastore, now) = (ipam.datastore.as_ref(), Timestamp::now());
        for kind in kinds {
            let outcome =
                reconcile_tunnel_address(datastore, kind, node, false, state, &facts, now).await;
            match outcome.map_err(|error| Error::caused(Code::TryAgainLater, &error))? {
                TunnelOutcome::Unchanged => {}
                TunnelOutcome::Taken(address) => {
                    asked.changed.insert(kind, Some(address));
                }
                TunnelOutcome::Released => {
                    asked.changed.insert(kind, None);
                }
                TunnelOutcome::Unavailable(error) => {
                    tracing::warn!("{error}; {}", kind.row().without_address());
                    asked.unavailable.insert(kind);
                }
            }
        }
        Ok(())
    };
    let outcome = within("taking a tunnel address", NEXT_ADD, limit, asking).await;
    if let Err(error) = outcome {
        tracing::warn!(
            %error,
            details = error.details,
            "the tunnel addresses are not as they should be; {NEXT_ADD}"
        );
        asked.has_failed = true;
    }
    asked
}

/// The MTU for containers, where the cluster decides it.
async fn cluster_mtu(
    kernel: &Kernel,
    node: &str,
    inventory: &ClusterState,
) -> Result<Option<Mtu>, weir_kernel::Error> {
    let pools = || inventory.pools.values();
    let bytes = if inventory.nodes.contains_key(node) {
        Some(plan_cluster(node, inventory, &kernel.underlay().await?).pod_mtu)
    } else if any_tunnels(pools()) {
        // This node will too once it is registered.
        let settings = inventory.tunnel_settings(node);
        Some(pod_mtu(kernel.uplink_mtu().await?, pools(), &settings))
    } else {
        None
    };
    Ok(bytes.map(of_cluster))
}

/// Tells what was done.
fn log_changes(done: &Reconciled) {
    let (changes, routes) = (done.changes.len(), done.plan.routes.len());
    tracing::debug!(changes, routes, "reconciled the node");
    for change in &done.changes {
        tracing::debug!("{change}");
    }
}

/// Tells what could not be done.
fn log_troubles(done: &Reconciled) {
    for problem in &done.problems {
        tracing::warn!("{problem}");
    }
    for error in &done.failures {
        tracing::warn!(%error, "the node's part in the cluster is not whole; the next ADD tries again");
    }
}
