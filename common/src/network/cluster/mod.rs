//! One node among many: the routes, tunnel and NAT by which its containers reach those of other
//! nodes.
//!
//! [`ClusterState`] is what the datastore says, [`Underlay`] what the node's own links are
//! like; [`plan_cluster`] makes the [`ClusterPlan`] of both: the desired tunnel device, routes
//! and NAT. [`diff`] returns the changes from the [`ActualState`] of the kernel to the plan. All
//! of it is data; the crate `weir-kernel` reads the actual state and carries changes out.
//! `docs/cluster.md` gives the reasons.

mod announcement;
mod bgp;
mod bgp_resources;
mod cache;
mod cluster_state;
mod diff;
mod felix;
mod filter;
mod fingerprints;
mod plan;
mod problem;
mod saved_state;
mod snapshot;
#[cfg(test)]
mod tests;
mod underlay;
mod update;

pub use bgp::*;
pub use bgp_resources::BgpResources;
pub use cache::{ClusterCache, StateDiff};
pub use cluster_state::{ClusterPool, ClusterState, Peer, UsedAddresses};
pub use diff::{ANNOUNCE_TABLE, ActualState, ActualTunnel, Change, TUNNEL_ALIAS, diff};
pub use felix::{DEFAULT_VNI, DEFAULT_VXLAN_PORT, TunnelSettings};
pub use filter::TunnelFilter;
pub use fingerprints::Fingerprints;
pub use plan::{
    ClusterPlan, RouteKind, TUNNEL_DEVICE, TUNNEL_OVERHEAD, TunnelPlan, addresses_of_nodes,
    any_tunnels, has_settled_tunnel, needs_tunnel, plan_cluster, pod_mtu,
};
pub use problem::Problem;
pub use saved_state::{NamedNode, PlanSummary, SavedState, TunnelNeed, Writer};
pub use snapshot::{ClusterSnapshot, ObservedRevision, read_nodes};
pub use underlay::{Underlay, UnderlayLink};
