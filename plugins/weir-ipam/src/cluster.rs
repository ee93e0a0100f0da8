//! What `weir` asks where no agent runs: has the cluster changed, and what is there?

use std::net::Ipv4Addr;
use std::path::Path;

use jiff::Timestamp;
use weir_common::cni::{Code, Error};
use weir_common::datastore::Datastore;
use weir_common::network::{ClusterNotice, Listing, Seen, needs_tunnel};
use weir_common::node::{Settled, settle_tunnel_address};
use weir_kernel::Kernel;
use weir_process::{
    CLUSTER, CLUSTER_VARIABLE, Limit, NODE_MEMO_FILE, TUNNEL_ADDRESS, Timing, read_whole_node_memo,
    within,
};

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

/// What there is in the cluster, by the datastore at `place`, after the node has its
/// tunnel address. `None` when it is not `due`, or cannot be had, which is logged: the
/// addresses are good without.
pub async fn answer(
    datastore: &dyn Datastore,
    place: &str,
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
        Ok(listing) => Some(Box::new(settle(datastore, place, node, listing?).await)),
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

async fn settle(
    datastore: &dyn Datastore,
    place: &str,
    node: &str,
    mut listing: Listing,
) -> ClusterNotice {
    if listing.without_blocks {
        tracing::warn!(
            most = MOST_BLOCKS,
            "too many blocks to look for borrowed addresses on other nodes, which are not routed; \
             start the agent (weirctl node run)"
        );
    }
    // Giving it back is left to the agent: it knows what a restored datastore has
    // forgotten, and may still need the tunnel for.
    let taken = take_tunnel_address(datastore, place, node, &listing).await;
    let without_tunnel_address = matches!(taken, Ok(Taken::Refused));
    let settled = match taken {
        Ok(Taken::Address(address)) => {
            if let Some(own) = listing.inventory.nodes.get_mut(node) {
                own.tunnel = Some(address);
            }
            true
        }
        Ok(Taken::Refused | Taken::Nothing) => true,
        Err(error) => {
            tracing::warn!(
                %error,
                details = error.details,
                "the tunnel address is not as it should be; the next ADD tries again"
            );
            false
        }
    };
    let Listing { inventory, seen, without_blocks: without_borrowed } = listing;
    let node = node.to_owned();
    ClusterNotice { node, seen, settled, without_borrowed, without_tunnel_address, inventory }
}

/// What a look at the node's tunnel address comes to.
enum Taken {
    /// None is needed, or it is there already.
    Nothing,
    /// The node has this one now.
    Address(Ipv4Addr),
    /// None is to be had. Asking again does not help.
    Refused,
}

/// Takes a tunnel address if the node needs one, also for what a restored datastore has
/// forgotten.
async fn take_tunnel_address(
    datastore: &dyn Datastore,
    place: &str,
    node: &str,
    listing: &Listing,
) -> Result<Taken, Error> {
    if !listing.inventory.nodes.contains_key(node) {
        return Ok(Taken::Nothing);
    }
    let left = read_whole_node_memo(Path::new(NODE_MEMO_FILE));
    let left = left.filter(|(memo, _)| memo.datastore == place);
    let mut follower = left.map(|(_, follower)| follower).unwrap_or_default();
    follower.relist(listing.inventory.clone(), &listing.seen);
    let (inventory, is_holding) = (follower.inventory(), follower.held() > 0);
    if !needs_tunnel(node, &inventory) {
        return Ok(Taken::Nothing);
    }
    let what = "taking a tunnel address";
    within(what, "the next ADD tries again", Limit::of(TUNNEL_ADDRESS), async {
        let failed = |error: weir_kernel::Error| Error::caused(Code::TryAgainLater, &error);
        let kernel = Kernel::open().map_err(failed)?;
        let (standing, now) =
            (kernel.standing(is_holding).await.map_err(failed)?, Timestamp::now());
        match settle_tunnel_address(datastore, node, &inventory, &standing, now).await {
            Ok(Settled::Taken(address)) => Ok(Taken::Address(address)),
            Ok(_) => Ok(Taken::Nothing),
            Err(error) if error.means_none_left() => {
                tracing::warn!("{error}");
                Ok(Taken::Refused)
            }
            Err(error) => Err(Error::caused(Code::TryAgainLater, &error)),
        }
    })
    .await
}
