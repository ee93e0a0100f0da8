//! What one call on a host leaves to the next.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::collect::CollectScope;

/// The form of the hints. Hints of another form are passed over.
const VERSION: u32 = 1;

/// Guesses and reminders that calls leave each other. All of it may be wrong or
/// lost: then more is read, or something is done twice, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    version: u32,
    boot_id: Option<String>,
    /// Blocks that likely have a free address.
    pub likely: Vec<IpNet>,
    swept: BTreeMap<String, CollectScope>,
}

impl Hints {
    /// Reads what the last call left. What was noted under another boot than
    /// `boot_id` no longer holds; without a boot id nothing is ever swept.
    pub fn read(text: &str, boot_id: Option<&str>) -> Self {
        let left: Option<Self> = serde_json::from_str(text).ok();
        let mut hints = left.filter(|hints| hints.version == VERSION).unwrap_or_default();
        if boot_id.is_none() || hints.boot_id.as_deref() != boot_id {
            hints.swept.clear();
        }
        Self { version: VERSION, boot_id: boot_id.map(str::to_owned), ..hints }
    }

    /// The text that [`Hints::read`] reads.
    pub fn text(&self) -> String {
        // Plain data; what cannot be written reads back as no hints.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Notes the blocks from which addresses were taken last: they likely have others. Those of
    /// a family from which none was taken stay.
    pub fn note_likely(&mut self, blocks: Vec<IpNet>) {
        let is_v4 = |block: &IpNet| matches!(block, IpNet::V4(_));
        self.likely.retain(|known| blocks.iter().all(|block| is_v4(block) != is_v4(known)));
        self.likely.extend(blocks);
    }

    /// Whether a network's allocations of earlier boots were given back in these
    /// blocks.
    pub fn is_swept(&self, network: &str, scope: CollectScope) -> bool {
        let swept = self.swept.get(network);
        swept.is_some_and(|swept| *swept == scope || *swept == CollectScope::AllBlocks)
    }

    /// Notes that they were.
    pub fn note_swept(&mut self, network: &str, scope: CollectScope) {
        if !self.is_swept(network, scope) {
            self.swept.insert(network.to_owned(), scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A file of anything says at most what was noted under this very boot.
        #[test]
        fn what_was_swept_is_believed_of_this_boot_alone(
            noted in prop::collection::vec(("[a-z0-9][a-z0-9_.-]{0,8}", any::<bool>()), 0..5),
            boot in "[0-9a-f-]{1,36}",
            other in "[0-9a-f-]{1,36}",
            noise in ".{0,40}",
        ) {
            let mut hints = Hints::read(&noise, Some(&boot));
            prop_assert!(hints.swept.is_empty());
            for (network, all) in &noted {
                let scope = if *all { CollectScope::AllBlocks } else { CollectScope::OwnBlocks };
                hints.note_swept(network, scope);
                prop_assert!(hints.is_swept(network, scope));
            }
            let written = hints.text();
            prop_assert_eq!(&Hints::read(&written, Some(&boot)), &hints);
            let read = Hints::read(&written, Some(&other));
            prop_assert_eq!(read.swept.is_empty(), noted.is_empty() || other != boot);
            prop_assert!(Hints::read(&written, None).swept.is_empty());
        }
    }

    #[test]
    fn the_likely_blocks_of_a_family_are_those_of_its_last_call() {
        let blocks = ["10.0.0.0/26", "fd00::/122", "10.0.0.64/26"];
        let [first, six, second] = blocks.map(|text| text.parse::<IpNet>().unwrap());
        let mut hints = Hints::default();
        for (noted, likely) in [
            (vec![first, six], vec![first, six]),
            (vec![second], vec![six, second]),
            (vec![], vec![six, second]),
            (vec![first, six], vec![first, six]),
        ] {
            hints.note_likely(noted);
            assert_eq!(hints.likely, likely);
        }
    }

    #[test]
    fn a_reboot_voids_what_was_swept_and_nothing_else() {
        let mut hints = Hints::read("", Some("one"));
        hints.likely = vec!["10.0.0.0/26".parse().unwrap(), "fd00::/122".parse().unwrap()];
        assert!(!hints.is_swept("pods", CollectScope::OwnBlocks));
        hints.note_swept("pods", CollectScope::OwnBlocks);
        hints.note_swept("blue", CollectScope::AllBlocks);
        hints.note_swept("blue", CollectScope::OwnBlocks);
        let again = Hints::read(&hints.text(), Some("one"));
        assert_eq!(hints, again);
        assert!(again.is_swept("pods", CollectScope::OwnBlocks));
        assert!(!again.is_swept("pods", CollectScope::AllBlocks));
        assert!(
            again.is_swept("blue", CollectScope::OwnBlocks)
                && again.is_swept("blue", CollectScope::AllBlocks)
        );
        for other in [Some("two"), None] {
            let rebooted = Hints::read(&hints.text(), other);
            assert_eq!(rebooted.likely, hints.likely);
            assert!(!rebooted.is_swept("blue", CollectScope::OwnBlocks));
        }
    }
}
