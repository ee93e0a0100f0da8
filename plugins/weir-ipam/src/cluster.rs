//! What `weir` asks where no agent runs: has the cluster changed, and what is there?

use std::net::Ipv4Addr;

use jiff::Timestamp;
use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::network::{ClusterNotice, Inventory, Listing, Seen, needs_tunnel};
use weir_common::node::{Settled, settle_tunnel_address};
use weir_process::{CLUSTER, CLUSTER_VARIABLE, Limit, TUNNEL_ADDRESS, Timing, within};

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
    /// The question of this call, an ADD or a GC.
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
            Ok(Some(listing))
        });
    match answer.await {
        Ok(listing) => Some(Box::new(settle(datastore, node, listing?).await)),
        Err(error) => {
            tracing::warn!(
                %error,
                details = error.details,
                "the ways to other nodes stay as they are: the cluster could not be read; the \
                 next ADD tries again"
            );
            None
        }
    }
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
    let settled = match take_tunnel_address(datastore, node, &inventory).await {
        Ok((address, is_final)) => {
            if let (Some(own), Some(address)) = (inventory.nodes.get_mut(node), address) {
                own.tunnel = Some(address);
            }
            is_final
        }
        Err(error) => {
            tracing::warn!(
                %error,
                details = error.details,
                "the tunnel address is not as it should be; the next ADD tries again"
            );
            false
        }
    };
    let node = node.to_owned();
    ClusterNotice { node, seen, settled, without_borrowed: without_blocks, inventory }
}

/// Takes a tunnel address if the node needs one: the new one, and whether that is all
/// there is to do. Where no pool gives an address, asking again does not help.
async fn take_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    inventory: &Inventory,
) -> Result<(Option<Ipv4Addr>, bool), Error> {
    if !needs_tunnel(node, inventory) {
        return Ok((None, true));
    }
    let what = "taking a tunnel address";
    within(what, "the next ADD tries again", Limit::of(TUNNEL_ADDRESS), async {
        match settle_tunnel_address(datastore, node, inventory, Timestamp::now()).await {
            Ok(Settled::Taken(address)) => Ok((Some(address), true)),
            Ok(_) => Ok((None, true)),
            Err(error) if error.means_none_left() => {
                tracing::warn!("{error}");
                Ok((None, true))
            }
            Err(error) => Err(Error::caused(Code::TryAgainLater, &error)),
        }
    })
    .await
}
