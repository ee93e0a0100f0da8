//! The database file: opening it, and making it when it is missing.
//!
//! A database is made whole under another name and then renamed, which fails
//! if another process was quicker: no process ever sees a half-made one, and no
//! lock is needed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::{AccessFlags, eaccess};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::FileFailure;
use super::log;
use super::names::{beside, random};

/// The version of the schema that this program reads and writes (SQLite's
/// `user_version`).
pub const SCHEMA_VERSION: i32 = 1;

/// Marks the file as Weir's (SQLite's `application_id`): "Weir" in ASCII.
const APPLICATION_ID: i32 = 0x5765_6972;

/// - `entries`: what is there now. Keys are BLOBs, so that they compare byte
///   by byte, as in etcd.
/// - `history`: the latest changes, for watches. An `id` is the revision times
///   [`super::queries::CHANGES_PER_REVISION`] plus the place in its
///   transaction; `value` is NULL for a deletion.
/// - `state`: one row: the last revision, and the last one that `history`
///   has forgotten.
const SCHEMA: &str = "
    CREATE TABLE entries (
        key BLOB NOT NULL UNIQUE, value BLOB NOT NULL, revision INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE history (id INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB) STRICT;
    CREATE TABLE state (revision INTEGER NOT NULL, compacted INTEGER NOT NULL) STRICT;
    INSERT INTO state (revision, compacted) VALUES (0, 0);
";

/// Opens the database at `path`, making it first if there is none.
pub(super) fn open(path: &Path) -> Result<Connection, FileFailure> {
    let connection = match connect(path) {
        Err(error) if cannot_open(&error) => {
            // Another process may have made it since.
            if !path.exists() {
                make(path)?;
            }
            connect(path).map_err(|error| explain(path, error))?
        }
        result => result?,
    };
    check(connection, path)
}

/// Opens the database that is now at `path`.
pub(super) fn open_existing(path: &Path) -> Result<Connection, FileFailure> {
    check(connect(path).map_err(|error| explain(path, error))?, path)
}

fn cannot_open(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::CannotOpen)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Waiting is done by the caller, without blocking its thread.
    connection.busy_timeout(Duration::ZERO)?;
    // Otherwise each short-lived process would flush the whole log to disk and
    // remove it when it ends.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Otherwise each statement with a range is prepared twice, the second time for the bounds
    // that it was given.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Checks that the file is one that this program can use, and sets what holds
/// for this connection only.
fn check(mut connection: Connection, path: &Path) -> Result<Connection, FileFailure> {
    check_kind(&connection)?;
    // With the write-ahead log, NORMAL never damages the database; after a
    // power failure the last commits may be missing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Done by `log`.
    integer(&connection, "PRAGMA wal_autocheckpoint = 0")?;
    log::check(&mut connection, path)?;
    Ok(connection)
}

/// Checks that the file is Weir's, and not a later Weir's.
pub(super) fn check_kind(connection: &Connection) -> Result<(), FileFailure> {
    let found = integer(connection, "PRAGMA user_version")?;
    if integer(connection, "PRAGMA application_id")? != APPLICATION_ID {
        return Err(FileFailure::Foreign);
    }
    if found > SCHEMA_VERSION {
        return Err(FileFailure::Newer { found, known: SCHEMA_VERSION });
    }
    Ok(())
}

fn integer(connection: &Connection, pragma: &str) -> rusqlite::Result<i32> {
    connection.query_row(pragma, [], |row| row.get(0))
}

/// SQLite says only that it cannot open a file that exists; the kernel says
/// why. The file is not opened to find out: closing it again would drop the
/// locks that SQLite may hold on it elsewhere in this process (POSIX).
fn explain(path: &Path, error: rusqlite::Error) -> FileFailure {
    match eaccess(path, AccessFlags::R_OK | AccessFlags::W_OK) {
        Err(errno) if cannot_open(&error) => {
            FileFailure::File { what: "open the database", source: errno.into() }
        }
        _ => error.into(),
    }
}

fn make(path: &Path) -> Result<(), FileFailure> {
    make_directory(path)
        .map_err(|source| FileFailure::File { what: "make the directory", source })?;
    check_for_orphaned_log(path)?;
    let draft = beside(path, &format!(".new-{:016x}", random()));
    let result = write_draft(&draft).and_then(|()| publish(&draft, path));
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // Whatever is left of the draft is of no use; after success, nothing.
        let _ = fs::remove_file(beside(&draft, suffix));
    }
    result
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty())
    else {
        return Ok(());
    };
    if directory.exists() {
        return Ok(());
    }
    // Everybody may read what is public beside the database, as the node's name.
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// A log without its database would be replayed into the new one. The log is
/// looked for first: another process that makes the database at this moment
/// makes its log later.
fn check_for_orphaned_log(path: &Path) -> Result<(), FileFailure> {
    let log = beside(path, "-wal");
    if log.exists() && !path.exists() {
        return Err(FileFailure::Orphaned(log.display().to_string()));
    }
    Ok(())
}

fn write_draft(draft: &Path) -> Result<(), FileFailure> {
    create_private(draft)
        .map_err(|source| FileFailure::File { what: "create the database", source })?;
    let connection = Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(FileFailure::NoSharedMemory);
    }
    connection.execute_batch(&format!(
        "BEGIN; {SCHEMA} {tables} PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;",
        tables = log::TABLES
    ))?;
    // Closing moves the log into the file, flushes it and removes the log.
    connection.close().map_err(|(_, error)| FileFailure::Sqlite(error))
}

/// Creates a file with mode 0600 whatever the umask: never wider, and not
/// narrower in the end. SQLite gives its other files the same mode.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Gives the draft its name, unless another process has made the database
/// meanwhile.
fn publish(draft: &Path, path: &Path) -> Result<(), FileFailure> {
    match renameat2(AT_FDCWD, draft, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => {
            Err(FileFailure::File { what: "name the new database", source: errno.into() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory is for everybody to read, the database is not, not even half-made.
    #[test]
    fn a_draft_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let draft = directory.path().join("weir.db.new-0");
        write_draft(&draft).unwrap();
        let left: Vec<_> = fs::read_dir(&directory).unwrap().map(Result::unwrap).collect();
        let mode = left[0].metadata().unwrap().permissions().mode();
        assert_eq!((left.len(), left[0].path(), mode & 0o777), (1, draft, 0o600));
    }
}
