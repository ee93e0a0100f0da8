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
use rusqlite::Connection;
use tokio::io::unix::AsyncFd;
use weir_common::datastore::{Error, Event, History, Revision, Watch};

use super::Embedded;
use super::error::FileFailure;
use super::queries::{self, ChangesSince};

/// One running watch.
pub(super) struct EmbeddedWatch {
    datastore: Embedded,
    prefixes: Vec<String>,
    after: Revision,
    /// The history that is watched, once it has been looked at.
    history: Option<History>,
    /// Which opening of the file it goes by.
    opening: u64,
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
        let opening = datastore.opening();
        Ok(Self { datastore, prefixes, after, history: None, opening, log })
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            let (prefixes, after, history) = (&self.prefixes, self.after, self.history);
            let look = |it: &mut Connection| queries::changes(it, prefixes, after, history);
            let changes = self.datastore.run(look).await?;
            let is_replaced = self.datastore.opening() != self.opening;
            let (events, revision) = match changes {
                ChangesSince::Known(events, revision, history) if !is_replaced => {
                    self.history = Some(history);
                    (events, revision)
                }
                _ => return Err(Error::Compacted { after }),
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
    FileFailure::File { what: "watch the database's directory", source }.into_error(path)
}

/// Tells when a database or its log was written or replaced.
struct LogObserver {
    inotify: AsyncFd<Descriptor>,
    /// The database, which may be replaced, and its log.
    names: [OsString; 2],
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
        let of_interest =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(&directory, of_interest)?;
        let name = database.file_name().unwrap_or_default().to_owned();
        let mut log = name.clone();
        log.push("-wal");
        Ok(Self { inotify: register(Descriptor(inotify))?, names: [name, log] })
    }

    /// Waits until one of them has been written since the last call. Several
    /// writes in between count once.
    async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => {
                    // No name means that the kernel's queue overflowed.
                    let is_ours = |name: &OsString| self.names.contains(name);
                    if events.iter().any(|it| it.name.as_ref().is_none_or(is_ours)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
