//! The log beside the database file: emptying it, its reserve, and whether it belongs to the
//! file.
//!
//! An emptying gives file and log a new token, in two tables and so on two pages. The one of
//! the file is written before the log is moved, and comes into the file with it; the one of
//! the log is the first thing in the emptied log. So whoever opens the file without its log,
//! or with another one, finds two tokens that differ. What moves the whole log and removes
//! it, as SQLite's shell does, brings both into the file.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::error::FileFailure;
use super::names::{beside, random};
use super::room;

/// From how many pages on a commit moves the log into the database and empties it. A process
/// that comes first after all others ended reads the whole log, so a short one makes opening
/// quick; each emptying waits for the disk, so a long one makes commits quick.
const LONG_LOG: i64 = 128;

/// How many bytes of the disk the log keeps, used or not: what is committed while the disk
/// is full fits in. Twice what is in it when it is emptied.
const RESERVED_LOG: i64 = 2 * 128 * 4096;

/// How many unused pages the database keeps, so that what is in the log fits into a file
/// that cannot grow. One for each page of the log.
const RESERVED_PAGES: i64 = LONG_LOG;

/// How many of the latest revisions a watch can go back on a disk without room.
const HISTORY_KEPT_WITHOUT_ROOM: i64 = 10;

const PAGE: i64 = 4096;

/// How long the end of an emptying waits for others' transactions, each of which takes a
/// fraction of a millisecond.
const PATIENCE: Duration = Duration::from_millis(20);

/// - `file_mark`: the token of the file, and that of its log at the last emptying.
/// - `log_mark`: the token of the log, and the revision at which it was emptied.
/// - `origin`: which history this is; a restored database gets another one.
/// - `reserve`: a row that makes the file larger, between two transactions.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS file_mark (token INTEGER NOT NULL, previous INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS log_mark (token INTEGER NOT NULL, revision INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS origin (id INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS reserve (filler BLOB NOT NULL) STRICT;
    INSERT INTO file_mark SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM file_mark);
    INSERT INTO log_mark SELECT 0, -1 WHERE NOT EXISTS (SELECT 1 FROM log_mark);
    INSERT INTO origin SELECT abs(random() >> 1) + 1 WHERE NOT EXISTS (SELECT 1 FROM origin);
";

/// The tokens: of the file, of the log that it had before, of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    file: i64,
    previous: i64,
    log: i64,
}

/// What the tokens say of file and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belonging {
    /// They belong together.
    Whole,
    /// What was committed last was in a log that is gone.
    LogMissing,
    /// The log is another file's.
    OtherLog,
}

impl Marks {
    /// An emptying under way, or one that was killed, has its log there.
    fn judge(self, log_is_empty: bool) -> Belonging {
        match self.log {
            log if log == self.file => Belonging::Whole,
            log if log == self.previous && !log_is_empty => Belonging::Whole,
            _ if log_is_empty => Belonging::LogMissing,
            _ => Belonging::OtherLog,
        }
    }
}

/// Checks that the log of the database at `path` is there and belongs to it. A log that has
/// no reserve yet gets it.
pub(super) fn check(connection: &mut Connection, path: &Path) -> Result<(), FileFailure> {
    let Some(marks) = marks(connection)? else {
        // Made by an earlier Weir.
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
        return Ok(());
    };
    // After the tokens: the first one to write makes the log longer than nothing.
    let length = length(path);
    judge(marks, path, length == 0)?;
    if length == 0 {
        // What cannot be written now is told by whoever has something to write.
        let _ = empty(connection, path);
    }
    Ok(())
}

/// As [`check`], and writes nothing. Whether the log `is_empty` is the caller's to say.
pub(super) fn check_belonging(
    connection: &Connection,
    path: &Path,
    is_empty: bool,
    may_lack_log: bool,
) -> Result<(), FileFailure> {
    match marks(connection)?.map(|marks| judge(marks, path, is_empty)) {
        Some(Err(FileFailure::LogMissing(_))) if may_lack_log => Ok(()),
        Some(judged) => judged,
        None => Ok(()),
    }
}

fn judge(marks: Marks, path: &Path, log_is_empty: bool) -> Result<(), FileFailure> {
    match marks.judge(log_is_empty) {
        Belonging::Whole => Ok(()),
        Belonging::LogMissing => Err(FileFailure::LogMissing(log_name(path))),
        Belonging::OtherLog => Err(FileFailure::OtherLog(log_name(path))),
    }
}

fn log_name(path: &Path) -> String {
    beside(path, "-wal").display().to_string()
}

fn marks(connection: &Connection) -> rusqlite::Result<Option<Marks>> {
    if !connection.table_exists(None, "origin")? {
        return Ok(None);
    }
    connection
        .prepare_cached("SELECT f.token, f.previous, l.token FROM file_mark f, log_mark l")?
        .query_row([], |row| {
            Ok(Marks { file: row.get(0)?, previous: row.get(1)?, log: row.get(2)? })
        })
        .optional()
}

fn length(path: &Path) -> u64 {
    fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len())
}

/// Empties the log if it is long and no other process is using it at this moment; else a
/// later commit will.
pub(super) fn empty_if_long(connection: &mut Connection, path: &Path) -> rusqlite::Result<()> {
    // SQLite's own way never empties the log if no process outlives another.
    let pages: i64 = connection
        .prepare_cached("PRAGMA wal_checkpoint(NOOP)")?
        .query_row([], |row| row.get(1))?;
    if pages >= LONG_LOG {
        empty(connection, path)?;
    }
    Ok(())
}

/// Empties the log if there is any commit in it. Returns whether none is left.
pub(super) fn empty_if_used(connection: &mut Connection, path: &Path) -> rusqlite::Result<bool> {
    let is_used: bool = connection
        .prepare_cached("SELECT l.revision <> s.revision FROM log_mark l, state s")?
        .query_row([], |row| row.get(0))?;
    if is_used { empty(connection, path) } else { Ok(true) }
}

/// Moves the log into the database, and lets the next commit overwrite it from its beginning:
/// its place on the disk is kept. Returns whether no other process was in the way.
pub(super) fn empty(connection: &mut Connection, path: &Path) -> rusqlite::Result<bool> {
    let token = random();
    announce(connection, path, token)?;
    let emptied = finish(connection, token);
    match emptied {
        Ok(true) => reserve_log(path),
        // What does not work now is done by the next emptying.
        _ => drop(patiently(connection, |it| take_back(it, token))),
    }
    emptied
}

fn finish(connection: &mut Connection, token: i64) -> rusqlite::Result<bool> {
    Ok(move_log(connection)? && patiently(connection, |it| mark_log(it, token))?)
}

/// Does what needs the lock for writing, and waits for it a short time: an emptying that has
/// begun is better ended.
fn patiently<T>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(PATIENCE)?;
    let done = work(connection);
    connection.busy_timeout(Duration::ZERO)?;
    done
}

/// Gives the file a new token: the first part of an emptying.
fn announce(connection: &mut Connection, path: &Path, token: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    keep_unused_pages(&transaction, path)?;
    transaction.execute(
        "UPDATE file_mark SET token = ?1, previous = (SELECT token FROM log_mark)",
        [token],
    )?;
    transaction.commit()
}

/// Moves the log into the database. Returns whether all of it is there, and the next commit
/// begins the log again.
fn move_log(connection: &Connection) -> rusqlite::Result<bool> {
    let is_busy: bool =
        connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))?;
    Ok(!is_busy)
}

/// Gives the log the token of the file: the last part of an emptying. Returns whether the file
/// still has it; it has not if another process empties the log at the same time.
fn mark_log(connection: &mut Connection, token: i64) -> rusqlite::Result<bool> {
    // Also what makes the emptied log of a process that runs alone an empty one for the next.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let marked = transaction.execute(
        "UPDATE log_mark SET token = ?1, revision = (SELECT revision FROM state)
         WHERE EXISTS (SELECT 1 FROM file_mark WHERE token = ?1)",
        [token],
    )?;
    if marked == 0 {
        return Ok(false);
    }
    transaction.execute("DELETE FROM reserve", [])?;
    transaction.commit()?;
    Ok(true)
}

/// Gives the file the token of its log again: an emptying that is not finished leaves no trace
/// in a log that another program moves into the file and removes.
fn take_back(connection: &Connection, token: i64) -> rusqlite::Result<()> {
    let statement = "UPDATE file_mark SET token = (SELECT token FROM log_mark) WHERE token = ?1";
    connection.execute(statement, [token]).map(drop)
}

/// Gives the log its place on the disk. SQLite has no lock on this file, so that it can be
/// opened and closed; a file system that cannot do it goes without.
fn reserve_log(path: &Path) {
    let Ok(log) = OpenOptions::new().write(true).open(beside(path, "-wal")) else { return };
    let is_short = log.metadata().is_ok_and(|it| it.size() < RESERVED_LOG.unsigned_abs());
    if is_short {
        let _ = fallocate(&log, FallocateFlags::empty(), 0, RESERVED_LOG);
    }
}

/// Sees to it that the database has unused pages: by making it larger, and where the disk
/// has no room by forgetting history.
fn keep_unused_pages(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let unused: i64 =
        connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    let wanted = RESERVED_PAGES - unused;
    if wanted <= 0 {
        return Ok(());
    }
    if room::is_there(path, 3 * (RESERVED_PAGES * PAGE).unsigned_abs()) {
        connection.execute(
            "INSERT INTO reserve SELECT zeroblob(?1) WHERE NOT EXISTS (SELECT 1 FROM reserve)",
            [wanted * PAGE],
        )?;
        return Ok(());
    }
    super::queries::forget_history(connection, HISTORY_KEPT_WITHOUT_ROOM)
}

/// Gives a copy of the database, which has no log, tokens that say so.
pub(super) fn mark_whole(connection: &Connection) -> rusqlite::Result<()> {
    let token = random();
    connection.execute("UPDATE file_mark SET token = ?1, previous = ?1", params![token])?;
    connection.execute("UPDATE log_mark SET token = ?1", params![token])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::*;
    use crate::embedded::file;

    /// A directory, and two connections to a database in it, with something in its log.
    fn two_connections() -> (tempfile::TempDir, [Connection; 2]) {
        let directory = tempfile::tempdir().unwrap();
        let path = database(&directory);
        let connections = [file::open(&path).unwrap(), file::open(&path).unwrap()];
        connections[0].execute("UPDATE state SET revision = revision + 1", []).unwrap();
        (directory, connections)
    }

    fn database(directory: &tempfile::TempDir) -> std::path::PathBuf {
        directory.path().join("weir.db")
    }

    /// Moves the log into the file and removes it.
    fn drop_log_as_other_programs_do(directory: &tempfile::TempDir) {
        let shell = Connection::open(database(directory)).unwrap();
        shell.query_row("SELECT 1 FROM state", [], |_| Ok(())).unwrap();
        shell.close().unwrap();
        assert_eq!(length(&database(directory)), 0);
    }

    /// The database opens, also with one more emptying.
    fn assert_whole(directory: &tempfile::TempDir) {
        let path = database(directory);
        let mut connection = file::open(&path).unwrap();
        assert!(empty(&mut connection, &path).unwrap());
        file::open(&path).unwrap();
    }

    /// The later one goes on, or finds the earlier one in its way and gives up.
    #[test]
    fn two_emptyings_at_once_leave_the_database_whole() {
        for later_goes_on in [true, false] {
            let (directory, [mut one, mut two]) = two_connections();
            announce(&mut one, &database(&directory), 1).unwrap();
            announce(&mut two, &database(&directory), 2).unwrap();
            assert!(move_log(&one).unwrap());
            assert!(!mark_log(&mut one, 1).unwrap(), "the file has the other's token");
            if later_goes_on {
                assert!(move_log(&two).unwrap() && mark_log(&mut two, 2).unwrap());
            } else {
                take_back(&two, 2).unwrap();
            }
            drop((one, two));
            assert_whole(&directory);
        }
    }

    #[test]
    fn tokens_tell_what_is_missing() {
        let judge = |file, previous, log, is_empty| Marks { file, previous, log }.judge(is_empty);
        for is_empty in [true, false] {
            assert_eq!(judge(2, 1, 2, is_empty), Belonging::Whole);
        }
        assert_eq!(judge(2, 1, 1, false), Belonging::Whole, "an emptying is under way");
        assert_eq!(judge(2, 1, 1, true), Belonging::LogMissing);
        assert_eq!(judge(2, 1, 3, false), Belonging::OtherLog);
    }

    /// What it had announced is not in the way of a program that moves the whole log.
    #[test]
    fn an_emptying_that_is_interrupted_leaves_no_token() {
        let (directory, [mut one, two]) = two_connections();
        announce(&mut one, &database(&directory), 1).unwrap();
        assert!(move_log(&one).unwrap());
        two.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = patiently(&mut one, |it| mark_log(it, 1)).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        two.execute_batch("COMMIT").unwrap();
        take_back(&one, 1).unwrap();
        drop((one, two));
        drop_log_as_other_programs_do(&directory);
        assert_whole(&directory);
    }

    #[test]
    fn a_reader_in_the_way_of_an_emptying_leaves_no_token() {
        let (directory, [mut one, two]) = two_connections();
        two.execute_batch("BEGIN; SELECT * FROM state;").unwrap();
        assert!(!empty(&mut one, &database(&directory)).unwrap(), "one is reading");
        drop((one, two));
        drop_log_as_other_programs_do(&directory);
        assert_whole(&directory);
    }

    #[test]
    fn only_the_end_of_an_emptying_waits_for_locks() {
        let (_directory, [mut one, _]) = two_connections();
        let limit = |it: &Connection| -> i64 {
            it.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap()
        };
        let within = patiently(&mut one, |it| Ok(limit(it))).unwrap();
        assert_eq!(Ok(within), i64::try_from(PATIENCE.as_millis()));
        assert_eq!(limit(&one), 0, "it blocks the thread");
    }
}
