//! Changing resources.

use weir_common::datastore::{Attempts, Datastore, Decision, Entry, keys, transact};
use weir_common::ipam::Guarded;
use weir_common::resources::{self, Birth, IpPool, Kind, Resource, check_update};

use super::create::{check_pool, selections};
use super::error::StoreError;
use super::read::read_stored_pool;
use super::{create, read};

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
    let new = |old: &Resource| Ok((resource.completed_by(old), ()));
    modify(datastore, resource.kind, resource.name(), new).await
}

/// Replaces a resource that is there, or creates it.
///
/// # Errors
/// As [`replace`] and [`create`](create()), save those about being there or not.
pub async fn apply(
    datastore: &dyn Datastore,
    resource: &Resource,
    birth: &Birth,
) -> Result<(), StoreError> {
    modify_or_create(datastore, resource, |old| Ok(resource.completed_by(old)), birth).await
}

/// Changes a resource that is there by `change`, or creates it as `change` makes it of `new`.
///
/// # Errors
/// As [`apply`].
pub async fn modify_or_create(
    datastore: &dyn Datastore,
    new: &Resource,
    change: impl Fn(&Resource) -> Result<Resource, StoreError>,
    birth: &Birth,
) -> Result<(), StoreError> {
    let mut attempts = Attempts::default();
    loop {
        attempts.begin()?;
        let changed = |old: &Resource| Ok((change(old)?, ()));
        match modify(datastore, new.kind, new.name(), changed).await {
            Err(StoreError::DoesNotExist { .. }) => {}
            result => return result,
        }
        match create(datastore, &change(new)?, birth).await {
            Err(StoreError::AlreadyExists { .. }) => {}
            result => return result,
        }
    }
}

/// Changes a resource that is there by `change`, which is given the resource
/// as it is and says what becomes of it; again each time another program changed
/// it meanwhile.
///
/// # Errors
/// What `change` fails with; else as [`replace`].
pub async fn modify<T>(
    datastore: &dyn Datastore,
    kind: Kind,
    name: &str,
    change: impl Fn(&Resource) -> Result<(Resource, T), StoreError>,
) -> Result<T, StoreError> {
    let (key, change) = (&read::key_of(kind, name)?, &change);
    transact(datastore, |_| async move {
        let guarded = Guarded::read(datastore, selections(kind, key)).await?;
        let Some(entry) = guarded.entry(0) else {
            return Err(StoreError::DoesNotExist { kind, name: name.to_owned() });
        };
        let (new, result) = change(&read::to_resource(kind, entry)?)?;
        let value = replacement(entry, &new)?;
        let mut transaction = guarded.transaction();
        if kind == Kind::IpPool && !keeps_addresses(entry, &new.pool()?)? {
            check_pool(datastore, &new.pool()?, guarded.entries(1)).await?;
            transaction.none_newer(keys::POOLS.to_owned(), guarded.revision);
        }
        transaction.update(key.clone(), entry.revision, value);
        Ok(Decision::Commit(transaction, result))
    })
    .await
}

/// What to store in the place of `entry`.
fn replacement(entry: &Entry, new: &Resource) -> Result<Vec<u8>, StoreError> {
    check_version(new, entry)?;
    new.check()?;
    let old = read::to_resource(new.kind, entry)?;
    Ok(new.clone().replacing(&old).to_stored(Some(&entry.value))?)
}

/// Checks that what replaces a stored pool keeps what cannot change. False
/// when the stored one does not say which addresses it has: then the other one
/// is as good as new.
fn keeps_addresses(entry: &Entry, new: &IpPool) -> Result<bool, StoreError> {
    let old = IpPool::from_json(&entry.value).ok().or_else(|| read_leniently(entry));
    let Some(old) = old else { return Ok(false) };
    check_update(&old, new).map_err(resources::Error::Invalid)?;
    Ok(true)
}

/// Name, addresses and block size of a stored pool that breaks a rule, if it
/// has them.
fn read_leniently(entry: &Entry) -> Option<IpPool> {
    let mut pool = read_stored_pool(entry)?;
    pool.cidr = pool.cidr.trunc();
    let value: serde_json::Value = serde_json::from_slice(&entry.value).ok()?;
    if let Some(size) = value["spec"].get("blockSize") {
        pool.block_size = u8::try_from(size.as_u64()?).ok()?;
    }
    Some(pool)
}

/// Checks that a document that says from which version it stems stems from
/// the present one.
fn check_version(resource: &Resource, entry: &Entry) -> Result<(), StoreError> {
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
