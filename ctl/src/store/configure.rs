//! Changing the configuration of IPAM.

use weir_common::datastore::{Datastore, Outcome, Selection, keys};
use weir_common::resources::{IPAM_CONFIG_NAME, IpamConfig, Kind};

use super::guard::Guard;
use super::{ATTEMPTS, StoreError};

/// Changes the configuration of IPAM, which is made when it is not there.
///
/// # Errors
/// [`StoreError::Invalid`] when the settings do not go together;
/// [`StoreError::Locked`], [`StoreError::Contended`], [`StoreError::Datastore`].
pub async fn configure(
    datastore: &dyn Datastore,
    change: impl Fn(&mut IpamConfig),
) -> Result<(), StoreError> {
    let key = || keys::IPAM_CONFIG.to_owned();
    for _ in 0..ATTEMPTS {
        let mut guard = Guard::read(datastore, vec![Selection::Key(key())]).await?;
        let stored = guard.take_one(0);
        let mut config = match &stored {
            Some(entry) => IpamConfig::from_json(&entry.value)?,
            None => IpamConfig::default(),
        };
        change(&mut config);
        config.check()?;
        let mut transaction = guard.transaction();
        match stored {
            Some(entry) => transaction.update(key(), entry.revision, config.to_json()),
            None => transaction.create(key(), config.to_json()),
        };
        if let Outcome::Committed(_) = datastore.commit(transaction).await? {
            return Ok(());
        }
    }
    let name = IPAM_CONFIG_NAME.to_owned();
    Err(StoreError::Contended { kind: Kind::IpamConfig, name, attempts: ATTEMPTS })
}
