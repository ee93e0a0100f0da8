//! The node's part in the cluster, where no agent sees to it.
//!
//! A plugin runs for a moment only, so the last ADD leaves a memo to the next one.
//! As long as nothing has changed in the datastore since, nothing is done here. In
//! the order of one ADD: [`Keeper::find`] says who sees to it, [`Keeper::question`]
//! what `weir-ipam` is asked, [`Upkeep::take`] what its answer comes to, and
//! [`Upkeep::carry_out`] does it. `docs/cluster.md` gives the reasons.

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::datastore::{Configuration, Revision};
use weir_common::network::{
    ClusterNotice, ClusterPlan, ClusterPool, Inventory, Mtu, MtuSource, NatPool, NodeMemo,
    TunnelNeed, Underlay, any_tunnels, plan_cluster, pod_mtu,
};
use weir_kernel::{Converged, Kernel};
use weir_process::{
    AgentNotice, Lock, NODE_MEMO_FILE, NODE_MEMO_LOCK, PRESENCE_FILE, Timing, boot_id,
    leave_node_memo, read_node_memo, read_whole_node_memo, running_agent,
};

/// Who sees to the node's part in the cluster.
pub enum Keeper {
    /// The agent, which told this.
    Agent(AgentNotice),
    /// Each ADD.
    Plugin {
        /// The datastore of the call's network, by its place.
        datastore: String,
        /// What the last ADD left that read the same one.
        memo: Option<NodeMemo>,
    },
}

impl Keeper {
    /// Who it is at this moment.
    pub fn find(call: &Call) -> Self {
        if let Some(notice) = agent() {
            return Self::Agent(notice);
        }
        let datastore = call.configuration.datastore.as_ref().map(Configuration::place);
        let datastore = datastore.unwrap_or_default();
        let memo = read_node_memo(Path::new(NODE_MEMO_FILE));
        Self::Plugin { memo: memo.filter(|memo| memo.datastore == datastore), datastore }
    }

    /// Whether the agent does it.
    pub fn is_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// The MTU for containers, where it is known from the cluster.
    pub fn pod_mtu(&self) -> Option<Mtu> {
        let bytes = match self {
            Self::Agent(notice) => notice.pod_mtu,
            Self::Plugin { memo, .. } => memo.as_ref()?.pod_mtu,
        };
        bytes.map(of_cluster)
    }

    /// The same from the node's uplink as it is now, should the last ADD have found
    /// another one.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn pod_mtu_anew(&self, kernel: &Kernel) -> Result<Option<Mtu>, weir_kernel::Error> {
        if self.is_agent() {
            // It follows the uplink.
            return Ok(self.pod_mtu());
        }
        let inventory = self.known_inventory();
        let modes = inventory.pools.values().map(|pool| pool.ipip_mode);
        Ok(Some(of_cluster(pod_mtu(kernel.uplink_mtu().await?, modes))))
    }

    /// Up to where the datastore was read for what the last ADD left.
    fn revision(&self) -> Revision {
        match self {
            Self::Plugin { memo: Some(memo), .. } => memo.revision,
            _ => Revision::default(),
        }
    }

    /// Whether the tunnel device should be in service, as far as is known.
    pub fn tunnel(&self) -> TunnelNeed {
        match self {
            Self::Agent(notice) => notice.tunnel,
            Self::Plugin { memo, .. } => memo.as_ref().map(|memo| memo.tunnel).unwrap_or_default(),
        }
    }

    /// The pools for which the last ADD made the node's NAT, as far as is known; none
    /// where the agent sees to it.
    pub fn nat_pools(&self) -> Vec<NatPool> {
        let pool =
            |pool: &ClusterPool| NatPool { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing };
        self.known_inventory().pools.values().map(pool).collect()
    }

    /// What there was in the cluster when the last ADD read it; nothing where the agent
    /// sees to it.
    fn known_inventory(&self) -> Inventory {
        let Self::Plugin { memo: Some(memo), .. } = self else { return Inventory::default() };
        let whole = read_whole_node_memo(Path::new(NODE_MEMO_FILE));
        let whole = whole.filter(|(left, _)| left.datastore == memo.datastore);
        whole.map(|(_, follower)| follower.inventory().into_owned()).unwrap_or_default()
    }

    /// The same if that NAT is gone.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn pools_without_nat(&self, kernel: &Kernel) -> Result<Vec<NatPool>, weir_kernel::Error> {
        let pools = self.nat_pools();
        // A kernel without nftables is none to ask where no pool wants NAT.
        let is_lost = pools.iter().any(|pool| pool.nat_outgoing) && !kernel.has_nat()?;
        Ok(if is_lost { pools } else { Vec::new() })
    }

    /// What the IPAM plugin is asked; `None` where the agent sees to everything.
    pub fn question(&self) -> Option<String> {
        match self {
            Self::Agent(_) => None,
            Self::Plugin { memo, .. } => {
                let seen = memo.as_ref().and_then(|memo| memo.seen.as_ref());
                serde_json::to_string(&seen).ok()
            }
        }
    }
}

fn of_cluster(bytes: u32) -> Mtu {
    Mtu { bytes, source: MtuSource::Cluster }
}

fn agent() -> Option<AgentNotice> {
    running_agent(Path::new(PRESENCE_FILE))
}

/// What the node needs for its part in the cluster: what there is in the cluster,
/// and this node's links.
pub struct Upkeep {
    notice: ClusterNotice,
    underlay: Underlay,
    /// The MTU in bytes for containers, where the cluster decides it.
    pod_mtu: Option<u32>,
}

impl Upkeep {
    /// What comes of the IPAM plugin's notice; `None` without one: nothing has changed, or
    /// somebody else sees to it.
    pub async fn take(kernel: &Kernel, notice: Option<ClusterNotice>) -> Option<Self> {
        match Self::of(kernel, notice?).await {
            Ok(upkeep) => Some(upkeep),
            Err(error) => {
                tracing::warn!(%error, "the ways to other nodes stay as they are");
                None
            }
        }
    }

    async fn of(kernel: &Kernel, notice: ClusterNotice) -> Result<Self, weir_kernel::Error> {
        let underlay = kernel.underlay().await?;
        let inventory = &notice.inventory;
        let modes = || inventory.pools.values().map(|pool| pool.ipip_mode);
        let pod_mtu = if inventory.nodes.contains_key(&notice.node) {
            Some(plan_cluster(&notice.node, inventory, &underlay).pod_mtu)
        } else if any_tunnels(modes()) {
            // This node will too once it is registered.
            Some(pod_mtu(kernel.uplink_mtu().await?, modes()))
        } else {
            None
        };
        Ok(Self { notice, underlay, pod_mtu })
    }

    /// The MTU for containers, where the cluster decides it.
    pub fn pod_mtu(&self) -> Option<Mtu> {
        self.pod_mtu.map(of_cluster)
    }

    /// Makes the kernel what that asks for, and leaves a memo of it. What cannot
    /// be done is logged, and tried again by the next ADD: the container that is
    /// being added can be reached on its node all the same.
    ///
    /// `keeper` is who saw to it when this ADD began.
    pub async fn carry_out(self, kernel: &Kernel, keeper: &Keeper) {
        let _timing = Timing::of("cluster");
        let lock = match Lock::require(Path::new(NODE_MEMO_LOCK)) {
            Ok(lock) => lock,
            Err(error) => {
                let file = NODE_MEMO_LOCK;
                tracing::warn!(file, %error, "the ways to other nodes stay as they are: no lock");
                return;
            }
        };
        // An agent that has begun meanwhile does all of this.
        if let (Keeper::Plugin { datastore, .. }, None) = (keeper, agent()) {
            self.carry_out_alone(kernel, datastore, keeper.revision()).await;
        }
        drop(lock);
    }

    /// `before` is the revision of the memo when this ADD began.
    async fn carry_out_alone(self, kernel: &Kernel, datastore: &str, before: Revision) {
        let file = Path::new(NODE_MEMO_FILE);
        let Self { notice, underlay, pod_mtu } = self;
        let revision = notice.seen.revision;
        let left = read_whole_node_memo(file).filter(|(memo, _)| memo.datastore == datastore);
        if left.as_ref().is_some_and(|(memo, _)| memo.overtakes(before, revision)) {
            tracing::debug!(%revision, "another ADD has made the node newer");
            return;
        }
        let mut follower = left.map(|(_, follower)| follower).unwrap_or_default();
        if follower.relist(notice.inventory, &notice.seen) {
            tracing::warn!(
                held = follower.held(),
                "the datastore has gone back in time (restored from a snapshot?); what it has \
                 forgotten is kept; run \"weirctl ipam check --repair\" on each node"
            );
        }
        let mut plan = plan_cluster(&notice.node, &follower.inventory(), &underlay);
        plan.keeps_addresses = notice.without_borrowed;
        let done = kernel.converge(&plan).await;
        log(&plan, &done);
        let mut memo = NodeMemo::new(datastore, revision, boot_id().as_deref(), &plan);
        memo.pod_mtu = pod_mtu;
        if notice.settled && done.failures.is_empty() {
            memo.seen = Some(notice.seen);
        }
        if let Err(error) = leave_node_memo(file, &memo, &follower) {
            let file = NODE_MEMO_FILE;
            tracing::warn!(file, %error, "no memo can be left: every ADD reads the whole cluster");
        }
    }
}

/// Tells what was done, and what could not be.
fn log(plan: &ClusterPlan, done: &Converged) {
    let (changes, routes) = (done.changes.len(), plan.routes.len());
    tracing::debug!(changes, routes, "made the node's part in the cluster");
    for change in &done.changes {
        tracing::debug!("{change}");
    }
    for problem in plan.problems.union(&done.problems) {
        tracing::warn!("{problem}");
    }
    for error in &done.failures {
        tracing::warn!(%error, "the node's part in the cluster is not whole; the next ADD tries again");
    }
}
