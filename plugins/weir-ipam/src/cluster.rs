//! What `weir` asks where no agent runs: has the cluster changed, and what is there?

use jiff::Timestamp;
use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::network::{ClusterNotice, Listing, Seen, needs_tunnel};
use weir_common::node::{Settled, settle_tunnel_address};
use weir_process::{CLUSTER, CLUSTER_VARIABLE, Limit, Timing, within};

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
/// it is not `due`, or cannot be had, which is logged: the addresses are good
/// without.
pub async fn answer(
    datastore: &dyn Datastore,
    node: &str,
    due: impl Future<Output = bool>,
) -> Option<Box<ClusterNotice>> {
    let answer =
        within("reading the cluster", "the next ADD tries again", Limit::of(CLUSTER), async {
            if !due.await {
                return Ok(None);
            }
            let _timing = Timing::of("inventory");
            let listing = Listing::read(datastore, MOST_BLOCKS).await;
            let listing = listing.map_err(|error| Error::caused(Code::TryAgainLater, &error))?;
            Ok(Some(settle(datastore, node, listing).await))
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
        .flatten()
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
    // Giving it back is left to the agent: it knows what a restored datastore has
    // forgotten, and may still need the tunnel for.
    let settled = if needs_tunnel(node, &inventory) {
        settle_tunnel_address(datastore, node, &inventory, Timestamp::now()).await
    } else {
        Ok(Settled::AsItWas)
    };
    if let Err(error) = &settled {
        let error = Error::caused(Code::TryAgainLater, error);
        tracing::warn!(
            %error,
            details = error.details,
            "the tunnel address is not as it should be; the next ADD tries again"
        );
    }
    if let (Some(own), Ok(Settled::Taken(address))) = (inventory.nodes.get_mut(node), &settled) {
        own.tunnel = Some(*address);
    }
    // Where no pool gives an address, asking again does not help.
    let settled = matches!(settled, Ok(_) | Err(weir_common::node::Error::NoTunnelPool { .. }));
    let node = node.to_owned();
    ClusterNotice { node, seen, settled, without_borrowed: without_blocks, inventory }
}
