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

use weir_common::datastore::{Configuration, Datastore, Error};

/// Opens the datastore that is configured.
///
/// # Errors
/// As [`Embedded::open`]; etcd is not there yet.
pub async fn open(configuration: &Configuration) -> Result<Box<dyn Datastore>, Error> {
    match configuration {
        Configuration::Embedded { path } => Ok(Box::new(Embedded::open(path).await?)),
        Configuration::Etcd(_) => Err(Error::Misconfigured {
            field: "datastore_type",
            value: "etcdv3".to_owned(),
            reason: "etcd is not supported yet; use embedded".to_owned(),
        }),
    }
}
