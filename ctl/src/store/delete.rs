//! Deleting resources.

use weir_common::datastore::{Datastore, Entry, Outcome, Selection};
use weir_common::resources::Kind;

use super::guard::Guard;
use super::{ATTEMPTS, StoreError, release};

/// What must hold for a resource to be deleted.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The version that it must have.
    pub resource_version: Option<String>,
}

/// Deletes a resource. With a pool go its blocks and affinities; a pool with
/// addresses in use is not deleted.
///
/// # Errors
/// [`StoreError::DoesNotExist`]; [`StoreError::Outdated`];
/// [`StoreError::PoolInUse`]; [`StoreError::Locked`];
/// [`StoreError::Contended`]; [`StoreError::Datastore`].
pub async fn delete(
    datastore: &dyn Datastore,
    kind: Kind,
    name: &str,
    preconditions: &Preconditions,
) -> Result<(), StoreError> {
    for attempt in 0..ATTEMPTS {
        let mut guard = Guard::read(datastore, vec![Selection::Key(kind.key(name))]).await?;
        let Some(entry) = guard.take_one(0) else {
            return Err(StoreError::DoesNotExist { kind, name: name.to_owned() });
        };
        check_version(kind, name, &entry, preconditions)?;
        let outcome = match kind {
            Kind::IpPool => release::delete_pool(datastore, &guard, entry, attempt).await?,
            _ => {
                let mut transaction = guard.transaction();
                transaction.delete(entry.key, entry.revision);
                datastore.commit(transaction).await?
            }
        };
        if let Outcome::Committed(_) = outcome {
            return Ok(());
        }
    }
    Err(StoreError::Contended { kind, name: name.to_owned(), attempts: ATTEMPTS })
}

fn check_version(
    kind: Kind,
    name: &str,
    entry: &Entry,
    preconditions: &Preconditions,
) -> Result<(), StoreError> {
    let current = entry.revision.to_string();
    match &preconditions.resource_version {
        Some(given) if *given != current => {
            Err(StoreError::Outdated { kind, name: name.to_owned(), given: given.clone(), current })
        }
        _ => Ok(()),
    }
}
