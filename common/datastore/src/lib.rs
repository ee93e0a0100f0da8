//! The datastores behind Weir: three implementations of
//! [`weir_common::datastore::Datastore`] that behave alike.
//!
//! - [`embedded`]: one SQLite file on this host, the default.
//! - [`memory`]: for tests, with faults on cue.
//!
//! `docs/datastore.md` has the decisions behind them.
#![warn(missing_docs)]

pub mod embedded;
pub mod memory;
mod request;

pub use embedded::Embedded;
pub use memory::Memory;
pub use request::OPERATIONS_LIMIT;
