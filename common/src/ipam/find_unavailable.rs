//! Finds why a node gets none of the addresses that are free.

use std::collections::BTreeSet;

use super::block::Block;
use super::cooldown::Cooldown;
use super::knowledge::{Blocks, Stored, View};
use super::reserved::Reserved;
use super::unavailable::UnavailableAddresses;
use super::walk::{MAX_WALK, walk};
use crate::resources::IpPool;

impl UnavailableAddresses {
    /// Finds it in what a search has read that found nothing. `claimed` tells whether it
    /// tried to claim every block that is not there yet.
    ///
    /// Only what such a search must have read counts, so that a block that is known by
    /// chance changes nothing.
    pub(super) fn find(
        node: &str,
        (view, blocks): (&View, &Blocks),
        cooldown: Cooldown,
        pools: &[&Stored<IpPool>],
        claimed: bool,
    ) -> Self {
        let name = |reserved: &Reserved| reserved.by.to_string();
        let mut found = Self { is_all: claimed, node: node.to_owned(), ..Self::default() };
        let pools: BTreeSet<_> =
            pools.iter().map(|pool| (pool.value.cidr, pool.value.block_size)).collect();
        for (cidr, block_size) in pools {
            for cidr in walk(cidr, block_size, node).take(MAX_WALK) {
                if let Some(by) = view.excludes(cidr) {
                    found.reserved_by.insert(by.to_string());
                    continue;
                }
                let whole = || view.reserved.iter().filter(|it| it.range.contains(&cidr));
                let is_whole = whole().next().is_some();
                let is_read = view.affinities.contains_key(&cidr)
                    || !view.config.strict_affinity
                    || (claimed && !is_whole);
                match blocks.get(cidr).filter(|_| is_read) {
                    Some(Some(block)) => {
                        found.cooling += cooldown.cooling(&block.value);
                        found.learn(&block.value, view);
                    }
                    _ if !claimed => {}
                    // It could have been claimed: all of it is reserved.
                    _ if is_whole => found.reserved_by.extend(whole().map(name)),
                    _ => {
                        let parts = view.reserved.iter().filter(|it| cidr.contains(&it.range));
                        found.reserved_by.extend(parts.map(name));
                    }
                }
            }
        }
        found
    }

    fn learn(&mut self, block: &Block, view: &View) {
        let mut is_free = false;
        for ordinal in block.free() {
            match view.reserves(block.address(ordinal)) {
                Some(by) => drop(self.reserved_by.insert(by.to_string())),
                None if block.host() != Some(&self.node) => {
                    self.free_at_hosts += 1;
                    is_free = true;
                }
                None => {}
            }
        }
        if is_free {
            self.hosts.insert(block.host().unwrap_or("no host").to_owned());
        }
    }
}
