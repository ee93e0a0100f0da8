//! Deleting resources.

use weir_common::datastore::{Attempts, Datastore, Entry, Selection};
use weir_common::ipam::Guarded;
use weir_common::resources::Kind;

use super::delete_node::delete_node;
use super::delete_pool::delete_pool;
use super::read::key_of;
use super::{Observer, StoreError};

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
        let kind = self.kind;
        if kind == Kind::IpPool {
            return delete_pool(self).await;
        }
        let (mut deleted, mut attempts) = (Deleted::default(), Attempts::default());
        loop {
            let attempt = attempts.begin()?;
            let (guarded, entry) = self.read().await?;
            if attempt == 0 {
                self.check_version(&entry)?;
            }
            let is_done = match kind {
                Kind::Node => {
                    delete_node(self, &mut attempts, &guarded, entry, &mut deleted).await?
                }
                _ => {
                    let mut transaction = guarded.transaction();
                    transaction.delete(entry.key, entry.revision);
                    attempts.commit(self.datastore, transaction).await?
                }
            };
            if is_done {
                return Ok(deleted);
            }
        }
    }

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
