//! STATUS: would an ADD work, and does what was added work?

use std::time::Duration;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::network::{HealthProblem, NodeHealth, find_problems};
use weir_kernel::Kernel;
use weir_process::{Limit, WORK};

use crate::node::LocalNode;
use crate::source::IpamSource;
use crate::{add, failure};

/// How long a DEL may take from the routes' removal to the link's: what looks like
/// trouble is looked at again after that. (An ADD at work looks like no trouble:
/// `plan_addresses`.)
const DEL_IN_PROGRESS: Duration = Duration::from_millis(300);

/// How many problems are told in full.
const MAX_TOLD: usize = 5;

/// Looks whether containers can have the MTU that they would get, asks the IPAM
/// whether there are addresses, and looks whether the node's containers can be reached.
///
/// # Errors
/// [`Code::NotAvailable`] for the MTU; what the IPAM says, before
/// [`Code::LimitedConnectivity`].
pub async fn status(call: &Call) -> Result<(), Error> {
    let source = IpamSource::find(call)?;
    let kernel = Kernel::open().map_err(failure::of_kernel)?;
    let unfit = |error| Error { code: Code::NotAvailable, ..error };
    let node = LocalNode::find(call);
    add::mtu(call, &kernel, &node).await.map_err(unfit)?;
    let (available, connected) =
        tokio::join!(source.status(call, &node, Limit::of(WORK)), connectivity(call, &kernel));
    match (available, connected) {
        (Err(first), Err(second)) => Err(Error::joined([first.clone(), second]).unwrap_or(first)),
        (available, connected) => available.and(connected),
    }
}

async fn connectivity(call: &Call, kernel: &Kernel) -> Result<(), Error> {
    let first = look(call, kernel).await?;
    if first.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(DEL_IN_PROGRESS).await;
    let again = look(call, kernel).await?;
    let lasting: Vec<String> = again
        .iter()
        .filter(|trouble| first.contains(trouble))
        .map(HealthProblem::to_string)
        .collect();
    if lasting.is_empty() {
        return Ok(());
    }
    let mut told = lasting.iter().take(MAX_TOLD).cloned().collect::<Vec<_>>().join("; ");
    if lasting.len() > MAX_TOLD {
        told += &format!("; and {} more", lasting.len() - MAX_TOLD);
    }
    Err(Error::new(Code::LimitedConnectivity, told))
}

/// What is wrong with the network's containers on this node at this moment.
async fn look(call: &Call, kernel: &Kernel) -> Result<Vec<HealthProblem>, Error> {
    let network = &call.configuration.network;
    let mut attachments = kernel.attachment_states().await.map_err(failure::of_kernel)?;
    attachments.retain(|attachment| attachment.identity.network() == network);
    let has_ipv6 = |attachment: &weir_common::network::AttachmentState| {
        attachment.addresses.iter().any(std::net::IpAddr::is_ipv6)
    };
    let state = kernel.node_state(attachments.iter().any(has_ipv6)).map_err(failure::of_kernel)?;
    let tunnels = kernel.tunnel_devices().await.map_err(failure::of_kernel)?;
    let node = LocalNode::find(call);
    let needs = node.tunnels();
    let without_nat = node.pools_without_nat(kernel).map_err(failure::of_kernel)?;
    let is_any_checked = attachments.iter().any(|attachment| attachment.is_checked);
    // Where nothing is checked, nftables need not be there.
    let without_source_filter =
        is_any_checked && !kernel.has_source_filter().map_err(failure::of_kernel)?;
    let filters = kernel.forward_filters();
    let not_registered = node.not_registered();
    let health = NodeHealth {
        state,
        needs,
        tunnels,
        without_nat,
        without_source_filter,
        filters,
        not_registered,
    };
    Ok(find_problems(&attachments, &health))
}
