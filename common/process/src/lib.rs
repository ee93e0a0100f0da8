//! What the programs of Weir do as processes: read their environment, log, keep a
//! deadline, take locks, keep files in `/run`, find the node's name, its present boot and
//! its machine.
#![warn(missing_docs)]

mod agent_lock;
mod boot;
mod call_report;
mod configured_file;
mod deadline;
mod endpoint_file;
pub mod files;
mod hints_file;
mod history_file;
mod input;
mod kept_node;
mod lock;
mod log;
mod log_file;
mod machine;
mod node_name;
mod parent;
mod plugin;
mod printable_log;
mod state_file;

pub use agent_lock::{AGENT_LOCK, AgentLock, agent_runs};
pub use boot::boot_id;
pub use call_report::{CALLS_SOCKET, CallReport, MAX_REPORT};
pub use deadline::{
    CLEAN_UP, CLUSTER, DEADLINE, Limit, SWEEP, SWEEP_OF_OTHERS, TUNNEL_ADDRESS, WORK, block_on,
    within, within_ipam,
};
pub use endpoint_file::EndpointFile;
pub use hints_file::HintsFile;
pub use history_file::{HISTORY_FILE, HistoryFile, read_history};
pub use kept_node::KeptNode;
pub use lock::{AttachmentLocks, DEFAULT_LOCK_FILE, Lock, LockError, NODE_LOCK};
pub use log::{Timing, logged};
pub use machine::machine_id;
pub use node_name::{
    FoundName, NODE_NAME_FILE, NameSource, NodeNameError, keep_node_name, node_name,
    rename_kept_name,
};
pub use parent::take_the_place_of;
pub use plugin::{fail, main};
pub use printable_log::PrintableLog;
pub use state_file::{STATE_FILE, read_state, read_whole_state, write_state};
