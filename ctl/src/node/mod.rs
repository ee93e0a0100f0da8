//! The node agent: `weirctl node run`.
//!
//! [`feed`] lists and watches the datastore, [`agent`] is the loop that takes in
//! what it and the kernel tell, [`converge`] makes the kernel what the plan
//! says. What is decided is decided in `weir_common::network`.
//! `docs/cluster.md` gives the reasons.

mod agent;
mod converge;
mod feed;
mod handover;
mod http;
mod metrics;
mod pace;
mod registration;
pub mod run;
mod service;
mod tunnel_address;
