//! Saying how far something long got.

use std::io::{IsTerminal, Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::Observer;

/// Less than this much work ahead is not worth a word.
const WORTH_SAYING: Duration = Duration::from_secs(1);
/// So much has to have passed before what is ahead can be told.
const TELLING: Duration = Duration::from_millis(200);
/// The time between two words.
const PACE: Duration = Duration::from_millis(100);

/// Back to the start of the line, which is cleared (ECMA-48, EL 0).
const CLEAR: &str = "\r\u{1b}[K";

/// A line on standard error that says how far the work got, when that is a
/// terminal and more than a second of work is ahead.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<Option<ProgressState>>,
}

#[derive(Clone, Copy, Debug)]
struct ProgressState {
    begun: Instant,
    done: usize,
    shown: Option<Instant>,
}

impl Progress {
    /// Takes the line away, if there is one.
    pub fn end(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        if state.is_some_and(|state| state.shown.is_some()) {
            let _ = write!(stderr(), "{CLEAR}");
        }
    }
}

impl Observer for Progress {
    fn progress(&self, done: usize, total: usize) {
        let is_long = |elapsed| ahead(elapsed, done, total).is_some_and(|it| it > WORTH_SAYING);
        self.step(done, is_long, &line(done, total));
    }

    /// Where the end is not known, what took long is taken to go on.
    fn reading(&self, entries: usize) {
        self.step(entries, |elapsed| elapsed > WORTH_SAYING, &reading_line(entries));
    }
}

impl Progress {
    /// Says that nothing happens for so long.
    pub fn waiting(&self, time: Duration) {
        if stderr().is_terminal() && time > WORTH_SAYING {
            let now = Instant::now();
            let state = ProgressState { begun: now, done: 0, shown: Some(now) };
            *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
            let _ = write!(stderr(), "{CLEAR}{}", waiting_line(time));
        }
    }

    /// Notes a step, and shows it when this is work that `is_long`.
    fn step(&self, done: usize, is_long: impl Fn(Duration) -> bool, line: &str) {
        if !stderr().is_terminal() {
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = ProgressState { begun: now, done, shown: None };
        let known = state.get_or_insert(fresh);
        if done < known.done {
            // Something else has begun.
            *known = ProgressState { shown: known.shown, ..fresh };
        }
        known.done = done;
        let worth_saying = known.shown.is_some() || is_long(now - known.begun);
        let in_pace = known.shown.is_none_or(|shown| now - shown >= PACE);
        if worth_saying && in_pace {
            known.shown = Some(now);
            let _ = write!(stderr(), "{CLEAR}{line}");
        }
    }
}

/// How long the rest will take if it goes on like this; `None` while that
/// cannot be told.
fn ahead(elapsed: Duration, done: usize, total: usize) -> Option<Duration> {
    if done == 0 || elapsed < TELLING {
        return None;
    }
    let left = u32::try_from(total.saturating_sub(done)).unwrap_or(u32::MAX);
    let done = u32::try_from(done).unwrap_or(u32::MAX);
    Some(elapsed.checked_mul(left)? / done)
}

fn reading_line(entries: usize) -> String {
    format!("{entries} entries read")
}

fn waiting_line(time: Duration) -> String {
    format!("looking again in {} s", time.as_secs())
}

fn line(done: usize, total: usize) -> String {
    format!("{done} of {total} ({} %)", 100 * done / total.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ahead_follows_from_what_is_behind() {
        let second = Duration::from_secs(1);
        assert_eq!(ahead(second, 10, 40), Some(3 * second));
        assert_eq!(ahead(second, 40, 40), Some(Duration::ZERO));
        assert_eq!(ahead(second, 0, 40), None);
        assert_eq!(ahead(Duration::from_millis(5), 10, 1000), None, "too early to tell");
    }

    #[test]
    fn the_line_says_how_much_is_done() {
        assert_eq!(line(250, 1000), "250 of 1000 (25 %)");
        assert_eq!(line(0, 0), "0 of 0 (0 %)");
        assert_eq!(reading_line(40_000), "40000 entries read");
        assert_eq!(waiting_line(Duration::from_secs(2)), "looking again in 2 s");
    }
}
