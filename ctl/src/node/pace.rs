//! When the next reconcile is due (debounce and backoff).

use std::time::Duration;

use tokio::time::Instant;

/// How long the agent waits for more after something has changed, so that a
/// burst of changes costs one reconcile.
const DEBOUNCE_TIME: Duration = Duration::from_millis(20);

/// The pause between a comparison and one that changes of the kernel ask for.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How often the kernel may ask for a comparison in the long run: each lists the main table, and
/// other programs may change it all the time.
const PERIOD: Duration = Duration::from_secs(2);

/// How many comparisons may come at once, ahead of that. Something that is lost is then repaired at
/// once, also when it is not alone.
const BURST: u32 = 10;

/// The pauses before what failed is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(8);

/// Decides when the next reconcile is due. Times are given to it.
#[derive(Debug, Default)]
pub struct ReconcileTimer {
    due: Option<Instant>,
    /// Whether nothing but the kernel asks for the comparison that is due.
    for_kernel: bool,
    ended: Option<Instant>,
    /// Whether the last one changed the kernel, which then tells of that.
    has_changed: bool,
    /// When as many [`PERIOD`]s have passed as the kernel has asked for comparisons. One after a
    /// change of the agent's own does not count.
    repaid: Option<Instant>,
    retry: Duration,
}

impl ReconcileTimer {
    /// When the next reconcile is due, if one is.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The datastore told of a change, or it is time to look at the kernel.
    pub fn expect_changes(&mut self, now: Instant) {
        self.for_kernel = false;
        self.no_later_than(now + DEBOUNCE_TIME);
    }

    /// The kernel told of a change. It is looked at without delay, unless it has told of so many
    /// lately that looks are to be rare.
    pub fn kernel_changed(&mut self, now: Instant) {
        self.for_kernel |= self.due.is_none();
        let rested = self.ended.map_or(now, |ended| ended + SHORTEST_PAUSE);
        let owed = self.repaid.map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
        let paid = now + owed.saturating_sub(PERIOD * (BURST - 1));
        self.no_later_than(rested.max(paid).max(now + DEBOUNCE_TIME));
    }

    /// The comparison that was due begins.
    pub fn begin(&mut self) {
        self.due = None;
    }

    /// It has ended. It has `changed` the kernel or not, and `failed` if anything is left undone.
    pub fn end(&mut self, now: Instant, changed: bool, failed: bool) {
        let is_echo = std::mem::replace(&mut self.has_changed, changed) && !changed;
        if self.for_kernel && !is_echo {
            self.repaid = Some(self.repaid.map_or(now, |then| then.max(now)) + PERIOD);
        }
        self.for_kernel = false;
        self.ended = Some(now);
        self.retry =
            if failed { (self.retry * 2).clamp(FIRST_RETRY, LAST_RETRY) } else { Duration::ZERO };
        if failed {
            self.no_later_than(now + self.retry);
        }
    }

    /// There is something to look at again at that time.
    pub fn look_again(&mut self, then: Instant) {
        self.for_kernel = false;
        self.no_later_than(then);
    }

    fn no_later_than(&mut self, then: Instant) {
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares whenever it is due, for a minute in which the kernel tells of
    /// something every `step`, and returns how often.
    fn comparisons_in_a_minute(step: Duration, changed: bool) -> usize {
        let begin = Instant::now();
        let (mut pace, mut count) = (ReconcileTimer::default(), 0);
        let mut now = begin;
        while now < begin + Duration::from_secs(60) {
            pace.kernel_changed(now);
            now += step;
            if let Some(due) = pace.due().filter(|due| *due <= now) {
                pace.begin();
                pace.end(due, changed, false);
                count += 1;
            }
        }
        count
    }

    /// Also where each comparison finds something, because another program undoes it.
    #[test]
    fn a_kernel_that_never_rests_is_looked_at_every_two_seconds() {
        for (step, changed) in
            [1, 30, 500].into_iter().flat_map(|step| [(step, false), (step, true)])
        {
            let count = comparisons_in_a_minute(Duration::from_millis(step), changed);
            assert!((30..=40).contains(&count), "every {step} ms, {changed}: {count}");
        }
    }

    /// What the repair of a loss changes is told, too, and looked at in vain.
    #[test]
    fn a_loss_is_repaired_at_once_whether_it_is_alone_or_one_of_a_few() {
        for (pause, losses) in [(2100, 1000), (4000, 1000), (150, 10)] {
            let (mut pace, mut now) = (ReconcileTimer::default(), Instant::now());
            for loss in 0..losses {
                pace.kernel_changed(now);
                assert_eq!(pace.due(), Some(now + DEBOUNCE_TIME), "{loss}, every {pause} ms");
                for changed in [true, false] {
                    now = pace.due().unwrap();
                    pace.begin();
                    pace.end(now, changed, false);
                    if changed {
                        pace.kernel_changed(now);
                    }
                }
                now += Duration::from_millis(pause);
            }
        }
    }

    #[test]
    fn the_first_change_of_the_kernel_is_looked_at_at_once() {
        let now = Instant::now();
        let mut pace = ReconcileTimer::default();
        for second in [0, 10, 20] {
            let now = now + Duration::from_secs(second);
            pace.kernel_changed(now);
            assert_eq!(pace.due(), Some(now + DEBOUNCE_TIME));
            pace.begin();
            pace.end(now + DEBOUNCE_TIME, false, false);
            assert_eq!(pace.due(), None);
        }
    }

    #[test]
    fn the_datastore_does_not_wait_for_the_kernels_pause() {
        let now = Instant::now();
        let mut pace = ReconcileTimer::default();
        pace.expect_changes(now);
        pace.begin();
        pace.end(now, false, false);
        pace.kernel_changed(now);
        assert_eq!(pace.due(), Some(now + SHORTEST_PAUSE), "it tells of what was just changed");
        pace.expect_changes(now);
        assert_eq!(pace.due(), Some(now + DEBOUNCE_TIME));
        pace.kernel_changed(now);
        assert_eq!(pace.due(), Some(now + DEBOUNCE_TIME), "nothing is put off");
    }

    #[test]
    fn what_failed_is_tried_again_soon_and_ever_more_rarely() {
        let now = Instant::now();
        let mut pace = ReconcileTimer::default();
        for pause in [500, 1000, 2000, 4000, 8000, 8000] {
            pace.begin();
            pace.end(now, false, true);
            assert_eq!(pace.due(), Some(now + Duration::from_millis(pause)));
        }
        pace.begin();
        pace.end(now, false, false);
        assert_eq!(pace.due(), None);
    }
}
