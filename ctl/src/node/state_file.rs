//! The state file as the agent writes it: for plugins, for STATUS, and for the next agent.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weir_common::network::{
    ClusterCache, ClusterPlan, NamedNode, PlanSummary, SavedState, SourceAddresses, Writer,
};
use weir_process::{
    Limit, Lock, NODE_LOCK, STATE_FILE, boot_id, read_state, read_whole_state, write_state,
};

use super::log::{self, MessageKind};

/// How long a call that has begun before this agent may still hold the node's lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a change of blocks alone may wait for its write: the file may be megabytes, and the
/// next agent reads the blocks from the datastore.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);

/// Writes the state file while the agent runs.
#[derive(Debug)]
pub struct StateFile {
    node: NamedNode,
    /// The place of the datastore.
    datastore: String,
    /// The id of the cluster in it: by that, an ADD knows whether its own is the same.
    pub cluster_guid: Option<String>,
    /// The addresses in it that the node sends to its containers from.
    pub sources: watch::Sender<SourceAddresses>,
    written: Option<WrittenState>,
}

/// What was written last.
#[derive(Debug)]
struct WrittenState {
    at: Instant,
    /// How often the cluster's state had changed.
    changes: u64,
    summary: PlanSummary,
}

impl StateFile {
    /// For the agent of this node on the datastore at this place.
    pub fn new(node: NamedNode, datastore: String) -> Self {
        Self {
            node,
            datastore,
            cluster_guid: None,
            sources: watch::Sender::default(),
            written: None,
        }
    }

    /// What the agent or ADD before knew of the cluster. The file does not name this agent as
    /// its writer before the node is reconciled.
    pub async fn take_over(&self) -> ClusterCache {
        let Some((mut state, cache)) = read_whole_state(Path::new(STATE_FILE)) else {
            return ClusterCache::default();
        };
        let is_ours = state.datastore == self.datastore;
        if state.writer == Writer::Agent {
            state.writer = Writer::Plugin;
            replace(&state, &cache).await;
        }
        if is_ours { cache } else { ClusterCache::default() }
    }

    /// Writes what has changed: the next agent goes on with it if this one is killed.
    pub async fn write(&mut self, cache: &ClusterCache, plan: &ClusterPlan) {
        let summary = PlanSummary::of(plan);
        let is_agents =
            || read_state(Path::new(STATE_FILE)).is_some_and(|state| state.writer == Writer::Agent);
        let is_current = self.written.as_ref().is_some_and(|written| {
            written.summary == summary && written.changes == cache.changes()
        });
        if !is_current || !is_agents() {
            self.replace(cache, summary).await;
        }
    }

    /// When [`StateFile::flush`] is due, if anything has changed since the last write.
    pub fn due(&self, cache: &ClusterCache) -> Option<Instant> {
        let written = self.written.as_ref().filter(|it| it.changes != cache.changes())?;
        Some(written.at + WRITE_INTERVAL)
    }

    /// Writes what has changed since the last write, with the plan's outcome as it was then.
    pub async fn flush(&mut self, cache: &ClusterCache) {
        let written = self.written.as_ref().filter(|it| it.changes != cache.changes());
        if let Some(summary) = written.map(|it| it.summary.clone()) {
            self.replace(cache, summary).await;
        }
    }

    async fn replace(&mut self, cache: &ClusterCache, summary: PlanSummary) {
        let (node, datastore) = (self.node.clone(), self.datastore.as_str());
        let of_plan = summary.clone();
        let mut state = SavedState::new(Writer::Agent, node, datastore, boot_id(), cache, of_plan);
        state.cluster_guid = self.cluster_guid.clone();
        let is_written = replace(&state, cache).await;
        let at = Instant::now();
        if is_written {
            self.sources.send_if_modified(|sources| {
                std::mem::replace(sources, state.sources) != state.sources
            });
            self.written = Some(WrittenState { at, changes: cache.changes(), summary });
        } else if let Some(written) = &mut self.written {
            // Tried again a while later.
            written.at = at;
        }
    }
}

/// Replaces the file, and returns whether that succeeded.
async fn replace(state: &SavedState, cache: &ClusterCache) -> bool {
    let outcome = match Lock::wait(Path::new(NODE_LOCK), Limit::of(PATIENCE)).await {
        Ok(_lock) => write_state(Path::new(STATE_FILE), state, cache).map_err(|it| it.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &outcome {
        let message =
            format!("{STATE_FILE} cannot be written ({error}); remove it before this agent ends");
        log::tell(MessageKind::StateFile, &message);
    }
    outcome.is_ok()
}
