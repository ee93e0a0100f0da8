//! Whether a node needs a BGP daemon at all: a mesh that is merely on by default starts none.

use super::super::cluster_state::{ClusterPool, ClusterState};
use super::super::underlay::Underlay;
use super::session::BgpNeed;
use crate::resources::EncapsulationMode;

/// Why `node` needs a BGP daemon; `None` where it needs none.
pub fn bgp_need(node: &str, state: &ClusterState, underlay: &Underlay) -> Option<BgpNeed> {
    other_subnet(node, state, underlay)
}

/// The first pool without tunnels that has to reach a node beyond this node's links.
fn other_subnet(node: &str, state: &ClusterState, underlay: &Underlay) -> Option<BgpNeed> {
    let own = state.nodes.get(node)?;
    let is_plain = |pool: &ClusterPool| pool.ipip_mode == EncapsulationMode::Never && !pool.vxlan;
    state.pools.iter().filter(|(_, pool)| is_plain(pool)).find_map(|(name, pool)| {
        let own = own.address(pool.cidr.addr())?;
        let mut others = state.nodes.iter().filter(|(other, _)| *other != node);
        let far = others.find(|(_, peer)| {
            let address = peer.address(own.addr()).map(|address| address.addr());
            address.is_some_and(|it| underlay.towards(it, Some(own)).is_none())
        })?;
        Some(BgpNeed::OtherSubnet { pool: name.clone(), node: far.0.clone() })
    })
}
