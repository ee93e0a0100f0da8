//! By what a history is known again: what was written, and when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::datastore::{Entry, Revision, keys};

/// The entries that were there at a revision, each condensed to a few bytes.
///
/// In one and the same history whatever is there now and was written by that
/// revision was there then: the same key, with the same value, of the same revision.
/// A datastore that was restored and has gone on from there shows by it what it was
/// written with since, also when its revisions are past the earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// By the digest of the key. Those of blocks are apart: who has no agent does not
    /// read them in every listing, so they would tell nothing from one to the next.
    entries: BTreeMap<u64, Fact>,
    #[serde(skip)]
    blocks: BTreeMap<u64, Fact>,
}

/// When an entry was written, and the digest of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fact(Revision, u64);

impl Facts {
    /// Takes in what a key has.
    pub(super) fn put(&mut self, entry: &Entry) {
        let fact = Fact(entry.revision, digest(&entry.value));
        self.of(&entry.key).insert(digest(entry.key.as_bytes()), fact);
    }

    /// Takes in that a key is gone.
    pub(super) fn delete(&mut self, key: &str) {
        self.of(key).remove(&digest(key.as_bytes()));
    }

    /// Whether `later` cannot be a later state of the history in which these were the
    /// facts at `revision`. Where there were none, nothing is known.
    pub(super) fn are_belied_by(&self, later: &Self, revision: Revision) -> bool {
        let belied = |known: &BTreeMap<u64, Fact>, later: &BTreeMap<u64, Fact>| {
            let mut old = later.iter().filter(|(_, fact)| fact.0 <= revision);
            !known.is_empty() && old.any(|(key, fact)| known.get(key) != Some(fact))
        };
        belied(&self.entries, &later.entries) || belied(&self.blocks, &later.blocks)
    }

    fn of(&mut self, key: &str) -> &mut BTreeMap<u64, Fact> {
        if key.starts_with(keys::BLOCKS) { &mut self.blocks } else { &mut self.entries }
    }
}

/// FNV-1a with 64 bits, but by words of eight bytes, since a start of the agent digests
/// all blocks of a cluster: the same in every build, unlike the standard library's. The
/// rotation brings a word's highest bits down to where the next product spreads them.
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

    fn after(writes: &Writes) -> Facts {
        let mut facts = Facts::default();
        for (at, (key, value)) in (1..).zip(writes) {
            let prefix = if key % 2 == 0 { keys::BLOCKS } else { keys::NODES };
            let key = format!("{prefix}{key}");
            match value {
                Some(value) => {
                    facts.put(&Entry { key, value: vec![*value], revision: Revision(at) });
                }
                None => facts.delete(&key),
            }
        }
        facts
    }

    fn writes() -> impl Strategy<Value = Writes> {
        prop::collection::vec((0..6u8, prop::option::weighted(0.8, 0..3u8)), 0..12)
    }

    proptest! {
        #[test]
        fn a_history_that_goes_on_is_never_taken_for_another(
            before in writes(), more in writes(),
        ) {
            let revision = Revision(before.len() as i64);
            let later = [before.clone(), more].concat();
            prop_assert!(!after(&before).are_belied_by(&after(&later), revision));
        }
    }

    #[test]
    fn a_key_that_went_back_or_is_new_in_the_past_belies() {
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
        for (writes, belied) in cases {
            assert_eq!(known.are_belied_by(&after(&writes), Revision(4)), belied, "{writes:?}");
        }
        let nothing = Facts::default();
        assert!(!nothing.are_belied_by(&known, Revision(9)), "of nothing, nothing is known");
    }
}
