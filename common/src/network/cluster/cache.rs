//! The cluster's state over time: listed once, changed event by event, listed again after a
//! gap.

use std::borrow::Cow;
use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::cluster_state::ClusterState;
use super::snapshot::ObservedRevision;
use crate::datastore::{Event, History, Revision, keys};
use crate::resources::overlap;

/// The cluster's state, kept up to date from a datastore.
///
/// A datastore that is restored from a snapshot goes back in time: it has lost what was
/// written later, but the containers still run. What it has lost is *retained*: it counts until
/// the datastore has something else at the same key. So a restoration withdraws no route.
///
/// A restoration is detected by any of: a lower revision; another cluster id or a lower raft
/// term ([`History`]); entries that contradict those seen before ([`super::Fingerprints`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClusterCache {
    known: ClusterState,
    retained: ClusterState,
    revision: Revision,
    history: History,
    #[serde(skip)]
    changes: u64,
}

/// What a change of the datastore concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDiff {
    /// Whether it concerns more than single ranges, such as pools and nodes.
    pub whole: bool,
    /// The blocks and borrowed addresses that may have another owner now.
    pub ranges: BTreeSet<IpNet>,
}

impl StateDiff {
    /// A diff that concerns everything.
    pub fn everything() -> Self {
        Self { whole: true, ranges: BTreeSet::new() }
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.ranges.is_empty()
    }

    /// Adds what a later diff concerns.
    pub fn extend(&mut self, later: Self) {
        self.whole |= later.whole;
        self.ranges.extend(later.ranges);
    }
}

impl ClusterCache {
    /// Replaces the state by a whole snapshot. Returns whether the datastore was restored
    /// since the last one.
    pub fn replace(&mut self, mut fresh: ClusterState, observed: &ObservedRevision) -> bool {
        fresh.carry_over(&self.state());
        let was_restored = observed.revision < self.revision
            || !self.history.goes_on_in(observed.history)
            || self.known.fingerprints.contradict(&fresh.fingerprints, self.revision);
        if was_restored {
            let before = self.state().into_owned();
            let ClusterState { nodes, pools, blocks, homes, borrowed, used, felix, bgp, .. } =
                before;
            let none = ClusterState::default();
            self.retained =
                ClusterState { nodes, pools, blocks, homes, borrowed, used, felix, bgp, ..none };
        }
        self.known = fresh;
        self.retained.drop_present_in(&self.known);
        self.changes += 1;
        self.revision = observed.revision;
        self.history = observed.history;
        was_restored
    }

    /// How often the state has changed in this process.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Applies changes in the order in which they were made, and returns what they concern.
    pub fn apply(&mut self, events: &[Event]) -> StateDiff {
        let mut diff = StateDiff::default();
        for event in events {
            let before = self.known.ranges_at(event.key());
            if self.known.apply(event) {
                match before.zip(self.known.ranges_at(event.key())) {
                    Some((before, after)) => diff.ranges.extend(before.into_iter().chain(after)),
                    None => diff.whole = true,
                }
            }
            let retained = self.retained();
            if retained > 0 {
                // A wrong address counts as it was before.
                self.known.carry_addresses_over(event.key(), &self.retained);
                self.retained.drop_present_in(&self.known);
                diff.whole |= self.give_way_to(event.key());
                diff.whole |= !diff.is_empty() || self.retained() != retained;
            }
            self.revision = self.revision.max(event.revision());
        }
        self.changes += u64::from(!diff.is_empty());
        diff
    }

    /// Drops what is retained of a block whose own key was written or deleted: the datastore
    /// now says itself who uses the block's addresses. Returns whether anything was dropped.
    fn give_way_to(&mut self, key: &str) -> bool {
        let Some(block) = keys::parse_block(key) else { return false };
        if self.known.unreadable.contains_key(key) {
            return false;
        }
        let borrowed = self.retained.borrowed.remove(&block);
        let home = self.retained.homes.remove(&block);
        self.retained.used.remove(&block);
        borrowed.is_some() || home.is_some()
    }

    /// The revision up to which everything is known.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many nodes, pools, blocks, blocks with borrowed addresses, Felix configurations, and
    /// resources of BGP are retained although the datastore has lost them.
    pub fn retained(&self) -> usize {
        let ClusterState { nodes, pools, blocks, borrowed, felix, bgp, .. } = &self.retained;
        let of_the_network = nodes.len() + pools.len() + blocks.len() + borrowed.len();
        of_the_network + felix.len() + bgp.len()
    }

    /// Whether the datastore has lost this node.
    pub fn has_lost(&self, node: &str) -> bool {
        self.retained.nodes.contains_key(node)
    }

    /// The state: what the datastore has, and what is retained.
    pub fn state(&self) -> Cow<'_, ClusterState> {
        if self.retained() == 0 {
            return Cow::Borrowed(&self.known);
        }
        let (mut all, retained) = (self.known.clone(), self.retained.clone());
        all.nodes.extend(retained.nodes);
        all.pools.extend(retained.pools);
        all.blocks.extend(retained.blocks);
        all.homes.extend(retained.homes);
        all.borrowed.extend(retained.borrowed);
        all.used.extend(retained.used);
        all.felix.extend(retained.felix);
        all.bgp.extend(retained.bgp);
        Cow::Owned(all)
    }
}

impl ClusterState {
    /// The block and the borrowed addresses that a key tells of; `None` for keys of other
    /// kinds, and values that cannot be read.
    fn ranges_at(&self, key: &str) -> Option<Vec<IpNet>> {
        let of_affinity = || keys::parse_affinity(key).map(|(_, block)| block);
        let block = of_affinity().or_else(|| keys::parse_block(key))?;
        if self.has_node_in(block) {
            // It may have routes to any of its addresses.
            return None;
        }
        let borrowed = self.borrowed.get(&block).into_iter().flat_map(|of_block| of_block.keys());
        let ranges = borrowed.map(|address| IpNet::from(*address)).chain([block]).collect();
        (!self.unreadable.contains_key(key)).then_some(ranges)
    }

    /// Drops what `present` has itself. A pool also gives way to one of another name that has
    /// some of its addresses, and a block to another host's claim.
    fn drop_present_in(&mut self, present: &Self) {
        let is_taken = |cidr: &IpNet| present.pools.values().any(|it| overlap(it.cidr, *cidr));
        let has_block = |block: &IpNet| present.blocks.contains_key(block);
        self.nodes.retain(|name, _| !present.nodes.contains_key(name));
        self.pools.retain(|name, pool| !present.pools.contains_key(name) && !is_taken(&pool.cidr));
        self.blocks.retain(|block, _| !has_block(block));
        self.homes.retain(|block, _| !has_block(block) && !present.homes.contains_key(block));
        self.borrowed.retain(|block, _| !present.borrowed.contains_key(block));
        self.used.retain(|block, _| !present.used.contains_key(block));
        self.felix.retain(|name, _| !present.felix.contains_key(name));
        self.bgp.drop_present_in(&present.bgp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::Entry;

    fn put(revision: i64, host: &str, block: &str) -> Event {
        let key = keys::affinity(host, block.parse().unwrap());
        let value = br#"{"state":"confirmed"}"#.to_vec();
        Event::Put(Entry { key, value, revision: Revision(revision) })
    }

    fn gone(revision: i64, host: &str, block: &str) -> Event {
        let key = keys::affinity(host, block.parse().unwrap());
        Event::Delete { key, revision: Revision(revision) }
    }

    /// What there is after these, the first of which was written at revision 1.
    fn state_of(blocks: &[(&str, &str)]) -> ClusterState {
        let mut state = ClusterState::default();
        for (revision, (host, block)) in (1..).zip(blocks) {
            state.apply(&put(revision, host, block));
        }
        state
    }

    fn at(revision: i64) -> ObservedRevision {
        ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() }
    }

    fn blocks(cache: &ClusterCache) -> Vec<String> {
        let line = |(block, hosts): (_, &std::collections::BTreeSet<String>)| {
            format!("{block} {}", hosts.iter().cloned().collect::<Vec<_>>().join(","))
        };
        cache.state().blocks.iter().map(line).collect()
    }

    #[test]
    fn a_listing_after_a_gap_replaces_what_was_known() {
        let mut cache = ClusterCache::default();
        assert!(!cache.replace(state_of(&[("a", "10.0.0.0/26")]), &at(5)));
        assert!(!cache.apply(&[put(7, "b", "10.0.1.0/26")]).is_empty());
        assert_eq!(cache.revision(), Revision(7));
        let mut fresh = ClusterState::default();
        fresh.apply(&put(7, "b", "10.0.1.0/26"));
        assert!(!cache.replace(fresh, &at(9)));
        assert_eq!(blocks(&cache), ["10.0.1.0/26 b"]);
        assert_eq!(cache.retained(), 0);
    }

    #[test]
    fn what_a_restored_datastore_has_lost_counts_until_it_has_something_else() {
        let mut cache = ClusterCache::default();
        let all = [("a", "10.0.0.0/26"), ("b", "10.0.1.0/26"), ("c", "10.0.2.0/26")];
        cache.replace(state_of(&all), &at(50));
        assert!(cache.replace(state_of(&all[..1]), &at(20)));
        assert_eq!(blocks(&cache), ["10.0.0.0/26 a", "10.0.1.0/26 b", "10.0.2.0/26 c"]);
        assert_eq!(cache.retained(), 2);
        // Another host claims what b had; c's claim is written once more and given up.
        assert!(
            !cache.apply(&[put(21, "d", "10.0.1.0/26"), put(22, "c", "10.0.2.0/26")]).is_empty()
        );
        assert_eq!(blocks(&cache)[1..], ["10.0.1.0/26 d", "10.0.2.0/26 c"]);
        assert!(!cache.apply(&[gone(23, "c", "10.0.2.0/26")]).is_empty());
        assert_eq!(blocks(&cache), ["10.0.0.0/26 a", "10.0.1.0/26 d"]);
        assert_eq!(cache.retained(), 0);
    }

    #[test]
    fn what_is_retained_does_not_give_way_to_what_cannot_be_read() {
        let mut cache = ClusterCache::default();
        cache.replace(state_of(&[("a", "10.0.0.0/26")]), &at(50));
        cache.replace(ClusterState::default(), &at(1));
        let Event::Put(entry) = put(2, "a", "10.0.0.0/26") else { unreachable!() };
        cache.apply(&[Event::Put(Entry { value: b"{".to_vec(), ..entry })]);
        assert_eq!(blocks(&cache), ["10.0.0.0/26 a"]);
        cache.apply(&[put(3, "b", "10.0.0.0/26")]);
        assert_eq!(blocks(&cache), ["10.0.0.0/26 b"]);
    }

    #[test]
    fn retained_borrowings_give_way_to_the_block_itself() {
        let block: IpNet = "10.0.0.0/26".parse().unwrap();
        let address = "10.0.0.7".parse().unwrap();
        let mut listed = state_of(&[("a", "10.0.0.0/26")]);
        listed.borrowed.entry(block).or_default().insert(address, "b".to_owned());
        let mut cache = ClusterCache::default();
        cache.replace(listed, &at(50));
        cache.replace(state_of(&[("a", "10.0.0.0/26")]), &at(20));
        assert!(cache.state().borrowed.contains_key(&block));
        // The block is gone, so nobody has an address of it.
        let deleted = Event::Delete { key: keys::block(block), revision: Revision(21) };
        assert!(cache.apply(&[deleted]).whole);
        assert_eq!(cache.retained(), 0);
        assert!(cache.state().borrowed.is_empty());
    }

    #[test]
    fn a_retained_pool_gives_way_to_one_of_another_name() {
        let pool = |revision, name: &str, cidr: &str| {
            let value = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}"}}}}"#);
            let (key, revision) = (keys::pool(name), Revision(revision));
            Event::Put(Entry { key, value: value.into(), revision })
        };
        let mut listed = ClusterState::default();
        listed.apply(&pool(1, "old", "10.0.0.0/16"));
        listed.apply(&pool(2, "other", "10.1.0.0/16"));
        let mut cache = ClusterCache::default();
        cache.replace(listed, &at(50));
        cache.replace(ClusterState::default(), &at(1));
        assert_eq!(cache.retained(), 2);
        assert!(!cache.apply(&[pool(2, "new", "10.0.0.0/17")]).is_empty());
        let state = cache.state();
        assert_eq!(state.pools.keys().collect::<Vec<_>>(), ["new", "other"]);
    }

    #[test]
    fn what_is_retained_survives_another_gap() {
        let mut cache = ClusterCache::default();
        cache.replace(state_of(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), &at(50));
        cache.replace(ClusterState::default(), &at(1));
        cache.replace(state_of(&[("a", "10.0.0.0/26")]), &at(4));
        assert_eq!(blocks(&cache), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
        assert_eq!(cache.retained(), 1);
    }

    /// Whatever shows that the datastore was restored, although its revision is not
    /// lower: what it has lost counts.
    #[test]
    fn a_restored_datastore_is_noticed_at_a_higher_revision_too() {
        let known = [put(5, "a", "10.0.0.0/26"), put(9, "b", "10.0.1.0/26")];
        let in_history = |revision, cluster, term| ObservedRevision {
            history: History { cluster, term },
            ..at(revision)
        };
        let cases = [
            (in_history(90, 1, 3), vec![known[0].clone()], false),
            (in_history(90, 1, 2), vec![known[0].clone()], true),
            (in_history(90, 2, 3), vec![known[0].clone()], true),
            // Another node has written what was never observed of revision 8.
            (in_history(90, 1, 3), vec![known[0].clone(), put(8, "c", "10.0.2.0/26")], true),
            (in_history(90, 1, 3), vec![known[0].clone(), put(10, "c", "10.0.2.0/26")], false),
        ];
        for (observed, events, restored) in cases {
            let mut cache = ClusterCache::default();
            cache.replace(ClusterState::default(), &in_history(4, 1, 3));
            cache.apply(&known);
            let mut fresh = ClusterState::default();
            for event in &events {
                fresh.apply(event);
            }
            assert_eq!(cache.replace(fresh, &observed), restored, "{observed:?} {events:?}");
            let has_b = blocks(&cache).contains(&"10.0.1.0/26 b".to_owned());
            assert_eq!(has_b, restored, "{observed:?} {events:?}");
        }
    }

    /// As the state file hands it over.
    fn through_json(cache: &ClusterCache) -> ClusterCache {
        serde_json::from_str(&serde_json::to_string(cache).unwrap()).unwrap()
    }

    /// A restoration that happens while no process looks is noticed by the next one.
    #[test]
    fn a_restoration_between_two_processes_is_noticed() {
        let mut cache = ClusterCache::default();
        cache.replace(state_of(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), &at(50));
        let mut next = through_json(&cache);
        assert!(next.replace(state_of(&[("a", "10.0.0.0/26")]), &at(20)));
        assert_eq!(blocks(&next), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
    }

    #[test]
    fn a_change_of_a_block_concerns_the_block_and_its_borrowed_addresses() {
        let mut cache = ClusterCache::default();
        let [block, address]: [IpNet; 2] =
            ["10.0.0.0/26", "10.0.0.9/32"].map(|it| it.parse().unwrap());
        let mut before = state_of(&[("a", "10.0.0.0/26")]);
        let borrowed = [(address.addr(), "b".to_owned())].into();
        before.borrowed.insert(block, borrowed);
        cache.replace(before, &at(1));
        let ranges = [block, address].into();
        let diff = cache.apply(&[Event::Delete { key: keys::block(block), revision: Revision(2) }]);
        assert_eq!(diff, StateDiff { whole: false, ranges });
        assert!(cache.apply(&[put(3, "a", "10.0.0.0/26")]).is_empty());
        let node = Event::Delete { key: keys::affinity("a", block), revision: Revision(4) };
        assert_eq!(cache.apply(&[node]).ranges, [block].into());
        let pool = format!(r#"{{"metadata":{{"name":"p"}},"spec":{{"cidr":"{block}"}}}}"#);
        let (key, revision) = (keys::pool("p"), Revision(5));
        let pool = Event::Put(Entry { key, value: pool.into(), revision });
        assert_eq!(cache.apply(&[pool]), StateDiff::everything());
    }

    #[test]
    fn what_was_retained_is_retained_by_the_next_process() {
        let mut cache = ClusterCache::default();
        cache.replace(state_of(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), &at(50));
        cache.replace(state_of(&[("a", "10.0.0.0/26")]), &at(20));
        let mut next = through_json(&cache);
        assert!(!next.replace(state_of(&[("a", "10.0.0.0/26")]), &at(21)));
        assert_eq!(blocks(&next), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
        next.apply(&[put(22, "b", "10.0.1.0/26"), gone(23, "b", "10.0.1.0/26")]);
        assert_eq!((next.retained(), blocks(&next).len()), (0, 1));
    }
}
