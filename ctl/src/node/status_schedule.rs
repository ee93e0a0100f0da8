//! Which CalicoNodeStatus resources are about this node, and when each is filled in. Times are
//! given.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;
use weir_common::datastore::{Entry, Event, Revision};
use weir_common::resources::bgp::{CalicoNodeStatus, StatusClass};

/// The shortest time between two writes of one resource.
const SHORTEST_PERIOD: Duration = Duration::from_secs(5);

/// The pauses before what failed is tried again: 2, 4, 8 … 64 s.
const LAST_RETRY: Duration = Duration::from_secs(64);

/// The pause after so many failures in a row.
pub fn retry_pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(LAST_RETRY)
}

/// A resource that asks for the status of this node.
pub struct AskedStatus {
    /// Its key.
    pub key: String,
    /// Its latest revision that is known.
    pub revision: Revision,
    /// What it asks for.
    pub classes: Vec<StatusClass>,
    period: Duration,
    object: Map<String, Value>,
}

impl AskedStatus {
    /// The one in `entry`, if it is about `node` and asks for anything.
    pub fn of(entry: &Entry, node: &str) -> Option<Self> {
        let object = serde_json::from_slice(&entry.value).ok()?;
        let asked = CalicoNodeStatus::from_object(&object).ok()?;
        let is_asked = asked.node == node && asked.update_period > 0;
        let period = Duration::from_secs(asked.update_period.into()).max(SHORTEST_PERIOD);
        let (key, revision) = (entry.key.clone(), entry.revision);
        is_asked.then_some(Self { key, revision, classes: asked.classes, period, object })
    }

    /// The value to store: only the status is another one.
    pub fn filled_in(&self, status: Value) -> Vec<u8> {
        let mut object = self.object.clone();
        object.insert("status".to_owned(), status);
        Value::Object(object).to_string().into_bytes()
    }

    fn asks_the_same(&self, other: &Self) -> bool {
        (&self.classes, self.period) == (&other.classes, other.period)
    }
}

/// A resource, and when it is due.
struct DueStatus {
    asked: AskedStatus,
    due: Instant,
    failures: u32,
}

/// The resources about one node.
pub struct StatusSchedule {
    node: String,
    all: BTreeMap<String, DueStatus>,
}

impl StatusSchedule {
    /// None, about this node.
    pub fn new(node: String) -> Self {
        Self { node, all: BTreeMap::new() }
    }

    /// Takes these for all that there are.
    pub fn replace(&mut self, entries: &[Entry], now: Instant) {
        self.all.retain(|key, _| entries.iter().any(|entry| entry.key == *key));
        for entry in entries {
            self.put(entry, now);
        }
    }

    /// Takes in changes.
    pub fn apply(&mut self, events: &[Event], now: Instant) {
        for event in events {
            match event {
                Event::Put(entry) => self.put(entry, now),
                Event::Delete { key, .. } => drop(self.all.remove(key)),
            }
        }
    }

    /// One that is new, or asks for something else, is due at once. Otherwise it comes of a write
    /// of the status.
    fn put(&mut self, entry: &Entry, now: Instant) {
        let Some(asked) = AskedStatus::of(entry, &self.node) else {
            self.all.remove(&entry.key);
            return;
        };
        match self.all.get_mut(&entry.key) {
            Some(known) if known.asked.asks_the_same(&asked) => known.asked = asked,
            _ => {
                let scheduled = DueStatus { asked, due: now, failures: 0 };
                self.all.insert(entry.key.clone(), scheduled);
            }
        }
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        self.all.values().map(|it| it.due).min()
    }

    /// One that is due.
    pub fn next(&self, now: Instant) -> Option<&AskedStatus> {
        self.all.values().find(|it| it.due <= now).map(|it| &it.asked)
    }

    /// It was written.
    pub fn written(&mut self, key: &str, now: Instant) {
        if let Some(it) = self.all.get_mut(key) {
            (it.due, it.failures) = (now + it.asked.period, 0);
        }
    }

    /// It could not be written, or was changed meanwhile.
    pub fn failed(&mut self, key: &str, now: Instant) {
        if let Some(it) = self.all.get_mut(key) {
            it.failures = it.failures.saturating_add(1);
            it.due = now + retry_pause(it.failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, revision: i64, spec: Value, status: Value) -> Entry {
        let object = json!({
            "kind": "CalicoNodeStatus",
            "metadata": {"name": name},
            "spec": spec,
            "status": status,
        });
        let (key, value) = (name.to_owned(), object.to_string().into_bytes());
        Entry { key, value, revision: Revision(revision) }
    }

    fn about(node: &str, period: u32) -> Value {
        json!({"node": node, "classes": ["BGP"], "updatePeriodSeconds": period, "other": 5})
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn only_resources_about_this_node_are_filled_in() {
        let asked = |spec| AskedStatus::of(&entry("asked", 1, spec, Value::Null), "n1");
        assert!(asked(about("n2", 10)).is_none());
        assert!(asked(about("n1", 0)).is_none());
        let asked = asked(about("n1", 10)).unwrap();
        assert_eq!(
            (asked.period, asked.classes.as_slice()),
            (seconds(10), &[StatusClass::Bgp][..])
        );
        let stored: Value = serde_json::from_slice(&asked.filled_in(json!({"a": 1}))).unwrap();
        assert_eq!((&stored["spec"]["other"], &stored["status"]["a"]), (&json!(5), &json!(1)));
    }

    #[test]
    fn a_new_or_changed_one_is_due_at_once_and_a_written_one_after_its_period() {
        let (mut schedule, now) = (StatusSchedule::new("n1".to_owned()), Instant::now());
        assert_eq!(schedule.due(), None);
        let first = entry("a", 1, about("n1", 60), Value::Null);
        schedule.replace(&[first, entry("b", 1, about("n2", 60), Value::Null)], now);
        assert_eq!(schedule.next(now).map(|it| it.key.as_str()), Some("a"));
        schedule.written("a", now);
        // The write itself comes back by the watch.
        let own = Event::Put(entry("a", 2, about("n1", 60), json!({"agent": {}})));
        schedule.apply(&[own], now + seconds(1));
        assert_eq!(schedule.due(), Some(now + seconds(60)));
        assert!(schedule.next(now + seconds(59)).is_none());
        assert_eq!(schedule.next(now + seconds(60)).unwrap().revision, Revision(2));
        let changed = Event::Put(entry("a", 3, about("n1", 30), Value::Null));
        schedule.apply(&[changed], now + seconds(2));
        assert_eq!(schedule.due(), Some(now + seconds(2)));
        schedule.written("a", now + seconds(2));
        assert_eq!(schedule.due(), Some(now + seconds(32)));
    }

    #[test]
    fn one_that_is_gone_or_about_another_node_is_left_alone() {
        let (mut schedule, now) = (StatusSchedule::new("n1".to_owned()), Instant::now());
        let both = ["a", "b"].map(|name| entry(name, 1, about("n1", 10), Value::Null));
        schedule.replace(&both, now);
        let gone = Event::Delete { key: "a".to_owned(), revision: Revision(2) };
        let moved = Event::Put(entry("b", 3, about("n2", 10), Value::Null));
        schedule.apply(&[gone, moved], now);
        assert_eq!(schedule.due(), None);
        schedule.replace(&both, now);
        schedule.replace(&both[1..], now);
        assert_eq!(schedule.next(now).map(|it| it.key.as_str()), Some("b"));
        schedule.written("a", now);
    }

    #[test]
    fn what_cannot_be_written_is_tried_ever_more_rarely() {
        let (mut schedule, now) = (StatusSchedule::new("n1".to_owned()), Instant::now());
        schedule.replace(&[entry("a", 1, about("n1", 10), Value::Null)], now);
        for pause in [2, 4, 8, 16, 32, 64, 64, 64] {
            schedule.failed("a", now);
            assert_eq!(schedule.due(), Some(now + seconds(pause)));
        }
        assert_eq!(retry_pause(u32::MAX), seconds(64));
        schedule.written("a", now);
        schedule.failed("a", now);
        assert_eq!(schedule.due(), Some(now + seconds(2)));
    }

    #[test]
    fn one_is_not_written_more_often_than_every_five_seconds() {
        let (mut schedule, now) = (StatusSchedule::new("n1".to_owned()), Instant::now());
        schedule.replace(&[entry("a", 1, about("n1", 1), Value::Null)], now);
        schedule.written("a", now);
        assert_eq!(schedule.due(), Some(now + seconds(5)));
    }
}
