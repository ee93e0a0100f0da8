//! Network namespaces: opening, telling apart, entering.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use netns_rs::NetNs;
use nix::errno::Errno;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::Error;

/// The network namespace of the calling thread.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace(NetNs);

impl Namespace {
    /// Opens the namespace at `path`: a bind mount, or a file below `/proc`.
    ///
    /// # Errors
    /// There is nothing at `path`, it is not a namespace, or it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Opening a fifo waits for its other end.
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(Error::NotANamespace { path: path.to_owned() });
        }
        let namespace = netns_rs::get_from_path(path).map_err(|error| match error {
            netns_rs::Error::OpenNsError(_, cause) if is_missing(&cause) => {
                Error::NamespaceMissing { path: path.to_owned() }
            }
            error => failed(path, error),
        })?;
        // What is left after its unmounting is a plain file.
        match fstatfs(namespace.file()) {
            Ok(status) if status.filesystem_type() == NSFS_MAGIC => Ok(Self(namespace)),
            Ok(_) => Err(Error::NotANamespace { path: path.to_owned() }),
            Err(errno) => Err(Error::Namespace { path: path.to_owned(), cause: errno.into() }),
        }
    }

    /// The descriptor by which netlink messages name it; valid as long as this
    /// value lives.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.file().as_raw_fd()
    }

    /// Does `work` inside the namespace on the calling thread, which is back in
    /// its own afterwards whatever happens: also when `work` panics. `work`
    /// must not wait for other tasks: they would run in the wrong namespace,
    /// which is why it is not a future.
    ///
    /// # Errors
    /// The namespace cannot be entered, or is none of the network.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        let mut inside = false;
        let outcome = self.0.run(|_| {
            inside = true;
            catch_unwind(AssertUnwindSafe(work))
        });
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => resume_unwind(panic),
            // Going on would change the container's network instead of the
            // node's. The kernel refuses the way back only to a process that
            // lost its rights on the way.
            Err(_) if inside => std::process::abort(),
            Err(netns_rs::Error::SetnsError(errno)) if errno as i32 == Errno::EINVAL as i32 => {
                Err(Error::NotANamespace { path: self.0.path().to_owned() })
            }
            Err(error) => Err(failed(self.0.path(), error)),
        }
    }
}

/// Whether `path` names the network namespace that the calling thread is in.
///
/// # Errors
/// There is nothing at `path`, or it cannot be looked at.
pub fn is_same_namespace(path: &Path) -> Result<bool, Error> {
    let look = |path: &Path| {
        std::fs::metadata(path).map_err(|cause| {
            if is_missing(&cause) {
                return Error::NamespaceMissing { path: path.to_owned() };
            }
            Error::Namespace { path: path.to_owned(), cause }
        })
    };
    let (own, other) = (look(Path::new(OWN_NAMESPACE))?, look(path)?);
    Ok(own.dev() == other.dev() && own.ino() == other.ino())
}

/// Whether this process is in the network namespace of the machine's first
/// process, which is the node's; `None` where that cannot be told.
pub fn is_node_namespace() -> Option<bool> {
    is_same_namespace(Path::new("/proc/1/ns/net")).ok()
}

/// The inode of the machine's first process namespace (`PROC_PID_INIT_INO` in the kernel's
/// `include/linux/proc_ns.h`).
const FIRST_PROCESS_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether process 1 is surely the machine's own: in a container it may be this very process, and
/// then [`is_node_namespace`] says yes in whatever network the container has.
pub fn is_first_process_namespace() -> bool {
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|it| it.ino() == FIRST_PROCESS_NAMESPACE)
}

/// A part of the path is missing, or is not a directory (`/proc/PID` of a process
/// that has ended gives ESRCH or ENOENT).
fn is_missing(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || cause.raw_os_error() == Some(Errno::ESRCH as i32)
}

fn failed(path: &Path, error: netns_rs::Error) -> Error {
    let cause = match error {
        netns_rs::Error::OpenNsError(_, cause) => cause,
        // netns-rs is built on another version of nix.
        netns_rs::Error::SetnsError(errno) => io::Error::from_raw_os_error(errno as i32),
        error => io::Error::other(error),
    };
    Error::Namespace { path: path.to_owned(), cause }
}
