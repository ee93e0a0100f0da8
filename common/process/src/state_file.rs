//! The state file: written by the agent, or by an ADD where no agent runs, and read by all.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use weir_common::network::{ClusterCache, SavedState};

use crate::boot::boot_id;
use crate::files;

/// The file, on a file system that a reboot clears.
pub const STATE_FILE: &str = "/run/weir/state.json";

/// What was made of the node last, without what is known of the cluster; `None` if there
/// is nothing that is of use. The file is replaced as a whole, so that it can be read
/// without the node's lock.
pub fn read_state(file: &Path) -> Option<SavedState> {
    let mut line = String::new();
    BufReader::new(files::existing(file).ok()?).read_line(&mut line).ok()?;
    SavedState::read(&line, boot_id())
}

/// The same, with what was known of the cluster.
pub fn read_whole_state(file: &Path) -> Option<(SavedState, ClusterCache)> {
    SavedState::read_whole(&files::read(file).ok()?, boot_id())
}

/// Replaces the state file. The node's lock must be held.
///
/// # Errors
/// The file cannot be written; it is as it was.
pub fn write_state(file: &Path, state: &SavedState, cache: &ClusterCache) -> io::Result<()> {
    files::replace(file, &state.text(cache))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use weir_common::network::{NamedNode, PlanSummary, Writer};

    use super::*;

    #[test]
    fn what_is_written_is_found_and_nonsense_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("state.json");
        assert_eq!(read_state(&file), None);
        fs::write(&file, "nonsense").unwrap();
        assert_eq!(read_state(&file), None);
        let node = NamedNode { name: "n1".to_owned(), source: "nodename".to_owned() };
        let (cache, boot_id) = (ClusterCache::default(), boot_id());
        let state =
            SavedState::new(Writer::Agent, node, "here", boot_id, &cache, PlanSummary::default());
        for _ in 0..2 {
            write_state(&file, &state, &cache).unwrap();
            assert_eq!(read_state(&file), Some(state.clone()));
            assert_eq!(read_whole_state(&file).unwrap().0, state);
        }
    }
}
