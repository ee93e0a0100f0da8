//! One deadline for everything a call waits for.

use std::future::Future;
use std::time::Duration;

use weir_common::cni::{Code, Error};

/// How long a call may take. CRI-O gives a plugin 60 s; what is left undone then
/// is finished by the next call.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a future on this thread until it is done or the deadline has passed.
///
/// # Errors
/// Those of the future; [`Code::TryAgainLater`] when time is up;
/// [`Code::Internal`] when the runtime cannot be started.
pub fn block_on<T>(
    deadline: Duration,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::caused(Code::Internal, &error))?;
    let timed = async { tokio::time::timeout(deadline, future).await };
    runtime.block_on(timed).unwrap_or_else(|_| {
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
        let error = block_on(Duration::from_millis(1), hangs).unwrap_err();
        assert_eq!(error.code, Code::TryAgainLater);
    }
}
