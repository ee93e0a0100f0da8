//! Waiting: how long a call and its parts may take.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use weir_common::cni::{Code, Error};
use weir_common::ipam::collect::CALL_DEADLINE;

/// How long a call may take in all; CRI-O gives a plugin 60 s. What is left undone
/// then is finished by the next call.
pub const DEADLINE: Duration = CALL_DEADLINE.unsigned_abs();

/// How much of it is kept to take back what was done.
pub const CLEAN_UP: Duration = Duration::from_secs(10);

/// How long a call may work, its waits for locks included.
pub const WORK: Duration = DEADLINE.saturating_sub(CLEAN_UP);

/// How long IPAM may work with the datastore once it has the host's lock.
const IPAM: Duration = Duration::from_secs(32);

/// How much of that may go into giving back what a reboot left.
pub const SWEEP: Duration = Duration::from_secs(15);

/// How long it may look for what a reboot left in the blocks of other hosts.
pub const SWEEP_OF_OTHERS: Duration = Duration::from_secs(5);

/// How long a call may read the cluster, where no agent runs.
pub const CLUSTER: Duration = Duration::from_secs(4);

/// How long it may look for a tunnel address then: in large pools that may take many
/// requests, and the next call looks again.
pub const TUNNEL_ADDRESS: Duration = Duration::from_secs(2);

const _: () = assert!(
    SWEEP.as_millis() + SWEEP_OF_OTHERS.as_millis() < IPAM.as_millis(),
    "then an address is assigned"
);

/// A time limit that runs.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    whole: Duration,
    until: Instant,
}

impl Limit {
    /// One that runs from now on.
    pub fn of(whole: Duration) -> Self {
        Self { whole, until: Instant::now() + whole }
    }

    /// This limit for a part of the work that begins now, which may take `most`.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        let part = Self::of(most);
        if part.until < self.until { part } else { self }
    }

    pub(crate) fn whole(self) -> Duration {
        self.whole
    }

    pub(crate) fn end(self) -> Instant {
        self.until
    }
}

/// Runs a future to its end on this thread. Threads that it began and does not wait for any more
/// are not waited for.
///
/// # Errors
/// Those of the future; [`Code::Internal`] when the runtime cannot be started.
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::caused(Code::Internal, &error))?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}

/// Waits for a future as long as the limit runs. `what` it does and what to do `next`
/// where it takes longer are for people.
///
/// # Errors
/// Those of the future; [`Code::TryAgainLater`] when time is up.
pub async fn within<T>(
    what: &str,
    next: &str,
    limit: Limit,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout_at(limit.until, future).await.unwrap_or_else(|_| {
        let seconds = limit.whole.as_secs();
        let message = format!("{what} took longer than {seconds} s; {next}");
        Err(Error::new(Code::TryAgainLater, message))
    })
}

/// As [`within`], for what IPAM does with the datastore once it has the host's lock.
///
/// # Errors
/// Likewise.
pub async fn within_ipam<T>(
    what: &str,
    limit: Limit,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let next = "see whether the datastore answers (weirctl get ippool), and try again";
    within(what, next, limit.at_most(IPAM), future).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended_and_named() {
        let error = block_on(async {
            let whole = Duration::from_secs(7);
            // What is left of a limit is not what was given.
            let limit = Limit { whole, until: Instant::now() };
            let hangs = std::future::pending::<Result<(), Error>>();
            within("counting the grains", "take a spoon", limit, hangs).await
        });
        let error = error.unwrap_err();
        assert_eq!(error.code, Code::TryAgainLater);
        assert_eq!(error.message, "counting the grains took longer than 7 s; take a spoon");
    }

    #[test]
    fn a_part_ends_with_the_whole() {
        let whole = Limit::of(Duration::from_secs(10));
        assert!(whole.at_most(Duration::from_secs(1)).until < whole.until);
        assert_eq!(whole.at_most(Duration::from_secs(20)).until, whole.until);
    }
}
