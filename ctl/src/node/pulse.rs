//! Whether the datastore answers at all, asked beside everything else: a watch that is silent
//! and a request that is waited for do not tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use weir_common::datastore::{Datastore, keys};

use super::log::{self, MessageKind};
use super::metrics::Metrics;
use crate::session::chain;

/// The pause between two signs of life. With [`PATIENCE`] it is what health is late at most.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a sign of life may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// After how many signs of life the datastore is put in order: every minute. A copy of an
/// embedded one's file alone lacks no more than that.
const BEATS: u32 = 30;

/// Asks the datastore for signs of life for ever, and tells the metrics. Where the endpoint
/// that is asked hangs, another one is found, and what else is asked goes there too.
pub async fn feel(datastore: Arc<dyn Datastore>, metrics: Arc<Metrics>) {
    loop {
        for _ in 0..BEATS {
            sleep(PAUSE).await;
            beat(datastore.as_ref(), &metrics).await;
        }
        if let Err(error) = datastore.maintain().await {
            tracing::debug!(error = chain(&error), "the datastore is put in order later");
        }
    }
}

async fn beat(datastore: &dyn Datastore, metrics: &Metrics) {
    let sign = datastore.get(keys::CLUSTER_INFORMATION);
    let silence = match timeout(PATIENCE, sign).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("it has not answered for {} s", PATIENCE.as_secs())),
    };
    let was_silent = metrics.set_silence(silence.clone());
    match silence {
        Some(cause) if !was_silent => {
            log::tell(
                MessageKind::Silent,
                &format!("the datastore gives no sign of life: {cause}"),
            );
        }
        None if was_silent => {
            log::tell(MessageKind::Alive, "the datastore gives signs of life again")
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use weir_datastore::Memory;

    use super::*;

    #[tokio::test]
    async fn health_goes_by_the_last_sign_of_life() {
        let (memory, metrics) = (Memory::new(), Metrics::new());
        metrics.set_unhealthy(vec![]);
        metrics.set_datastore_read(true);
        for is_up in [true, false, false, true] {
            memory.set_available(is_up);
            beat(&memory, &metrics).await;
            let unhealthy = metrics.unhealthy();
            assert_eq!(unhealthy.is_empty(), is_up, "{unhealthy:?}");
            assert!(unhealthy.iter().all(|it| it.starts_with("the datastore is away: ")));
            let line = format!("weir_node_datastore_up {}\n", i32::from(is_up));
            assert!(metrics.text().contains(&line), "{line}");
        }
    }
}
