//! The addresses of nodes' tunnels.

use std::net::IpAddr;

use serde_json::{Map, Value};
use weir_common::datastore::{Datastore, Entry, Selection, Transaction, keys};
use weir_common::ipam::Block;

use super::StoreError;

/// What the handle of a node's IPIP tunnel is called, before the node's name.
const IPIP: &str = "ipip-tunnel-addr-";

/// The handles of a node's tunnels, before its name (`node/pkg/allocateip`).
pub(super) const HANDLES: [&str; 5] = [
    IPIP,
    "vxlan-tunnel-addr-",
    "vxlan-v6-tunnel-addr-",
    "wireguard-tunnel-addr-",
    "wireguard-v6-tunnel-addr-",
];

/// Where a node names its IPIP tunnel's address, in `spec.bgp`.
const FIELD: &str = "ipv4IPIPTunnelAddr";

/// Takes the addresses that these handles have in a block out of the nodes whose
/// IPIP tunnels they are, so that no node keeps one that is released.
///
/// # Errors
/// [`StoreError::Datastore`].
pub(super) async fn clear(
    datastore: &dyn Datastore,
    handles: &[&str],
    block: &Block,
    transaction: &mut Transaction,
) -> Result<(), StoreError> {
    let nodes: Vec<&str> = handles.iter().filter_map(|id| id.strip_prefix(IPIP)).collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let selections: Vec<_> = nodes.iter().map(|node| Selection::Key(keys::node(node))).collect();
    let snapshot = datastore.read(&selections).await?;
    for (node, entry) in nodes.iter().zip(&snapshot.selected) {
        let id = format!("{IPIP}{node}");
        let held = block.held_by(|holder| holder.handle_id.as_deref() == Some(&id));
        let addresses: Vec<IpAddr> = held.into_iter().map(|it| block.address(it)).collect();
        if let Some((entry, value)) =
            entry.first().and_then(|it| Some((it, without(it, &addresses)?)))
        {
            transaction.update(entry.key.clone(), entry.revision, value);
        }
    }
    Ok(())
}

/// The node without its tunnel's address, if that is one of these.
fn without(entry: &Entry, addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let mut node: Map<String, Value> = serde_json::from_slice(&entry.value).ok()?;
    let spec = node.get_mut("spec")?.as_object_mut()?;
    let bgp = spec.get_mut("bgp")?.as_object_mut()?;
    let named: IpAddr = bgp.get(FIELD)?.as_str()?.parse().ok()?;
    if !addresses.contains(&named) {
        return None;
    }
    bgp.remove(FIELD);
    if bgp.is_empty() {
        spec.remove("bgp");
    }
    serde_json::to_vec(&node).ok()
}
