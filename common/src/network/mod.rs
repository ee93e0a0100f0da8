//! Which links, addresses, routes and NAT a node and its containers should have.
//!
//! Everything here is data and arithmetic; the crate `weir-kernel` carries plans out.
//!
//! - `attachment`: one container: [`plan_attachment`], [`compare`].
//! - `cluster`: one node among many, the routes to other nodes' containers:
//!   [`plan_cluster`], [`diff`].
//! - `route`, `nat`, `nft`: what both plan with.
//! - `ports`: which ports of a node lead to which containers: [`plan_ports`].
//! - `source_filter`: which sources containers may send from.
//! - `autodetect`: the address by which other nodes reach a node.

mod attachment;
mod autodetect;
mod cluster;
mod nat;
mod nft;
mod port_table;
mod ports;
mod route;
mod source_filter;

pub use attachment::*;
pub(crate) use autodetect::is_global_unicast;
pub use autodetect::{
    AutodetectionMethod, Detected, InvalidMethod, NamePatterns, NodeInterface, NotDetected,
    OUTSIDE_V4, OUTSIDE_V6, PassedBy,
};
pub use cluster::*;
pub use nat::*;
pub use nft::NftTable;
pub use port_table::PortTable;
pub use ports::*;
pub use route::*;
pub use source_filter::{AllowedSources, SourceFilter, allowed_sources};
