//! What attachments need besides their own steps, and how they are taken away: for the verbs of
//! `weir` and for Docker's driver.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use weir_common::network::{AttachmentIdentity, Families, Nat, NodeNeeds, Step, plan_node};
use weir_kernel::Kernel;
use weir_process::{Limit, Lock, LockError, NODE_LOCK};

/// Why it cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] weir_kernel::Error),
    /// The node's lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Sees to it that the filter of what containers send is there. An agent does too, but a new
/// container must not send before.
///
/// # Errors
/// See [`WiringError`].
pub async fn ensure_source_filter(kernel: &Kernel, limit: Limit) -> Result<(), WiringError> {
    if kernel.has_source_filter().unwrap_or_default() {
        return Ok(());
    }
    let _lock = Lock::wait(Path::new(NODE_LOCK), limit).await?;
    Ok(kernel.ensure_source_filter().await?)
}

/// Lets a container with other interfaces send from the addresses of all of them, and from
/// the prefixes that it is allowed.
///
/// # Errors
/// See [`WiringError`].
pub async fn allow_sources(
    kernel: &Kernel,
    identity: &AttachmentIdentity,
    limit: Limit,
) -> Result<(), WiringError> {
    let _lock = Lock::wait(Path::new(NODE_LOCK), limit).await?;
    Ok(kernel.allow_sources(identity).await?)
}

/// Takes what host ends that are gone were allowed from the filter of what containers send,
/// and their addresses from what the other interfaces of their containers are allowed;
/// nothing where the one of `identity` was allowed nothing.
///
/// # Errors
/// See [`WiringError`].
pub async fn part_sources(
    kernel: &Kernel,
    identity: Option<&AttachmentIdentity>,
    limit: Limit,
) -> Result<(), WiringError> {
    let host_end = identity.map(AttachmentIdentity::host_interface);
    if !kernel.allows_more(host_end.as_deref()) {
        return Ok(());
    }
    let _lock = Lock::wait(Path::new(NODE_LOCK), limit).await?;
    Ok(kernel.fill_allowed_sources().await?)
}

/// The steps that give the node what attachments of these families need, where no agent sees to
/// it; and the lock to hold until they are carried out: a GC looks for attachments and removes
/// the NAT under the same one.
///
/// # Errors
/// See [`WiringError`].
pub async fn plan_of_node(
    kernel: &Kernel,
    Families { ipv4, ipv6 }: Families,
    nat: Nat,
    limit: Limit,
) -> Result<(Vec<Step>, Option<Lock>), WiringError> {
    let state = kernel.node_state(ipv6)?;
    let lock = match &nat {
        Nat::AsItIs => None,
        Nat::Exactly(_) => Some(Lock::wait(Path::new(NODE_LOCK), limit).await?),
    };
    Ok((plan_node(&NodeNeeds { ipv4, ipv6, nat }, &state), lock))
}

/// Removes the host's routes and the link of an attachment, and returns the addresses that
/// were routed to it.
///
/// # Errors
/// The kernel refuses, or the link is not the attachment's.
pub async fn remove(
    kernel: &Kernel,
    identity: &AttachmentIdentity,
) -> Result<BTreeSet<IpAddr>, weir_kernel::Error> {
    let Some((link, addresses)) = kernel.remove_routes(identity).await? else {
        return Ok(BTreeSet::new());
    };
    kernel.remove_link(link).await?;
    Ok(addresses)
}
