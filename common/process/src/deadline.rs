//! Waiting, and what a call's time is spent on.

use std::future::Future;
use std::time::{Duration, Instant};

use weir_common::cni::{Code, Error};
use weir_common::ipam::collect::CALL_DEADLINE;

/// How long a call may take in all; CRI-O gives a plugin 60 s. What is left undone
/// then is finished by the next call.
pub const DEADLINE: Duration = CALL_DEADLINE.unsigned_abs();

/// How much of it is kept to take back what was done.
pub const CLEAN_UP: Duration = Duration::from_secs(10);

/// How long a call waits for its turn at the host's lock.
pub const TURN: Duration = Duration::from_secs(10);

/// How long a delegated plugin may work after its turn has come.
pub const DELEGATED: Duration = Duration::from_secs(32);

/// How much of that may go into giving back what a reboot left.
pub const SWEEP: Duration = Duration::from_secs(15);

/// How long a delegated plugin may read the cluster after that.
pub const CLUSTER: Duration = Duration::from_secs(4);

/// How long it may look for a tunnel address then: in large pools that may take many
/// requests, and without one containers reach each other all the same.
pub const TUNNEL_ADDRESS: Duration = Duration::from_secs(2);

/// How long it may look for what a reboot left in the blocks of other hosts.
pub const SWEEP_OF_OTHERS: Duration = Duration::from_secs(5);

/// How long the main plugin of an ADD waits for the delegated one.
pub const ANSWER: Duration = DEADLINE.saturating_sub(CLEAN_UP);

const _: () = assert!(
    TURN.as_millis() + DELEGATED.as_millis() + CLUSTER.as_millis() + TUNNEL_ADDRESS.as_millis()
        < ANSWER.as_millis(),
    "a delegated plugin gives up before its caller does, and says why"
);
const _: () = assert!(
    SWEEP.as_millis() + SWEEP_OF_OTHERS.as_millis() < DELEGATED.as_millis(),
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
}

/// Runs a future to its end on this thread.
///
/// # Errors
/// Those of the future; [`Code::Internal`] when the runtime cannot be started.
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::caused(Code::Internal, &error))?.block_on(future)
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
    tokio::time::timeout_at(limit.until.into(), future).await.unwrap_or_else(|_| {
        let seconds = limit.whole.as_secs();
        let message = format!("{what} took longer than {seconds} s; {next}");
        Err(Error::new(Code::TryAgainLater, message))
    })
}

/// As [`within`], for what a delegated plugin does with the datastore once it has its
/// turn.
///
/// # Errors
/// Likewise.
pub async fn within_turn<T>(
    what: &str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let next = "see whether the datastore answers (weirctl get ippool), and try again";
    within(what, next, Limit::of(DELEGATED), future).await
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
}
