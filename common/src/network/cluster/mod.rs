//! A node's part in the cluster: the ways to other nodes' containers.
//!
//! [`Inventory`] is what the datastore says, [`Underlay`] what the node's own
//! links are like; [`plan_cluster`] makes of both the [`ClusterPlan`], which
//! tunnel device, routes and NAT the node should have. [`difference`] says what
//! to change where the kernel has something else. All of it is data; the crate
//! `weir-kernel` reads what is present and carries changes out.
//! `docs/cluster.md` gives the reasons.

mod difference;
mod facts;
mod filter;
mod follower;
mod inventory;
mod listing;
mod plan;
mod problem;
mod state;
#[cfg(test)]
mod tests;
mod underlay;

pub use difference::{Change, Present, PresentTunnel, TUNNEL_ALIAS, difference};
pub use facts::Facts;
pub use filter::TunnelFilter;
pub use follower::Follower;
pub use inventory::{ClusterPool, Inventory, Peer};
pub use listing::{Listing, Seen};
pub use plan::{
    ClusterPlan, TUNNEL_DEVICE, TUNNEL_OVERHEAD, TunnelPlan, Way, any_tunnels, has_settled_tunnel,
    needs_tunnel, plan_cluster, pod_mtu,
};
pub use problem::Problem;
pub use state::{NamedNode, SavedState, TunnelNeed, Writer};
pub use underlay::{Underlay, UnderlayLink};
