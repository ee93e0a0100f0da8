//! A node's tunnel address as the cluster asks for it.

use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::{Error, ensure_tunnel_address, release_tunnel_address};
use crate::datastore::Datastore;
use crate::network::{Inventory, has_settled_tunnel, needs_tunnel};

/// What was done about a node's tunnel address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing: it is as it should be, or the node is not registered.
    AsItWas,
    /// The node has this one.
    Taken(Ipv4Addr),
    /// It was given back: no pool needs it.
    GivenBack,
}

/// Gives `node` a tunnel address if it needs one, by what `inventory` says, and
/// takes it back if it needs none. Nothing is asked of the datastore where nothing
/// is to be done.
///
/// # Errors
/// As [`ensure_tunnel_address`] and [`release_tunnel_address`].
pub async fn settle_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    inventory: &Inventory,
    now: Timestamp,
) -> Result<Settled, Error> {
    if has_settled_tunnel(node, inventory) || !inventory.nodes.contains_key(node) {
        return Ok(Settled::AsItWas);
    }
    if needs_tunnel(node, inventory) {
        return ensure_tunnel_address(datastore, node, now).await.map(Settled::Taken);
    }
    release_tunnel_address(datastore, node).await?;
    Ok(Settled::GivenBack)
}
