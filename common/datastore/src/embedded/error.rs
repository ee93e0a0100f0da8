//! What SQLite and the file system say, as the datastore's errors.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use weir_common::datastore::Error;

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
