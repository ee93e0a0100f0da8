//! A node's part in BGP: whom it peers with, what it announces and accepts.
//!
//! [`plan_bgp`] makes the [`BgpPlan`] of the cluster's state; `bird` prints it as BIRD's
//! configuration, which is the only place that writes BIRD's syntax; `explain` says it in words.
//! What is announced goes by a table of the kernel that BIRD reads (`ANNOUNCE_TABLE`), so that a
//! new block needs no new configuration. `docs/bgp.md` gives the reasons.

mod bird;
mod explain;
mod export;
mod filter_match;
pub(super) mod need;
mod on_link;
mod peering;
mod plan;
pub(super) mod session;
mod settings;
#[cfg(test)]
mod tests;

pub use bird::{BirdConfiguration, BirdProblem, DIGEST_CONSTANT};
pub use explain::{
    BgpExplanation, BgpQuestion, ExplainedPrefix, ExplainedSession, ToldPeer, explain_bgp,
};
pub use filter_match::{Announced, FilterVerdict, judge};
pub use need::bgp_need;
pub use plan::plan_bgp;
pub use session::{
    BgpNeed, BgpPlan, BgpProblem, BgpSession, ExportedOthers, Flow, NextHop, Origin, StaticRoute,
};
