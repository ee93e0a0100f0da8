//! When the next reconcile is due (debounce and backoff).

use std::time::Duration;

use tokio::time::Instant;

/// How long the agent waits for more after something has changed, so that a
/// burst of changes costs one reconcile.
const DEBOUNCE_TIME: Duration = Duration::from_millis(20);

/// The pauses between a comparison and one that changes of the kernel ask for.
/// Each lists the main table, and other programs may change it all the time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    pause: Duration,
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

    /// The kernel told of a change. After a rest it is looked at without delay;
    /// while it goes on telling, the pauses grow.
    pub fn kernel_changed(&mut self, now: Instant) {
        let rested = self.ended.is_none_or(|ended| now.duration_since(ended) > LONGEST_PAUSE);
        if rested {
            self.pause = Duration::ZERO;
        }
        self.for_kernel |= self.due.is_none();
        let allowed = self.ended.map_or(now, |ended| ended + self.pause);
        self.no_later_than(allowed.max(now + DEBOUNCE_TIME));
    }

    /// The comparison that was due begins.
    pub fn begin(&mut self) {
        self.due = None;
    }

    /// It has ended, and `failed` if anything is left undone.
    pub fn end(&mut self, now: Instant, failed: bool) {
        let grown = if self.for_kernel { self.pause * 2 } else { self.pause };
        self.pause = grown.clamp(FIRST_PAUSE, LONGEST_PAUSE);
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
    fn comparisons_in_a_minute(step: Duration) -> usize {
        let begin = Instant::now();
        let (mut pace, mut count) = (ReconcileTimer::default(), 0);
        let mut now = begin;
        while now < begin + Duration::from_secs(60) {
            pace.kernel_changed(now);
            now += step;
            if let Some(due) = pace.due().filter(|due| *due <= now) {
                pace.begin();
                pace.end(due, false);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_kernel_that_never_rests_is_looked_at_every_two_seconds() {
        for step in [1, 30, 500] {
            let count = comparisons_in_a_minute(Duration::from_millis(step));
            assert!((30..=37).contains(&count), "every {step} ms: {count}");
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
            pace.end(now + DEBOUNCE_TIME, false);
            assert_eq!(pace.due(), None);
        }
    }

    #[test]
    fn the_datastore_does_not_wait_for_the_kernels_pause() {
        let now = Instant::now();
        let mut pace = ReconcileTimer::default();
        pace.expect_changes(now);
        pace.begin();
        pace.end(now, false);
        pace.kernel_changed(now);
        assert_eq!(pace.due(), Some(now + FIRST_PAUSE), "it tells of what was just changed");
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
            pace.end(now, true);
            assert_eq!(pace.due(), Some(now + Duration::from_millis(pause)));
        }
        pace.begin();
        pace.end(now, false);
        assert_eq!(pace.due(), None);
    }
}
