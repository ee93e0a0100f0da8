//! A node's part in the cluster: what is there, and carrying changes out.
//!
//! `weir_common::network` plans it; `docs/kernel.md` gives the reasons.

mod actual;
mod change;
mod entries;
mod interface;
mod learned;
mod local_facts;
mod reconcile;
mod route_message;
mod routes;
mod tunnel;
mod vxlan;

pub(crate) use interface::is_usable;
pub use learned::BgpRoutes;
pub use reconcile::{Keep, PlanOutcome, Reconciled};
pub(crate) use route_message::{METRIC_V6, is_of_cluster, next_hops, replaceable};
