//! What a program that keeps running writes.

use std::io::{BufRead, BufReader, Read, copy, sink};
use std::thread;

/// Reads what a program writes until a line has `text` in it, then goes on reading
/// so that the program never waits for a full pipe.
pub(crate) fn await_line(name: &str, log: impl Read + Send + 'static, text: &str) {
    let mut log = BufReader::new(log);
    let mut seen = String::new();
    while !seen.contains(text) {
        let read = log.read_line(&mut seen);
        let read = read.unwrap_or_else(|error| panic!("reading what {name} writes: {error}"));
        assert_ne!(read, 0, "{name} ended before it wrote {text:?}:\n{seen}");
    }
    thread::spawn(move || copy(&mut log, &mut sink()));
}
