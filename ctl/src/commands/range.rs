//! What there is to say of a pool's range that a rule does not refuse.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_common::network::{ClusterState, read_nodes};
use weir_common::resources::{Kind, Resource, overlap, unusual_ranges};

use crate::session::{HostEnvironment, Session};

/// Warns of pools over a range that is hardly meant, a subnet that nodes are registered in,
/// or one that this node is in. What cannot be looked up is passed over: the pools are good
/// without.
pub async fn warn_of(resources: &[&Resource], session: &Session<'_>) {
    let ranges: Vec<_> =
        resources.iter().filter_map(|it| Some((range_of(it)?, it.name()))).collect();
    if ranges.is_empty() {
        return;
    }
    let nodes = read_nodes(session.datastore).await.unwrap_or_default();
    for (range, name) in ranges {
        warn_here(range, name, session.environment, &nodes).await;
    }
}

/// The same without a datastore.
pub async fn warn_of_alone(resource: &Resource, environment: &dyn HostEnvironment) {
    let Some(range) = range_of(resource) else { return };
    warn_here(range, resource.name(), environment, &ClusterState::default()).await;
}

fn range_of(resource: &Resource) -> Option<IpNet> {
    let pool = (resource.kind == Kind::IpPool).then(|| resource.pool().ok())??;
    Some(pool.cidr)
}

async fn warn_here(
    range: IpNet,
    pool: &str,
    environment: &dyn HostEnvironment,
    nodes: &ClusterState,
) {
    for (unusual, purpose) in unusual_ranges(range) {
        environment.warn(&format!("warning: pool {pool} has addresses of {unusual}, {purpose}"));
    }
    let is_node = environment.network().is_some() || environment.agent_runs();
    let connected = match environment.local_network().await {
        Ok(network) if is_node => network.connected,
        _ => BTreeSet::new(),
    };
    let registered = nodes.nodes.values().flat_map(|peer| [peer.ipv4, peer.ipv6]).flatten();
    let registered = registered.filter(|it| it.prefix_len() < it.max_prefix_len());
    let subnets: BTreeSet<IpNet> = registered.map(|it| it.trunc()).chain(connected).collect();
    for subnet in subnets.into_iter().filter(|subnet| overlap(*subnet, range)) {
        environment.warn(&format!(
            "warning: pool {pool} ({range}) overlaps {subnet}, a subnet that nodes are in: \
             containers get what no node and no router there has, and other machines of the \
             subnet reach them only through a node that answers for them (proxy ARP); choose \
             another range unless this is meant"
        ));
    }
}
