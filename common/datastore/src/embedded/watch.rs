//! Watching a database that other processes write.
//!
//! Every commit appends to the write-ahead log, and the kernel tells of that
//! through inotify. The directory is observed rather than the log, which
//! another program may remove and make again.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use weir_common::datastore::{Error, Event, Revision, Watch};

use super::Embedded;
use super::error::Failure;
use super::queries::{self, Changes};

/// One running watch.
pub(super) struct EmbeddedWatch {
    datastore: Embedded,
    prefixes: Vec<String>,
    after: Revision,
    log: LogObserver,
}

impl EmbeddedWatch {
    pub(super) fn new(
        datastore: Embedded,
        prefixes: Vec<String>,
        after: Revision,
    ) -> Result<Self, Error> {
        // From now on nothing is missed; the first look is taken afterwards.
        let log = LogObserver::new(&datastore.shared.path)
            .map_err(|source| failed(&datastore.shared.path, source))?;
        Ok(Self { datastore, prefixes, after, log })
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let (prefixes, after) = (&self.prefixes, self.after);
            let changes = self.datastore.run(|it| queries::changes(it, prefixes, after)).await?;
            let Changes::Known(events, revision) = changes else {
                return Err(Error::Compacted { after });
            };
            self.after = after.max(revision);
            if !events.is_empty() {
                return Ok(events);
            }
            self.log
                .changed()
                .await
                .map_err(|source| failed(&self.datastore.shared.path, source))?;
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Failure::File { what: "watch the database's directory", source }.into_error(path)
}

/// Tells when a database's log was written.
struct LogObserver {
    inotify: AsyncFd<Descriptor>,
    name: OsString,
}

/// An inotify instance as Tokio wants it.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe, for types that change or close their descriptor while \
              registered; Descriptor does neither"
)]
fn register(descriptor: Descriptor) -> io::Result<AsyncFd<Descriptor>> {
    AsyncFd::new(descriptor)
}

impl LogObserver {
    fn new(database: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let of_interest = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
        inotify.add_watch(&directory, of_interest)?;
        let mut name = database.file_name().unwrap_or_default().to_owned();
        name.push("-wal");
        Ok(Self { inotify: register(Descriptor(inotify))?, name })
    }

    /// Waits until the log has been written since the last call. Several
    /// writes in between count once.
    async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => {
                    // No name means that the kernel's queue overflowed.
                    if events.iter().any(|it| it.name.as_ref().is_none_or(|it| *it == self.name)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
