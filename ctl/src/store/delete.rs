//! Deleting resources.

use weir_common::datastore::Attempts;
use weir_common::resources::Kind;

use super::delete_node::delete_node;
use super::delete_pool::delete_pool;
use super::deletion::{Deleted, Deletion};
use super::error::StoreError;

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
}
