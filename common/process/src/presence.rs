//! The sign by which plugins know that a node agent runs.
//!
//! It is a lock on a file: it goes when the agent does, however that ends. In
//! the file stands what plugins need to know from the agent.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use weir_common::network::TunnelNeed;

/// The file that the agent of a node locks.
pub const PRESENCE_FILE: &str = "/run/weir/node.lock";

/// How often an agent tries to be the only one that locks it.
const ATTEMPTS: usize = 10_000;

/// What a running agent tells plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentNotice {
    /// The MTU in bytes for containers, once the agent knows it.
    pub pod_mtu: Option<u32>,
    /// Whether the tunnel device should be in service.
    pub tunnel: TunnelNeed,
}

impl AgentNotice {
    /// What cannot be read says nothing.
    fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        Self {
            pod_mtu: words.next().and_then(|word| word.parse().ok()),
            tunnel: words.next().map(TunnelNeed::read).unwrap_or_default(),
        }
    }
}

/// What the agent of this node tells; `None` when none runs, or it has not made
/// the node what it should be yet. What an agent before it told still counts: it
/// has left the node so.
pub fn running_agent(path: &Path) -> Option<AgentNotice> {
    let file = File::open(path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            // As good as empty if it cannot be read.
            let _ = file.by_ref().take(64).read_to_string(&mut text);
            (!text.is_empty()).then(|| AgentNotice::read(&text))
        }
        _ => None,
    }
}

/// The sign itself, shown until it is dropped.
#[derive(Debug)]
pub struct Presence(Flock<File>);

impl Presence {
    /// Shows the sign; `None` when another agent shows it. The directory is made
    /// when it is missing.
    ///
    /// Plugins that look lock the file too, for microseconds, and together; they
    /// are told from an agent by that.
    ///
    /// # Errors
    /// The file cannot be made, or plugins look all the time.
    pub fn show(path: &Path) -> io::Result<Option<Self>> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = file.open(path)?;
        for _ in 0..ATTEMPTS {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(Some(Self(locked))),
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

    /// Tells plugins something. Of one length always, so that nobody reads half of
    /// it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tell(&self, notice: AgentNotice) -> io::Result<()> {
        let mtu = notice.pod_mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string());
        self.0.write_all_at(format!("{mtu:<10} {:<15}\n", notice.tunnel).as_bytes(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sign_goes_with_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/node.lock");
        assert_eq!(running_agent(&path), None);
        let presence = Presence::show(&path).unwrap().unwrap();
        assert_eq!(running_agent(&path), None, "it has told nothing yet");
        let tunnel = TunnelNeed::Assigned([10, 0, 0, 1].into());
        for notice in [
            AgentNotice { pod_mtu: Some(1480), tunnel },
            AgentNotice { pod_mtu: Some(1500), tunnel: TunnelNeed::None },
            AgentNotice { pod_mtu: None, tunnel: TunnelNeed::Unassigned },
        ] {
            presence.tell(notice).unwrap();
            assert_eq!(running_agent(&path), Some(notice));
        }
        assert!(Presence::show(&path).unwrap().is_none(), "one agent a node");
        drop(presence);
        assert_eq!(running_agent(&path), None);
        let _next = Presence::show(&path).unwrap().unwrap();
        let left = AgentNotice { pod_mtu: None, tunnel: TunnelNeed::Unassigned };
        assert_eq!(running_agent(&path), Some(left), "the node is as the last one left it");
    }

    #[test]
    fn plugins_that_look_keep_no_agent_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.lock");
        drop(Presence::show(&path).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    running_agent(&path);
                }
            });
            let starts = (0..500).all(|_| Presence::show(&path).unwrap().is_some());
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(starts);
        });
    }
}
