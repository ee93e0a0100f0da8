//! What outlives an agent: what it holds that the datastore has forgotten, and what
//! values were that cannot be read.

use std::path::Path;

use weir_common::network::{ClusterPlan, Follower, NodeMemo, TunnelNeed};
use weir_process::{
    Lock, NODE_MEMO_FILE, NODE_MEMO_LOCK, boot_id, leave_node_memo, read_whole_node_memo,
};

/// The memo that ADDs leave to each other where no agent runs, as far as the agent
/// has to do with it: it goes on from what they hold, and leaves them, and the next
/// agent, what it holds itself.
#[derive(Debug)]
pub struct Handover {
    /// The place of the datastore.
    datastore: String,
    /// How often what counts had changed when it was left last, and what was said of
    /// the tunnel.
    left: Option<(u64, TunnelNeed)>,
}

impl Handover {
    /// For the datastore at this place: another one's memo is none.
    pub fn new(datastore: String) -> Self {
        Self { datastore, left: None }
    }

    /// What was left by whoever saw to this node before.
    pub fn take_over(&self) -> Follower {
        let left = read_whole_node_memo(Path::new(NODE_MEMO_FILE));
        let left = left.filter(|(memo, _)| memo.datastore == self.datastore);
        left.map(|(_, follower)| follower).unwrap_or_default()
    }

    /// Leaves what counts, whenever that has changed: this process may be killed. Who
    /// goes on from it reads the datastore first.
    pub fn leave(&mut self, follower: &Follower, plan: &ClusterPlan) {
        let leaving = Some((follower.changes(), TunnelNeed::of(plan)));
        if self.left == leaving {
            return;
        }
        let boot_id = boot_id();
        let memo = NodeMemo::new(&self.datastore, follower.revision(), boot_id.as_deref(), plan);
        let file = Path::new(NODE_MEMO_FILE);
        // An ADD that has begun before this agent may be writing still.
        let outcome = Lock::require(Path::new(NODE_MEMO_LOCK))
            .and_then(|_lock| leave_node_memo(file, &memo, &follower.left_behind()));
        match outcome {
            Ok(()) => self.left = leaving,
            Err(error) => {
                let file = NODE_MEMO_FILE;
                tracing::warn!(file, %error, "it cannot be written; remove it before this agent ends");
            }
        }
    }
}
