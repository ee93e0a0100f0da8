//! What the datastore tells: a listing first, then its changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};
use weir_common::datastore::{Datastore, Error, Event, Revision, Watch, keys};
use weir_common::network::{Inventory, Listing};

/// How long a silent watch is trusted before the datastore is asked for a sign
/// of life: a connection that was cut without a word looks silent.
const SILENCE: Duration = Duration::from_secs(30);

/// The pauses between attempts to reach a datastore that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One message of the feed.
#[derive(Debug)]
pub enum News {
    /// Everything there is, as of a revision.
    Listed(Inventory, Revision),
    /// What changed since, in order.
    Changed(Vec<Event>),
    /// The datastore cannot be reached, or broke off. Another listing follows
    /// as soon as it is back.
    Lost(Error),
}

/// Lists and watches for as long as somebody listens. Whatever breaks the watch
/// off, a listing follows: it also shows a datastore that was restored from an
/// older state, which a watch would not.
pub async fn follow(datastore: Arc<dyn Datastore>, listeners: Sender<News>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match Listing::read(datastore.as_ref(), usize::MAX).await {
            Ok(Listing { inventory, seen, .. }) => {
                pause = FIRST_PAUSE;
                let revision = seen.revision;
                if listeners.send(News::Listed(inventory, revision)).await.is_err() {
                    return;
                }
                match watch(datastore.as_ref(), revision, &listeners).await {
                    Some(error) => error,
                    None => return,
                }
            }
            Err(error) => error,
        };
        // History that is gone is no fault of the datastore's: list at once.
        let compacted = matches!(error, Error::Compacted { .. });
        if !compacted {
            if listeners.send(News::Lost(error)).await.is_err() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Passes changes on until the watch breaks off, with the reason; `None` when
/// nobody listens any more.
async fn watch(
    datastore: &dyn Datastore,
    after: Revision,
    listeners: &Sender<News>,
) -> Option<Error> {
    let prefixes = Inventory::PREFIXES.map(str::to_owned);
    let mut watch = match datastore.watch(&prefixes, after).await {
        Ok(watch) => watch,
        Err(error) => return Some(error),
    };
    loop {
        match next(datastore, watch.as_mut()).await {
            Ok(events) => listeners.send(News::Changed(events)).await.ok()?,
            Err(error) => return Some(error),
        }
    }
}

/// The next changes. While there are none the datastore is asked now and then
/// whether it is there.
async fn next(datastore: &dyn Datastore, watch: &mut dyn Watch) -> Result<Vec<Event>, Error> {
    loop {
        match timeout(SILENCE, watch.next()).await {
            Ok(outcome) => return outcome,
            Err(_) => datastore.get(keys::CLUSTER_INFORMATION).await.map(drop)?,
        }
    }
}
