//! What is deleted, and what went with it.

use weir_common::datastore::{Datastore, Entry, Selection};
use weir_common::ipam::Guarded;
use weir_common::resources::Kind;

use super::Observer;
use super::error::StoreError;
use super::read::key_of;

/// What is to be deleted, and how.
pub struct Deletion<'a> {
    /// Where it is.
    pub datastore: &'a dyn Datastore,
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// The version that it must have.
    pub resource_version: Option<&'a str>,
    /// Whether addresses in use are released with their pool.
    pub force: bool,
    /// Is told how far it got.
    pub observer: &'a dyn Observer,
}

/// What went together with a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Addresses that were in use and are released.
    pub addresses: usize,
    /// Blocks that are gone.
    pub blocks: usize,
    /// Blocks that stay, because of addresses in use, and lost their host.
    pub blocks_without_host: usize,
    /// How many addresses are in use in those.
    pub addresses_without_host: usize,
}

impl Deletion<'_> {
    /// Reads the resource, which must be there.
    pub(super) async fn read(&self) -> Result<(Guarded, Entry), StoreError> {
        let (kind, name) = (self.kind, self.name);
        let selection = Selection::Key(key_of(kind, name)?);
        let guarded = Guarded::read(self.datastore, [selection]).await?;
        match guarded.entry(0).cloned() {
            Some(entry) => Ok((guarded, entry)),
            None => Err(StoreError::DoesNotExist { kind, name: name.to_owned() }),
        }
    }

    /// Checks that the resource still has the version that was asked for.
    pub(super) fn check_version(&self, entry: &Entry) -> Result<(), StoreError> {
        let current = entry.revision.to_string();
        match self.resource_version {
            Some(given) if given != current => Err(StoreError::Outdated {
                kind: self.kind,
                name: self.name.to_owned(),
                given: given.to_owned(),
                current,
            }),
            _ => Ok(()),
        }
    }
}
