//! What can go wrong with a datastore.

use super::Revision;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed datastore operation. A lost comparison is not an error but
/// [`Outcome::Conflict`](super::Outcome::Conflict).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The datastore cannot be reached or does not answer in time. The same
    /// call may succeed later.
    #[error(
        "datastore {location} is not available; check that it runs and can be reached from here"
    )]
    Unavailable {
        /// Where it was looked for: endpoints, or a file.
        location: String,
        /// What the attempt met.
        #[source]
        cause: Cause,
    },
    /// The datastore refuses the credentials, or the file belongs to someone else.
    #[error(
        "datastore {location} refused access; check user and password, \
         or, for a file, who may read and write it"
    )]
    Denied {
        /// Where it was looked for.
        location: String,
        /// What the datastore said.
        #[source]
        cause: Cause,
    },
    /// The datastore has no room for what was to be written, or takes no writes for now.
    /// The same call may succeed once that is seen to.
    #[error("datastore {location} cannot be written: {reason}")]
    Unwritable {
        /// Where it is.
        location: String,
        /// What is in the way, and what to do about it.
        reason: String,
    },
    /// The datastore knows who asks, and does not permit it. The same call may succeed once
    /// it is granted.
    #[error("datastore {location} does not permit it: {reason}")]
    NotPermitted {
        /// Where it is.
        location: String,
        /// Who may not do what, and how it is granted.
        reason: String,
    },
    /// The history that a watch needs is gone.
    #[error("the datastore's history after revision {after} is gone; list again")]
    Compacted {
        /// The revision behind which the watch wanted to go on.
        after: Revision,
    },
    /// The way to the datastore is wrongly configured.
    #[error("{field} {value:?} cannot be used: {reason}")]
    Misconfigured {
        /// The configuration key, as its user writes it (`etcd_ca_cert_file`).
        field: &'static str,
        /// Its value; empty where it is secret.
        value: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The stored data or the request is such that trying again is of no use.
    #[error("datastore {location} failed")]
    Failed {
        /// Where it is.
        location: String,
        /// What happened.
        #[source]
        cause: Cause,
    },
}
