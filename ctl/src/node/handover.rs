//! What outlives an agent: what it holds that the datastore has forgotten.

use std::path::Path;

use weir_common::network::{ClusterPlan, Follower, Inventory, NodeMemo, TunnelNeed};
use weir_process::{
    Lock, NODE_MEMO_FILE, NODE_MEMO_LOCK, boot_id, forget_node_memo, leave_node_memo,
    read_whole_node_memo,
};

/// The memo that ADDs leave to each other where no agent runs, as far as the agent
/// has to do with it: it goes on from what they hold, and leaves them, and the next
/// agent, what it holds itself.
#[derive(Debug)]
pub struct Handover {
    /// The place of the datastore.
    datastore: String,
    /// What was left last, and what it said of the tunnel.
    left: (Inventory, TunnelNeed),
}

impl Handover {
    /// For the datastore at this place: another one's memo is none.
    pub fn new(datastore: String) -> Self {
        Self { datastore, left: Default::default() }
    }

    /// What was left by whoever saw to this node before.
    pub fn take_over(&self) -> Follower {
        let left = read_whole_node_memo(Path::new(NODE_MEMO_FILE));
        let left = left.filter(|(memo, _)| memo.datastore == self.datastore);
        left.map(|(_, follower)| follower).unwrap_or_default()
    }

    /// Leaves what is held, and nothing if nothing is: what ADD left before is not so
    /// any more. Who goes on from it reads the datastore first.
    pub fn leave(&mut self, follower: &Follower, plan: &ClusterPlan) {
        let file = Path::new(NODE_MEMO_FILE);
        let held = follower.held_inventory();
        let is_nothing = *held == Inventory::default();
        let boot_id = boot_id();
        let memo = NodeMemo::new(&self.datastore, follower.revision(), boot_id.as_deref(), plan);
        let is_left = if is_nothing {
            !file.exists()
        } else {
            (held, &memo.tunnel) == (&self.left.0, &self.left.1)
        };
        if is_left {
            return;
        }
        // An ADD that has begun before this agent may be writing still.
        let outcome = Lock::require(Path::new(NODE_MEMO_LOCK)).and_then(|_lock| {
            if is_nothing {
                return forget_node_memo(file);
            }
            leave_node_memo(file, &memo, &Follower::holding(held.clone()))
        });
        match outcome {
            Ok(()) => self.left = (held.clone(), memo.tunnel),
            Err(error) => {
                let file = NODE_MEMO_FILE;
                tracing::warn!(file, %error, "it cannot be written; remove it before this agent ends");
            }
        }
    }
}
