//! Waiting, and the deadline for it.

use std::future::Future;
use std::time::Duration;

use weir_common::cni::{Code, Error};

/// How long a call may take in all; CRI-O gives a plugin 60 s. What is left undone
/// then is finished by the next call.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How much of it is kept to take back what was done.
pub const CLEAN_UP: Duration = Duration::from_secs(10);

/// How long a delegated plugin may work after its turn has come: with the wait for
/// the host's lock still less than its caller waits for it.
pub const DELEGATED: Duration = Duration::from_secs(35);

/// Runs a future to its end on this thread.
///
/// # Errors
/// Those of the future; [`Code::Internal`] when the runtime cannot be started.
pub fn block_on<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::caused(Code::Internal, &error))?.block_on(future)
}

/// Waits for a future until the deadline has passed.
///
/// # Errors
/// Those of the future; [`Code::TryAgainLater`] when time is up.
pub async fn within<T>(
    deadline: Duration,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(deadline, future).await.unwrap_or_else(|_| {
        let message = format!("not done after {} s; try again", deadline.as_secs());
        Err(Error::new(Code::TryAgainLater, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended() {
        let hangs = std::future::pending::<Result<(), Error>>();
        let error = block_on(within(Duration::from_millis(1), hangs)).unwrap_err();
        assert_eq!(error.code, Code::TryAgainLater);
    }
}
