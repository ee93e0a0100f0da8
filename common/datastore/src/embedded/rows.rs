//! Rows of the database, as values.

use rusqlite::{Connection, Row, params};
use weir_common::datastore::{Entry, Revision};

use crate::request::range_end;

/// How far the history goes.
pub(super) struct HistoryState {
    /// The last revision.
    pub(super) revision: Revision,
    /// The last one that `history` has forgotten.
    pub(super) compacted: Revision,
}

/// The one row of `state`.
pub(super) fn state(connection: &Connection) -> rusqlite::Result<HistoryState> {
    let mut statement = connection.prepare_cached("SELECT revision, compacted FROM state")?;
    statement.query_row([], |row| {
        Ok(HistoryState { revision: Revision(row.get(0)?), compacted: Revision(row.get(1)?) })
    })
}

/// The entry of a key, if there is one.
pub(super) fn entry(connection: &Connection, key: &str) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached("SELECT key, value, revision FROM entries WHERE key = ?1")?
        .query_map([key.as_bytes()], entry_of)?
        .collect()
}

/// At most `limit` entries under `prefix` from `start` on, with or without
/// `start` itself.
pub(super) fn entries_from(
    connection: &Connection,
    prefix: &str,
    start: &str,
    with_start: bool,
    limit: i64,
) -> rusqlite::Result<Vec<Entry>> {
    let from = if with_start { ">=" } else { ">" };
    connection
        .prepare_cached(&format!(
            "SELECT key, value, revision FROM entries
             WHERE key {from} ?1 AND key < ?2 ORDER BY key LIMIT ?3"
        ))?
        .query_map(params![start.as_bytes(), range_end(prefix), limit], entry_of)?
        .collect()
}

/// An entry, of a row with key, value and revision.
fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { key: key_at(row, 0)?, value: row.get(1)?, revision: Revision(row.get(2)?) })
}

/// The key in a column.
pub(super) fn key_at(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    String::from_utf8(row.get(column)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Blob,
            Box::new(error),
        )
    })
}
