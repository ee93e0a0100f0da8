//! Deleting resources.

use weir_common::datastore::{Datastore, Entry, Outcome, Selection};
use weir_common::resources::Kind;

use super::delete_node::delete_node;
use super::delete_pool::delete_pool;
use super::guard::Guard;
use super::read::key_of;
use super::{ATTEMPTS, Observer, StoreError};

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
    /// Deletes the resource. With a pool go its blocks, its affinities and the
    /// addresses that nodes' tunnels have of it; a pool with other addresses in
    /// use is deleted only by force. With a node go its tunnel addresses, its
    /// affinities and its empty blocks.
    ///
    /// # Errors
    /// [`StoreError::DoesNotExist`]; [`StoreError::Outdated`];
    /// [`StoreError::PoolInUse`]; [`StoreError::LeftDisabled`];
    /// [`StoreError::Locked`]; [`StoreError::Unreadable`];
    /// [`StoreError::Contended`]; [`StoreError::Datastore`].
    pub async fn run(&self) -> Result<Deleted, StoreError> {
        let (kind, name) = (self.kind, self.name);
        if kind == Kind::IpPool {
            return delete_pool(self).await;
        }
        let mut deleted = Deleted::default();
        for attempt in 0..ATTEMPTS {
            let selection = Selection::Key(key_of(kind, name)?);
            let mut guard = Guard::read(self.datastore, vec![selection]).await?;
            let Some(entry) = guard.take_one(0) else {
                return Err(StoreError::DoesNotExist { kind, name: name.to_owned() });
            };
            if attempt == 0 {
                self.check_version(&entry)?;
            }
            let outcome = match kind {
                Kind::Node => delete_node(self, &guard, entry, &mut deleted).await?,
                _ => {
                    let mut transaction = guard.transaction();
                    transaction.delete(entry.key, entry.revision);
                    self.datastore.commit(transaction).await?
                }
            };
            if let Outcome::Committed(_) = outcome {
                return Ok(deleted);
            }
        }
        Err(StoreError::Contended { kind, name: name.to_owned(), attempts: ATTEMPTS })
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
