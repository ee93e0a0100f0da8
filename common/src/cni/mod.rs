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
pub use assignment::{assigned, assignee_of, check_held, request_of};
pub use configuration::{Configuration, IpamConfiguration, LogFile, LogLevel, Logging, NodeName};
pub use environment::{Command, Environment, is_identifier};
pub use error::{Code, Error};
pub use gateway::ip_configuration;
pub use result::{AddResult, Interface, IpConfiguration, Route, first_dns};
pub use trace::TraceContext;
pub use valid_attachments::with_valid_attachments;
pub use version::SpecVersion;
