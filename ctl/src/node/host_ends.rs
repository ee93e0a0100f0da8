//! What the host ends of this node's containers have lost, brought back: a moment after the
//! kernel tells of it, and now and then in any case.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use weir_common::network::{HostEnd, SourceAddresses};
use weir_ipam::HostEnds;
use weir_kernel::Kernel;

use super::log::{MessageKind, tell};
use super::metrics::Metrics;

/// How long the agent waits after something was lost: `ip link set down; up` is two events,
/// and a DEL takes the routes before the link.
const SETTLING_TIME: Duration = Duration::from_secs(1);

/// The links that the kernel has told something of, until they are looked at.
#[derive(Debug, Default)]
pub struct Suspects {
    links: Mutex<BTreeSet<u32>>,
    /// Whether the kernel has told more than can be known.
    all: AtomicBool,
    told: Notify,
}

impl Suspects {
    /// Takes note of these links.
    pub fn add(&self, links: BTreeSet<u32>) {
        if links.is_empty() {
            return;
        }
        if let Ok(mut suspects) = self.links.lock() {
            suspects.extend(links);
        }
        self.told.notify_one();
    }

    /// Takes note that it may be any link.
    pub fn add_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// What is to be looked at: `None` for all.
    fn take(&self) -> Option<BTreeSet<u32>> {
        let links = self.links.lock().map(|mut links| std::mem::take(&mut *links));
        (!self.all.swap(false, Ordering::Relaxed)).then(|| links.unwrap_or_default())
    }
}

/// Keeps the host ends whole for as long as it runs: looks at `suspects`, and at all of them
/// `every` so often and when the node is to send from other `sources`. It waits for the
/// datastore by itself, not in the agent's loop.
pub async fn keep(
    ends: HostEnds<'_>,
    kernel: Kernel,
    suspects: Arc<Suspects>,
    mut sources: watch::Receiver<SourceAddresses>,
    every: Duration,
    metrics: Arc<Metrics>,
) {
    let mut drift = interval(every);
    drift.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let links = tokio::select! {
            _ = drift.tick() => None,
            Ok(()) = sources.changed() => {
                // An ADD that is at work may have read the state file before.
                sleep(SETTLING_TIME).await;
                None
            }
            () = suspects.told.notified() => {
                sleep(SETTLING_TIME).await;
                match suspects.take() {
                    None => None,
                    Some(links) => {
                        let present = kernel.present_links(&links).await.unwrap_or(links);
                        if present.is_empty() {
                            continue;
                        }
                        Some(present)
                    }
                }
            }
        };
        let is_suspect =
            |end: &HostEnd| links.as_ref().is_some_and(|links| links.contains(&end.index));
        match ends.repair(&kernel, &is_suspect).await {
            Ok(outcome) => {
                metrics.host_end_repairs.inc_by(outcome.repaired.len() as u64);
                outcome.done().for_each(|line| tell(MessageKind::Repaired, &line));
                outcome.left().for_each(|line| tell(MessageKind::NotRepaired, &line));
                // A call that is at work on one may be what breaks it.
                suspects.add(outcome.busy);
            }
            Err(error) => tracing::warn!(%error, "containers' host ends cannot be looked at"),
        }
    }
}
