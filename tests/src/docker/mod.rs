//! Docker: a real dockerd, the driver beside it, and hosts that have both.

mod client;
mod daemon;
mod driver;
mod host;
mod relay;

pub use client::{PluginSocket, call_on};
pub use daemon::{Docker, Firewall};
pub use driver::DockerDriver;
pub use host::{DockerHost, DockerHosts, DockerOptions};
pub use relay::{Lost, Relay};
