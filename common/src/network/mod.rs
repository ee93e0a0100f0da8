//! Which links, addresses, routes and NAT an attachment or a node should have.
//!
//! Everything here is data and arithmetic: [`plan_attachment`] and
//! [`plan_node`] turn what is wanted into a list of [`Step`]s, each with its
//! undo; the crate `weir-kernel` carries them out. [`compare`] tells a plan
//! from what the kernel has. `docs/attachment.md` gives the reasons.
//! [`AutodetectionMethod`] finds the address that other nodes reach a node by.

mod attachment;
mod autodetect;
mod check;
mod cluster;
mod collect;
mod container_routes;
mod health;
mod identity;
mod mtu;
mod nat;
mod nft;
mod node;
#[cfg(test)]
mod plan_tests;
mod step;

pub use attachment::{
    Attachment, AttachmentRequest, Families, GATEWAY_V4, GATEWAY_V6, HOST_MAC, InvalidAttachment,
    RequestedRoute, plan_addresses, plan_attachment, plan_link, plan_parameters,
};
pub(crate) use autodetect::is_global_unicast;
pub use autodetect::{
    AutodetectionMethod, Detected, InvalidMethod, NamePatterns, NodeInterface, NotDetected,
    PassedBy,
};
pub use check::{Difference, Expected, Found, FoundLink, compare};
pub use cluster::{
    ActualState, ActualTunnel, Change, ClusterCache, ClusterPlan, ClusterPool, ClusterSnapshot,
    ClusterState, Fingerprints, NamedNode, ObservedRevision, Peer, Problem, RouteKind, SavedState,
    StateDiff, TUNNEL_ALIAS, TUNNEL_DEVICE, TUNNEL_OVERHEAD, TunnelFilter, TunnelNeed, TunnelPlan,
    Underlay, UnderlayLink, Writer, any_tunnels, diff, has_settled_tunnel, needs_tunnel,
    plan_cluster, pod_mtu,
};
pub use collect::{Fate, fate};
pub use health::{AttachmentState, NodeHealth, Trouble, not_forwarding, troubles};
pub use identity::{AttachmentIdentity, InvalidIdentity};
pub use mtu::{DEFAULT_MTU, InvalidMtu, Mtu, MtuCandidate, MtuSource, choose_mtu};
pub use nat::{NatPool, NatTable, needs_nat};
pub use nft::NftTable;
pub use node::{Nat, NodeNeeds, NodeState, plan_node};
pub use step::{Before, ROUTE_PROTOCOL, Route, RouteScope, Side, Step, Sysctl, Undo, Veth};
