//! How many addresses of each pool are used, and when it runs out of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipnet::IpNet;

use super::cluster_state::ClusterState;
use crate::ipam::host_bits;

/// The use of a pool. Its size is the sum of what is used, cooling, reserved and free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Its addresses.
    pub size: u128,
    /// Those that are assigned.
    pub used: u128,
    /// Those that were given back and wait in their block to be used again.
    pub cooling: u128,
    /// Those that an `IPReservation` keeps back, and that nobody has.
    pub reserved: u128,
    /// Those that are used on another node than their block's.
    pub borrowed: u128,
    /// The blocks.
    pub blocks: u128,
}

impl PoolUsage {
    /// The use of a pool without blocks, where `reserved` ranges that have no address in common
    /// are kept back.
    fn empty(pool: IpNet, reserved: &[IpNet]) -> Self {
        let in_pool = reserved.iter().filter_map(|range| match range {
            range if pool.contains(range) => Some(size(*range)),
            range if range.contains(&pool) => Some(size(pool)),
            _ => None,
        });
        Self { size: size(pool), reserved: in_pool.sum(), ..Self::default() }
    }

    /// The addresses that can be assigned.
    pub fn free(&self) -> u128 {
        self.size.saturating_sub(self.used + self.cooling).saturating_sub(self.reserved)
    }
}

fn size(range: IpNet) -> u128 {
    1u128.checked_shl(host_bits(range).into()).unwrap_or(u128::MAX)
}

/// The use of a block. Its size is the sum of what is used, cooling, reserved and free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockUsage {
    /// Its addresses.
    pub size: u128,
    /// Those that are assigned.
    pub used: u128,
    /// Those that were given back and wait to be used again.
    pub cooling: u128,
    /// Those that an `IPReservation` keeps back, and that nobody has.
    pub reserved: u128,
    /// Those that are used on another node than the block's.
    pub borrowed: u128,
    /// Those that an `IPReservation` keeps back, and that somebody has or had all the same.
    taken: u128,
}

impl ClusterState {
    /// The ranges that are kept back, none of which has an address of another one.
    fn reserved_ranges(&self) -> Vec<IpNet> {
        let all: Vec<IpNet> = self.reservations.values().flatten().copied().collect();
        IpNet::aggregate(&all)
    }

    /// The use of each block, in their order; of a state with blocks.
    pub fn block_usage(&self) -> impl Iterator<Item = (IpNet, BlockUsage)> {
        let reserved = self.reserved_ranges();
        self.used.iter().map(move |(block, addresses)| {
            let cooling = addresses.cooling() as u128;
            let here = |range: &&IpNet| range.contains(block) || block.contains::<&IpNet>(range);
            let here: Vec<&IpNet> = reserved.iter().filter(here).collect();
            let is_reserved = |address| here.iter().any(|range| range.contains(&address));
            let taken = match here.is_empty() {
                true => 0,
                false => addresses.of_block(*block).filter(|it| is_reserved(*it)).count() as u128,
            };
            let kept_back: u128 = here.iter().map(|range| size(**range).min(size(*block))).sum();
            let usage = BlockUsage {
                size: size(*block),
                used: (addresses.count() as u128).saturating_sub(cooling),
                cooling,
                reserved: kept_back.saturating_sub(taken),
                borrowed: self.borrowed.get(block).map_or(0, BTreeMap::len) as u128,
                taken,
            };
            (*block, usage)
        })
    }

    /// The use of each pool, by name; of a state with blocks.
    pub fn pool_usage(&self) -> BTreeMap<&str, PoolUsage> {
        let reserved = self.reserved_ranges();
        let pools = self.pools.iter();
        let mut usage: BTreeMap<&str, PoolUsage> = pools
            .map(|(name, pool)| (name.as_str(), PoolUsage::empty(pool.cidr, &reserved)))
            .collect();
        for (block, of_block) in self.block_usage() {
            let of_pool = self.pool_of(block).and_then(|(name, _)| usage.get_mut(name));
            let Some(of_pool) = of_pool else { continue };
            of_pool.blocks += 1;
            of_pool.cooling += of_block.cooling;
            of_pool.used += of_block.used;
            of_pool.borrowed += of_block.borrowed;
            of_pool.reserved = of_pool.reserved.saturating_sub(of_block.taken);
        }
        usage
    }
}

/// The time over which growth is counted.
const SPAN: Duration = Duration::from_secs(60 * 60);

/// The time between two samples.
const PERIOD: Duration = Duration::from_secs(60);

/// How many addresses of a pool were used in the last hour, a sample a minute.
#[derive(Clone, Debug, Default)]
pub struct UseHistory {
    samples: VecDeque<(Duration, u128)>,
}

impl UseHistory {
    /// Notes that so many addresses are used, at a time since any beginning that stays the same.
    /// The oldest sample that is kept is the first, or the last that is an hour old.
    pub fn note(&mut self, at: Duration, used: u128) {
        if self.samples.back().is_none_or(|(last, _)| *last + PERIOD <= at) {
            self.samples.push_back((at, used));
        }
        while self.samples.get(1).is_some_and(|(next, _)| *next + SPAN <= at) {
            self.samples.pop_front();
        }
    }

    /// After how many seconds no address is free, if as many more are used in each hour as in the
    /// last one: infinite where it was none, 0 where none is free. What was before the first
    /// sample counts as no growth.
    pub fn seconds_to_exhaustion(&self, usage: &PoolUsage) -> f64 {
        let before = self.samples.front().map_or(usage.used, |(_, used)| *used);
        match (usage.free(), usage.used.saturating_sub(before)) {
            (0, _) => 0.0,
            (_, 0) => f64::INFINITY,
            (free, growth) => free as f64 / growth as f64 * SPAN.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::datastore::{Entry, Event, Revision, keys};
    use crate::ipam::{ATTRIBUTE_NODE, Attribute, Block};

    fn put(key: String, value: &serde_json::Value) -> Event {
        Event::Put(Entry { key, value: value.to_string().into_bytes(), revision: Revision(1) })
    }

    fn pool(name: &str, cidr: &str) -> Event {
        let spec = json!({"cidr": cidr, "blockSize": 29});
        put(keys::pool(name), &json!({"metadata": {"name": name}, "spec": spec}))
    }

    fn reservation(cidrs: &[&str]) -> Event {
        let spec = json!({"reservedCIDRs": cidrs});
        put(keys::reservation("kept"), &json!({"metadata": {"name": "kept"}, "spec": spec}))
    }

    /// A block of n1's, of which these have the addresses from the first on; "-" cools down.
    fn block(cidr: &str, holders: &[&str]) -> Event {
        let mut block = Block::new(cidr.parse().unwrap(), "n1", 0);
        for (ordinal, holder) in holders.iter().enumerate() {
            let node = json!({ATTRIBUTE_NODE: holder});
            let holder = match *holder {
                "-" => json!({"secondary": {}, "releasedAt": "2026-11-23T03:36:01Z"}),
                _ => json!({"handle_id": format!("pods.{ordinal}"), "secondary": node}),
            };
            let holder: Attribute = serde_json::from_value(holder).unwrap();
            block.assign(ordinal, holder);
        }
        let (key, value) = (keys::block(block.cidr), block.to_json());
        Event::Put(Entry { key, value, revision: Revision(1) })
    }

    fn counts(state: &ClusterState, pool: &str) -> [u128; 7] {
        let usage = &state.pool_usage()[pool];
        let PoolUsage { size, used, cooling, reserved, borrowed, blocks } = *usage;
        [size, used, cooling, reserved, usage.free(), borrowed, blocks]
    }

    #[test]
    fn every_address_of_a_pool_is_counted_once() {
        let mut state = ClusterState::default();
        state.apply(&pool("a", "10.0.0.0/26"));
        state.apply(&pool("b", "fd00::/64"));
        assert_eq!(counts(&state, "a"), [64, 0, 0, 0, 64, 0, 0]);
        assert_eq!(counts(&state, "b"), [1 << 64, 0, 0, 0, 1 << 64, 0, 0]);
        state.apply(&block("10.0.0.0/29", &["n1", "n2", "-"]));
        state.apply(&block("10.0.0.8/29", &["n1"]));
        state.apply(&block("fd00::/125", &["n1"]));
        state.apply(&block("10.9.0.0/29", &["n1"]));
        assert_eq!(counts(&state, "a"), [64, 3, 1, 0, 60, 1, 2]);
        assert_eq!(counts(&state, "b"), [1 << 64, 1, 0, 0, (1 << 64) - 1, 0, 1]);
        // Twice the same, addresses that are used and one that cools down, and another pool's.
        state.apply(&reservation(&["10.0.0.0/30", "10.0.0.1/32", "10.0.0.32/30", "10.1.0.0/16"]));
        assert_eq!(counts(&state, "a"), [64, 3, 1, 5, 55, 1, 2]);
        let of_blocks: Vec<_> = state.block_usage().collect();
        let sums =
            |of: fn(&BlockUsage) -> u128| of_blocks.iter().map(|(_, it)| of(it)).sum::<u128>();
        assert_eq!(of_blocks.len(), 4);
        let (of_first, first) = of_blocks[0];
        assert_eq!(of_first.to_string(), "10.0.0.0/29");
        let counted = [first.size, first.used, first.cooling, first.reserved, first.borrowed];
        assert_eq!(counted, [8, 2, 1, 1, 1]);
        assert_eq!((sums(|it| it.used), sums(|it| it.cooling)), (5, 1), "of all blocks");
        // It changes, and goes.
        state.apply(&block("10.0.0.0/29", &["n1"]));
        state.apply(&Event::Delete {
            key: keys::block("10.0.0.8/29".parse().unwrap()),
            revision: Revision(2),
        });
        assert_eq!(counts(&state, "a"), [64, 1, 0, 7, 56, 0, 1]);
        state.apply(&reservation(&["10.0.0.0/8"]));
        assert_eq!(counts(&state, "a"), [64, 1, 0, 63, 0, 0, 1]);
        state.apply(&Event::Delete { key: keys::reservation("kept"), revision: Revision(3) });
        assert_eq!(counts(&state, "a"), [64, 1, 0, 0, 63, 0, 1]);
    }

    #[test]
    fn reservations_change_no_plan_and_one_that_cannot_be_read_stays_as_it_was() {
        let mut state = ClusterState::default();
        state.apply(&pool("a", "10.0.0.0/26"));
        let before = state.fingerprints.clone();
        assert!(!state.apply(&reservation(&["10.0.0.0/30"])));
        assert!(!state.apply(&put(keys::reservation("kept"), &json!({"spec": 7}))));
        assert_eq!(counts(&state, "a")[3], 4);
        assert!(state.unreadable.is_empty() && state.fingerprints == before);
    }

    fn usage(used: u128) -> PoolUsage {
        PoolUsage { size: 100, used, ..PoolUsage::default() }
    }

    #[test]
    fn a_pool_is_exhausted_at_the_rate_of_the_last_hour() {
        let (mut history, minute) = (UseHistory::default(), Duration::from_secs(60));
        assert_eq!(history.seconds_to_exhaustion(&usage(5)), f64::INFINITY, "nothing is known");
        for (at, used) in [(0, 10), (30, 20), (60, 40), (90, 60), (150, 60)] {
            history.note(minute * at, used);
            let expected = match at {
                0 => f64::INFINITY,
                30 => 80.0 / 10.0 * 3600.0,
                60 => 60.0 / 30.0 * 3600.0,
                90 => 40.0 / 40.0 * 3600.0,
                _ => f64::INFINITY,
            };
            assert_eq!(history.seconds_to_exhaustion(&usage(used)), expected, "minute {at}");
        }
        assert_eq!(history.seconds_to_exhaustion(&usage(40)), f64::INFINITY, "it shrinks");
        assert_eq!(history.seconds_to_exhaustion(&usage(100)), 0.0);
    }

    proptest! {
        #[test]
        fn an_hour_is_kept_whatever_comes(steps in prop::collection::vec((0u64..5000, 0u128..100), 1..300)) {
            let (mut history, mut at) = (UseHistory::default(), Duration::ZERO);
            for (step, used) in steps {
                at += Duration::from_secs(step);
                history.note(at, used);
                prop_assert!(history.samples.len() <= 62);
                let time = history.seconds_to_exhaustion(&usage(used));
                prop_assert!(time > 0.0);
            }
        }
    }
}
