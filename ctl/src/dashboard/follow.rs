//! What the page is about, kept up to date.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use weir_common::audit::engine::confirm;
use weir_common::audit::{AuditContext, Finding, audit};
use weir_common::datastore::{Datastore, DatastoreConfiguration, Entry, Event};
use weir_common::ipam::IpamSnapshot;
use weir_process::EndpointFile;

use super::model::{Circumstances, ClusterView, KeptValues, Offline, StateDocument};
use crate::follow::{WatchEvent, Witness, list_and_watch};
use crate::session::chain;

/// How long changes are gathered before they are told.
const GATHERING: Duration = Duration::from_millis(100);

/// The shortest time from the end of one look for damage to the begin of the next.
const AUDIT_PAUSE: Duration = Duration::from_secs(30);

/// The same in times of what the last look took: listing all of a large datastore is work for it.
const AUDIT_SHARE: u32 = 20;

/// The longest pause: not all that may be damaged is followed (handles are not).
const LONGEST_AUDIT_PAUSE: Duration = Duration::from_secs(600);

/// How many messages of the datastore may wait to be taken in.
const WAITING_EVENTS: usize = 64;

/// What a client of the page is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// What was changed last.
    pub generation: u64,
    /// Why there is nothing newer.
    pub offline: Option<Offline>,
}

/// What is known, and what is made of it.
#[derive(Debug, Default)]
pub struct Knowledge {
    /// The cluster.
    pub view: ClusterView,
    /// What else there is.
    pub around: Circumstances,
    /// The state as it is sent, of the generation.
    built: Option<(u64, Bytes)>,
}

/// What the page is about.
#[derive(Debug)]
pub struct ShownCluster {
    knowledge: Mutex<Knowledge>,
    notices: watch::Sender<Notice>,
}

impl ShownCluster {
    /// A datastore of which nothing is known yet, looked at from the node `here`.
    pub fn new(datastore: String, here: Option<String>) -> Self {
        let around = Circumstances { datastore, here, ..Circumstances::default() };
        let knowledge = Knowledge { around, ..Knowledge::default() };
        Self { knowledge: Mutex::new(knowledge), notices: watch::Sender::default() }
    }

    /// What is known.
    pub fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        // Whoever panicked has changed nothing by halves that is not overwritten.
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is told from now on; the first notice is of what is so now.
    pub fn notices(&self) -> watch::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Waits until the datastore was read, or is known to be away.
    pub async fn is_known(&self) {
        let mut notices = self.notices();
        let _ = notices.wait_for(|notice| notice.generation > 0).await;
    }

    /// The state as JSON, and its generation: made once a generation.
    pub fn state(&self, now: Timestamp) -> (u64, Bytes) {
        let mut knowledge = self.knowledge();
        let generation = knowledge.around.generation;
        if let Some((of, bytes)) = &knowledge.built
            && *of == generation
        {
            return (generation, bytes.clone());
        }
        let document = StateDocument::of(&knowledge.view, &knowledge.around, now);
        // Plain data.
        let bytes = Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
        knowledge.built = Some((generation, bytes.clone()));
        (generation, bytes)
    }

    /// Changes what is known, and tells of it.
    fn publish(&self, change: impl FnOnce(&mut Knowledge)) {
        let notice = {
            let mut knowledge = self.knowledge();
            change(&mut knowledge);
            knowledge.around.generation += 1;
            let Circumstances { generation, offline, .. } = &knowledge.around;
            Notice { generation: *generation, offline: offline.clone() }
        };
        self.notices.send_replace(notice);
    }
}

/// Keeps what is kept of a listing.
#[derive(Debug, Default)]
struct ListingKeeper(KeptValues);

impl Witness for ListingKeeper {
    type Kept = KeptValues;

    fn begin(&mut self) {
        self.0 = KeptValues::default();
    }

    fn found(&mut self, entry: &Entry, _now: Timestamp) {
        self.0.put(entry);
    }

    fn kept(&mut self) -> KeptValues {
        std::mem::take(&mut self.0)
    }

    fn listed(&mut self, _now: Timestamp) {}

    fn changed(&mut self, _events: &[Event], _now: Timestamp) {}

    fn alive(&mut self, _now: Timestamp) {}
}

/// Keeps `subject` up to date for ever; `configuration` leads to the same datastore.
pub async fn follow(
    subject: Arc<ShownCluster>,
    datastore: Arc<dyn Datastore>,
    configuration: DatastoreConfiguration,
) {
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    let updates = ViewUpdates { subject, configuration, told: None, audits: Audits::default() };
    tokio::join!(list_and_watch(datastore, sender, ListingKeeper::default()), updates.run(events));
}

struct ViewUpdates {
    subject: Arc<ShownCluster>,
    configuration: DatastoreConfiguration,
    /// When what has changed is to be told.
    told: Option<Instant>,
    audits: Audits,
}

impl ViewUpdates {
    async fn run(mut self, mut events: Receiver<WatchEvent<KeptValues>>) {
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = until(self.told) => {
                    self.told = None;
                    self.subject.publish(|_| {});
                }
                () = until(self.audits.due) => self.audits.begin(&self.configuration),
                found = self.audits.ended() => {
                    if let Some((damage, checked)) = found {
                        self.subject.publish(|known| {
                            (known.around.damage, known.around.checked) = (damage, Some(checked));
                        });
                    }
                }
            }
        }
    }

    fn take(&mut self, event: WatchEvent<KeptValues>) {
        match event {
            WatchEvent::Listed(cluster, _, kept) => {
                self.subject.publish(|known| {
                    known.view = ClusterView::new(*cluster, kept);
                    known.around.offline = None;
                });
                self.audits.expect_changes(Instant::now());
            }
            WatchEvent::Changed(events) => {
                self.subject.knowledge().view.apply(&events);
                self.told.get_or_insert_with(|| Instant::now() + GATHERING);
                self.audits.expect_changes(Instant::now());
            }
            WatchEvent::Lost(error) => self.subject.publish(|known| {
                let before = known.around.offline.take();
                let since = before.map_or_else(|| Timestamp::now().to_string(), |it| it.since);
                known.around.offline = Some(Offline { since, error: chain(&error) });
            }),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

type AuditOutcome = Option<(Vec<Finding>, Timestamp)>;

/// When the datastore is looked at for damage: off the answers, and not too often.
#[derive(Debug, Default)]
struct Audits {
    due: Option<Instant>,
    running: Option<(Instant, oneshot::Receiver<AuditOutcome>)>,
    /// The earliest time of the next one.
    earliest: Option<Instant>,
    has_changed: bool,
}

impl Audits {
    fn expect_changes(&mut self, now: Instant) {
        self.has_changed = true;
        if self.running.is_none() {
            let due = self.earliest.map_or(now, |earliest| earliest.max(now));
            self.due = Some(self.due.map_or(due, |planned| planned.min(due)));
        }
    }

    fn begin(&mut self, configuration: &DatastoreConfiguration) {
        let (sender, found) = oneshot::channel();
        let configuration = configuration.clone();
        (self.due, self.has_changed) = (None, false);
        self.running = Some((Instant::now(), found));
        // A thread of its own: comparing all addresses of a large datastore takes a while.
        std::thread::spawn(move || {
            let _ = sender.send(audit_once(&configuration));
        });
    }

    /// Waits until the one that runs has ended.
    async fn ended(&mut self) -> AuditOutcome {
        let Some((began, found)) = &mut self.running else { return std::future::pending().await };
        let (found, began) = (found.await.ok().flatten(), *began);
        self.running = None;
        let is_sound = found.as_ref().is_some_and(|(findings, _)| findings.is_empty());
        self.end(began, Instant::now(), is_sound);
        found
    }

    /// Decides when the next one is, after one that began and ended at these times.
    fn end(&mut self, began: Instant, now: Instant, is_sound: bool) {
        let earliest = now + AUDIT_PAUSE.max((now - began) * AUDIT_SHARE);
        self.earliest = Some(earliest);
        // A datastore that is away is looked at again, and one in which somebody may be repairing.
        let is_soon = self.has_changed || !is_sound;
        let latest = earliest.max(now + LONGEST_AUDIT_PAUSE);
        self.due = Some(if is_soon { earliest } else { latest });
    }
}

/// What is damaged, and when that was so; `None` when the datastore cannot be read.
fn audit_once(configuration: &DatastoreConfiguration) -> AuditOutcome {
    // Opening it would make it.
    if weir_datastore::missing_file(configuration).is_some() {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let memory = Box::new(EndpointFile::of(configuration));
        let datastore = weir_datastore::open_with(configuration, memory).await.ok()?;
        let snapshot = IpamSnapshot::list(datastore.as_ref()).await.ok()?;
        let now = Timestamp::now();
        let context = AuditContext::new(None, now);
        let found =
            confirm(datastore.as_ref(), &snapshot, audit(&snapshot, &context), &context).await;
        Some((found.ok()?, now))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_looked_for_at_once_and_then_at_most_twice_a_minute() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut audits = Audits::default();
        let start = |audits: &mut Audits| (audits.due, audits.has_changed) = (None, false);
        audits.expect_changes(began);
        assert_eq!(audits.due, Some(began));
        start(&mut audits);
        audits.running = Some((began, oneshot::channel().1));
        audits.expect_changes(at(1));
        assert_eq!(audits.due, None, "one runs");
        audits.running = None;
        audits.end(began, at(1), true);
        assert_eq!(audits.due, Some(at(31)), "something has changed meanwhile");
        start(&mut audits);
        audits.end(at(31), at(41), true);
        assert_eq!(audits.due, Some(at(641)), "nothing has changed");
        audits.expect_changes(at(42));
        assert_eq!(audits.due, Some(at(241)), "a long one is followed by a long pause");
        start(&mut audits);
        audits.end(at(241), at(242), false);
        assert_eq!(audits.due, Some(at(272)), "one that failed, or has found something");
    }
}
