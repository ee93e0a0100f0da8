//! A datastore in one SQLite file on this host, shared by many processes.
//!
//! SQLite's calls are made in place, on the thread that asks: each takes tens
//! of microseconds, less than handing it to another thread would. Only waiting
//! for another process's lock is asynchronous. A Tokio runtime with its I/O
//! and time drivers is needed.

mod error;
mod file;
mod queries;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::time::Instant;
use weir_common::datastore::{
    Datastore, Error, Outcome, Page, Revision, Selection, Snapshot, Tally, Transaction, Watch,
};

use crate::request;
pub use file::SCHEMA_VERSION;
pub use queries::{HISTORY_KEPT, HISTORY_SLACK};

/// How long a call waits for other processes' locks unless told otherwise. A
/// transaction holds the lock for a fraction of a millisecond.
pub const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest and the longest pause between two attempts to get a lock.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

/// A SQLite file. Clones share one connection; each process opens its own.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Mutex<Connection>,
    path: PathBuf,
    lock_timeout: Duration,
}

impl Embedded {
    /// Opens the database at `path`, and makes it (mode 0600) and its
    /// directory (mode 0755) when they are missing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it stays locked for [`DEFAULT_LOCK_TIMEOUT`],
    /// [`Error::Denied`] if this process may not use it, [`Error::Failed`] if
    /// the file is not a database of Weir's, is damaged, or was made by a newer
    /// Weir.
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
        let shared =
            Shared { connection: Mutex::new(connection), path: path.to_owned(), lock_timeout };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs one whole SQLite transaction, again and again while others hold
    /// the lock. That is safe: a transaction that met a lock changed nothing.
    async fn run<T>(
        &self,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T> + Send,
    ) -> Result<T, Error> {
        let attempt = || {
            let mut connection =
                self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection).map_err(error::FileFailure::from)
        };
        retry_while_locked(self.shared.lock_timeout, attempt)
            .await
            .map_err(|failure| failure.into_error(&self.shared.path))
    }
}

async fn retry_while_locked<T>(
    limit: Duration,
    attempt: impl Fn() -> Result<T, error::FileFailure>,
) -> Result<T, error::FileFailure> {
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
        request::check(&transaction, &self.shared.path.display().to_string())?;
        let outcome = self.run(|connection| queries::commit(connection, &transaction)).await?;
        if matches!(outcome, Outcome::Committed(_)) {
            let connection = self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
            // The commit stands, whatever becomes of this.
            let _ = file::empty_long_log(&connection, &self.shared.path);
        }
        Ok(outcome)
    }

    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        let watch = watch::EmbeddedWatch::new(self.clone(), prefixes.to_vec(), after);
        watch.map(|watch| Box::new(watch) as Box<dyn Watch>)
    }
}
