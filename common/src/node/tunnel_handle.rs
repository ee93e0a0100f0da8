//! Which addresses are those of nodes' tunnels, and where the nodes name them.

use std::net::IpAddr;

use super::stored::StoredNode;
use crate::datastore::{self, Datastore, Selection, Transaction, keys};
use crate::ipam::{ATTRIBUTE_TYPE, Attribute, Block, TYPE_IPIP_TUNNEL};

/// What the handle of a node's IPIP tunnel is called, before the node's name.
const IPIP: &str = "ipip-tunnel-addr-";

/// The handles of a node's tunnels, before its name (`node/pkg/allocateip`).
pub const TUNNEL_HANDLES: [&str; 5] = [
    IPIP,
    "vxlan-tunnel-addr-",
    "vxlan-v6-tunnel-addr-",
    "wireguard-tunnel-addr-",
    "wireguard-v6-tunnel-addr-",
];

/// Where a node names its IPIP tunnel's address, in `spec.bgp`.
pub(super) const FIELD: &str = "ipv4IPIPTunnelAddr";

/// The handle of a node's IPIP tunnel address (`node/pkg/allocateip/allocateip.go`,
/// generateHandleAndAttributes).
pub fn tunnel_handle_id(node: &str) -> String {
    format!("{IPIP}{node}")
}

/// Whether an address is that of a node's IPIP tunnel: by its handle and by its
/// type, since the handles of a container network may begin alike.
pub fn is_tunnel_address(holder: &Attribute) -> bool {
    let handle = holder.handle_id.as_deref().unwrap_or_default();
    handle.starts_with(IPIP) && holder.fact(ATTRIBUTE_TYPE) == Some(TYPE_IPIP_TUNNEL)
}

/// Takes the addresses that these handles have in a block out of the nodes whose
/// IPIP tunnels they are, so that no node keeps one that is released. A node that
/// cannot be read names none.
///
/// # Errors
/// [`datastore::Error`].
pub async fn forget_tunnel_addresses(
    datastore: &dyn Datastore,
    handles: &[&str],
    block: &Block,
    transaction: &mut Transaction,
) -> Result<(), datastore::Error> {
    let nodes: Vec<&str> = handles.iter().filter_map(|id| id.strip_prefix(IPIP)).collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let selections: Vec<_> = nodes.iter().map(|node| Selection::Key(keys::node(node))).collect();
    let snapshot = datastore.read(&selections).await?;
    for (node, entries) in nodes.iter().zip(&snapshot.selected) {
        let id = tunnel_handle_id(node);
        let held = block.held_by(|holder| holder.is_of(&id));
        let addresses: Vec<IpAddr> = held.into_iter().map(|it| block.address(it)).collect();
        let Some(entry) = entries.first() else {
            transaction.absent(keys::node(node));
            continue;
        };
        let stored = StoredNode::read(entry).ok();
        let named = |node: &StoredNode| node.bgp(FIELD)?.parse().ok();
        match stored.filter(|node| named(node).is_some_and(|it| addresses.contains(&it))) {
            Some(node) => node.set_bgp(&[(FIELD, None)], transaction),
            None => {
                transaction.unchanged(entry.key.clone(), entry.revision);
            }
        }
    }
    Ok(())
}
