//! GC: remove what belongs to no attachment that lives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error, cluster_of, with_valid_attachments};
use weir_common::ipam::collect::AttachmentName;
use weir_common::network::{ClusterNotice, Fate, fate};
use weir_kernel::{Kernel, OwnLink};
use weir_process::{DEADLINE, Lock, NAT_LOCK, Timing};

use crate::cluster::{Keeper, Upkeep};
use crate::delegate::Delegate;
use crate::failure;

/// Removes the links of the network that the runtime does not list, and has the
/// IPAM plugin give back the addresses, in this order: an address is not given
/// back while the node routes it. An attachment whose link cannot be removed keeps
/// its addresses. Without a list no link is removed: one that is there may be in use.
/// Where no agent runs, the node's part in the cluster is brought up to date as an ADD
/// does: routes of blocks that the node no longer has go.
///
/// # Errors
/// All that failed, as one, after everything has been tried. When the links cannot
/// be listed nothing is tried: nobody knows which addresses the node still routes.
pub async fn gc(call: &Call) -> Result<(), Error> {
    let keeper = Keeper::find(call);
    let Some(valid) = &call.configuration.valid_attachments else {
        let kernel = Kernel::open().map_err(failure::of_kernel)?;
        let notice = delegate(call, &keeper, &call.input).await?;
        follow(&kernel, &keeper, notice).await;
        return Ok(());
    };
    let links = Links::find(&call.configuration.network, valid).await;
    let links = links.map_err(failure::of_kernel)?;
    let (left, mut errors) = links.remove_stale().await;
    match delegate(call, &keeper, &input(call, &left)?).await {
        // Before the NAT goes with the last container.
        Ok(notice) => follow(&links.kernel, &keeper, notice).await,
        Err(error) => errors.push(error),
    }
    errors.extend(links.finish(call).await.into_iter().map(failure::of_kernel));
    Error::joined(errors).map_or(Ok(()), Err)
}

/// The configuration for the IPAM plugin, which is to keep the addresses of the
/// attachments that are `left`, too.
fn input<'a>(call: &'a Call, left: &BTreeSet<AttachmentName>) -> Result<Cow<'a, [u8]>, Error> {
    if left.is_empty() {
        return Ok(Cow::Borrowed(&call.input));
    }
    let failed = |error: serde_json::Error| Error::caused(Code::Decode, &error);
    let json = serde_json::from_slice(&call.input).map_err(failed)?;
    let json = serde_json::to_vec(&with_valid_attachments(json, left)).map_err(failed)?;
    Ok(Cow::Owned(json))
}

/// Has the IPAM plugin do its part. It answers what there is in the cluster, if that
/// has changed since the `keeper` saw to the node.
async fn delegate(
    call: &Call,
    keeper: &Keeper,
    input: &[u8],
) -> Result<Option<ClusterNotice>, Error> {
    let _timing = Timing::of("addresses");
    let delegate = Delegate::find(call, call.configuration.require_ipam()?)?;
    let delegate = delegate.with_input(input).asking(keeper.question());
    let answer = delegate.start("GC", DEADLINE)?.finish_with_answer().await?;
    Ok(cluster_of(&answer))
}

async fn follow(kernel: &Kernel, keeper: &Keeper, notice: Option<ClusterNotice>) {
    if let Some(upkeep) = Upkeep::take(kernel, notice).await {
        upkeep.carry_out(kernel, keeper).await;
    }
}

/// The links to remove.
struct Links {
    kernel: Kernel,
    /// Of attachments that are not listed.
    stale: Vec<(AttachmentName, OwnLink)>,
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
                Fate::Remove => {
                    stale.extend(made.identity.map(|identity| (identity.name(), made.link)));
                }
                Fate::RemoveIfUnfinished => unfinished.push(made.link),
            }
        }
        Ok(Self { kernel, stale, unfinished })
    }

    /// With a link go its routes and the container's end. Returns the attachments
    /// whose links are left, and why they are.
    async fn remove_stale(&self) -> (BTreeSet<AttachmentName>, Vec<Error>) {
        let _timing = Timing::of("links");
        let (names, links): (Vec<_>, Vec<_>) = self.stale.iter().cloned().unzip();
        let failed = self.kernel.remove_links(&links).await;
        let left: BTreeSet<usize> = failed.iter().map(|(place, _)| *place).collect();
        for link in links.iter().enumerate().filter(|(place, _)| !left.contains(place)) {
            let host_interface = link.1.name();
            tracing::info!(host_interface, "removed: its attachment is not listed");
        }
        let left = left.into_iter().map(|place| names[place].clone()).collect();
        let errors = failed.into_iter().map(|(_, error)| failure::of_kernel(error));
        (left, errors.collect())
    }

    /// Removes what is still half-made after all this time, in which an ADD makes
    /// its next request; and the NAT of a node without attachments.
    async fn finish(&self, call: &Call) -> Vec<weir_kernel::Error> {
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
        let failed = self.kernel.remove_links(&left).await;
        let mut errors: Vec<_> = failed.into_iter().map(|(_, error)| error).collect();
        // The agent sees to it where it runs.
        if finished.is_empty() && !Keeper::find(call).is_agent() {
            errors.extend(self.remove_nat().await.err());
        }
        errors
    }

    /// Removes the node's NAT unless an ADD came in meanwhile. An ADD makes its link
    /// first and looks at the NAT afterwards, under the same lock: either its link is
    /// seen here, or it finds that the NAT is gone.
    async fn remove_nat(&self) -> Result<(), weir_kernel::Error> {
        let _lock = match Lock::require(Path::new(NAT_LOCK)) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!(file = NAT_LOCK, %error, "the NAT stays until the next GC: no lock");
                return Ok(());
            }
        };
        let made = self.kernel.made_links().await?;
        if made.iter().any(|made| made.identity.is_some()) {
            return Ok(());
        }
        self.kernel.remove_nat()
    }
}
