//! The pure core of Weir.
//!
//! Nothing in this crate opens a socket or a file, reads a clock or the
//! environment, or talks to the kernel: time, host names and seeds are
//! arguments, and what is to be done comes back as data. The crates
//! `weir-datastore` and `weir-kernel` are the edge that carries it out.
//!
//! - [`cni`]: the CNI contract.
//! - [`resources`]: pools, nodes, reservations, IPAM configuration and BGP's
//!   resources, as people write them and as Weir uses them.
//! - [`ipam`]: which address an attachment gets, and how it is given back.
//! - [`link`]: hardware addresses and MTUs.
//! - [`network`]: which links, addresses, routes and NAT an attachment or a
//!   node should have.
//! - [`node`]: what a node writes about itself.
//! - [`audit`]: what is damaged in a store, and how it is repaired.
//! - [`tunnel`]: the kinds of tunnels between nodes.
//! - [`datastore`]: the keys, the transactions and the trait that the
//!   datastores implement.
#![warn(missing_docs)]

pub mod audit;
pub mod cni;
pub mod datastore;
mod error_chain;
pub mod ipam;
pub mod link;
mod nearest;
pub mod network;
pub mod node;
mod null;
mod printable;
pub mod resources;
mod strict;
pub mod tunnel;

pub use error_chain::error_chain;
pub use nearest::nearest;
pub use printable::{
    PrintableWriter, is_unprintable, printable, printable_json, printable_lines, shell_word,
};
