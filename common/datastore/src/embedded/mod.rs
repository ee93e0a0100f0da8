//! A datastore in one SQLite file on this host, shared by many processes.
//!
//! SQLite's calls are made in place, on the thread that asks: each takes tens
//! of microseconds, less than handing it to another thread would. Only waiting
//! for another process's lock is asynchronous. A Tokio runtime with its I/O
//! and time drivers is needed.

mod copy;
mod error;
mod file;
mod holders;
mod log;
mod names;
mod queries;
mod room;
mod rows;
mod watch;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;
use weir_common::datastore::{
    Datastore, Error, Outcome, Page, Revision, Selection, Snapshot, Tally, Transaction, Watch,
};
use weir_common::ipam::history::Record;

use crate::request;
use error::FileFailure;
use room::Obstacle;

pub use copy::Copied;
pub use file::SCHEMA_VERSION;
pub use queries::{HISTORY_KEPT, HISTORY_SLACK};

/// How long a call waits for other processes' locks unless told otherwise. A
/// transaction holds the lock for a fraction of a millisecond.
pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest and the longest pause between two attempts to get a lock.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

/// How long the file that is open is trusted to be the one at its path, where nothing is
/// written.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A SQLite file. Clones share one connection; each process opens its own.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    opened: Mutex<OpenFile>,
    path: PathBuf,
    lock_timeout: Duration,
}

/// A connection, and the files that it has open.
struct OpenFile {
    /// None after an attempt to open another file that failed.
    connection: Option<Connection>,
    files: FileIdentity,
    /// When they were last the ones at the path.
    looked: Instant,
    /// How often the path was opened before.
    number: u64,
}

impl Embedded {
    /// Opens the database at `path`, and makes it (mode 0600) and its
    /// directory (mode 0755) when they are missing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it stays locked for [`DEFAULT_LOCK_TIMEOUT`],
    /// [`Error::Denied`] if this process may not use it, [`Error::Unwritable`] if its file
    /// system is full or read-only and it has to be made, [`Error::Failed`] if the file is
    /// not a database of Weir's, is damaged, was made by a newer Weir, or lacks its log.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with_lock_timeout(path, DEFAULT_LOCK_TIMEOUT).await
    }

    /// As [`Embedded::open`], but each call waits for other processes' locks
    /// for at most `lock_timeout`.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub async fn open_with_lock_timeout(
        path: &Path,
        lock_timeout: Duration,
    ) -> Result<Self, Error> {
        let connection = retry_while_locked(lock_timeout, || file::open(path))
            .await
            .map_err(|failure| failure.into_error(path))?;
        let opened = OpenFile {
            connection: Some(connection),
            files: FileIdentity::of(path),
            looked: Instant::now(),
            number: 0,
        };
        let shared = Shared { opened: Mutex::new(opened), path: path.to_owned(), lock_timeout };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Who had which address when, as commits have recorded it: the last 100,000 changes. The
    /// last record says that all changes until now are among them, if that is so.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub async fn holders(&self) -> Result<Vec<Record>, Error> {
        self.run(|connection| holders::read(connection, Timestamp::now())).await
    }

    /// Writes the datastore as it is at one moment to a new file (mode 0600), while others go
    /// on with it. The file appears whole, or not at all.
    ///
    /// # Errors
    /// As [`Embedded::open`], of either file; there is one of the new one's name.
    pub async fn back_up(&self, to: &Path) -> Result<Copied, Error> {
        // So that a mere copy of the file lacks little, too. What does not work now will later.
        let _ = self.maintain().await;
        let back_up = |connection: &mut Connection| match copy::back_up(connection, to) {
            Err(failure) if failure.is_lock() => Err(failure),
            made => Ok(made),
        };
        let made = self.run_after(Duration::ZERO, back_up).await?;
        made.map_err(|failure| failure.into_error(to))
    }

    /// Replaces all that is in the datastore with a backup, in one transaction: other
    /// processes see one change of every key, in another history. By `force` also what is
    /// not empty, and from a file whose log is missing or another one's.
    ///
    /// # Errors
    /// As [`Embedded::open`], about the backup; it is damaged; the datastore is not empty.
    pub async fn restore(&self, from: &Path, force: bool) -> Result<Copied, Error> {
        let content = copy::read(from, force).map_err(|failure| failure.into_error(from))?;
        let restore = |connection: &mut Connection| copy::restore(connection, &content, force);
        let copied = self.run_after(Duration::ZERO, restore).await?;
        let _ = self.maintain().await;
        Ok(copied)
    }

    /// Runs one whole SQLite transaction, again and again while others hold
    /// the lock. That is safe: a transaction that met a lock changed nothing.
    async fn run<T, E: Into<FileFailure>>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, E> + Send,
    ) -> Result<T, Error> {
        self.run_after(LOOK_AGAIN, work).await
    }

    /// As [`Embedded::run`], on the file that was at the path no longer than `trusted` ago.
    async fn run_after<T, E: Into<FileFailure>>(
        &self,
        trusted: Duration,
        work: impl Fn(&mut Connection) -> Result<T, E> + Send,
    ) -> Result<T, Error> {
        let attempt = || {
            let mut opened = self.opened();
            work(opened.look(&self.shared.path, trusted)?).map_err(Into::into)
        };
        retry_while_locked(self.shared.lock_timeout, attempt)
            .await
            .map_err(|failure| failure.into_error(&self.shared.path))
    }

    fn opened(&self) -> MutexGuard<'_, OpenFile> {
        self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one file at the path from another that took its place.
    fn opening(&self) -> u64 {
        self.opened().number
    }

    /// Empties the log after a commit, if it is long; the commit stands, whatever becomes of
    /// this.
    fn empty_long_log(&self) {
        if let Some(connection) = &mut self.opened().connection {
            let _ = log::empty_if_long(connection, &self.shared.path);
        }
    }
}

impl OpenFile {
    /// The connection to the file at the path: opened again if another one has taken its place.
    fn look(&mut self, path: &Path, trusted: Duration) -> Result<&mut Connection, FileFailure> {
        if self.looked.elapsed() >= trusted {
            if FileIdentity::of(path) != self.files {
                // Closed first: what it has of the log in memory is not the new one's.
                self.connection = None;
            }
            self.looked = Instant::now();
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open_again(path)?,
        };
        Ok(self.connection.insert(connection))
    }

    fn open_again(&mut self, path: &Path) -> Result<Connection, FileFailure> {
        let connection = match file::open_existing(path) {
            Err(_) if !path.exists() => return Err(FileFailure::Gone),
            opened => opened?,
        };
        self.files = FileIdentity::of(path);
        self.number += 1;
        Ok(connection)
    }
}

/// Device and inode of the database and of its log.
#[derive(PartialEq, Eq)]
struct FileIdentity([Option<(u64, u64)>; 2]);

impl FileIdentity {
    fn of(path: &Path) -> Self {
        let identity =
            |path: PathBuf| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        Self([path.to_owned(), names::beside(path, "-wal")].map(identity))
    }
}

async fn retry_while_locked<T>(
    limit: Duration,
    attempt: impl Fn() -> Result<T, FileFailure>,
) -> Result<T, FileFailure> {
    let mut started = None;
    let (mut pause, longest) = PAUSES;
    loop {
        match attempt() {
            Err(failure) if failure.is_lock() => {
                if started.get_or_insert_with(Instant::now).elapsed() >= limit {
                    return Err(failure);
                }
            }
            result => return result,
        }
        tokio::time::sleep(pause).await;
        pause = longest.min(pause + PAUSES.0);
    }
}

#[async_trait]
impl Datastore for Embedded {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        self.run(|connection| queries::read(connection, selections)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.run(|connection| queries::list(connection, prefix, after, limit.max(1))).await
    }

    async fn tally(&self, prefixes: &[&str], after: Revision) -> Result<Tally, Error> {
        self.run(|connection| queries::tally(connection, prefixes, after)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let path = &self.shared.path;
        request::check(&transaction, &path.display().to_string())?;
        let may_grow = room::obstacle(path) != Some(Obstacle::Full);
        let commit = |connection: &mut Connection| {
            match queries::commit(connection, &transaction, may_grow) {
                // The log's own place can be used again.
                Err(FileFailure::Sqlite(error))
                    if error.sqlite_error_code() == Some(ErrorCode::DiskFull)
                        && log::empty(connection, path)? =>
                {
                    queries::commit(connection, &transaction, may_grow)
                }
                outcome => outcome,
            }
        };
        let outcome = self.run_after(Duration::ZERO, commit).await?;
        if matches!(outcome, Outcome::Committed(_)) {
            self.empty_long_log();
        }
        Ok(outcome)
    }

    async fn check_writable(&self) -> Result<(), Error> {
        self.run(queries::check_writable).await?;
        match room::obstacle(&self.shared.path) {
            None => Ok(()),
            Some(obstacle) => Err(Error::Unwritable {
                location: self.shared.path.display().to_string(),
                reason: obstacle.reason(&self.shared.path),
            }),
        }
    }

    async fn maintain(&self) -> Result<(), Error> {
        // With another process in the way, it is done the next time.
        self.run(|it| log::empty_if_used(it, &self.shared.path)).await.map(drop)
    }

    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        let watch = watch::EmbeddedWatch::new(self.clone(), prefixes.to_vec(), after);
        watch.map(|watch| Box::new(watch) as Box<dyn Watch>)
    }
}
