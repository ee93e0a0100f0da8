//! The time limit of each reading: what hangs is a fact too.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use super::facts::Fact;

/// How long one reading may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What `reading` answers, unless it takes too long.
pub async fn within<T>(what: &str, reading: impl Future<Output = Fact<T>>) -> Fact<T> {
    let late = |_| Err(format!("{what}: no answer within {} s", LIMIT.as_secs()));
    timeout(LIMIT, reading).await.unwrap_or_else(late)
}
