//! What there is to say of a pool's range that a rule does not refuse.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_common::network::{ClusterState, read_nodes};
use weir_common::printable;
use weir_common::resources::{IpPool, Kind, Resource, overlap, unusual_ranges};

use crate::session::{HostEnvironment, Session};

/// Warns of pools over a range that is hardly meant, a subnet that nodes are registered in,
/// or one that this node is in. What cannot be looked up is passed over: the pools are good
/// without.
pub async fn warn_of(resources: &[&Resource], session: &Session<'_>) {
    let pools = pools(resources);
    if !pools.is_empty() {
        let nodes = read_nodes(session.datastore).await.unwrap_or_default();
        warn(&pools, session.environment, &nodes).await;
    }
}

/// The same without a datastore.
pub async fn warn_of_alone(resources: &[&Resource], environment: &dyn HostEnvironment) {
    warn(&pools(resources), environment, &ClusterState::default()).await;
}

fn pools(resources: &[&Resource]) -> Vec<IpPool> {
    let pools = resources.iter().filter(|resource| resource.kind == Kind::IpPool);
    pools.filter_map(|resource| resource.pool().ok()).collect()
}

async fn warn(pools: &[IpPool], environment: &dyn HostEnvironment, nodes: &ClusterState) {
    let subnets =
        if pools.is_empty() { BTreeSet::new() } else { subnets(environment, nodes).await };
    for IpPool { name, cidr, .. } in pools {
        let name = printable(name);
        for (unusual, purpose) in unusual_ranges(*cidr) {
            let text = format!("warning: pool {name} has addresses of {unusual}, {purpose}");
            environment.warn(&text);
        }
        for subnet in subnets.iter().filter(|subnet| overlap(**subnet, *cidr)) {
            environment.warn(&format!(
                "warning: pool {name} ({cidr}) overlaps {subnet}, a subnet that nodes are in: \
                 containers get what no node and no router there has, and other machines of the \
                 subnet reach them only through a node that answers for them (proxy ARP); choose \
                 another range unless this is meant"
            ));
        }
    }
}

/// The subnets that `nodes` are registered in, and those that this machine is in if it is a node.
async fn subnets(environment: &dyn HostEnvironment, nodes: &ClusterState) -> BTreeSet<IpNet> {
    let is_node = environment.network().is_some() || environment.agent_runs();
    let network = if is_node { environment.local_network().await.ok() } else { None };
    let registered = nodes.nodes.values().flat_map(|peer| [peer.ipv4, peer.ipv6]).flatten();
    let registered = registered.filter(|it| it.prefix_len() < it.max_prefix_len());
    let connected = network.map(|network| network.connected).unwrap_or_default();
    registered.map(|it| it.trunc()).chain(connected).collect()
}
