//! What is configured of BGP, as the datastore has it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::datastore::keys;
use crate::resources::Error;
use crate::resources::bgp::{BGP_DEFAULT_NAME, BgpConfiguration, BgpFilter, BgpPeer};

/// The resources of BGP by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpResources {
    /// BGPConfigurations: `default`, and `node.NAME` of single nodes.
    pub configurations: BTreeMap<String, BgpConfiguration>,
    /// BGPPeers.
    pub peers: BTreeMap<String, BgpPeer>,
    /// BGPFilters.
    pub filters: BTreeMap<String, BgpFilter>,
}

/// A resource's kind, and its name.
enum Name<'a> {
    Configuration(&'a str),
    Peer(&'a str),
    Filter(&'a str),
}

impl<'a> Name<'a> {
    fn of(key: &'a str) -> Option<Self> {
        let configuration = key.strip_prefix(keys::BGP_CONFIGURATIONS).map(Self::Configuration);
        let peer = || key.strip_prefix(keys::BGP_PEERS).map(Self::Peer);
        let filter = || key.strip_prefix(keys::BGP_FILTERS).map(Self::Filter);
        configuration.or_else(peer).or_else(filter)
    }
}

impl BgpResources {
    /// What leaves a node without any session.
    pub fn off() -> Self {
        let off =
            BgpConfiguration { node_to_node_mesh: Some(false), ..BgpConfiguration::default() };
        let configurations = BTreeMap::from([(BGP_DEFAULT_NAME.to_owned(), off)]);
        Self { configurations, ..Self::default() }
    }

    /// Whether the mesh of all nodes is switched off.
    pub fn is_mesh_off(&self) -> bool {
        let cluster = self.configurations.get(BGP_DEFAULT_NAME);
        cluster.and_then(|configuration| configuration.node_to_node_mesh) == Some(false)
    }

    /// The prefixes of their keys.
    pub(super) const PREFIXES: [&'static str; 3] =
        [keys::BGP_CONFIGURATIONS, keys::BGP_PEERS, keys::BGP_FILTERS];

    /// Records what a key has, and returns whether that made a difference.
    pub(super) fn put(&mut self, key: &str, value: &[u8]) -> Result<bool, Error> {
        Ok(match Name::of(key) {
            Some(Name::Configuration(name)) => {
                replace(&mut self.configurations, name, BgpConfiguration::from_json(value)?)
            }
            Some(Name::Peer(name)) => replace(&mut self.peers, name, BgpPeer::from_json(value)?),
            Some(Name::Filter(name)) => {
                replace(&mut self.filters, name, BgpFilter::from_json(value)?)
            }
            None => false,
        })
    }

    /// Records that a key is gone, and returns whether that made a difference.
    pub(super) fn delete(&mut self, key: &str) -> bool {
        match Name::of(key) {
            Some(Name::Configuration(name)) => self.configurations.remove(name).is_some(),
            Some(Name::Peer(name)) => self.peers.remove(name).is_some(),
            Some(Name::Filter(name)) => self.filters.remove(name).is_some(),
            None => false,
        }
    }

    /// Takes over what an earlier state had at a key.
    pub(super) fn carry_over(&mut self, key: &str, earlier: &Self) {
        match Name::of(key) {
            Some(Name::Configuration(name)) => {
                copy(&mut self.configurations, name, &earlier.configurations);
            }
            Some(Name::Peer(name)) => copy(&mut self.peers, name, &earlier.peers),
            Some(Name::Filter(name)) => copy(&mut self.filters, name, &earlier.filters),
            None => {}
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.configurations.len() + self.peers.len() + self.filters.len()
    }

    /// Adds those of another state.
    pub(super) fn extend(&mut self, other: Self) {
        self.configurations.extend(other.configurations);
        self.peers.extend(other.peers);
        self.filters.extend(other.filters);
    }

    /// Drops what `present` has itself.
    pub(super) fn drop_present_in(&mut self, present: &Self) {
        self.configurations.retain(|name, _| !present.configurations.contains_key(name));
        self.peers.retain(|name, _| !present.peers.contains_key(name));
        self.filters.retain(|name, _| !present.filters.contains_key(name));
    }
}

/// Lets a name have a value, and says whether that made a difference.
pub(super) fn replace<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    if map.get(name) == Some(&value) {
        return false;
    }
    map.insert(name.to_owned(), value);
    true
}

fn copy<T: Clone>(into: &mut BTreeMap<String, T>, name: &str, from: &BTreeMap<String, T>) {
    into.extend(from.get(name).map(|value| (name.to_owned(), value.clone())));
}

#[cfg(test)]
mod tests {
    use super::super::{ClusterCache, ClusterState, Fingerprints, ObservedRevision, StateDiff};
    use super::*;
    use crate::datastore::{Entry, Event, Revision};

    fn peer_key() -> String {
        format!("{}tor", keys::BGP_PEERS)
    }

    fn entry(key: &str, value: &str, revision: i64) -> Entry {
        Entry { key: key.to_owned(), value: value.into(), revision: Revision(revision) }
    }

    fn stored(name: &str, spec: &str) -> String {
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    }

    /// A peering with a router.
    fn stored_peer(address: &str) -> String {
        stored("tor", &format!(r#"{{"peerIP":"{address}","asNumber":65000}}"#))
    }

    /// One resource of each kind, as a listing has them.
    fn listed() -> ClusterState {
        let values = [
            (
                format!("{}default", keys::BGP_CONFIGURATIONS),
                stored("default", r#"{"asNumber":64600}"#),
            ),
            (peer_key(), stored_peer("10.0.0.1")),
            (
                format!("{}pools", keys::BGP_FILTERS),
                stored("pools", r#"{"exportV4":[{"action":"Reject"}]}"#),
            ),
        ];
        let mut state = ClusterState::default();
        for (key, value) in values {
            assert!(state.put(&entry(&key, &value, 1)), "{key}: {:?}", state.unreadable);
            assert!(!state.put(&entry(&key, &value, 1)), "the same once more");
        }
        assert_eq!((state.bgp.len(), &state.unreadable), (3, &BTreeMap::new()));
        state
    }

    fn at(revision: i64) -> ObservedRevision {
        ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() }
    }

    #[test]
    fn a_value_that_cannot_be_read_leaves_what_was_before_and_is_reported() {
        let all = listed();
        let mut cache = ClusterCache::default();
        cache.replace(all.clone(), &at(1));
        let broken = entry(&peer_key(), "{", 2);
        assert_eq!(cache.apply(&[Event::Put(broken.clone())]), StateDiff::everything());
        assert_eq!(cache.state().bgp, all.bgp);
        assert_eq!(cache.state().unreadable.keys().collect::<Vec<_>>(), [&peer_key()]);
        // The next listing has it so.
        let mut fresh = ClusterState::default();
        fresh.put(&broken);
        cache.replace(fresh, &at(2));
        let peers: Vec<_> = cache.state().bgp.peers.keys().cloned().collect();
        assert_eq!((peers, cache.state().bgp.len()), (vec!["tor".to_owned()], 1));
        let gone = Event::Delete { key: peer_key(), revision: Revision(3) };
        assert_eq!(cache.apply(&[gone]), StateDiff::everything());
        assert_eq!((cache.state().bgp.len(), cache.state().unreadable.len()), (0, 0));
    }

    #[test]
    fn what_a_restored_datastore_has_lost_counts_until_it_is_written_again() {
        let all = listed();
        let mut cache = ClusterCache::default();
        cache.replace(all.clone(), &at(50));
        assert!(cache.replace(ClusterState::default(), &at(20)));
        assert_eq!((cache.retained(), &cache.state().bgp), (3, &all.bgp));
        let text = serde_json::to_string(&cache).unwrap();
        let next: ClusterCache = serde_json::from_str(&text).unwrap();
        assert_eq!(next.state().bgp, all.bgp, "the next process has it from the file");
        let other = stored_peer("10.0.0.2");
        assert!(cache.apply(&[Event::Put(entry(&peer_key(), &other, 21))]).whole);
        assert_eq!(cache.retained(), 2);
        assert_ne!(cache.state().bgp.peers, all.bgp.peers);
    }

    /// An ADD on a node without an agent lists without them, and the agent then with them.
    #[test]
    fn a_listing_without_bgp_is_not_taken_for_another_history() {
        let (with, mut without) = (listed(), ClusterState::default());
        let node = r#"{"metadata":{"name":"n1"},"spec":{}}"#;
        without.put(&entry(&keys::node("n1"), node, 1));
        assert_ne!(without.fingerprints, Fingerprints::default());
        let mut cache = ClusterCache::default();
        cache.replace(without.clone(), &at(5));
        let both = ClusterState { bgp: with.bgp, ..without };
        assert!(!cache.replace(both, &at(6)));
        assert_eq!(cache.retained(), 0);
    }
}
