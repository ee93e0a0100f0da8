//! A node's part in the cluster: what is there, and carrying changes out.
//!
//! `weir_common::network` plans it; `docs/cluster.md` gives the reasons.

mod change;
mod interface;
mod local_facts;
mod present;
mod reconcile;
mod routes;
mod tunnel;
mod way;

pub use reconcile::{Keep, PlanOutcome, Reconciled};
pub(crate) use way::{is_of_cluster, replaceable};
