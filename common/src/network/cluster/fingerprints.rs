//! Fingerprints of entries, by which a restored datastore is noticed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bgp_resources::BgpResources;
use crate::datastore::{Entry, Revision, keys};

/// What each key had: the digest of the key, with the revision and the digest of the value.
///
/// In one history, every entry that was written up to a revision was there at that revision,
/// with the same value. A restored datastore in which others have written since shows entries
/// that contradict this, even when its revision has passed the earlier one.
///
/// Blocks are left out: they are most of the bytes, and an ADD does not always read them. So are
/// the resources of BGP and the reservations, which no ADD reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints(BTreeMap<u64, (Revision, u64)>);

impl Fingerprints {
    /// Records what a key has.
    pub(super) fn put(&mut self, entry: &Entry) {
        let is_left_out = |prefix: &&str| entry.key.starts_with(prefix);
        if ![keys::BLOCKS, keys::RESERVATIONS]
            .iter()
            .chain(&BgpResources::PREFIXES)
            .any(is_left_out)
        {
            let value = (entry.revision, digest(&entry.value));
            self.0.insert(digest(entry.key.as_bytes()), value);
        }
    }

    /// Records that a key is gone.
    pub(super) fn delete(&mut self, key: &str) {
        self.0.remove(&digest(key.as_bytes()));
    }

    /// Whether `later` cannot come from the history that had these at `revision`. Without any
    /// fingerprint nothing is known.
    pub(super) fn contradict(&self, later: &Self, revision: Revision) -> bool {
        let mut old = later.0.iter().filter(|(_, (written, _))| *written <= revision);
        !self.0.is_empty() && old.any(|(key, entry)| self.0.get(key) != Some(entry))
    }
}

/// FNV-1a with 64 bits by words of eight bytes: the same in every build, unlike the standard
/// library's. The rotation brings a word's highest bits down to where the next product spreads
/// them.
fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = step(0xcbf2_9ce4_8422_2325, bytes.len() as u64);
    let hash = words.iter().fold(hash, |hash, word| step(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, &byte| step(hash, byte.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A history: at each revision a key gets a value, or none.
    type Writes = Vec<(u8, Option<u8>)>;

    fn after(writes: &Writes) -> Fingerprints {
        let mut fingerprints = Fingerprints::default();
        for (at, (key, value)) in (1..).zip(writes) {
            let prefix = if key % 2 == 0 { keys::BLOCKS } else { keys::NODES };
            let key = format!("{prefix}{key}");
            match value {
                Some(value) => {
                    fingerprints.put(&Entry { key, value: vec![*value], revision: Revision(at) });
                }
                None => fingerprints.delete(&key),
            }
        }
        fingerprints
    }

    fn writes() -> impl Strategy<Value = Writes> {
        prop::collection::vec((0..6u8, prop::option::weighted(0.8, 0..3u8)), 0..12)
    }

    proptest! {
        #[test]
        fn a_history_that_continues_is_never_taken_for_another(
            before in writes(), more in writes(),
        ) {
            let revision = Revision(before.len() as i64);
            let later = [before.clone(), more].concat();
            prop_assert!(!after(&before).contradict(&after(&later), revision));
        }
    }

    #[test]
    fn a_key_that_went_back_or_is_new_in_the_past_contradicts() {
        let known = after(&vec![(1, Some(0)), (3, Some(0)), (1, Some(1)), (2, Some(0))]);
        let cases = [
            // Key 1 is what it was at first.
            (vec![(1, Some(0)), (3, Some(0))], true),
            // Key 5 was never there.
            (vec![(1, Some(0)), (3, Some(0)), (5, Some(1))], true),
            // The same revision, with another value.
            (vec![(1, Some(0)), (3, Some(0)), (1, Some(2)), (2, Some(0))], true),
            (vec![(1, Some(0)), (3, Some(0)), (1, Some(1)), (2, Some(0)), (3, None)], false),
        ];
        for (writes, contradicts) in cases {
            assert_eq!(known.contradict(&after(&writes), Revision(4)), contradicts, "{writes:?}");
        }
        let nothing = Fingerprints::default();
        assert!(!nothing.contradict(&known, Revision(9)), "without fingerprints nothing is known");
    }
}
