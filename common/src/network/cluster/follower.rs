//! The inventory over time: listed once, changed event by event, listed again
//! after a gap.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::inventory::Inventory;
use super::listing::Seen;
use crate::datastore::{Event, History, Revision, keys};

/// Follows a datastore.
///
/// A datastore can go back in time: restored from a snapshot, it has forgotten
/// what came later, but the containers are there still. What it knew before and
/// does not know now is therefore *held*: it counts until the datastore says
/// something else about the same pool, node or block. So a restoration cuts no
/// traffic.
///
/// A restoration is known by any of: a revision that is lower; another id of the
/// cluster, or a raft term that is lower ([`History`]); and what the datastore was
/// written with since, at revisions that were seen with other writes ([`Facts`]).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Follower {
    known: Inventory,
    held: Inventory,
    revision: Revision,
    #[serde(default)]
    history: History,
    #[serde(skip)]
    changes: u64,
}

impl Follower {
    /// Takes in a whole listing, which was `seen` as of a revision. Says whether the
    /// datastore was restored since the last one.
    pub fn relist(&mut self, mut fresh: Inventory, seen: &Seen) -> bool {
        fresh.carry_over(&self.inventory());
        let was_restored = seen.revision < self.revision
            || !self.history.goes_on_in(seen.history)
            || self.known.facts.are_belied_by(&fresh.facts, self.revision);
        if was_restored {
            self.held = self.inventory().into_owned().values_alone();
        }
        self.held.forget(&fresh);
        self.known = fresh;
        self.changes += 1;
        self.revision = seen.revision;
        self.history = seen.history;
        was_restored
    }

    /// What outlives this process, for one that has seen nothing yet: what is held, and
    /// what each value was, should it be one that cannot be read.
    pub fn left_behind(&self) -> Self {
        let known = self.known.clone().values_alone();
        Self { known, held: self.held.clone(), ..Self::default() }
    }

    /// How often what counts has changed in this process.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes in changes in the order in which they were made, and says whether
    /// they make a difference.
    pub fn take(&mut self, events: &[Event]) -> bool {
        let mut changed = false;
        for event in events {
            changed |= self.known.take(event);
            // What cannot be read says nothing else.
            if self.known.unreadable.contains_key(event.key()) {
                self.known.carry_addresses_over(event.key(), &self.held);
            } else {
                changed |= self.held.give_way(event);
            }
            changed |= self.held.drop_pools_within(&self.known);
            self.revision = self.revision.max(event.revision());
        }
        self.changes += u64::from(changed);
        changed
    }

    /// The revision up to which everything is known.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many nodes, pools and blocks count although the datastore has
    /// forgotten them.
    pub fn held(&self) -> usize {
        self.held.nodes.len() + self.held.pools.len() + self.held.blocks.len()
    }

    /// Whether the datastore has forgotten this node.
    pub fn has_forgotten(&self, node: &str) -> bool {
        self.held.nodes.contains_key(node)
    }

    /// What counts now.
    pub fn inventory(&self) -> Cow<'_, Inventory> {
        if self.held() == 0 && self.held.borrowed.is_empty() {
            return Cow::Borrowed(&self.known);
        }
        let mut all = self.held.clone();
        all.nodes.extend(self.known.nodes.clone());
        all.pools.extend(self.known.pools.clone());
        all.blocks.extend(self.known.blocks.clone());
        all.homes.extend(self.known.homes.clone());
        all.borrowed.extend(self.known.borrowed.clone());
        all.machines = self.known.machines.clone();
        all.unreadable = self.known.unreadable.clone();
        all.wrong = self.known.wrong.clone();
        all.flawed = self.known.flawed.clone();
        Cow::Owned(all)
    }
}

impl Inventory {
    /// What counts, without how it was read.
    fn values_alone(self) -> Self {
        Self {
            facts: Facts::default(),
            unreadable: BTreeMap::new(),
            wrong: BTreeSet::new(),
            flawed: BTreeMap::new(),
            machines: BTreeMap::new(),
            ..self
        }
    }

    /// Drops what `fresh` knows by itself.
    fn forget(&mut self, fresh: &Self) {
        self.nodes.retain(|name, _| !fresh.nodes.contains_key(name));
        self.pools.retain(|name, _| !fresh.pools.contains_key(name));
        self.drop_pools_within(fresh);
        self.blocks.retain(|block, _| !fresh.blocks.contains_key(block));
        let is_told =
            |block: &IpNet| fresh.homes.contains_key(block) || fresh.blocks.contains_key(block);
        self.homes.retain(|block, _| !is_told(block));
        self.borrowed.retain(|block, _| !fresh.borrowed.contains_key(block));
    }

    /// Drops pools whose addresses `known` gives to a pool, whatever that is called.
    /// Says whether there were any.
    fn drop_pools_within(&mut self, known: &Self) -> bool {
        let before = self.pools.len();
        let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        self.pools.retain(|_, held| !known.pools.values().any(|it| overlap(&it.cidr, &held.cidr)));
        self.pools.len() != before
    }

    /// Drops what an event says something else about, whoever the new host of a
    /// block is.
    fn give_way(&mut self, event: &Event) -> bool {
        match keys::parse_affinity(event.key()) {
            Some((_, block)) => {
                self.homes.remove(&block).is_some() | self.blocks.remove(&block).is_some()
            }
            None => self.delete(event.key()),
        }
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
    fn listing(blocks: &[(&str, &str)]) -> Inventory {
        let mut inventory = Inventory::default();
        for (revision, (host, block)) in (1..).zip(blocks) {
            inventory.take(&put(revision, host, block));
        }
        inventory
    }

    fn at(revision: i64) -> Seen {
        Seen { revision: Revision(revision), ..Seen::default() }
    }

    fn blocks(follower: &Follower) -> Vec<String> {
        let line = |(block, hosts): (_, &std::collections::BTreeSet<String>)| {
            format!("{block} {}", hosts.iter().cloned().collect::<Vec<_>>().join(","))
        };
        follower.inventory().blocks.iter().map(line).collect()
    }

    #[test]
    fn a_listing_after_a_gap_replaces_what_was_known() {
        let mut follower = Follower::default();
        assert!(!follower.relist(listing(&[("a", "10.0.0.0/26")]), &at(5)));
        assert!(follower.take(&[put(7, "b", "10.0.1.0/26")]));
        assert_eq!(follower.revision(), Revision(7));
        let mut fresh = Inventory::default();
        fresh.take(&put(7, "b", "10.0.1.0/26"));
        assert!(!follower.relist(fresh, &at(9)));
        assert_eq!(blocks(&follower), ["10.0.1.0/26 b"]);
        assert_eq!(follower.held(), 0);
    }

    #[test]
    fn what_a_restored_datastore_has_forgotten_counts_until_it_says_otherwise() {
        let mut follower = Follower::default();
        let all = [("a", "10.0.0.0/26"), ("b", "10.0.1.0/26"), ("c", "10.0.2.0/26")];
        follower.relist(listing(&all), &at(50));
        assert!(follower.relist(listing(&all[..1]), &at(20)));
        assert_eq!(blocks(&follower), ["10.0.0.0/26 a", "10.0.1.0/26 b", "10.0.2.0/26 c"]);
        assert_eq!(follower.held(), 2);
        // Another host claims what b had; c's claim is written once more and given up.
        assert!(follower.take(&[put(21, "d", "10.0.1.0/26"), put(22, "c", "10.0.2.0/26")]));
        assert_eq!(blocks(&follower)[1..], ["10.0.1.0/26 d", "10.0.2.0/26 c"]);
        assert!(follower.take(&[gone(23, "c", "10.0.2.0/26")]));
        assert_eq!(blocks(&follower), ["10.0.0.0/26 a", "10.0.1.0/26 d"]);
        assert_eq!(follower.held(), 0);
    }

    #[test]
    fn what_is_held_does_not_give_way_to_what_cannot_be_read() {
        let mut follower = Follower::default();
        follower.relist(listing(&[("a", "10.0.0.0/26")]), &at(50));
        follower.relist(Inventory::default(), &at(1));
        let Event::Put(entry) = put(2, "a", "10.0.0.0/26") else { unreachable!() };
        follower.take(&[Event::Put(Entry { value: b"{".to_vec(), ..entry })]);
        assert_eq!(blocks(&follower), ["10.0.0.0/26 a"]);
        follower.take(&[put(3, "b", "10.0.0.0/26")]);
        assert_eq!(blocks(&follower), ["10.0.0.0/26 b"]);
    }

    #[test]
    fn a_held_pool_gives_way_to_one_of_another_name() {
        let pool = |revision, name: &str, cidr: &str| {
            let value = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"cidr":"{cidr}"}}}}"#);
            let (key, revision) = (keys::pool(name), Revision(revision));
            Event::Put(Entry { key, value: value.into(), revision })
        };
        let mut listed = Inventory::default();
        listed.take(&pool(1, "old", "10.0.0.0/16"));
        listed.take(&pool(2, "other", "10.1.0.0/16"));
        let mut follower = Follower::default();
        follower.relist(listed, &at(50));
        follower.relist(Inventory::default(), &at(1));
        assert_eq!(follower.held(), 2);
        assert!(follower.take(&[pool(2, "new", "10.0.0.0/17")]));
        let inventory = follower.inventory();
        assert_eq!(inventory.pools.keys().collect::<Vec<_>>(), ["new", "other"]);
    }

    #[test]
    fn what_is_held_survives_another_gap() {
        let mut follower = Follower::default();
        follower.relist(listing(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), &at(50));
        follower.relist(Inventory::default(), &at(1));
        follower.relist(listing(&[("a", "10.0.0.0/26")]), &at(4));
        assert_eq!(blocks(&follower), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
        assert_eq!(follower.held(), 1);
    }

    /// Whatever shows that the datastore was restored, although its revision is not
    /// lower: what it has forgotten counts.
    #[test]
    fn a_restored_datastore_is_known_at_a_higher_revision_too() {
        let known = [put(5, "a", "10.0.0.0/26"), put(9, "b", "10.0.1.0/26")];
        let in_history =
            |revision, cluster, term| Seen { history: History { cluster, term }, ..at(revision) };
        let cases = [
            (in_history(90, 1, 3), vec![known[0].clone()], false),
            (in_history(90, 1, 2), vec![known[0].clone()], true),
            (in_history(90, 2, 3), vec![known[0].clone()], true),
            // Another node has written what was never seen of revision 8.
            (in_history(90, 1, 3), vec![known[0].clone(), put(8, "c", "10.0.2.0/26")], true),
            (in_history(90, 1, 3), vec![known[0].clone(), put(10, "c", "10.0.2.0/26")], false),
        ];
        for (seen, events, restored) in cases {
            let mut follower = Follower::default();
            follower.relist(Inventory::default(), &in_history(4, 1, 3));
            follower.take(&known);
            let mut fresh = Inventory::default();
            for event in &events {
                fresh.take(event);
            }
            assert_eq!(follower.relist(fresh, &seen), restored, "{seen:?} {events:?}");
            let has_b = blocks(&follower).contains(&"10.0.1.0/26 b".to_owned());
            assert_eq!(has_b, restored, "{seen:?} {events:?}");
        }
    }

    #[test]
    fn what_was_held_is_held_by_the_next_process() {
        let mut follower = Follower::default();
        follower.relist(listing(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), &at(50));
        follower.relist(listing(&[("a", "10.0.0.0/26")]), &at(20));
        let mut next = follower.left_behind();
        assert!(!next.relist(listing(&[("a", "10.0.0.0/26")]), &at(21)));
        assert_eq!(blocks(&next), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
        assert!(next.take(&[gone(22, "b", "10.0.1.0/26")]));
        assert_eq!((next.held(), blocks(&next).len()), (0, 1));
    }
}
