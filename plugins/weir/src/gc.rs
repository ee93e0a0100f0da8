//! GC: remove what belongs to no attachment that lives.

use std::collections::BTreeSet;

use weir_common::cni::Error;
use weir_common::cni::skeleton::Call;
use weir_common::ipam::collect::AttachmentName;
use weir_common::network::{Fate, fate};
use weir_kernel::{Kernel, OwnLink};
use weir_process::{DEADLINE, Timing};

use crate::delegate::Delegate;
use crate::failure;

/// Removes the links of the network that the runtime does not list, and has the
/// IPAM plugin give back the addresses, in this order: an address is not given
/// back while the node routes it. Without a list no link is removed: one that is
/// there may be in use.
///
/// # Errors
/// All that failed, as one, after everything has been tried.
pub async fn gc(call: &Call) -> Result<(), Error> {
    let mut errors = Vec::new();
    let links = match &call.configuration.valid_attachments {
        None => None,
        Some(valid) => Links::find(&call.configuration.network, valid)
            .await
            .map_err(|error| errors.push(failure::of_kernel(error)))
            .ok(),
    };
    if let Some(links) = &links {
        errors.extend(links.remove_stale().await.into_iter().map(failure::of_kernel));
    }
    errors.extend(delegate(call).await.err());
    if let Some(links) = &links {
        errors.extend(links.finish().await.into_iter().map(failure::of_kernel));
    }
    Error::joined(errors).map_or(Ok(()), Err)
}

async fn delegate(call: &Call) -> Result<(), Error> {
    let _timing = Timing::of("addresses");
    let delegate = Delegate::find(call, call.configuration.require_ipam()?)?;
    delegate.start("GC", DEADLINE)?.finish().await
}

/// The links to remove.
struct Links {
    kernel: Kernel,
    stale: Vec<OwnLink>,
    /// Half-made ones.
    unfinished: Vec<OwnLink>,
}

impl Links {
    async fn find(
        network: &str,
        valid: &BTreeSet<AttachmentName>,
    ) -> Result<Self, weir_kernel::Error> {
        let kernel = Kernel::open()?;
        let (mut stale, mut unfinished) = (Vec::new(), Vec::new());
        for made in kernel.made_links().await? {
            match fate(made.link.name(), made.identity.as_ref(), network, valid) {
                Fate::Keep => {}
                Fate::Remove => stale.push(made.link),
                Fate::RemoveIfUnfinished => unfinished.push(made.link),
            }
        }
        Ok(Self { kernel, stale, unfinished })
    }

    /// With a link go its routes and the container's end.
    async fn remove_stale(&self) -> Vec<weir_kernel::Error> {
        let _timing = Timing::of("links");
        for link in &self.stale {
            tracing::info!(host_interface = link.name(), "removed: its attachment is not listed");
        }
        self.kernel.remove_links(&self.stale).await
    }

    /// Removes what is still half-made after all this time, in which an ADD makes
    /// its next request; and the NAT of a node without attachments.
    async fn finish(&self) -> Vec<weir_kernel::Error> {
        let made = match self.kernel.made_links().await {
            Ok(made) => made,
            Err(error) => return vec![error],
        };
        let (finished, unfinished): (Vec<_>, Vec<_>) =
            made.into_iter().partition(|made| made.identity.is_some());
        let left: Vec<OwnLink> = unfinished
            .into_iter()
            .map(|made| made.link)
            .filter(|link| self.unfinished.contains(link))
            .collect();
        let mut errors = self.kernel.remove_links(&left).await;
        if finished.is_empty() {
            errors.extend(self.kernel.remove_nat().err());
        }
        errors
    }
}
