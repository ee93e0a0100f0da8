//! GC: remove what belongs to no attachment that lives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error, with_valid_attachments};
use weir_common::ipam::collect::AttachmentName;
use weir_common::network::is_unlisted;
use weir_ipam::{Claims, Ipam};
use weir_kernel::{Kernel, OwnLink};
use weir_process::{AttachmentLocks, Limit, Lock, NODE_LOCK, Timing, WORK};

use crate::failure;
use crate::node::{ClusterReading, LocalNode};
use crate::source::IpamSource;

/// Removes the links of the network that the runtime does not list, and has their
/// addresses given back, in this order: an address is not given back while the node routes
/// it. An attachment whose link cannot be removed keeps its addresses, and one that a call
/// is at work on is passed over. Without a list no link is removed that was finished: it may
/// be in use. Where no agent runs, the node's part in the cluster is brought up to date as
/// an ADD does: routes of blocks that the node no longer has go.
///
/// # Errors
/// All that failed, as one, after everything has been tried. When the links cannot
/// be listed nothing is tried: nobody knows which addresses the node still routes.
pub async fn gc(call: &Call) -> Result<(), Error> {
    let limit = Limit::of(WORK);
    let node = LocalNode::find(call);
    let claims = Claims::new(&call.configuration.network, AttachmentLocks::open()?);
    let Some(valid) = &call.configuration.valid_attachments else {
        let kernel = Kernel::open().map_err(failure::of_kernel)?;
        let removed = weir_ipam::remove_unfinished(&kernel, &claims).await;
        let given_back = give_back(call, &kernel, &node, &BTreeSet::new(), &claims, limit).await?;
        follow(&kernel, &node, given_back, (call, limit)).await;
        return removed;
    };
    let links = Links::find(&call.configuration.network, valid, &claims).await?;
    let (left, mut errors) = links.remove_stale().await;
    match give_back(call, &links.kernel, &node, &left, &claims, limit).await {
        // Before the NAT goes with the last container.
        Ok(cluster) => follow(&links.kernel, &node, cluster, (call, limit)).await,
        Err(error) => errors.push(error),
    }
    let parted = weir_ipam::part_sources(&links.kernel, None, limit).await;
    errors.extend(parted.err().map(failure::of_wiring));
    errors.extend(links.remove_nat(&node, limit).await.err());
    Error::joined(errors).map_or(Ok(()), Err)
}

/// Has the IPAM do its part, which is to keep the addresses of the attachments that are
/// `left`, besides those that the runtime lists. Answers what there is in the cluster, if
/// that has changed and no agent sees to it.
async fn give_back(
    call: &Call,
    kernel: &Kernel,
    node: &LocalNode,
    left: &BTreeSet<AttachmentName>,
    claims: &Claims,
    limit: Limit,
) -> Result<Option<ClusterReading>, Error> {
    let _timing = Timing::of("addresses");
    match IpamSource::find(call)? {
        IpamSource::Own => {
            let ipam = Ipam::open(call, limit).await?;
            let listed = call.configuration.valid_attachments.as_ref();
            let valid = listed.map(|listed| listed | left);
            let (released, failed) = ipam.gc(valid.as_ref(), claims).await?;
            weir_ipam::forget_released(kernel, released.into_iter().collect()).await;
            failed.map_or(Ok(()), Err)?;
            node.repair_host_ends(kernel, &ipam).await;
            Ok(match node.is_outdated(ipam.datastore.as_ref()).await {
                true => node.read_cluster(&ipam, limit).await,
                false => None,
            })
        }
        IpamSource::Plugin(delegate) => {
            delegate.with_input(&input(call, left)?).run("GC", limit).await?;
            Ok(None)
        }
    }
}

/// The configuration for another IPAM plugin, with what is `left` on its list too.
fn input<'a>(call: &'a Call, left: &BTreeSet<AttachmentName>) -> Result<Cow<'a, [u8]>, Error> {
    if left.is_empty() {
        return Ok(Cow::Borrowed(&call.input));
    }
    let failed = |error: serde_json::Error| Error::caused(Code::Decode, &error);
    let json = serde_json::from_slice(&call.input).map_err(failed)?;
    let json = serde_json::to_vec(&with_valid_attachments(json, left)).map_err(failed)?;
    Ok(Cow::Owned(json))
}

async fn follow(
    kernel: &Kernel,
    node: &LocalNode,
    cluster: Option<ClusterReading>,
    (call, limit): (&Call, Limit),
) {
    if let Some(cluster) = cluster {
        node.reconcile(kernel, cluster, (call, limit)).await;
    }
}

/// The links to remove.
struct Links {
    kernel: Kernel,
    /// Of attachments that are not listed.
    stale: Vec<(AttachmentName, OwnLink)>,
    /// Half-made ones.
    unfinished: Vec<OwnLink>,
    /// The attachments of those that a call is at work on.
    busy: BTreeSet<AttachmentName>,
}

impl Links {
    async fn find(
        network: &str,
        valid: &BTreeSet<AttachmentName>,
        claims: &Claims,
    ) -> Result<Self, Error> {
        let kernel = Kernel::open().map_err(failure::of_kernel)?;
        let (mut stale, mut busy) = (Vec::new(), BTreeSet::new());
        for made in kernel.made_links().await.map_err(failure::of_kernel)? {
            let Some(identity) = made.identity else { continue };
            if !is_unlisted(made.link.name(), Some(&identity), network, valid) {
                continue;
            }
            if claims.claim_link(made.link.name())? {
                stale.push((identity.name(), made.link));
            } else {
                busy.insert(identity.name());
            }
        }
        let is_meant = |name: &str| is_unlisted(name, None, network, valid);
        let unfinished = claims.claim_unfinished(&kernel, is_meant).await?;
        Ok(Self { kernel, stale, unfinished, busy })
    }

    /// Removes them; with a link go its routes and the container's end. Returns the
    /// attachments whose links are left, and what the kernel refused.
    async fn remove_stale(&self) -> (BTreeSet<AttachmentName>, Vec<Error>) {
        let _timing = Timing::of("links");
        let (names, mut links): (Vec<_>, Vec<_>) = self.stale.iter().cloned().unzip();
        links.extend(self.unfinished.iter().cloned());
        let addresses = self.kernel.addresses_of(&links).await.unwrap_or_default();
        let failed = self.kernel.remove_links(&links).await;
        weir_ipam::forget_released(&self.kernel, addresses).await;
        let left: BTreeSet<usize> = failed.iter().map(|(place, _)| *place).collect();
        for link in links.iter().enumerate().filter(|(place, _)| !left.contains(place)) {
            let host_interface = link.1.name();
            tracing::info!(
                host_interface,
                "removed: its attachment is not listed, or was never finished"
            );
        }
        let left = left.into_iter().filter_map(|place| names.get(place).cloned());
        let left = left.chain(self.busy.iter().cloned()).collect();
        let errors = failed.into_iter().map(|(_, error)| failure::of_kernel(error));
        (left, errors.collect())
    }

    /// Removes the NAT of a node without attachments, where no agent sees to it. An ADD
    /// makes its link first and looks at the NAT afterwards, under the same lock: either
    /// its link is seen here, or it finds that the NAT is gone.
    async fn remove_nat(&self, node: &LocalNode, limit: Limit) -> Result<(), Error> {
        let is_empty = async || {
            let made = self.kernel.made_links().await.map_err(failure::of_kernel)?;
            Ok::<_, Error>(made.iter().all(|made| made.identity.is_none()))
        };
        if node.is_kept_by_agent() || !is_empty().await? {
            return Ok(());
        }
        let _lock = Lock::wait(Path::new(NODE_LOCK), limit).await?;
        if !is_empty().await? {
            return Ok(());
        }
        self.kernel.remove_nat().await.map_err(failure::of_kernel)
    }
}
