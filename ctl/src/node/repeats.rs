//! Which messages are told, where the same kind comes again and again. Times are given.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// After this time what was held back of a kind is counted, and its messages are told again.
const PERIOD: Duration = Duration::from_secs(60);

/// How many different messages of a kind are told within [`PERIOD`].
const MOST_TOLD: usize = 10;

/// Decides which messages are told. Each different one of a kind is told at once, up to
/// [`MOST_TOLD`] of them in [`PERIOD`]. All others are counted, and the count is told once
/// the time is over, with the last of them.
#[derive(Debug)]
pub struct Repeats<K> {
    kinds: HashMap<K, Recent>,
}

/// What was told and held back of a kind.
#[derive(Debug)]
struct Recent {
    since: Instant,
    told: Vec<String>,
    held: u64,
    last: String,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { kinds: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Repeats<K> {
    /// What is to be told now that there is this message.
    pub fn tell(&mut self, kind: K, message: &str, now: Instant) -> Vec<String> {
        let recent = self.kinds.entry(kind).or_insert_with(|| Recent::at(now));
        let mut lines = Vec::new();
        if recent.is_over(now) {
            lines.extend(recent.count());
            *recent = Recent::at(now);
        }
        if recent.told.len() < MOST_TOLD && !recent.told.iter().any(|told| told == message) {
            recent.told.push(message.to_owned());
            lines.push(message.to_owned());
        } else {
            recent.held += 1;
            message.clone_into(&mut recent.last);
        }
        lines
    }

    /// The counts that are due.
    pub fn due(&mut self, now: Instant) -> Vec<(K, String)> {
        let over = self.kinds.extract_if(|_, recent| recent.is_over(now));
        over.filter_map(|(kind, recent)| Some((kind, recent.count()?))).collect()
    }

    /// All counts, at the end.
    pub fn rest(&mut self) -> Vec<(K, String)> {
        let all = self.kinds.drain();
        all.filter_map(|(kind, recent)| Some((kind, recent.count()?))).collect()
    }
}

impl Recent {
    fn at(now: Instant) -> Self {
        Self { since: now, told: Vec::new(), held: 0, last: String::new() }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= PERIOD
    }

    fn count(&self) -> Option<String> {
        let Self { held, last, .. } = self;
        (*held > 0).then(|| format!("{held} more like this, the last: {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_same_is_told_once_and_then_counted() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.tell('a', "one", start), ["one"]);
        for second in 1..=59 {
            assert!(repeats.tell('a', "one", start + seconds(second)).is_empty());
        }
        assert!(repeats.due(start + seconds(59)).is_empty());
        let counted = "59 more like this, the last: one".to_owned();
        assert_eq!(repeats.due(start + seconds(60)), [('a', counted)]);
        assert!(repeats.due(start + seconds(61)).is_empty());
        assert_eq!(repeats.tell('a', "one", start + seconds(62)), ["one"]);
        assert!(repeats.rest().is_empty());
    }

    /// Also where nobody asks for what is due.
    #[test]
    fn a_count_is_told_before_the_next_message() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for message in ["one", "one", "one"] {
            repeats.tell('a', message, start);
        }
        let lines = repeats.tell('a', "one", start + seconds(60));
        assert_eq!(lines, ["2 more like this, the last: one", "one"]);
        repeats.tell('a', "one", start + seconds(61));
        let rest = ('a', "1 more like this, the last: one".to_owned());
        assert_eq!(repeats.rest(), [rest]);
    }

    #[test]
    fn different_messages_are_told_up_to_a_number_for_each_kind() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let mut told = |kind, number: usize| repeats.tell(kind, &number.to_string(), start).len();
        assert_eq!((0..12_000).map(|number| told('a', number)).sum::<usize>(), MOST_TOLD);
        assert_eq!(told('b', 1), 1, "a kind does not silence another");
        let counted = format!("{} more like this, the last: 11999", 12_000 - MOST_TOLD);
        assert_eq!(repeats.due(start + seconds(60)), [('a', counted)]);
    }

    #[test]
    fn nothing_is_kept_of_what_is_over() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        repeats.tell('a', "one", start);
        repeats.due(start + seconds(60));
        assert!(repeats.kinds.is_empty());
    }
}
