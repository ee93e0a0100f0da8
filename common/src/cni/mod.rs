//! The CNI contract: what a runtime passes in, what it may get back, and the
//! skeleton every plugin runs in.
//!
//! "spec" in a comment is the specification (SPEC.md of containernetworking/cni),
//! "skel" its reference implementation (`pkg/skel` and its neighbours).

mod arguments;
mod assignment;
mod configuration;
mod environment;
mod error;
mod gateway;
mod result;
pub mod skeleton;
mod trace;
mod valid_attachments;
mod version;

pub use arguments::Arguments;
pub use assignment::{assigned, assignee_of, check_held, leaving_of, request_of};
pub use configuration::{
    IpamConfiguration, LogFile, LogLevel, Logging, NetworkConfiguration, NodeName,
};
pub use environment::{CniCommand, Environment, is_identifier};
pub use error::{Code, Error};
pub use gateway::ip_configuration;
pub use result::{AddResult, CniRoute, Interface, IpConfiguration, first_dns};
pub use trace::TraceContext;
pub use valid_attachments::with_valid_attachments;
pub use version::SpecVersion;
