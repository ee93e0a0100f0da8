//! The SQL: one function for each thing that is done in one transaction.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use weir_common::datastore::{
    Compare, Entry, Event, History, Outcome, Page, Revision, Selection, Snapshot, Tally,
    Transaction, Write,
};

use super::error::FileFailure;
use super::holders;
use super::rows::{entries_from, entry, key_at, state};
use crate::request::range_end;

/// How many of the latest revisions a watch can always go back.
pub const HISTORY_KEPT: i64 = 1000;
/// How many more are kept until they are removed together.
pub const HISTORY_SLACK: i64 = 250;

/// How many changes one revision can have in `history`; more than
/// [`crate::OPERATIONS_LIMIT`].
pub(super) const CHANGES_PER_REVISION: i64 = 256;

/// What became of a look into the history.
pub(super) enum ChangesSince {
    /// The changes, the revision up to which these are all, and the history.
    Known(Vec<Event>, Revision, History),
    /// Some of them are forgotten.
    Forgotten,
}

pub(super) fn read(
    connection: &mut Connection,
    selections: &[Selection],
) -> rusqlite::Result<Snapshot> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let selected = selections
        .iter()
        .map(|selection| match selection {
            Selection::Key(key) => entry(&transaction, key),
            Selection::Prefix(prefix) => entries_from(&transaction, prefix, prefix, true, i64::MAX),
        })
        .collect::<rusqlite::Result<_>>()?;
    Ok(Snapshot { selected, revision: state(&transaction)?.revision })
}

pub(super) fn list(
    connection: &mut Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut entries = match after {
        Some(after) if after >= prefix => entries_from(&transaction, prefix, after, false, more)?,
        _ => entries_from(&transaction, prefix, prefix, true, more)?,
    };
    let complete = entries.len() <= limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| !complete).map(|entry| entry.key.clone());
    let revision = state(&transaction)?.revision;
    Ok(Page { entries, next, revision, history: history(&transaction)? })
}

pub(super) fn tally(
    connection: &mut Connection,
    prefixes: &[&str],
    after: Revision,
) -> rusqlite::Result<Tally> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let (mut counts, mut newer) = (Vec::new(), false);
    for prefix in prefixes {
        let (count, newest) = transaction
            .prepare_cached(
                "SELECT count(*), max(revision) FROM entries WHERE key >= ?1 AND key < ?2",
            )?
            .query_row(params![prefix.as_bytes(), range_end(prefix)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
            })?;
        counts.push(usize::try_from(count).unwrap_or_default());
        newer |= newest.is_some_and(|newest| newest > after.0);
    }
    let revision = state(&transaction)?.revision;
    Ok(Tally { counts, newer, revision, history: history(&transaction)? })
}

/// Applies the writes if the comparisons hold. Where the store must not grow, only those that
/// make it smaller.
pub(super) fn commit(
    connection: &mut Connection,
    request: &Transaction,
    may_grow: bool,
) -> Result<Outcome, FileFailure> {
    // Taking the write lock first: a transaction that began by reading could
    // not go on to write if another process wrote in between.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for compare in &request.compares {
        if !holds(&transaction, compare)? {
            return Ok(Outcome::Conflict);
        }
    }
    if !may_grow && growth(&transaction, &request.writes)? > 0 {
        return Err(FileFailure::Full);
    }
    let last = state(&transaction)?;
    let revision = Revision(last.revision.0 + 1);
    let now = Timestamp::now();
    // Where there is no room, who had what is recorded later, as far as it can be seen then.
    let records = match may_grow {
        true => Some(holders::to_record(&transaction, &request.writes, last.revision, now)?),
        false => None,
    };
    let mut changes = 0;
    for write in &request.writes {
        changes += write_one(&transaction, write, revision, changes)?;
    }
    // As in etcd, a transaction that changed nothing has no revision of its own.
    if changes == 0 {
        return Ok(Outcome::Committed(last.revision));
    }
    transaction.prepare_cached("UPDATE state SET revision = ?1")?.execute([revision.0])?;
    if let Some(records) = records {
        holders::record(&transaction, &records, revision, now)?;
    }
    forget_old_history(&transaction, revision, last.compacted)?;
    transaction.commit()?;
    Ok(Outcome::Committed(revision))
}

/// By how many bytes these writes make the values together larger.
fn growth(connection: &Connection, writes: &[Write]) -> rusqlite::Result<i64> {
    let mut growth = 0;
    for write in writes {
        let before: Option<i64> = connection
            .prepare_cached("SELECT length(value) FROM entries WHERE key = ?1")?
            .query_row([write.key().as_bytes()], |row| row.get(0))
            .optional()?;
        let after = match write {
            Write::Put { value, .. } => i64::try_from(value.len()).unwrap_or(i64::MAX),
            Write::Delete { .. } => 0,
        };
        growth += after - before.unwrap_or_default();
    }
    Ok(growth)
}

/// Takes the write lock and gives it back: what cannot be written says so.
pub(super) fn check_writable(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)?.rollback()
}

/// Which history the database belongs to.
fn history(connection: &Connection) -> rusqlite::Result<History> {
    let origin: i64 =
        connection.prepare_cached("SELECT id FROM origin")?.query_row([], |row| row.get(0))?;
    Ok(History { cluster: origin.unsigned_abs(), term: 0 })
}

/// All changes under the prefixes after a revision, in the history of `origin`; in the
/// present one, which is then answered too, without.
///
/// Takes the write lock although it writes nothing: whoever was woken by a
/// writer's change of the log would otherwise read before that writer has made
/// its commit visible, and then wait for a change that has already been.
pub(super) fn changes(
    connection: &mut Connection,
    prefixes: &[String],
    after: Revision,
    origin: Option<History>,
) -> rusqlite::Result<ChangesSince> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (state, history) = (state(&transaction)?, history(&transaction)?);
    let is_other = origin.is_some_and(|origin| origin != history);
    if is_other || after < state.compacted {
        return Ok(ChangesSince::Forgotten);
    }
    let mut statement = transaction
        .prepare_cached("SELECT id, key, value FROM history WHERE id >= ?1 ORDER BY id")?;
    let first = after.0.saturating_add(1).saturating_mul(CHANGES_PER_REVISION);
    let events = statement
        .query_map([first], event)?
        .filter(|event| {
            event
                .as_ref()
                .map_or(true, |event| prefixes.iter().any(|prefix| event.key().starts_with(prefix)))
        })
        .collect::<rusqlite::Result<_>>()?;
    Ok(ChangesSince::Known(events, state.revision, history))
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let revision = Revision(row.get::<_, i64>(0)? / CHANGES_PER_REVISION);
    let key = key_at(row, 1)?;
    let value: Option<Vec<u8>> = row.get(2)?;
    Ok(match value {
        Some(value) => Event::Put(Entry { key, value, revision }),
        None => Event::Delete { key, revision },
    })
}

fn holds(connection: &Connection, compare: &Compare) -> rusqlite::Result<bool> {
    match compare {
        Compare::Absent { key } => Ok(revision_of(connection, key)?.is_none()),
        Compare::Unchanged { key, revision } => {
            Ok(revision_of(connection, key)? == Some(*revision))
        }
        Compare::NoneNewer { prefix, revision } => connection
            .prepare_cached(
                "SELECT NOT EXISTS (
                     SELECT 1 FROM entries WHERE key >= ?1 AND key < ?2 AND revision > ?3
                 )",
            )?
            .query_row(params![prefix.as_bytes(), range_end(prefix), revision.0], |row| row.get(0)),
    }
}

fn revision_of(connection: &Connection, key: &str) -> rusqlite::Result<Option<Revision>> {
    connection
        .prepare_cached("SELECT revision FROM entries WHERE key = ?1")?
        .query_row([key.as_bytes()], |row| row.get(0).map(Revision))
        .optional()
}

/// Carries out one write as the revision's change number `place`, and returns
/// how many changes it made: one or, for a deletion in vain, none.
fn write_one(
    connection: &Connection,
    write: &Write,
    revision: Revision,
    place: i64,
) -> rusqlite::Result<i64> {
    let key = write.key().as_bytes();
    let value = match write {
        Write::Put { value, .. } => {
            connection
                .prepare_cached(
                    "INSERT INTO entries (key, value, revision) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3",
                )?
                .execute(params![key, value, revision.0])?;
            Some(value)
        }
        Write::Delete { .. } => {
            let mut statement = connection.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
            if statement.execute([key])? == 0 {
                return Ok(0);
            }
            None
        }
    };
    connection
        .prepare_cached("INSERT INTO history (id, key, value) VALUES (?1, ?2, ?3)")?
        .execute(params![revision.0 * CHANGES_PER_REVISION + place, key, value])?;
    Ok(1)
}

/// Removes history beyond the last `kept` revisions.
pub(super) fn forget_history(connection: &Connection, kept: i64) -> rusqlite::Result<()> {
    let state = state(connection)?;
    let last_forgotten = state.revision.0 - kept;
    if last_forgotten > state.compacted.0 { forget(connection, last_forgotten) } else { Ok(()) }
}

/// Removes history beyond what is kept, many revisions at a time.
fn forget_old_history(
    connection: &Connection,
    revision: Revision,
    compacted: Revision,
) -> rusqlite::Result<()> {
    let last_forgotten = revision.0 - HISTORY_KEPT;
    if last_forgotten - compacted.0 < HISTORY_SLACK {
        return Ok(());
    }
    forget(connection, last_forgotten)
}

fn forget(connection: &Connection, last_forgotten: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM history WHERE id < ?1")?
        .execute([(last_forgotten + 1) * CHANGES_PER_REVISION])?;
    connection.prepare_cached("UPDATE state SET compacted = ?1")?.execute([last_forgotten])?;
    Ok(())
}
