//! The lock by which a node's agent is the only one, and plugins know that it runs.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::files;

/// The file that the agent of a node locks.
pub const AGENT_LOCK: &str = "/run/weir/node.lock";

/// How often an agent tries to be the only one that locks it.
const ATTEMPTS: usize = 10_000;

/// Whether an agent runs on this node.
pub fn agent_runs(path: &Path) -> bool {
    let shared = |file| Flock::lock(file, FlockArg::LockSharedNonblock);
    let taken = files::existing(path).map(|file| shared(file.into_inner()));
    matches!(taken, Ok(Err((_, Errno::EWOULDBLOCK))))
}

/// Held by the running agent; dropping it, or the end of the process, releases the lock.
#[derive(Debug)]
pub struct AgentLock(#[expect(dead_code, reason = "it is held, and nothing else")] Flock<File>);

impl AgentLock {
    /// Takes the lock; `None` when another agent has it. Plugins that look whether an
    /// agent runs lock the file too, together and for microseconds, and are told from an
    /// agent by that.
    ///
    /// # Errors
    /// The file cannot be made, or plugins look all the time.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut file = files::open(path)?;
        for _ in 0..ATTEMPTS {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => {
                    // Earlier agents left notes in it, which nobody reads now.
                    locked.set_len(0)?;
                    return Ok(Some(Self(locked)));
                }
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(errno.into()),
            };
            file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(shared) => shared.unlock().map_err(|(_, errno)| errno)?,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno.into()),
            };
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_goes_with_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/node.lock");
        assert!(!agent_runs(&path));
        let lock = AgentLock::take(&path).unwrap().unwrap();
        assert!(agent_runs(&path));
        assert!(AgentLock::take(&path).unwrap().is_none(), "one agent a node");
        drop(lock);
        assert!(!agent_runs(&path));
    }

    #[test]
    fn plugins_that_look_keep_no_agent_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.lock");
        drop(AgentLock::take(&path).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    agent_runs(&path);
                }
            });
            let starts = (0..500).all(|_| AgentLock::take(&path).unwrap().is_some());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(starts);
        });
    }
}
