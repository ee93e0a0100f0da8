//! Reading the cluster's state, and asking whether it is still current.

use serde::{Deserialize, Serialize};

use super::bgp_resources::BgpResources;
use super::cluster_state::ClusterState;
use crate::datastore::{Datastore, Entry, Error, History, Pages, Paging, Revision, Tally, keys};

/// Who is shown each entry that is read.
type Told<'a> = &'a mut (dyn FnMut(&Entry) + Send);

/// The cluster's state as it was read.
#[derive(Clone, Debug)]
pub struct ClusterSnapshot {
    /// The state.
    pub state: ClusterState,
    /// The revision that it is of.
    pub observed: ObservedRevision,
    /// Whether blocks were left out, because there were too many.
    pub without_blocks: bool,
}

/// How far the datastore was read: enough to ask whether pools, nodes, affinities or the settings
/// of tunnels have changed since.
///
/// Blocks are left out, since every ADD and DEL in the cluster changes one. What
/// they tell beyond the affinities is which addresses are borrowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRevision {
    /// Changes after this one have not been seen, or not all of them.
    pub revision: Revision,
    /// In which history that is.
    #[serde(default)]
    pub history: History,
    /// How many pools, nodes, affinities and Felix configurations there were: a deletion leaves
    /// no other trace.
    pub counts: [usize; 4],
}

impl ObservedRevision {
    const PREFIXES: [&'static str; 4] =
        [keys::POOLS, keys::NODES, keys::HOSTS, keys::FELIX_CONFIGURATIONS];

    /// Whether something changed since. One round trip without values. A datastore
    /// that was restored counts as changed: one whose revision is lower, or whose
    /// history is another one.
    ///
    /// # Errors
    /// As [`Datastore::tally`].
    pub async fn is_outdated(&self, datastore: &dyn Datastore) -> Result<bool, Error> {
        let tally = datastore.tally(&Self::PREFIXES, self.revision).await?;
        let Tally { counts, newer, revision, history } = tally;
        let was_restored = revision < self.revision || !self.history.goes_on_in(history);
        Ok(newer || was_restored || counts != self.counts)
    }
}

/// Reads the nodes alone.
///
/// # Errors
/// When the datastore fails.
pub async fn read_nodes(datastore: &dyn Datastore) -> Result<ClusterState, Error> {
    let (mut state, mut pages) = (ClusterState::default(), Pages::new(datastore, keys::NODES));
    while let Some(page) = pages.next().await? {
        for entry in &page.entries {
            state.put(entry);
        }
    }
    Ok(state)
}

impl ClusterSnapshot {
    /// Reads what routes depend on, and nothing of BGP, which an ADD has no part in; blocks, which are by far the
    /// most of it, only if there are at most `most_blocks` affinities. The revision
    /// is that of the first page, so that a watch from there misses nothing.
    ///
    /// # Errors
    /// As [`Datastore::list`].
    pub async fn read(datastore: &dyn Datastore, most_blocks: usize) -> Result<Self, Error> {
        Self::read_telling(datastore, most_blocks, &mut |_| {}).await
    }

    async fn read_telling(
        datastore: &dyn Datastore,
        most_blocks: usize,
        told: Told<'_>,
    ) -> Result<Self, Error> {
        let mut snapshot = Self {
            state: ClusterState::default(),
            observed: ObservedRevision::default(),
            without_blocks: false,
        };
        let mut first = None;
        for (index, prefix) in ObservedRevision::PREFIXES.into_iter().enumerate() {
            let (count, read) = snapshot.read_prefix(datastore, prefix, told).await?;
            snapshot.observed.counts[index] = count;
            (snapshot.observed.revision, snapshot.observed.history) = *first.get_or_insert(read);
        }
        snapshot.read_prefix(datastore, keys::MACHINES, told).await?;
        snapshot.without_blocks = snapshot.observed.counts[2] > most_blocks;
        if !snapshot.without_blocks {
            snapshot.read_prefix(datastore, keys::BLOCKS, told).await?;
        }
        Ok(snapshot)
    }

    /// As [`ClusterSnapshot::read`], with all blocks, with what is configured of BGP, and
    /// with the reservations.
    ///
    /// # Errors
    /// As [`Datastore::list`].
    pub async fn read_whole(datastore: &dyn Datastore) -> Result<Self, Error> {
        Self::read_whole_telling(datastore, &mut |_| {}).await
    }

    /// The same, and shows each entry to `told` as it is read.
    ///
    /// # Errors
    /// As [`Datastore::list`].
    pub async fn read_whole_telling(
        datastore: &dyn Datastore,
        told: Told<'_>,
    ) -> Result<Self, Error> {
        let mut snapshot = Self::read_telling(datastore, usize::MAX, told).await?;
        for prefix in BgpResources::PREFIXES.into_iter().chain([keys::RESERVATIONS]) {
            snapshot.read_prefix(datastore, prefix, told).await?;
        }
        Ok(snapshot)
    }

    /// Reads all under a prefix: how much it was, and the first page's revision and
    /// history.
    async fn read_prefix(
        &mut self,
        datastore: &dyn Datastore,
        prefix: &str,
        told: Told<'_>,
    ) -> Result<(usize, (Revision, History)), Error> {
        let (mut count, mut first) = (0, None);
        let mut after: Option<String> = None;
        let mut paging = Paging::default();
        loop {
            let page = datastore.list(prefix, after.as_deref(), paging.limit()).await?;
            paging.learn(&page);
            count += page.entries.len();
            let first = *first.get_or_insert((page.revision, page.history));
            for entry in &page.entries {
                self.state.put(entry);
                told(entry);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok((count, first)),
            }
        }
    }
}
