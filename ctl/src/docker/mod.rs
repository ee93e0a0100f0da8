//! Docker's driver: `weirctl docker run`.
//!
//! dockerd asks over a unix socket for addresses (IpamDriver) and for interfaces
//! (NetworkDriver). [`server`] takes its calls in, [`protocol`] has their forms, [`driver`] sends
//! each to where it is answered. What is decided is decided in `weir_common::ipam` and
//! `weir_common::network`, as for CNI. `docs/docker.md` gives the reasons.

mod addresses;
pub mod daemon;
mod driver;
mod endpoints;
mod error;
mod forward;
mod front;
mod networks;
mod pool_id;
mod pools;
mod ports;
mod protocol;
pub mod run;
mod server;
mod sockets;
mod sweep;
#[cfg(test)]
mod tests;
mod workloads;

pub use front::Front;
pub use pools::{OPTION_POOLS, request as request_pool};
pub use protocol::PoolRequest;
pub use sockets::is_driver_installed;
