//! One node among many: the routes, tunnel and NAT by which its containers reach those of other
//! nodes.
//!
//! [`ClusterState`] is what the datastore says, [`Underlay`] what the node's own links are
//! like; [`plan_cluster`] makes the [`ClusterPlan`] of both: the desired tunnel device, routes
//! and NAT. [`diff`] returns the changes from the [`ActualState`] of the kernel to the plan. All
//! of it is data; the crate `weir-kernel` reads the actual state and carries changes out.
//! `docs/cluster.md` gives the reasons.

mod actual;
mod announcement;
mod bgp;
mod bgp_resources;
mod cache;
mod change;
mod cluster_state;
mod diff;
mod filter;
mod fingerprints;
mod next_hops;
mod plan;
mod pool_usage;
mod problem;
mod saved_state;
mod snapshot;
#[cfg(test)]
mod tests;
mod tunnel_diff;
mod tunnel_settings;
mod tunnels;
mod underlay;
mod update;

pub use actual::{ANNOUNCE_TABLE, ActualState, ActualTunnel, ActualVxlan};
pub use bgp::*;
pub use bgp_resources::BgpResources;
pub use cache::{ClusterCache, StateDiff};
pub use change::{Change, TUNNEL_ALIAS};
pub use cluster_state::{ClusterPool, ClusterState, Peer, PoolTunnel, UsedAddresses};
pub use diff::{Difference, diff};
pub use filter::TunnelFilter;
pub use fingerprints::Fingerprints;
pub use next_hops::{NextHopKind, NodeNextHop, next_hops_from};
pub use plan::{ClusterPlan, RouteKind, addresses_of_nodes, plan_cluster};
pub use pool_usage::{BlockUsage, PoolUsage, UseHistory};
pub use problem::Problem;
pub use saved_state::{NamedNode, PlanSummary, SavedState, TunnelNeeds, Writer, tunnel_needs};
pub use snapshot::{ClusterSnapshot, ObservedRevision, read_nodes};
pub use tunnel_settings::TunnelSettings;
pub use tunnels::{
    TunnelPlan, VxlanDevice, VxlanPlan, any_tunnels, has_settled_tunnel, has_settled_tunnels,
    needs_tunnel, pod_mtu,
};
pub use underlay::{Underlay, UnderlayLink};
