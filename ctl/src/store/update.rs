//! Changing resources.

use weir_common::datastore::{Datastore, Entry, Outcome, Selection};
use weir_common::resources::{self, Birth, Kind, Resource, check_update};

use super::guard::Guard;
use super::{ATTEMPTS, StoreError, create, read};

/// Replaces a resource that is there.
///
/// A `resourceVersion` in the document has to be the present one.
///
/// # Errors
/// [`StoreError::DoesNotExist`]; [`StoreError::Outdated`];
/// [`StoreError::Invalid`], also for a change of what cannot be changed;
/// [`StoreError::Locked`]; [`StoreError::Contended`];
/// [`StoreError::Datastore`].
pub async fn replace(datastore: &dyn Datastore, resource: &Resource) -> Result<(), StoreError> {
    resource.check()?;
    for _ in 0..ATTEMPTS {
        if let Outcome::Committed(_) = try_replace(datastore, resource).await? {
            return Ok(());
        }
    }
    let name = resource.name().to_owned();
    Err(StoreError::Contended { kind: resource.kind, name, attempts: ATTEMPTS })
}

/// Replaces a resource that is there, or creates it.
///
/// # Errors
/// As [`replace`] and [`create`], save those about being there or not.
pub async fn apply(
    datastore: &dyn Datastore,
    resource: &Resource,
    birth: &Birth,
) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        match replace(datastore, resource).await {
            Err(StoreError::DoesNotExist { .. }) => {}
            result => return result,
        }
        match create(datastore, resource, birth).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            result => return result,
        }
    }
    let name = resource.name().to_owned();
    Err(StoreError::Contended { kind: resource.kind, name, attempts: ATTEMPTS })
}

async fn try_replace(
    datastore: &dyn Datastore,
    resource: &Resource,
) -> Result<Outcome, StoreError> {
    let (kind, name) = (resource.kind, resource.name());
    let key = kind.key(name);
    let mut guard = Guard::read(datastore, vec![Selection::Key(key.clone())]).await?;
    let Some(entry) = guard.take_one(0) else {
        return Err(StoreError::DoesNotExist { kind, name: name.to_owned() });
    };
    check_version(resource, &entry)?;
    let old = read::to_resource(kind, &entry)?;
    if kind == Kind::IpPool {
        // A stored pool that breaks a rule may be replaced by one that keeps
        // them: then there is nothing to compare with.
        if let Ok(old) = old.pool() {
            check_update(&old, &resource.pool()?).map_err(resources::Error::Invalid)?;
        }
    }
    let value = resource.clone().replacing(&old).to_stored(Some(&entry.value))?;
    let mut transaction = guard.transaction();
    transaction.update(key, entry.revision, value);
    Ok(datastore.commit(transaction).await?)
}

/// Checks that a document that says from which version it stems stems from
/// the present one.
pub(super) fn check_version(resource: &Resource, entry: &Entry) -> Result<(), StoreError> {
    let current = entry.revision.to_string();
    match resource.resource_version() {
        Some(given) if given != current => Err(StoreError::Outdated {
            kind: resource.kind,
            name: resource.name().to_owned(),
            given: given.to_owned(),
            current,
        }),
        _ => Ok(()),
    }
}
