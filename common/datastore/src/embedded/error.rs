//! What SQLite and the file system say, as the datastore's errors.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use weir_common::datastore::Error;

use super::room::{self, Obstacle};

/// A failed step on the database file.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileFailure {
    #[error("SQLite failed")]
    Sqlite(#[from] rusqlite::Error),
    #[error("cannot {what}")]
    File { what: &'static str, source: io::Error },
    #[error(
        "the file is not a database of Weir's; \
         name another file, or move this one away and Weir makes a new one"
    )]
    Foreign,
    #[error(
        "the file has schema version {found}, made by a newer Weir; \
         this Weir knows version {known}: upgrade it"
    )]
    Newer { found: i32, known: i32 },
    #[error(
        "the file system cannot share memory between processes, which SQLite's log needs; \
         put the database on a local file system"
    )]
    NoSharedMemory,
    #[error(
        "the database is missing while its log {0:?} is there, which may hold changes; \
         put the database back from a copy, or remove the log to begin with an empty one"
    )]
    Orphaned(String),
    #[error(
        "the log of the database, {0:?}, is missing, and what was committed last was in it: the \
         database was copied without it, or it was removed; put the log back, or restore a \
         backup: move the database away, then weirctl datastore restore BACKUP (with --force \
         from the database that was moved away, to do without what was in the log)"
    )]
    LogMissing(String),
    #[error(
        "the log {0:?} belongs to another database than the one beside it, which was copied \
         over or restored without its own; put the right two files together, or move both away, \
         then weirctl datastore restore BACKUP (with --force from the database that was moved \
         away, to do without this log)"
    )]
    OtherLog(String),
    #[error(
        "the file was removed while it was open; put it back with its log, or restart what uses \
         it to begin with an empty one"
    )]
    Gone,
    #[error("there is a file of this name already; choose another name, or remove it first")]
    Exists,
    #[error("the backup is damaged ({0}); restore another one")]
    NotIntact(String),
    #[error(
        "the datastore is not empty ({0} keys), and all of it would be replaced; back it up \
         first, then add --force"
    )]
    NotEmpty(usize),
    #[error("the file system is full")]
    Full,
    #[error(
        "the file is damaged or no database; \
         restore it from a copy, or move it away with its -wal and -shm files"
    )]
    Damaged(#[source] rusqlite::Error),
}

impl FileFailure {
    /// Whether another process's lock was in the way, and nothing was done.
    pub(super) fn is_lock(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::FileLockingProtocolFailed
            )
        )
    }

    /// The datastore's error for this failure on the database at `path`.
    pub(super) fn into_error(self, path: &Path) -> Error {
        let location = path.display().to_string();
        if let Some(obstacle) = self.obstacle(path) {
            return Error::Unwritable { location, reason: obstacle.reason(path) };
        }
        if self.is_lock() {
            return Error::Unavailable { location, cause: Box::new(self) };
        }
        if self.is_permission() {
            return Error::Denied { location, cause: Box::new(self) };
        }
        let cause = match self {
            Self::Sqlite(error) if is_damage(&error) => Self::Damaged(error),
            other => other,
        };
        Error::Failed { location, cause: Box::new(cause) }
    }

    /// Whether the file system had no room for it.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// What of the file system was in the way, if that was it.
    fn obstacle(&self, path: &Path) -> Option<Obstacle> {
        if self.is_full() {
            return Some(Obstacle::Full);
        }
        // SQLite does not tell why it could not write.
        let may_be = match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure)
            ),
            Self::File { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
            _ => false,
        };
        if may_be { room::obstacle(path) } else { None }
    }

    fn is_permission(&self) -> bool {
        match self {
            Self::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly)
            ),
            Self::File { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}
