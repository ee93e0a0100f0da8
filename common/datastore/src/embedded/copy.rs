//! Backups of the database, and their way back.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use weir_common::datastore::Revision;

use super::error::FileFailure;
use super::file::{check_kind, create_private};
use super::log;
use super::names::{beside, random};

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How many keys there are.
    pub keys: usize,
    /// The revision of the copy.
    pub revision: Revision,
}

/// A database as it was at one moment, without its history.
pub(super) struct Backup {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    revision: Revision,
}

/// Writes the database as it is at one moment to a new file, which is whole without a log.
pub(super) fn back_up(connection: &Connection, to: &Path) -> Result<Copied, FileFailure> {
    let failed = |what| move |source| FileFailure::File { what, source };
    if to.exists() {
        return Err(FileFailure::Exists);
    }
    let draft = beside(to, &format!(".new-{:016x}", random()));
    create_private(&draft).map_err(failed("create the backup"))?;
    let written = write_backup(connection, &draft).and_then(|copied| {
        let flushed = File::open(&draft).and_then(|file| file.sync_all());
        flushed.map_err(failed("flush the backup"))?;
        match renameat2(AT_FDCWD, &draft, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => return Err(FileFailure::Exists),
            renamed => renamed.map_err(|errno| failed("name the backup")(errno.into()))?,
        }
        let directory = to.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new(".")));
        directory.and_then(|it| it.sync_all()).map_err(failed("flush the backup's directory"))?;
        Ok(copied)
    });
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // After success there is nothing left of the draft.
        let _ = fs::remove_file(beside(&draft, suffix));
    }
    written
}

fn write_backup(connection: &Connection, draft: &Path) -> Result<Copied, FileFailure> {
    connection.execute("VACUUM INTO ?1", [draft.to_string_lossy()])?;
    let copy = Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    log::mark_whole(&copy)?;
    let copied = count(&copy)?;
    // Closing moves the log into the file and removes it.
    copy.close().map_err(|(_, error)| FileFailure::Sqlite(error))?;
    Ok(copied)
}

fn count(connection: &Connection) -> rusqlite::Result<Copied> {
    connection.query_row("SELECT (SELECT count(*) FROM entries), revision FROM state", [], |row| {
        let keys: i64 = row.get(0)?;
        Ok(Copied {
            keys: usize::try_from(keys).unwrap_or_default(),
            revision: Revision(row.get(1)?),
        })
    })
}

/// Reads a backup, or a copy of a database with its log; where what is missing does not
/// matter, also one without its log, or beside another one's. Writes nothing there.
pub(super) fn read(from: &Path, may_lack_log: bool) -> Result<Backup, FileFailure> {
    if let Err(source) = File::open(from) {
        return Err(FileFailure::File { what: "open the backup", source });
    }
    let log = beside(from, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        match read_content(&open_with_log(from)?, from, false, may_lack_log) {
            Err(FileFailure::OtherLog(_)) if may_lack_log => {}
            content => return content,
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(unchanging(from), flags)?;
    read_content(&connection, from, true, may_lack_log)
}

/// Opens a database with its log so that neither is changed: not when it is opened, and not
/// when it is closed, whatever the log is.
fn open_with_log(from: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Alone with it, SQLite keeps the log's index in its own memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let is_shared = match connection.query_row("PRAGMA user_version", [], |_| Ok(())) {
        Err(error) => error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy),
        Ok(()) => false,
    };
    if is_shared {
        // Whoever has it open has the index in a file.
        connection.pragma_update(None, "locking_mode", "NORMAL")?;
    }
    Ok(connection)
}

fn read_content(
    connection: &Connection,
    from: &Path,
    log_is_empty: bool,
    may_lack_log: bool,
) -> Result<Backup, FileFailure> {
    check_kind(connection)?;
    log::check_belonging(connection, from, log_is_empty, may_lack_log)?;
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(FileFailure::NotIntact(verdict));
    }
    let revision = count(connection)?.revision;
    let mut statement = connection.prepare("SELECT key, value FROM entries")?;
    let entries = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Backup { entries: entries.collect::<rusqlite::Result<_>>()?, revision })
}

/// The URI of a file that nothing changes.
fn unchanging(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

/// Puts the content in the place of what is there, in one transaction: a change of every key,
/// at a revision that neither database had, in a history of its own.
pub(super) fn restore(
    connection: &mut Connection,
    content: &Backup,
    may_replace: bool,
) -> Result<Copied, FileFailure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = count(&transaction)?;
    if before.keys > 0 && !may_replace {
        return Err(FileFailure::NotEmpty(before.keys));
    }
    let revision = Revision(before.revision.max(content.revision).0 + 1);
    transaction.execute_batch("DELETE FROM entries; DELETE FROM history;")?;
    {
        let mut insert = transaction
            .prepare("INSERT INTO entries (key, value, revision) VALUES (?1, ?2, ?3)")?;
        for (key, value) in &content.entries {
            insert.execute(params![key, value, revision.0])?;
        }
    }
    transaction.execute("UPDATE state SET revision = ?1, compacted = ?1", [revision.0])?;
    transaction.execute("UPDATE origin SET id = ?1", [random() | 1])?;
    transaction.commit()?;
    Ok(Copied { keys: content.entries.len(), revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_uri() {
        assert_eq!(unchanging(Path::new("/b/a? b%#.db")), "file:/b/a%3F%20b%25%23.db?immutable=1");
    }
}
