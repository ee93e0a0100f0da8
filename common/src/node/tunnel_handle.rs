//! Which addresses are those of nodes' tunnels, and where the nodes name them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::stored::StoredNode;
use crate::datastore::{self, Datastore, Selection, Transaction, keys};
use crate::ipam::{ATTRIBUTE_TYPE, Attribute, Block};
use crate::tunnel::TunnelKind;

/// The handles of a node's tunnels, before its name (`node/pkg/allocateip`).
pub const TUNNEL_HANDLES: [&str; KINDS + CALICOS.len()] = {
    let mut handles = [""; KINDS + CALICOS.len()];
    let mut at = 0;
    while at < handles.len() {
        let is_ours = at < KINDS;
        handles[at] =
            if is_ours { TunnelKind::ALL[at].row().handle_prefix } else { CALICOS[at - KINDS] };
        at += 1;
    }
    handles
};

const KINDS: usize = TunnelKind::ALL.len();

/// Weir has no such tunnels; Calico's may have been here before.
const CALICOS: [&str; 2] = ["wireguard-tunnel-addr-", "wireguard-v6-tunnel-addr-"];

/// Whether an address is that of a node's tunnel: by its handle and by its
/// type, since the handles of a container network may begin alike.
pub fn is_tunnel_address(holder: &Attribute) -> bool {
    let of_handle = TunnelKind::of_handle(holder.handle_id.as_deref().unwrap_or_default());
    let its_type = holder.fact(ATTRIBUTE_TYPE);
    of_handle.is_some_and(|(kind, _)| its_type == Some(kind.row().attribute_type))
}

/// Takes the addresses that these handles have in a block out of the nodes whose
/// tunnels they are, so that no node keeps one that is released. A node that
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
    let tunnels: Vec<(TunnelKind, &str)> =
        handles.iter().filter_map(|id| TunnelKind::of_handle(id)).collect();
    if tunnels.is_empty() {
        return Ok(());
    }
    let nodes: BTreeSet<&str> = tunnels.iter().map(|(_, node)| *node).collect();
    let selections: Vec<_> = nodes.iter().map(|node| Selection::Key(keys::node(node))).collect();
    let snapshot = datastore.read(&selections).await?;
    for (node, entries) in nodes.iter().zip(&snapshot.selected) {
        let Some(entry) = entries.first() else {
            transaction.absent(keys::node(node));
            continue;
        };
        let stored = StoredNode::read(entry).ok();
        let of_node = tunnels.iter().filter(|(_, it)| it == node).map(|(kind, _)| *kind);
        let named = |stored: &StoredNode| -> Vec<TunnelKind> {
            of_node.filter(|kind| names_held(stored, *kind, node, block)).collect()
        };
        match stored.map(|stored| (named(&stored), stored)) {
            Some((kinds, stored)) if !kinds.is_empty() => {
                let emptied: Vec<_> =
                    kinds.iter().map(|kind| (kind.row().address_field, None)).collect();
                stored.set(&emptied, transaction);
            }
            _ => {
                transaction.unchanged(entry.key.clone(), entry.revision);
            }
        }
    }
    Ok(())
}

/// Those of `kinds` of which the datastore has anything of a node: the handle of its address, or a
/// field of its Node that names one. One request tells it of all of them. Of a Node that cannot be
/// read that is not known, and all count.
///
/// # Errors
/// [`datastore::Error`].
pub async fn held_tunnels(
    datastore: &dyn Datastore,
    node: &str,
    kinds: &BTreeSet<TunnelKind>,
) -> Result<BTreeSet<TunnelKind>, datastore::Error> {
    let mut selections = vec![Selection::Key(keys::node(node))];
    selections.extend(kinds.iter().map(|kind| Selection::Key(keys::handle(&kind.handle_of(node)))));
    let snapshot = datastore.read(&selections).await?;
    let mut selected = snapshot.selected.iter().map(|entries| entries.first());
    let stored = selected.next().flatten().map(StoredNode::read);
    let is_named = |kind: TunnelKind| match &stored {
        Some(Ok(stored)) => stored.get(kind.row().address_field).is_some(),
        Some(Err(_)) => true,
        None => false,
    };
    let held = kinds.iter().copied().zip(selected);
    let held = held.filter(|(kind, handle)| handle.is_some() || is_named(*kind));
    Ok(held.map(|(kind, _)| kind).collect())
}

/// Whether a node names an address for its tunnel that the tunnel's handle has in a block.
fn names_held(stored: &StoredNode, kind: TunnelKind, node: &str, block: &Block) -> bool {
    let id = kind.handle_of(node);
    let mut held = block.held_by(|holder| holder.is_of(&id)).into_iter();
    let named = stored.get(kind.row().address_field).and_then(|it| it.parse::<IpAddr>().ok());
    named.is_some_and(|named| held.any(|ordinal| block.address(ordinal) == named))
}
