//! What the plugins of Weir do as processes: read their surroundings, log, keep
//! a deadline, take the host's lock, find the node's name and its present boot.
#![warn(missing_docs)]

mod boot;
mod deadline;
mod lock;
mod log;
mod log_file;
mod node_name;
mod parent;
mod plugin;

pub use boot::boot_id;
pub use deadline::{CLEAN_UP, DEADLINE, DELEGATED, block_on, within};
pub use lock::{DEFAULT_LOCK_FILE, Lock};
pub use log::{CALL_VARIABLE, Timing, call_id, logged};
pub use node_name::{NodeNameError, node_name};
pub use parent::{PARENT_VARIABLE, become_program, die_with_parent};
pub use plugin::{fail, main};
