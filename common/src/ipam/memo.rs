//! What one call on a host leaves to the next.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::collect::Scope;

/// Guesses and reminders that calls leave each other. All of it may be wrong or
/// lost: then more is read, or something is done twice, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memo {
    /// Blocks that likely have a free address.
    pub likely: Vec<IpNet>,
    boot_id: Option<String>,
    swept: BTreeMap<String, Scope>,
}

impl Memo {
    /// Reads what the last call left. What was noted under another boot than
    /// `boot_id` no longer holds; without a boot id nothing is ever swept.
    pub fn read(text: &str, boot_id: Option<&str>) -> Self {
        let mut memo = Self { boot_id: boot_id.map(str::to_owned), ..Self::default() };
        let mut of_this_boot = false;
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("boot", id)) => of_this_boot = Some(id) == boot_id,
                Some(("swept", network)) if of_this_boot => {
                    memo.note_swept(network, Scope::OwnBlocks);
                }
                Some(("swept-all", network)) if of_this_boot => {
                    memo.note_swept(network, Scope::AllBlocks);
                }
                Some(_) => {}
                None => memo.likely.extend(line.parse::<IpNet>()),
            }
        }
        memo
    }

    /// Whether a network's allocations of earlier boots were given back in these
    /// blocks.
    pub fn is_swept(&self, network: &str, scope: Scope) -> bool {
        let swept = self.swept.get(network);
        swept.is_some_and(|swept| *swept == scope || *swept == Scope::AllBlocks)
    }

    /// Notes that they were.
    pub fn note_swept(&mut self, network: &str, scope: Scope) {
        if !self.is_swept(network, scope) {
            self.swept.insert(network.to_owned(), scope);
        }
    }
}

impl fmt::Display for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for block in &self.likely {
            writeln!(formatter, "{block}")?;
        }
        if let Some(boot_id) = &self.boot_id {
            writeln!(formatter, "boot {boot_id}")?;
        }
        for (network, scope) in &self.swept {
            let word = match scope {
                Scope::OwnBlocks => "swept",
                Scope::AllBlocks => "swept-all",
            };
            writeln!(formatter, "{word} {network}")?;
        }
        Ok(())
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
            let mut memo = Memo::read(&noise, Some(&boot));
            prop_assert!(memo.swept.is_empty());
            for (network, all) in &noted {
                let scope = if *all { Scope::AllBlocks } else { Scope::OwnBlocks };
                memo.note_swept(network, scope);
                prop_assert!(memo.is_swept(network, scope));
            }
            let written = memo.to_string();
            prop_assert_eq!(&Memo::read(&written, Some(&boot)), &memo);
            let read = Memo::read(&written, Some(&other));
            prop_assert_eq!(read.swept.is_empty(), noted.is_empty() || other != boot);
            prop_assert!(Memo::read(&written, None).swept.is_empty());
        }
    }

    #[test]
    fn it_is_read_back_and_a_reboot_voids_what_was_swept() {
        let mut memo = Memo::read("10.0.0.0/26\nnonsense\nfd00::/122", Some("one"));
        assert_eq!(memo.likely.len(), 2);
        assert!(!memo.is_swept("pods", Scope::OwnBlocks));
        memo.note_swept("pods", Scope::OwnBlocks);
        memo.note_swept("blue", Scope::AllBlocks);
        memo.note_swept("blue", Scope::OwnBlocks);
        let again = Memo::read(&memo.to_string(), Some("one"));
        assert_eq!(memo, again);
        assert!(again.is_swept("pods", Scope::OwnBlocks));
        assert!(!again.is_swept("pods", Scope::AllBlocks));
        assert!(
            again.is_swept("blue", Scope::OwnBlocks) && again.is_swept("blue", Scope::AllBlocks)
        );
        for other in [Some("two"), None] {
            let rebooted = Memo::read(&memo.to_string(), other);
            assert_eq!(rebooted.likely, memo.likely);
            assert!(!rebooted.is_swept("blue", Scope::OwnBlocks));
        }
    }
}
