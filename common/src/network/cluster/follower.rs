//! The inventory over time: listed once, changed event by event, listed again
//! after a gap.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Inventory;
use crate::datastore::{Event, Revision, keys};

/// Follows a datastore.
///
/// A datastore can go back in time: restored from a snapshot, it has forgotten
/// what came later, but the containers are there still. What it knew before and
/// does not know now is therefore *held*: it counts until the datastore says
/// something else about the same pool, node or block, or the agent is started
/// anew. So a restoration cuts no traffic.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Follower {
    known: Inventory,
    held: Inventory,
    revision: Revision,
}

impl Follower {
    /// Takes in a whole listing, as of `revision`. Says whether the datastore has
    /// gone back in time.
    pub fn relist(&mut self, mut fresh: Inventory, revision: Revision) -> bool {
        fresh.carry_over(&self.inventory());
        let went_back = revision < self.revision;
        if went_back {
            self.held = self.inventory().into_owned();
        }
        self.held.forget(&fresh);
        self.known = fresh;
        self.revision = revision;
        went_back
    }

    /// Takes in changes in the order in which they were made, and says whether
    /// they make a difference.
    pub fn take(&mut self, events: &[Event]) -> bool {
        let mut changed = false;
        for event in events {
            changed |= self.known.take(event) | self.held.give_way(event);
            self.revision = self.revision.max(event.revision());
        }
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
        all.unreadable = self.known.unreadable.clone();
        Cow::Owned(all)
    }
}

impl Inventory {
    /// Drops what `fresh` knows by itself.
    fn forget(&mut self, fresh: &Self) {
        self.nodes.retain(|name, _| !fresh.nodes.contains_key(name));
        self.pools.retain(|name, _| !fresh.pools.contains_key(name));
        self.blocks.retain(|block, _| !fresh.blocks.contains_key(block));
        self.homes.retain(|block, _| !fresh.homes.contains_key(block));
        self.borrowed.retain(|block, _| !fresh.borrowed.contains_key(block));
    }

    /// Drops what an event says something else about, whoever the new host of a
    /// block is.
    fn give_way(&mut self, event: &Event) -> bool {
        match keys::parse_affinity(event.key()) {
            Some((_, block)) => self.blocks.remove(&block).is_some(),
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

    fn listing(blocks: &[(&str, &str)]) -> Inventory {
        let mut inventory = Inventory::default();
        for (host, block) in blocks {
            inventory.take(&put(0, host, block));
        }
        inventory
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
        assert!(!follower.relist(listing(&[("a", "10.0.0.0/26")]), Revision(5)));
        assert!(follower.take(&[put(7, "b", "10.0.1.0/26")]));
        assert_eq!(follower.revision(), Revision(7));
        assert!(!follower.relist(listing(&[("b", "10.0.1.0/26")]), Revision(9)));
        assert_eq!(blocks(&follower), ["10.0.1.0/26 b"]);
        assert_eq!(follower.held(), 0);
    }

    #[test]
    fn what_a_restored_datastore_has_forgotten_counts_until_it_says_otherwise() {
        let mut follower = Follower::default();
        let all = [("a", "10.0.0.0/26"), ("b", "10.0.1.0/26"), ("c", "10.0.2.0/26")];
        follower.relist(listing(&all), Revision(50));
        assert!(follower.relist(listing(&all[..1]), Revision(20)));
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
    fn what_is_held_survives_another_gap() {
        let mut follower = Follower::default();
        follower.relist(listing(&[("a", "10.0.0.0/26"), ("b", "10.0.1.0/26")]), Revision(50));
        follower.relist(Inventory::default(), Revision(1));
        follower.relist(listing(&[("a", "10.0.0.0/26")]), Revision(4));
        assert_eq!(blocks(&follower), ["10.0.0.0/26 a", "10.0.1.0/26 b"]);
        assert_eq!(follower.held(), 1);
    }
}
