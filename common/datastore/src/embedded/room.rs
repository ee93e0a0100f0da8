//! The file system that the database is on: whether there is room, and whether it can be
//! written.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};

/// How many bytes have to be free where something that makes the store larger is committed.
/// With less the file system counts as full: what is left is for what makes it smaller.
pub(super) const NEEDED: u64 = 1 << 20;

/// Why a database cannot be written where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The file system is full.
    Full,
    /// It is mounted read-only.
    ReadOnly,
}

impl Obstacle {
    /// What is wrong, and what to do about it.
    pub(super) fn reason(self, path: &Path) -> String {
        let directory = directory(path).display().to_string();
        match self {
            Self::Full => format!(
                "the file system of {directory} is full (less than 1 MiB is free); free space \
                 on it, then try again"
            ),
            Self::ReadOnly => format!(
                "the file system of {directory} is mounted read-only; find out why (the kernel's \
                 log tells of errors), and mount it writable"
            ),
        }
    }
}

/// What is in the way of writing, as far as the file system tells.
pub(super) fn obstacle(path: &Path) -> Option<Obstacle> {
    let found = statvfs(directory(path)).ok()?;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        return Some(Obstacle::ReadOnly);
    }
    (!has(&found, path, NEEDED)).then_some(Obstacle::Full)
}

/// Whether so many bytes are free where the database is.
pub(super) fn is_there(path: &Path, bytes: u64) -> bool {
    statvfs(directory(path)).is_ok_and(|found| has(&found, path, bytes))
}

/// What has no size (ramfs, tmpfs without a limit, some of FUSE) has room. Else what is free for
/// everybody is free. More may be free for this user (root has a part of its own), less of it
/// than any number says: that is tried.
fn has(found: &Statvfs, path: &Path, bytes: u64) -> bool {
    let size_of = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    if found.blocks() == 0 || size_of(found.blocks_available()) >= bytes {
        return true;
    }
    size_of(found.blocks_free()) >= bytes && try_to_take(directory(path), bytes)
}

/// Takes the room for a file without a name, which goes at once.
fn try_to_take(directory: &Path, bytes: u64) -> bool {
    let nameless = OFlag::O_TMPFILE.bits();
    let file = OpenOptions::new().write(true).mode(0o600).custom_flags(nameless).open(directory);
    let size = i64::try_from(bytes).unwrap_or(i64::MAX);
    file.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, size).is_ok())
}

/// The directory of the database, or the nearest one that there is.
fn directory(path: &Path) -> &Path {
    let named = path.ancestors().skip(1).find(|it| it.as_os_str().is_empty() || it.exists());
    named.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
