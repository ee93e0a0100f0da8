//! A lock of a host, held by a test.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};

use crate::node::Node;
use crate::place::Place;
use crate::until::until;

/// A lock that is held until this is dropped.
pub struct HeldLock {
    _file: Flock<File>,
    /// How `/proc/locks` names the file.
    shown: String,
}

impl Node {
    /// Takes the lock of this file on the node, which is made when it is
    /// missing.
    pub fn lock(&self, path: &str) -> HeldLock {
        let file = self.enter(|| {
            std::fs::create_dir_all(Path::new(path).parent()?).ok()?;
            OpenOptions::new().write(true).create(true).truncate(false).open(path).ok()
        });
        let file = file.unwrap_or_else(|| panic!("{}: {path} cannot be opened", self.name()));
        let metadata = file.metadata().expect("an open file has an inode");
        let (major, minor) = (major(metadata.dev()), minor(metadata.dev()));
        let shown = format!(" {major:02x}:{minor:02x}:{} 0 EOF", metadata.ino());
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        HeldLock { _file: locked.map_err(|(_, error)| error).expect("nobody has the lock"), shown }
    }
}

impl HeldLock {
    /// Waits until another process waits for the lock (`/proc/locks` marks those
    /// with an arrow, proc(5)).
    pub fn wait_for_another(&self) {
        until("somebody waits for the lock", || {
            let locks = std::fs::read_to_string("/proc/locks").expect("/proc/locks can be read");
            locks.lines().any(|line| line.contains("->") && line.ends_with(&self.shown))
        });
    }
}
