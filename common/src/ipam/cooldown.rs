//! Addresses that were given back a moment ago and may not be used again yet.
//!
//! Newer versions of Calico leave a released address in its block, without its handle and with
//! `releasedAt`, until `ipCooldownSeconds` are over
//! (`design/ipam/ipam-core-library.md`, "IP release and cooldown"). Weir does not release
//! addresses in that way, but keeps such an entry as it is, and frees it in the assignment that
//! takes an address from its block.

use jiff::{SignedDuration, Timestamp};

use super::block::{Attribute, Block};
use crate::resources::IpamConfig;

/// The present moment, and how long released addresses are kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cooldown {
    now: Timestamp,
    time: SignedDuration,
}

impl Cooldown {
    /// What holds `now` under a configuration.
    pub fn new(config: &IpamConfig, now: Timestamp) -> Self {
        Self { now, time: config.cooldown() }
    }

    /// Whether a released address may be used again. One that was released further in the
    /// future was released before the clock was set back; one at a moment that cannot be read
    /// is kept.
    pub fn is_over(&self, holder: &Attribute) -> bool {
        let released = holder.released_at();
        released.is_some_and(|at| self.now.duration_since(at).abs() >= self.time)
    }

    /// The ordinals of a block that cooled down, the one that was released first first.
    pub fn cooled(&self, block: &Block) -> Vec<usize> {
        let mut cooled = block.held_by(|holder| holder.is_cooling_down() && self.is_over(holder));
        cooled.sort_by_key(|ordinal| block.holder(*ordinal).and_then(Attribute::released_at));
        cooled
    }

    /// How many addresses of a block may not be used yet.
    pub fn cooling(&self, block: &Block) -> usize {
        block.held_by(|holder| holder.is_cooling_down() && !self.is_over(holder)).len()
    }

    /// The ordinals that can be handed out: those that are free, then those that cooled down.
    pub fn free(&self, block: &Block) -> impl Iterator<Item = usize> {
        block.free().chain(self.cooled(block))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn released(at: &str) -> Attribute {
        serde_json::from_value(json!({"handle_id": null, "secondary": {}, "releasedAt": at}))
            .unwrap()
    }

    fn cooldown(seconds: u64) -> Cooldown {
        let config = json!({"ipCooldownSeconds": seconds}).to_string();
        let config = IpamConfig::from_json(config.as_bytes()).unwrap();
        Cooldown::new(&config, "2026-11-23T03:36:31Z".parse().unwrap())
    }

    #[test]
    fn the_time_is_counted_from_the_release() {
        let thirty_ago = released("2026-11-23T03:36:01Z");
        assert!(cooldown(30).is_over(&thirty_ago) && !cooldown(31).is_over(&thirty_ago));
        assert!(cooldown(0).is_over(&released("2026-11-23T03:36:31Z")));
        assert!(cooldown(60).is_over(&released("2027-11-23T03:36:01Z")), "the clock went wrong");
        assert!(!cooldown(0).is_over(&released("yesterday")));
        assert!(!cooldown(0).is_over(&Attribute::default()), "it was not released");
    }

    #[test]
    fn what_cooled_down_comes_after_what_is_free() {
        let mut block = Block::new("10.0.0.0/29".parse().unwrap(), "n1", 1);
        for (ordinal, second) in [(0, "20"), (1, "10"), (2, "31")] {
            block.assign(ordinal, released(&format!("2026-11-23T03:36:{second}Z")));
        }
        let cooldown = cooldown(10);
        assert_eq!(cooldown.free(&block).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 1, 0]);
        assert_eq!(cooldown.cooling(&block), 1);
    }
}
