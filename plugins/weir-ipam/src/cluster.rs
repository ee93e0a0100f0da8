//! What `weir` asks where no agent runs: has the cluster changed, and what is there?

use std::time::Duration;

use jiff::Timestamp;
use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::network::{ClusterNotice, Listing, Seen};
use weir_common::node::{Settled, settle_tunnel_address};
use weir_process::{CLUSTER_VARIABLE, Timing, within};

/// How long the answer may take. With the wait for the host's lock and the
/// assignment still less than the caller waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// The most affinities in a cluster for which blocks are read: about ten megabytes
/// of them.
const MOST_BLOCKS: usize = 1000;

/// What `weir` asks.
pub enum Question {
    /// Nothing: an agent runs, or the main plugin is another one.
    Nothing,
    /// What there is, if that has changed since it was seen; `None` if it never was.
    Since(Option<Seen>),
}

impl Question {
    /// The question of this call.
    pub fn asked() -> Self {
        match std::env::var(CLUSTER_VARIABLE) {
            // What cannot be read has seen nothing.
            Ok(text) => Self::Since(serde_json::from_str(&text).unwrap_or_default()),
            Err(_) => Self::Nothing,
        }
    }

    /// Whether an answer is due. A datastore that cannot tell is asked again for the
    /// answer itself.
    pub async fn is_due(&self, datastore: &dyn Datastore) -> bool {
        match self {
            Self::Nothing => false,
            Self::Since(None) => true,
            Self::Since(Some(seen)) => {
                let _timing = Timing::of("changes");
                seen.is_outdated(datastore).await.unwrap_or(true)
            }
        }
    }
}

/// What there is in the cluster, after the node has its tunnel address. `None` when
/// it cannot be had, which is logged: the addresses are good without.
pub async fn answer(datastore: &dyn Datastore, node: &str) -> Option<Box<ClusterNotice>> {
    let _timing = Timing::of("inventory");
    let answer = within(PATIENCE, async {
        let listing = Listing::read(datastore, MOST_BLOCKS).await;
        let listing = listing.map_err(|error| Error::caused(Code::TryAgainLater, &error))?;
        Ok(settle(datastore, node, listing).await)
    });
    answer
        .await
        .map_err(|error| {
            tracing::warn!(
                %error,
                details = error.details,
                "the ways to other nodes stay as they are: the cluster could not be read; the \
                 next ADD tries again"
            );
        })
        .ok()
        .map(Box::new)
}

async fn settle(datastore: &dyn Datastore, node: &str, listing: Listing) -> ClusterNotice {
    let Listing { mut inventory, seen, without_blocks } = listing;
    if without_blocks {
        tracing::warn!(
            most = MOST_BLOCKS,
            "too many blocks to look for borrowed addresses on other nodes, which are not routed; \
             start the agent (weirctl node run)"
        );
    }
    let settled = settle_tunnel_address(datastore, node, &inventory, Timestamp::now()).await;
    if let Err(error) = &settled {
        let error = Error::caused(Code::TryAgainLater, error);
        tracing::warn!(
            %error,
            details = error.details,
            "the tunnel address is not as it should be; the next ADD tries again"
        );
    }
    if let Some(own) = inventory.nodes.get_mut(node) {
        match settled {
            Ok(Settled::Taken(address)) => own.tunnel = Some(address),
            Ok(Settled::GivenBack) => own.tunnel = None,
            Ok(Settled::AsItWas) | Err(_) => {}
        }
    }
    // Where no pool gives an address, asking again does not help.
    let settled = matches!(settled, Ok(_) | Err(weir_common::node::Error::NoTunnelPool { .. }));
    ClusterNotice { node: node.to_owned(), seen, settled, inventory }
}
