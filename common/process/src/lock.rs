//! The locks of a host, in the order in which one call takes them: the attachment's,
//! IPAM's, the node's.
//!
//! No call goes on without a lock that it needs: the wait ends with the call's time limit,
//! and the runtime tries again. A lock file holds no data.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, flock, off_t};
use tokio::sync::oneshot;
use weir_common::cni::{Code, Error};

use crate::deadline::Limit;
use crate::files;

/// IPAM's lock when the configuration names none. It orders the calls of a host that
/// change allocations, so that they do not overtake each other in the datastore.
pub const DEFAULT_LOCK_FILE: &str = "/run/weir/ipam.lock";

/// The node's lock: held by whoever changes what the whole node has (routes to other
/// nodes, the tunnel, NAT) or writes the state file.
pub const NODE_LOCK: &str = "/run/weir/node-state.lock";

/// The file of all attachments' locks, one byte for each.
const ATTACHMENT_LOCKS: &str = "/run/weir/attachments.lock";

/// A lock that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the lock {path:?} cannot be had: {cause}")]
pub struct LockError {
    path: PathBuf,
    cause: io::Error,
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        let code = match error.cause.kind() {
            io::ErrorKind::TimedOut => Code::TryAgainLater,
            _ => Code::Io,
        };
        Self::new(code, error.to_string())
    }
}

/// A lock on a whole file, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock, waiting as long as the limit runs. The file and its directory are
    /// made when they are missing.
    ///
    /// # Errors
    /// The file cannot be opened or locked, or others keep the lock for that long.
    pub async fn wait(path: &Path, limit: Limit) -> Result<Self, LockError> {
        let failed = |cause| LockError { path: path.to_owned(), cause };
        let file = files::open(path).map_err(failed)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(Self { _file: locked }),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let lock = move || Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        Ok(Self { _file: within(limit, lock).await.map_err(failed)? })
    }
}

/// The locks of attachments that this call holds, until this is dropped or the process
/// ends: ADD, DEL, CHECK and GC of the same attachment exclude each other.
///
/// Each is one byte of a file that all attachments share (fcntl(2), "Open file description
/// locks"), so that nothing is left behind. No child inherits them. Attachments are named
/// by their numbers ([`AttachmentIdentity::lock_number`]).
///
/// [`AttachmentIdentity::lock_number`]: weir_common::network::AttachmentIdentity::lock_number
#[derive(Debug)]
pub struct AttachmentLocks {
    path: PathBuf,
    file: File,
}

impl AttachmentLocks {
    /// None so far.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open() -> Result<Self, LockError> {
        Self::open_at(Path::new(ATTACHMENT_LOCKS))
    }

    fn open_at(path: &Path) -> Result<Self, LockError> {
        let path = path.to_owned();
        match files::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(cause) => Err(LockError { path, cause }),
        }
    }

    /// Takes the lock of an attachment, waiting as long as the limit runs.
    ///
    /// # Errors
    /// It cannot be locked, or another call holds it for that long.
    pub async fn wait(&self, number: u64, limit: Limit) -> Result<(), LockError> {
        if self.try_take(number)? {
            return Ok(());
        }
        let file = self.file.try_clone().map_err(|cause| self.failed(cause))?;
        let lock = move || fcntl(&file, FcntlArg::F_OFD_SETLKW(&byte(number)));
        within(limit, lock).await.map(|_| ()).map_err(|cause| self.failed(cause))
    }

    /// Takes the lock of an attachment unless another call is at work on it. One that is
    /// held already is taken again.
    ///
    /// # Errors
    /// It cannot be locked.
    pub fn try_take(&self, number: u64) -> Result<bool, LockError> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte(number))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    fn failed(&self, cause: io::Error) -> LockError {
        LockError { path: self.path.clone(), cause }
    }
}

/// The range of one attachment's byte, which need not be there to be locked.
fn byte(number: u64) -> flock {
    flock {
        l_type: F_WRLCK as _,
        l_whence: SEEK_SET as _,
        l_start: off_t::try_from(number).unwrap_or(off_t::MAX - 1),
        l_len: 1,
        l_pid: 0,
    }
}

/// Waits for a lock on a thread of its own: neither flock(2) nor fcntl(2) knows a time
/// limit. A lock that comes after the limit is given back at once.
async fn within<T: Send + 'static>(
    limit: Limit,
    lock: impl FnOnce() -> Result<T, Errno> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn(move || drop(sender.send(lock())));
    match tokio::time::timeout_at(limit.end(), receiver).await {
        Ok(Ok(locked)) => locked.map_err(io::Error::from),
        Ok(Err(_)) => Err(io::Error::other("the thread that waits for it has ended")),
        Err(_) => {
            let message = format!(
                "another call has held it for {} s; try again later",
                limit.whole().as_secs()
            );
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/ipam.lock");
        let first = Lock::wait(&path, Limit::of(LATE)).await.unwrap();
        let error = Lock::wait(&path, Limit::of(SOON)).await.unwrap_err();
        assert_eq!(Error::from(error).code, Code::TryAgainLater);
        let (second, ()) = tokio::join!(Lock::wait(&path, Limit::of(LATE)), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        second.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn calls_of_one_attachment_exclude_each_other_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attachments.lock");
        let call = || AttachmentLocks::open_at(&path).unwrap();
        let (first, second) = (call(), call());
        first.wait(7, Limit::of(SOON)).await.unwrap();
        second.wait(8, Limit::of(SOON)).await.unwrap();
        assert!(second.try_take(8).unwrap(), "it is this call's");
        assert!(!second.try_take(7).unwrap());
        let error = second.wait(7, Limit::of(SOON)).await.unwrap_err();
        assert_eq!(Error::from(error).code, Code::TryAgainLater);
        let (waited, ()) = tokio::join!(second.wait(7, Limit::of(LATE)), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        waited.unwrap();
        let third = call();
        assert!(third.try_take((1 << 44) - 1).unwrap());
        assert!(!third.try_take(7).unwrap());
        drop(second);
        // The thread of the wait that was given up may hold on for a moment.
        third.wait(7, Limit::of(LATE)).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "nothing is left behind");
    }

    /// A program that a call starts must not keep the lock when the call is killed.
    #[tokio::test]
    async fn no_child_inherits_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attachments.lock");
        let call = || AttachmentLocks::open_at(&path).unwrap();
        let held = call();
        assert!(held.try_take(7).unwrap());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        drop(held);
        // The kernel closes the child's descriptors a moment after its parent goes on.
        call().wait(7, Limit::of(LATE)).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn what_is_no_place_for_a_lock_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Lock::wait(&file.join("ipam.lock"), Limit::of(LATE)).await.unwrap_err();
        assert_eq!(Error::from(error).code, Code::Io);
    }
}
