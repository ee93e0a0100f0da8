//! One container: its veth, addresses, routes, neighbours and kernel parameters.
//!
//! [`plan_attachment`] turns a request into a list of [`Step`]s, each with its undo,
//! [`plan_node`] does so for what attachments need of the node, and [`compare`] tells
//! a plan from what the kernel has. `docs/attachment.md` gives the reasons.

mod allowed_source;
mod check;
mod container_routes;
mod firewall;
mod health;
mod host_end;
mod host_routes;
mod identity;
mod mtu;
mod node_needs;
mod plan;
mod sandbox;
mod step;
#[cfg(test)]
mod tests;
mod unlisted;

pub use allowed_source::{allowed_source_name, allowed_source_of};
pub use check::{Expected, Found, FoundLink, Mismatch, compare};
pub use firewall::{
    FirewallProblem, ForwardChain, ForwardFilters, ForwardRule, PolicyRule, RuleEffect,
    RulePackets, TableFamily, TableName, find_firewalls, find_policy_rules,
};
pub use health::{AttachmentState, HealthProblem, NodeHealth, find_problems, not_forwarding};
pub use host_end::HostEnd;
pub use identity::{AttachmentIdentity, GATEWAY_V6, InvalidIdentity};
pub use mtu::{InvalidMtu, Mtu, MtuCandidate, MtuSource, choose_mtu};
pub use node_needs::{Nat, NodeNeeds, NodeState, plan_node};
pub use plan::{
    Attachment, AttachmentRequest, Families, GATEWAY_V4, HOST_MAC, InvalidAttachment,
    RequestedRoute, plan_addresses, plan_attachment, plan_host_side, plan_link, plan_parameters,
};
pub use sandbox::{ContainerKey, LONGEST_SANDBOX, Sandbox};
pub use step::{Before, ContainerEnd, Side, Step, Sysctl, Undo, Veth};
pub use unlisted::is_unlisted;
