//! What the plugins of Weir do as processes: read their surroundings, log, keep
//! a deadline, take the host's lock, find the node's name.
#![warn(missing_docs)]

mod deadline;
mod lock;
mod log;
mod node_name;
mod parent;
mod plugin;
mod presence;

pub use deadline::{CLEAN_UP, DEADLINE, DELEGATED, block_on, within};
pub use lock::{DEFAULT_LOCK_FILE, Lock};
pub use log::start as start_log;
pub use node_name::{NodeNameError, node_name};
pub use parent::{PARENT_VARIABLE, become_program, die_with_parent};
pub use plugin::{fail, main};
pub use presence::{AgentNotice, PRESENCE_FILE, Presence, running_agent};
