//! Resources in the datastore: every change is one transaction that compares
//! what it rests on.

mod blocks;
mod configure;
mod create;
mod delete;
mod delete_node;
mod delete_pool;
mod deletion;
mod dry_run;
mod error;
mod initialize;
mod read;
mod release;
mod rename_node;
mod update;

pub use blocks::{blocks_in, in_use};
pub use configure::configure;
pub use create::create;
pub use deletion::{Deleted, Deletion};
pub use dry_run::DryRun;
pub use error::StoreError;
pub use initialize::initialize;
pub use read::{List, find_peer_like, find_pool_by_cidr, get, list, read_stored_pool};
pub use rename_node::{Moved, Rename};
pub use update::{apply, modify, modify_or_create, replace};

/// Is told how far something long got.
pub trait Observer: Send + Sync {
    /// `done` steps out of `total` are done.
    fn progress(&self, done: usize, total: usize);

    /// So many entries of the datastore are read, of a number that is not known.
    fn reading(&self, entries: usize);
}
