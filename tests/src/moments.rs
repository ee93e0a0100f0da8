//! Moments that are drawn at random, and are the same in each run.

use std::time::Duration;

/// Random numbers from a seed (splitmix64).
pub struct Moments(u64);

impl Moments {
    /// Drawn from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is at most 65,536.
    pub fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((bits ^ (bits >> 31)) >> 48).expect("16 bits");
        ((u64::from(part) * u64::from(end)) >> 16).try_into().expect("it is below the end")
    }

    /// A moment within this time.
    pub fn within(&mut self, time: Duration) -> Duration {
        time * self.below(0x1_0000) / 0x1_0000
    }
}
