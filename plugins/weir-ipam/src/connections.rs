//! What the node remembers of the connections of addresses that are released: it goes before
//! their next owner comes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_kernel::Kernel;
use weir_process::Timing;

/// Has the node forget the connections of these addresses, to which it has no routes any more. A
/// failure is logged: what is not forgotten ends by itself, within minutes of its last packet
/// (UDP) or days (TCP).
pub async fn forget(kernel: &Kernel, addresses: BTreeSet<IpAddr>) {
    let _timing = Timing::of("connections");
    match kernel.forget_connections(addresses).await {
        Ok(forgotten) => tracing::debug!(forgotten, "connections of the addresses"),
        Err(error) => tracing::warn!(%error, "connections of released addresses are left"),
    }
}

/// As [`forget`], of addresses that another attachment may have by now: of one that the node
/// routes to a link nothing is forgotten.
pub async fn forget_released(kernel: &Kernel, addresses: BTreeSet<IpAddr>) {
    match kernel.unrouted(addresses).await {
        Ok(addresses) if addresses.is_empty() => {}
        Ok(addresses) => forget(kernel, addresses).await,
        Err(error) => tracing::warn!(%error, "connections of released addresses are left"),
    }
}
