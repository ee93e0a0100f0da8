//! The lock that keeps calls on one host from overtaking each other.
//!
//! For the plugins it only avoids wasted work: what is right and wrong is decided
//! by the comparisons of the datastore's transactions. So the wait for it is
//! bounded, and a lock that cannot be had is done without. A repair, which trusts
//! what it saw in the kernel, does nothing without it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::deadline::TURN;

/// The lock's file when the configuration names none.
pub const DEFAULT_LOCK_FILE: &str = "/run/weir/ipam.lock";

/// The lock under which a node's NAT is looked at and made, by ADD, or removed because
/// nobody needs it, by GC. Without it a GC could remove what an ADD has just found good.
pub const NAT_LOCK: &str = "/run/weir/nat.lock";

/// The largest memo, in bytes: notes about a thousand networks with the longest names
/// that a link's alias has room for.
const MAX_MEMO: u64 = 256 << 10;

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: Option<Flock<File>>,
}

impl Lock {
    /// Takes the lock, waiting at most ten seconds. The directory of the file
    /// is made when it is missing.
    pub fn take(path: &Path) -> Self {
        Self::require(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "going on without the host's lock");
            Self { file: None }
        })
    }

    /// As [`Lock::take`], but never goes on without it.
    ///
    /// # Errors
    /// The file cannot be opened or locked, or others keep it for ten seconds.
    pub fn require(path: &Path) -> std::io::Result<Self> {
        let file = open(path).and_then(|file| wait_for(file, TURN))?;
        Ok(Self { file: Some(file) })
    }
}

/// What calls of one host leave to the next one, in the lock's file: a guess
/// that may be wrong, and is lost with the file.
impl Lock {
    /// Whether it was had, so that what is left reaches the next holder.
    pub fn is_held(&self) -> bool {
        self.file.is_some()
    }

    /// What the last holder left; empty if nothing.
    pub fn memo(&self) -> String {
        let mut memo = String::new();
        if let Some(file) = &self.file {
            // What cannot be read is as good as nothing.
            let _ = (&**file).take(MAX_MEMO).read_to_string(&mut memo);
        }
        memo
    }

    /// Leaves something to the next holder, at most 256 KiB: what is larger is logged,
    /// and what was left before stays.
    pub fn leave(&self, memo: &str) {
        let Some(file) = &self.file else { return };
        if memo.len() as u64 > MAX_MEMO {
            let (bytes, most) = (memo.len(), MAX_MEMO);
            return tracing::warn!(
                bytes,
                most,
                "too much to remember in the lock's file: what was done once on this host is done \
                 again by every call, and each takes longer; remove the file and networks that \
                 are not used"
            );
        }
        // Without it the next holder works as well, only slower.
        let _ = file.set_len(0).and_then(|()| file.write_all_at(memo.as_bytes(), 0));
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let options = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        options
    };
    match options().open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            }
            options().open(path)
        }
        opened => opened,
    }
}

/// Locks at once, or lets another thread wait: flock(2) knows no time limit.
fn wait_for(file: File, patience: Duration) -> std::io::Result<Flock<File>> {
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => return Ok(locked),
        Err((file, _)) => file,
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        // When nobody waits any more the lock is dropped, and so released.
        let _ = sender.send(locked.map_err(|(_, error)| error));
    });
    match receiver.recv_timeout(patience) {
        Ok(locked) => locked.map_err(std::io::Error::from),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/ipam.lock");
        let first = wait_for(open(&path).unwrap(), TURN).unwrap();
        let error = wait_for(open(&path).unwrap(), Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let second = std::thread::spawn({
            let path = path.clone();
            move || wait_for(open(&path).unwrap(), TURN).map(drop)
        });
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_memo_is_left_to_the_next_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam.lock");
        for (memo, before) in [("10.0.0.0/26", ""), ("short", "10.0.0.0/26"), ("", "short")] {
            let lock = Lock::take(&path);
            assert_eq!(lock.memo(), before);
            lock.leave(memo);
        }
    }

    /// Of a host with many networks, and not of one with more than there can be.
    #[test]
    fn a_long_memo_is_left_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam.lock");
        let network = format!("swept {}\n", "n".repeat(200));
        let of = |networks: usize| network.repeat(networks);
        Lock::take(&path).leave(&of(1000));
        assert_eq!(Lock::take(&path).memo(), of(1000));
        Lock::take(&path).leave(&of(2000));
        assert_eq!(Lock::take(&path).memo(), of(1000));
    }

    #[test]
    fn without_a_place_for_it_work_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Lock::take(&file.join("ipam.lock")).file.is_none());
        assert!(Lock::require(&file.join("ipam.lock")).is_err());
    }
}
