//! The datastores behind Weir: three implementations of
//! [`weir_common::datastore::Datastore`] that behave alike.
//!
//! - [`embedded`]: one SQLite file on this host, the default; [`Absent`] where it is not there.
//! - [`etcd`]: an etcd cluster.
//! - `memory`: for tests, with faults and other processes' doings on cue; behind the
//!   feature of that name, which no program has.
//!
//! `docs/datastore.md` has the decisions behind them.
#![warn(missing_docs)]

mod absent;
pub mod embedded;
pub mod etcd;
#[cfg(feature = "memory")]
pub mod memory;
mod request;

pub use absent::Absent;
pub use embedded::Embedded;
pub use etcd::Etcd;
#[cfg(feature = "memory")]
pub use memory::Memory;
pub use request::OPERATIONS_LIMIT;

use std::path::{Path, PathBuf};

use weir_common::datastore::{Datastore, DatastoreConfiguration, Error, Forgetful, LastEndpoint};

/// Opens the configured datastore: an embedded one is opened or made now, an
/// etcd cluster is not dialled before the first request.
///
/// Needs a Tokio runtime with its I/O and time drivers.
///
/// # Errors
/// As [`Embedded::open`] and [`Etcd::open`].
pub async fn open(configuration: &DatastoreConfiguration) -> Result<Box<dyn Datastore>, Error> {
    open_with(configuration, Box::new(Forgetful)).await
}

/// As [`open`]; the memory tells which of etcd's endpoints to ask first.
///
/// # Errors
/// Likewise.
pub async fn open_with(
    configuration: &DatastoreConfiguration,
    memory: Box<dyn LastEndpoint>,
) -> Result<Box<dyn Datastore>, Error> {
    Ok(match configuration {
        DatastoreConfiguration::Embedded { path } => Box::new(Embedded::open(path).await?),
        DatastoreConfiguration::Etcd(etcd) => Box::new(Etcd::open_with(etcd, memory).await?),
    })
}

/// The file of an embedded datastore that is not there. One whose log is there was lost,
/// which opening it tells.
pub fn missing_file(configuration: &DatastoreConfiguration) -> Option<&Path> {
    let DatastoreConfiguration::Embedded { path } = configuration else { return None };
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let is_missing = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
    (is_missing(path) && is_missing(&log)).then_some(path)
}
