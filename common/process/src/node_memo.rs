//! Where whoever sees to the node, an ADD or the agent, leaves what it made of its part in
//! the cluster.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use weir_common::network::{Follower, NodeMemo};

use crate::boot_id;

/// The memo's file, on a file system that a reboot clears.
pub const NODE_MEMO_FILE: &str = "/run/weir/node-state";

/// The lock that is held by who changes the kernel and the memo.
pub const NODE_MEMO_LOCK: &str = "/run/weir/node-state.lock";

/// The variable by which `weir` asks `weir-ipam` what there is in the cluster: as
/// JSON, up to where it has seen it, or null.
pub const CLUSTER_VARIABLE: &str = "WEIR_CLUSTER";

/// What the last ADD left; `None` if nothing that is of use. The file is replaced
/// as a whole, so that it can be read without the lock.
pub fn read_node_memo(file: &Path) -> Option<NodeMemo> {
    let mut line = String::new();
    BufReader::new(File::open(file).ok()?).read_line(&mut line).ok()?;
    NodeMemo::read(&line, boot_id().as_deref())
}

/// The same, with what was known of the cluster.
pub fn read_whole_node_memo(file: &Path) -> Option<(NodeMemo, Follower)> {
    NodeMemo::read_whole(&fs::read_to_string(file).ok()?, boot_id().as_deref())
}

/// Leaves a memo. The lock must be held.
///
/// # Errors
/// The file cannot be written; it is as it was.
pub fn leave_node_memo(file: &Path, memo: &NodeMemo, follower: &Follower) -> io::Result<()> {
    let new = PathBuf::from(format!("{}.new", file.display()));
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&new)?.write_all(memo.text(follower).as_bytes())?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use weir_common::datastore::Revision;
    use weir_common::network::{Inventory, Underlay, plan_cluster};

    use super::*;

    #[test]
    fn what_is_left_is_found_and_of_no_use_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node-state");
        assert_eq!(read_node_memo(&file), None);
        fs::write(&file, "nonsense").unwrap();
        assert_eq!(read_node_memo(&file), None);
        let plan = plan_cluster("n1", &Inventory::default(), &Underlay::default());
        let memo = NodeMemo::new("here", Revision(3), boot_id().as_deref(), &plan);
        for _ in 0..2 {
            leave_node_memo(&file, &memo, &Follower::default()).unwrap();
            assert_eq!(read_node_memo(&file), Some(memo.clone()));
            assert_eq!(read_whole_node_memo(&file).unwrap().0, memo);
        }
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
