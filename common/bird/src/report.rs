//! What is told of the daemon.

use std::time::SystemTime;

use super::status::{DaemonStatus, ProtocolStatus};

/// How the daemon is: for health, metrics and `weirctl node status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonReport {
    /// Whether a daemon is wanted on this node.
    pub is_wanted: bool,
    /// What a running daemon says of itself.
    pub status: Option<DaemonStatus>,
    /// Whether the program is not installed.
    pub lacks_program: bool,
    /// Whether it refuses the configuration that is wanted.
    pub is_refused: bool,
    /// Whether it runs the configuration that is wanted.
    pub is_current: bool,
    /// When it was last seen to have taken a configuration from this agent.
    pub configured_at: Option<SystemTime>,
    /// How often it died and was started again, since this agent started.
    pub restarts: u64,
    /// Its sessions.
    pub sessions: Vec<ProtocolStatus>,
    /// What is wrong with the daemon or its configuration, and what to do. The node is not what
    /// it should be. That a peer is away is not among it.
    pub problems: Vec<String>,
    /// What should be known and is not wrong.
    pub notes: Vec<String>,
}

impl DaemonReport {
    /// Whether a daemon runs and answers.
    pub fn is_running(&self) -> bool {
        self.status.is_some()
    }
}
