//! Changing the configuration of IPAM.

use weir_common::datastore::{Datastore, Decision, Selection, keys, transact};
use weir_common::ipam::Guarded;
use weir_common::resources::IpamConfig;

use super::error::StoreError;

/// Changes the configuration of IPAM, which is made when it is not there.
///
/// # Errors
/// [`StoreError::Invalid`] when the settings do not go together;
/// [`StoreError::Locked`], [`StoreError::Contended`], [`StoreError::Datastore`].
pub async fn configure(
    datastore: &dyn Datastore,
    change: impl Fn(&mut IpamConfig),
) -> Result<(), StoreError> {
    let change = &change;
    transact(datastore, |_| async move {
        let key = keys::IPAM_CONFIG.to_owned();
        let guarded = Guarded::read(datastore, [Selection::Key(key.clone())]).await?;
        let entry = guarded.entry(0);
        let mut config = match entry {
            Some(entry) => IpamConfig::from_json(&entry.value)?,
            None => IpamConfig::default(),
        };
        change(&mut config);
        config.check()?;
        let mut transaction = guarded.transaction();
        transaction.put(key, entry.map(|entry| entry.revision), config.to_json());
        Ok(Decision::Commit(transaction, ()))
    })
    .await
}
