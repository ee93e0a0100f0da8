//! What this machine knows of which attachments live.

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::ipam::collect::{AttachmentName, Evidence};
use weir_kernel::{Kernel, is_node_namespace};
use weir_process::boot_id;

/// The main plugin whose links say which attachments live.
pub const OWN_MAIN_PLUGIN: &str = "weir";

/// The attachment of a call.
pub fn name_of(call: &Call) -> AttachmentName {
    AttachmentName {
        container_id: call.environment.container_id.clone(),
        interface: call.environment.interface.clone(),
    }
}

/// What can be known of the call's network. Where `weir` is not its main plugin
/// nothing is known of links, and in another network namespace than the node's
/// those that are missing prove nothing.
///
/// # Errors
/// [`Code::Kernel`] when the links cannot be listed.
pub async fn gather(call: &Call, now: Timestamp) -> Result<Evidence, Error> {
    let mut evidence = Evidence { boot_id: boot_id().map(str::to_owned), ..Evidence::default() };
    if call.configuration.main_plugin == OWN_MAIN_PLUGIN {
        evidence.alive = attached(&call.configuration.network).await?;
        let on_node = is_node_namespace().unwrap_or(false);
        evidence.all_linked_at = on_node.then_some(now);
    }
    Ok(evidence)
}

async fn attached(network: &str) -> Result<std::collections::BTreeSet<AttachmentName>, Error> {
    let failed = |error: weir_kernel::Error| Error::caused(Code::Kernel, &error);
    let links = Kernel::open().map_err(failed)?.made_links().await.map_err(failed)?;
    let identities = links.into_iter().filter_map(|link| link.identity);
    let of_network = identities.filter(|identity| identity.network() == network);
    Ok(of_network.map(|identity| identity.name()).collect())
}
