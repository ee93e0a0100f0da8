//! What a node itself says about its tunnel address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use crate::ipam::MachineId;
use crate::network::{ClusterState, needs_tunnel};

/// What a node has, as far as its tunnel address depends on it. A datastore that was
/// restored from a snapshot has forgotten such things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The machine; `None` where it has no identity.
    pub machine: Option<MachineId>,
    /// The addresses of its tunnel device.
    pub tunnel: BTreeSet<Ipv4Addr>,
    /// The addresses of the containers on it.
    pub containers: BTreeSet<IpAddr>,
    /// Whether anything is held that a restored datastore has forgotten. Then what the
    /// datastore calls free may be a container's, anywhere.
    pub is_holding: bool,
}

impl Standing {
    /// Whether a container on the node has an address.
    pub fn is_containers(&self, address: IpAddr) -> bool {
        self.containers.contains(&address)
    }

    /// Lets `node` keep its device's address in an inventory that has none for it,
    /// though it needs one ([`lacks_tunnel_address`]): one of a pool that has such
    /// addresses, and no container's.
    pub fn keep(&self, node: &str, inventory: &mut ClusterState) {
        let may_be_kept = |address: &&Ipv4Addr| {
            let address = IpAddr::V4(**address);
            let pool = inventory.pool_of(address.into());
            pool.is_some_and(|(_, pool)| pool.has_tunnel_addresses) && !self.is_containers(address)
        };
        let kept = self.tunnel.iter().find(may_be_kept).copied();
        if let Some(own) = inventory.nodes.get_mut(node) {
            own.tunnel = own.tunnel.or(kept);
        }
    }
}

/// Whether `node` needs a tunnel address and is registered with none.
pub fn lacks_tunnel_address(node: &str, inventory: &ClusterState) -> bool {
    let named = inventory.nodes.get(node).and_then(|own| own.tunnel);
    named.is_none() && needs_tunnel(node, inventory)
}
