//! A node's tunnel address as the cluster asks for it.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::{Error, Standing, ensure_tunnel_address, release_tunnel_address};
use crate::datastore::Datastore;
use crate::network::{ClusterState, needs_tunnel};

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

/// Gives `node` a tunnel address if it needs one, by what `inventory` and its `standing`
/// say, and takes it back if it needs none. The datastore is asked in any case: the Node's
/// field alone does not say whether the address is allocated.
///
/// # Errors
/// As [`ensure_tunnel_address`] and [`release_tunnel_address`].
pub async fn settle_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    inventory: &ClusterState,
    standing: &Standing,
    now: Timestamp,
) -> Result<Settled, Error> {
    let Some(own) = inventory.nodes.get(node) else {
        return Ok(Settled::AsItWas);
    };
    if needs_tunnel(node, inventory) {
        let mut standing = standing.clone();
        standing.tunnel.retain(|address| !is_elsewhere(node, *address, inventory));
        let address = ensure_tunnel_address(datastore, node, &standing, now).await?;
        let is_new = own.tunnel != Some(address);
        return Ok(if is_new { Settled::Taken(address) } else { Settled::AsItWas });
    }
    let released = release_tunnel_address(datastore, node, standing.machine.as_ref()).await?;
    Ok(if released.is_some() { Settled::GivenBack } else { Settled::AsItWas })
}

/// Whether an address lies in another node's block. A restored datastore may have
/// forgotten that block, and it is not to be claimed because of one borrowed address.
fn is_elsewhere(node: &str, address: Ipv4Addr, inventory: &ClusterState) -> bool {
    let of_others = inventory.blocks.iter().filter(|(_, hosts)| !hosts.contains(node));
    let mut of_others = of_others.map(|(block, _)| block);
    of_others.any(|block| block.contains(&IpAddr::V4(address)))
}
