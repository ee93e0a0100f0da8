//! The node agent: `weirctl node run`.
//!
//! [`crate::follow`] lists and watches the datastore, [`agent`] is the loop that takes in
//! what it and the kernel tell, `weir_kernel` reconciles the node with it. What is
//! decided is decided in `weir_common::network`.
//! `docs/agent.md` gives the reasons.

mod agent;
mod agent_node;
mod audit;
mod bgp;
mod bgp_hold;
mod calico_status;
mod call_metrics;
mod gc;
mod history;
pub mod host_ends;
mod http;
mod log;
mod metrics;
mod own_ip;
mod own_networks;
mod pace;
mod pool_metrics;
mod pulse;
mod registration;
mod repeats;
pub mod run;
mod state_file;
mod status_schedule;
mod tunnel_address;
