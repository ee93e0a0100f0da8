//! Who had which address when, as the agent sees it.

use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use weir_common::datastore::{Entry, Event, keys};
use weir_common::ipam::Block;
use weir_common::ipam::history::{Ledger, Moment, Record, present};
use weir_process::{HistoryFile, read_history};

use super::log::{self, MessageKind};
use crate::follow::Witness;

/// How long a file is added to. The one before it is kept, so that there are 30 days at least.
const FILE_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How often it is recorded that all changes were seen, where there are none.
const LIFE_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// How much waits to be written at most, in bytes, while it can be.
const CHUNK: usize = 64 << 10;

/// How much is kept while it cannot be written, in bytes; then recording ends.
const MOST_UNWRITTEN: usize = 4 << 20;

/// With more addresses than this in use a file does not begin with all of them: they would fill
/// most of it.
const MOST_REPEATED: usize = 80_000;

/// Records what changes in blocks. A failure is logged, and costs the agent nothing else.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// `None` when it cannot be used.
    file: Option<HistoryFile>,
    /// When the file was begun.
    began: Option<Timestamp>,
    /// Until when all changes were seen.
    seen: Option<Timestamp>,
    /// Until when that is written.
    written: Option<Timestamp>,
    ledger: Ledger,
    unwritten: String,
}

impl Recorder {
    /// Goes on with the file at `path`, or begins it.
    pub fn open(path: &Path) -> Self {
        let mut recorder = Self {
            path: path.to_owned(),
            file: None,
            began: None,
            seen: None,
            written: None,
            ledger: Ledger::default(),
            unwritten: String::new(),
        };
        let opened = HistoryFile::open(path).and_then(|file| Ok((file, recorder.read()?)));
        recorder.file = recorder.noted(opened).map(|(file, ())| file);
        recorder
    }

    /// Learns what the file says.
    fn read(&mut self) -> io::Result<()> {
        let (mut began, mut seen) = (None, None);
        let records = read_history(&self.path)?.inspect(|record| {
            let at = record.moment().at;
            // Where there are two files, the first is the older one.
            began = if record.address.is_none() { began.or(Some(at)) } else { began };
            seen = seen.max(Some(at));
        });
        self.ledger = Ledger::of(records);
        (self.began, self.seen) = (began, seen);
        Ok(())
    }

    /// When something happened that is found now, after a time in which changes were not seen.
    fn unseen(&self, now: Timestamp) -> Moment {
        Moment { after: Some(self.seen.unwrap_or(Timestamp::UNIX_EPOCH).min(now)), at: now }
    }

    fn put(&mut self, entry: &Entry, moment: Moment) {
        let Some(cidr) = keys::parse_block(&entry.key) else { return };
        match Block::from_json(&entry.value) {
            Ok(block) if block.cidr == cidr => {
                let changes = self.ledger.take(&block, moment);
                self.add(&changes, moment.at);
            }
            _ => self.ledger.keep(cidr),
        }
    }

    fn add(&mut self, records: &[Record], now: Timestamp) {
        for record in records {
            self.unwritten.push_str(&record.line());
            if self.unwritten.len() > CHUNK {
                self.write(now);
            }
        }
    }

    /// Writes what waits, and that all changes until now were seen if nothing waits.
    fn write(&mut self, now: Timestamp) {
        let Some(mut file) = self.file.take() else { return };
        let life = Record::of_life(now).line();
        let mut lines = std::mem::take(&mut self.unwritten);
        if lines.is_empty() {
            lines.clone_from(&life);
        }
        let is_old = self.began.is_some_and(|began| now.duration_since(began) >= FILE_AGE);
        let mut outcome = Ok(());
        if self.began.is_none() {
            lines.insert_str(0, &life);
            self.began = Some(now);
        } else if is_old || file.is_full_with(&lines) {
            let repeated = self.repeated();
            outcome = repeated.and_then(|repeated| file.rotate(&(life + &repeated)));
            self.began = outcome.is_ok().then_some(now).or(self.began);
        }
        let outcome = outcome.and_then(|()| file.append(&lines));
        if self.noted(outcome).is_some() {
            self.written = Some(now);
            self.file = Some(file);
        } else if lines.len() <= MOST_UNWRITTEN {
            // Tried again with the next change.
            self.unwritten = lines;
            self.file = Some(file);
        }
    }

    /// What a file begins with: the last record of each address in use.
    fn repeated(&self) -> io::Result<String> {
        if self.ledger.addresses() > MOST_REPEATED {
            return Ok(String::new());
        }
        Ok(present(read_history(&self.path)?).values().map(Record::line).collect())
    }

    /// What came out, with a failure logged.
    fn noted<T>(&self, outcome: io::Result<T>) -> Option<T> {
        if let Err(error) = &outcome {
            let file = self.path.display();
            let message = format!("{file}: who had which address is not recorded: {error}");
            log::tell(MessageKind::History, &message);
        }
        outcome.ok()
    }
}

impl Witness for Recorder {
    type Kept = ();

    fn begin(&mut self) {
        self.ledger.begin_listing();
    }

    fn found(&mut self, entry: &Entry, now: Timestamp) {
        if self.file.is_some() {
            self.put(entry, self.unseen(now));
        }
    }

    fn kept(&mut self) {}

    fn listed(&mut self, now: Timestamp) {
        if self.file.is_some() {
            let gone = self.ledger.end_listing(self.unseen(now));
            self.add(&gone, now);
            let gap = self.seen.map(|seen| Record::of_gap(seen, now).line());
            self.unwritten.extend(gap);
        }
        self.alive(now);
    }

    fn changed(&mut self, events: &[Event], now: Timestamp) {
        if self.file.is_some() {
            for event in events {
                match event {
                    Event::Put(entry) => self.put(entry, Moment::exactly(now)),
                    Event::Delete { key, .. } => {
                        let block = keys::parse_block(key);
                        let gone = block.map(|it| self.ledger.drop_block(it, Moment::exactly(now)));
                        self.add(&gone.unwrap_or_default(), now);
                    }
                }
            }
        }
        self.alive(now);
    }

    fn alive(&mut self, now: Timestamp) {
        self.seen = Some(now);
        let is_due = |written| now.duration_since(written) >= LIFE_INTERVAL;
        if !self.unwritten.is_empty() || self.written.is_none_or(is_due) {
            self.write(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::datastore::Revision;
    use weir_common::ipam::history::{HistoryQuestion, answer};
    use weir_common::ipam::{Attribute, nth_address};

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_795_400_000 + minute * 60).unwrap()
    }

    /// A block whose first address has this handle.
    fn entry(handle: Option<&str>) -> Entry {
        let mut block = Block::new("10.7.3.0/28".parse().unwrap(), "n1", 1);
        if let Some(handle) = handle {
            let handle_id = Some(handle.to_owned());
            block.assign(0, Attribute { handle_id, ..Attribute::default() });
        }
        Entry { key: keys::block(block.cidr), value: block.to_json(), revision: Revision(1) }
    }

    fn listing(recorder: &mut Recorder, entries: &[Entry], now: Timestamp) {
        recorder.begin();
        entries.iter().for_each(|entry| recorder.found(entry, now));
        recorder.listed(now);
    }

    /// Handle, earliest beginning and end of all that the first address had.
    fn told(path: &Path) -> Vec<(String, Moment, Option<Moment>)> {
        let first = nth_address("10.7.3.0/28".parse().unwrap(), 0);
        let told = answer(&HistoryQuestion::Address(first), read_history(path).unwrap());
        let told = told.tenures.into_iter();
        told.map(|it| (it.holder.handle.unwrap(), it.from, it.until)).collect()
    }

    #[test]
    fn it_goes_on_after_a_restart_and_in_the_next_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let mut recorder = Recorder::open(&path);
        listing(&mut recorder, &[entry(Some("a"))], at(0));
        recorder.changed(&[Event::Put(entry(Some("b")))], at(1));
        let of_a = Moment { after: Some(Timestamp::UNIX_EPOCH), at: at(0) };
        let b = Moment::exactly(at(1));
        let expected = [("a".to_owned(), of_a, Some(b)), ("b".to_owned(), b, None)];
        assert_eq!(told(&path), expected);
        // A value that cannot be read changes nothing.
        let broken = Entry { value: b"{".to_vec(), ..entry(None) };
        recorder.changed(&[Event::Put(broken.clone())], at(2));
        let mut recorder = Recorder::open(&path);
        listing(&mut recorder, &[broken], at(3));
        assert_eq!(told(&path), expected);
        let month = FILE_AGE.as_mins();
        for minute in [month - 1, month, 2 * month, 3 * month] {
            recorder.alive(at(minute));
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(told(&path), expected[1..], "the first file is gone, what was so is not");
        let mut recorder = Recorder::open(&path);
        listing(&mut recorder, &[], at(3 * month + 5));
        let gap = Moment { after: Some(at(3 * month)), at: at(3 * month + 5) };
        assert_eq!(told(&path), [("b".to_owned(), b, Some(gap))]);
    }

    #[test]
    fn a_file_that_cannot_be_used_costs_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(directory.path());
        listing(&mut recorder, &[entry(Some("a"))], at(0));
        recorder.changed(&[Event::Put(entry(None))], at(1));
        assert!(recorder.unwritten.is_empty());
    }
}
