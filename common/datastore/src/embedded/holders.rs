//! Who has which address, recorded by each commit itself: on a node without an agent nobody else
//! sees all changes.

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use weir_common::datastore::{Revision, Write, keys};
use weir_common::ipam::Block;
use weir_common::ipam::history::{Ledger, Moment, Record};

use super::rows::{entries_from, entry, state};

/// How many records are kept: about 20 MB.
const MOST: i64 = 100_000;

/// How many records make place at once for those that come.
const STEP: i64 = 1000;

/// - `holders`: a record a row, as a line of `/var/lib/weir/history` has it.
/// - `recorded`: one row: the revision up to which all changes were recorded. An earlier Weir does
///   not know these tables, and commits without them.
const SCHEMA: &str = "
    CREATE TABLE holders (id INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT;
    CREATE TABLE recorded (revision INTEGER NOT NULL) STRICT;
    INSERT INTO recorded (revision) VALUES (-1);
";

/// What there is to record before these writes are carried out, after the revision `last`: what
/// they change, and what was changed meanwhile by whoever records nothing.
pub(super) fn to_record(
    connection: &Connection,
    writes: &[Write],
    last: Revision,
    now: Timestamp,
) -> rusqlite::Result<Vec<Record>> {
    let mut records = match recorded(connection)? {
        Some(revision) if revision == last => Vec::new(),
        seen => catch_up(connection, seen.is_some(), now)?,
    };
    for write in writes {
        records.extend(changed_by(connection, write, Moment::exactly(now))?);
    }
    Ok(records)
}

/// Adds the records of a commit.
pub(super) fn record(
    connection: &Connection,
    records: &[Record],
    revision: Revision,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if !has_tables(connection)? {
        connection.execute_batch(SCHEMA)?;
    }
    let mut insert = connection.prepare_cached("INSERT INTO holders (line) VALUES (?1)")?;
    for record in records {
        insert.execute([record.line()])?;
        let id = connection.last_insert_rowid();
        if id % STEP == 0 {
            // From here on everything is known once what was before is forgotten.
            insert.execute([Record::of_life(now).line()])?;
            let mut delete = connection.prepare_cached("DELETE FROM holders WHERE id < ?1")?;
            delete.execute([id - MOST])?;
        }
    }
    connection.prepare_cached("UPDATE recorded SET revision = ?1")?.execute([revision.0])?;
    Ok(())
}

/// All records, in their order, the last one of which says that all changes until now are among
/// them, if that is so. None where nothing was committed since commits record.
pub(super) fn read(connection: &mut Connection, now: Timestamp) -> rusqlite::Result<Vec<Record>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let last = state(&transaction)?.revision;
    let Some(seen) = recorded(&transaction)? else { return Ok(Vec::new()) };
    let mut records = kept(&transaction)?;
    if seen == last {
        records.push(Record::of_life(now));
    }
    Ok(records)
}

/// Whether the tables are there, in a transaction that has read something: another process may
/// have made them before.
fn has_tables(connection: &Connection) -> rusqlite::Result<bool> {
    connection.table_exists(None, "recorded")
}

/// The revision up to which all changes were recorded; `None` before the first one is.
fn recorded(connection: &Connection) -> rusqlite::Result<Option<Revision>> {
    if !has_tables(connection)? {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("SELECT revision FROM recorded")?;
    statement.query_row([], |row| row.get(0).map(Revision)).map(Some)
}

fn kept(connection: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut statement = connection.prepare_cached("SELECT line FROM holders ORDER BY id")?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let records = lines.filter_map(|line| line.map(|line| Record::read(&line)).transpose());
    records.collect()
}

/// What the datastore has that the records do not say.
fn catch_up(
    connection: &Connection,
    was_recorded: bool,
    now: Timestamp,
) -> rusqlite::Result<Vec<Record>> {
    let before = if was_recorded { kept(connection)? } else { Vec::new() };
    let seen = before.last().map(|record| record.moment().at.min(now));
    let moment = Moment { after: Some(seen.unwrap_or(Timestamp::UNIX_EPOCH)), at: now };
    let mut records = vec![match seen {
        Some(seen) => Record::of_gap(seen, now),
        None => Record::of_life(now),
    }];
    let mut ledger = Ledger::of(before);
    ledger.begin_listing();
    for entry in entries_from(connection, keys::BLOCKS, keys::BLOCKS, true, i64::MAX)? {
        let Some(cidr) = keys::parse_block(&entry.key) else { continue };
        match Block::from_json(&entry.value) {
            Ok(block) if block.cidr == cidr => records.extend(ledger.take(&block, moment)),
            _ => ledger.keep(cidr),
        }
    }
    records.extend(ledger.end_listing(moment));
    Ok(records)
}

/// What a write changes of who has which address.
fn changed_by(
    connection: &Connection,
    write: &Write,
    moment: Moment,
) -> rusqlite::Result<Vec<Record>> {
    let Some(cidr) = keys::parse_block(write.key()) else { return Ok(Vec::new()) };
    let read = |value: &[u8]| Block::from_json(value).ok().filter(|block| block.cidr == cidr);
    let before = entry(connection, write.key())?.pop();
    let mut ledger = Ledger::default();
    if let Some(block) = before.and_then(|entry| read(&entry.value)) {
        ledger.take(&block, moment);
    }
    Ok(match write {
        Write::Delete { .. } => ledger.drop_block(cidr, moment),
        Write::Put { value, .. } => {
            read(value).map(|block| ledger.take(&block, moment)).unwrap_or_default()
        }
    })
}
