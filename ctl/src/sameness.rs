//! Whether the datastore that a network's configuration names is the one in use: told by
//! what the datastore is where their texts differ.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use weir_common::datastore::{Datastore, DatastoreConfiguration, Error, Page, keys};

use crate::session::chain;

/// How long other datastores may be asked, all of them together.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// How many resources tell a datastore from others.
const MARKS: usize = 100;

/// Whether a datastore is the one in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// It is.
    Same,
    /// It is another one.
    Another,
    /// Nobody knows, for this reason.
    Untold(String),
}

/// The datastore in use, and what is known of others.
#[derive(Clone, Debug)]
pub struct Stores {
    in_use: DatastoreConfiguration,
    asked: Vec<(DatastoreConfiguration, Sameness)>,
}

impl Stores {
    /// Goes by the texts alone.
    pub fn by_text(in_use: &DatastoreConfiguration) -> Self {
        Self { in_use: in_use.clone(), asked: Vec::new() }
    }

    /// Asks those of the `named` datastores whose text leaves it open.
    pub async fn ask(
        in_use: &DatastoreConfiguration,
        datastore: &dyn Datastore,
        named: impl IntoIterator<Item = DatastoreConfiguration>,
    ) -> Self {
        let mut stores = Self::by_text(in_use);
        let deadline = Instant::now() + TIME_LIMIT;
        for other in named {
            let is_known = stores.asked.iter().any(|(asked, _)| *asked == other);
            if is_known || other.is_same_by_text(in_use).is_some() {
                continue;
            }
            let asked = timeout_at(deadline, compare(in_use, datastore, &other)).await;
            let sameness = asked.unwrap_or_else(|_| {
                Sameness::Untold(format!("it did not answer within {} s", TIME_LIMIT.as_secs()))
            });
            stores.asked.push((other, sameness));
        }
        stores
    }

    /// Whether this is the datastore in use.
    pub fn sameness(&self, other: &DatastoreConfiguration) -> Sameness {
        match other.is_same_by_text(&self.in_use) {
            Some(true) => Sameness::Same,
            Some(false) => Sameness::Another,
            None => {
                let asked = self.asked.iter().find(|(asked, _)| asked == other);
                asked.map_or(Sameness::Another, |(_, sameness)| sameness.clone())
            }
        }
    }
}

async fn compare(
    in_use: &DatastoreConfiguration,
    datastore: &dyn Datastore,
    other: &DatastoreConfiguration,
) -> Sameness {
    match (in_use, other) {
        (
            DatastoreConfiguration::Embedded { path: one },
            DatastoreConfiguration::Embedded { path: other },
        ) => compare_files(one, other),
        _ => match compare_clusters(datastore, other).await {
            Ok(sameness) => sameness,
            Err(error) => Sameness::Untold(chain(&error)),
        },
    }
}

/// One file has one number on its device, whatever path leads to it.
fn compare_files(one: &Path, other: &Path) -> Sameness {
    let number = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match (number(one), number(other)) {
        (Ok(one), Ok(other)) if one == other => Sameness::Same,
        (Ok(_), Ok(_)) => Sameness::Another,
        (_, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Sameness::Another,
        (Err(error), _) | (_, Err(error)) => Sameness::Untold(error.to_string()),
    }
}

/// Reads the datastore in use before and after the other one.
async fn compare_clusters(
    datastore: &dyn Datastore,
    other: &DatastoreConfiguration,
) -> Result<Sameness, Error> {
    let other = weir_datastore::open(other).await?;
    let before = marks(datastore).await?;
    let there = marks(other.as_ref()).await?;
    let after = marks(datastore).await?;
    Ok(judge(&before, &there, &after))
}

async fn marks(datastore: &dyn Datastore) -> Result<Page, Error> {
    datastore.list(keys::RESOURCES, None, MARKS).await
}

/// Judges by what was read before, there and after.
///
/// The cluster's id alone does not do: etcd makes it of its members' URLs and token
/// (`server/etcdserver/api/membership/cluster.go`), so that all that were started with the
/// defaults have the same. Resources, which have UIDs, tell them apart; a copy of them is
/// told by its revisions, which do not lie between those of the datastore in use.
fn judge(before: &Page, there: &Page, after: &Page) -> Sameness {
    let is_between = before.history.goes_on_in(there.history)
        && there.history.goes_on_in(after.history)
        && before.revision <= there.revision
        && there.revision <= after.revision;
    if !is_between || (there.entries != before.entries && there.entries != after.entries) {
        return Sameness::Another;
    }
    if there.entries.is_empty() {
        return Sameness::Untold("it has no resource by which it could be told".to_owned());
    }
    Sameness::Same
}

#[cfg(test)]
mod tests {
    use weir_common::datastore::{Entry, History, Revision};

    use super::*;

    fn page(cluster: u64, revision: i64, values: &[&str]) -> Page {
        let entry = |value: &&str| Entry {
            key: format!("{}x", keys::POOLS),
            value: value.as_bytes().to_vec(),
            revision: Revision(3),
        };
        Page {
            entries: values.iter().map(entry).collect(),
            next: None,
            revision: Revision(revision),
            history: History { cluster, term: 2 },
        }
    }

    #[test]
    fn a_datastore_is_told_by_its_cluster_its_resources_and_its_revisions() {
        let (before, after) = (page(7, 9, &["a"]), page(7, 11, &["b"]));
        for value in ["a", "b"] {
            assert_eq!(judge(&before, &page(7, 10, &[value]), &after), Sameness::Same);
        }
        for there in [
            page(8, 10, &["a"]),
            // Started with the same defaults.
            page(7, 10, &["c"]),
            page(7, 10, &[]),
            // A copy that nobody writes to, and one that somebody writes to.
            page(7, 8, &["a"]),
            page(7, 12, &["a"]),
        ] {
            assert_eq!(judge(&before, &there, &after), Sameness::Another, "{there:?}");
        }
        let empty = page(7, 9, &[]);
        assert!(matches!(judge(&empty, &empty, &empty), Sameness::Untold(_)));
    }

    #[tokio::test]
    async fn a_file_is_the_same_by_whatever_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store = |name: &str| DatastoreConfiguration::Embedded { path: path(name) };
        std::fs::write(path("a.db"), "").unwrap();
        std::fs::write(path("c.db"), "").unwrap();
        std::os::unix::fs::symlink(path("a.db"), path("b.db")).unwrap();
        let datastore = weir_datastore::Memory::default();
        let named = ["b.db", "c.db", "none.db"].map(store);
        let stores = Stores::ask(&store("a.db"), &datastore, named.clone()).await;
        let expected = [Sameness::Same, Sameness::Another, Sameness::Another];
        assert_eq!(named.map(|it| stores.sameness(&it)), expected);
        assert!(!path("none.db").exists(), "nothing is made by asking");
    }
}
