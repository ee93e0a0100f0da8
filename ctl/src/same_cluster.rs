//! Whether the datastore that a network's configuration names holds the cluster in use:
//! two that are written differently do when they have the same `clusterGUID`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::error_chain;
use weir_common::ipam::cluster_guid;

/// How long other datastores may be asked, all of them together.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Whether a datastore holds the cluster in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SameCluster {
    /// It does.
    Yes,
    /// It holds another one, or none.
    No,
    /// That cannot be judged, for this reason.
    Unknown(String),
}

/// The datastore in use, and those that were compared with it.
#[derive(Clone, Debug)]
pub struct ComparedStores {
    in_use: DatastoreConfiguration,
    compared: Vec<(DatastoreConfiguration, SameCluster)>,
}

impl ComparedStores {
    /// Compares the configurations alone.
    pub fn by_text(in_use: &DatastoreConfiguration) -> Self {
        Self { in_use: in_use.clone(), compared: Vec::new() }
    }

    /// Reads the GUIDs of those of the `named` datastores whose configuration leaves it
    /// open.
    pub async fn by_guid(
        in_use: &DatastoreConfiguration,
        datastore: &dyn Datastore,
        named: impl IntoIterator<Item = DatastoreConfiguration>,
    ) -> Self {
        let mut stores = Self::by_text(in_use);
        let deadline = Instant::now() + TIME_LIMIT;
        for other in named {
            let is_known = stores.compared.iter().any(|(compared, _)| *compared == other);
            if is_known || other.is_same_by_text(in_use).is_some() {
                continue;
            }
            let answer = timeout_at(deadline, compare(datastore, &other)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(format!("it did not answer within {} s", TIME_LIMIT.as_secs()))
            });
            stores.compared.push((other, answer.unwrap_or_else(SameCluster::Unknown)));
        }
        stores
    }

    /// Whether this datastore holds the cluster in use.
    pub fn holds_cluster(&self, other: &DatastoreConfiguration) -> SameCluster {
        match other.is_same_by_text(&self.in_use) {
            Some(true) => SameCluster::Yes,
            Some(false) => SameCluster::No,
            None => {
                let compared = self.compared.iter().find(|(compared, _)| compared == other);
                compared.map_or(SameCluster::No, |(_, answer)| answer.clone())
            }
        }
    }
}

async fn compare(
    datastore: &dyn Datastore,
    other: &DatastoreConfiguration,
) -> Result<SameCluster, String> {
    // Opening it would make it.
    if weir_datastore::missing_file(other).is_some() {
        return Ok(SameCluster::No);
    }
    let own = cluster_guid(datastore).await.map_err(|error| error_chain(&error))?;
    let other = weir_datastore::open(other).await.map_err(|error| error_chain(&error))?;
    let theirs = cluster_guid(other.as_ref()).await.map_err(|error| error_chain(&error))?;
    match (own, theirs) {
        (None, None) => Err("neither has a clusterGUID; add one: weirctl init".to_owned()),
        (own, theirs) if own == theirs => Ok(SameCluster::Yes),
        _ => Ok(SameCluster::No),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::ipam::ensure_cluster_guid;

    use super::*;

    /// A file with a cluster of this GUID, or without one.
    async fn make(path: std::path::PathBuf, guid: Option<&str>) -> DatastoreConfiguration {
        let configuration = DatastoreConfiguration::Embedded { path };
        let datastore = weir_datastore::open(&configuration).await.unwrap();
        if let Some(guid) = guid {
            ensure_cluster_guid(datastore.as_ref(), &crate::new_birth(), guid).await.unwrap();
        }
        configuration
    }

    #[tokio::test]
    async fn a_cluster_is_told_by_its_guid() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let in_use = make(path("a.db"), Some("1")).await;
        std::os::unix::fs::symlink(path("a.db"), path("link.db")).unwrap();
        let named = [
            DatastoreConfiguration::Embedded { path: path("link.db") },
            make(path("copy.db"), Some("1")).await,
            make(path("other.db"), Some("2")).await,
            make(path("empty.db"), None).await,
            DatastoreConfiguration::Embedded { path: path("none.db") },
        ];
        let datastore = weir_datastore::open(&in_use).await.unwrap();
        let stores = ComparedStores::by_guid(&in_use, datastore.as_ref(), named.clone()).await;
        use SameCluster::{No, Yes};
        assert_eq!(named.each_ref().map(|it| stores.holds_cluster(it)), [Yes, Yes, No, No, No]);
        assert!(!path("none.db").exists(), "nothing is made by asking");
        let [.., empty, _] = &named;
        let old = make(path("old.db"), None).await;
        let datastore = weir_datastore::open(empty).await.unwrap();
        let stores = ComparedStores::by_guid(empty, datastore.as_ref(), [old.clone()]).await;
        let SameCluster::Unknown(why) = stores.holds_cluster(&old) else { panic!("{stores:?}") };
        assert!(why.contains("weirctl init"), "{why}");
    }
}
