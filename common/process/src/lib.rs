//! What the plugins of Weir do as processes: read their surroundings, log, keep
//! a deadline, take the host's lock, find the node's name and its present boot.
#![warn(missing_docs)]

mod boot;
mod deadline;
mod lock;
mod log;
mod log_file;
mod machine;
mod node_memo;
mod node_name;
mod parent;
mod plugin;
mod presence;

pub use boot::boot_id;
pub use deadline::{
    ANSWER, CLEAN_UP, CLUSTER, DEADLINE, Limit, SWEEP, SWEEP_OF_OTHERS, TUNNEL_ADDRESS, block_on,
    within, within_turn,
};
pub use lock::{DEFAULT_LOCK_FILE, Lock, NAT_LOCK};
pub use log::{CALL_VARIABLE, Timing, call_id, logged};
pub use machine::machine_id;
pub use node_memo::{
    CLUSTER_VARIABLE, NODE_MEMO_FILE, NODE_MEMO_LOCK, leave_node_memo, read_node_memo,
    read_whole_node_memo,
};
pub use node_name::{
    FoundName, NODE_NAME_FILE, NameSource, NodeNameError, keep_node_name, node_name,
    rename_kept_name,
};
pub use parent::{PARENT_VARIABLE, become_program, die_with_parent};
pub use plugin::{fail, main};
pub use presence::{AgentNotice, PRESENCE_FILE, Presence, running_agent};
