//! The state file as the agent writes it: for plugins, for STATUS, and for the next agent.

use std::path::Path;
use std::time::Duration;

use weir_common::network::{ClusterPlan, Follower, NamedNode, SavedState, TunnelNeed, Writer};
use weir_process::{
    Limit, Lock, NODE_LOCK, STATE_FILE, boot_id, read_state, read_whole_state, write_state,
};

/// How long a call that has begun before this agent may still hold the node's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of the state plugins go by, and how often what counts has changed.
type Written = (u64, TunnelNeed, u32);

/// Writes the state file while the agent keeps the node.
#[derive(Debug)]
pub struct StateFile {
    node: NamedNode,
    /// The place of the datastore.
    datastore: String,
    written: Option<Written>,
}

impl StateFile {
    /// For the agent of this node on the datastore at this place.
    pub fn new(node: NamedNode, datastore: String) -> Self {
        Self { node, datastore, written: None }
    }

    /// What was known of the cluster by whoever kept this node before. That the agent keeps
    /// it is not said again before it has made the node what it should be.
    pub async fn take_over(&self) -> Follower {
        let Some((mut state, follower)) = read_whole_state(Path::new(STATE_FILE)) else {
            return Follower::default();
        };
        let is_ours = state.datastore == self.datastore;
        if state.writer == Writer::Agent {
            state.writer = Writer::Plugin;
            replace(&state, &follower).await;
        }
        if is_ours { follower } else { Follower::default() }
    }

    /// Writes what counts, whenever that has changed, or the file is no longer the agent's:
    /// this process may be killed. Who goes on from it reads the datastore first.
    pub async fn write(&mut self, follower: &Follower, plan: &ClusterPlan) {
        let written = Some((follower.changes(), TunnelNeed::of(plan), plan.pod_mtu));
        let is_agents =
            || read_state(Path::new(STATE_FILE)).is_some_and(|state| state.writer == Writer::Agent);
        if self.written == written && is_agents() {
            return;
        }
        let boot_id = boot_id();
        let (node, datastore) = (self.node.clone(), self.datastore.as_str());
        let writer = Writer::Agent;
        let mut state = SavedState::new(writer, node, datastore, boot_id, follower, plan);
        state.pod_mtu = Some(plan.pod_mtu);
        if replace(&state, &follower.left_behind()).await {
            self.written = written;
        }
    }
}

/// Replaces the file, and says whether that could be done.
async fn replace(state: &SavedState, follower: &Follower) -> bool {
    let outcome = match Lock::wait(Path::new(NODE_LOCK), Limit::of(PATIENCE)).await {
        Ok(_lock) => {
            write_state(Path::new(STATE_FILE), state, follower).map_err(|it| it.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let file = STATE_FILE;
    if let Err(error) = &outcome {
        tracing::warn!(file, error, "it cannot be written; remove it before this agent ends");
    }
    outcome.is_ok()
}
