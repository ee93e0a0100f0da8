//! ADD: attach a container.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::FutureExt;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error};
use weir_common::ipam::Family;
use weir_common::link::SourceCheck;
use weir_common::network::{
    Attachment, AttachmentIdentity, Expected, Families, Mtu, MtuSource, Nat, Route, Step, compare,
    plan_addresses, plan_attachment, plan_link, plan_parameters,
};
use weir_kernel::{Applied, Kernel, is_same_namespace};
use weir_process::{CLEAN_UP, Limit, Timing, WORK};

use crate::attachment::{attachment_of, identity_of, result_of};
use crate::node::{ClusterReading, LocalNode};
use crate::source::{Given, IpamSource, is_own_ipam};
use crate::{failure, forwarding, lock};

/// Attaches the container, or leaves everything as it was. An attachment that is
/// there already is answered as it was the first time, after being made again if
/// it is not whole.
///
/// # Errors
/// Whatever is in the way.
pub async fn add(call: &Call) -> Result<AddResult, Error> {
    let limit = Limit::of(WORK);
    let source = IpamSource::find(call)?;
    let identity = identity_of(call)?;
    let kernel = open(call)?;
    let _locks = lock(&identity, limit).await?;
    let node = LocalNode::find(call);
    let present = kernel.is_attached(&identity).await.map_err(failure::of_kernel)?;
    let (link, steps) =
        plan_container_link(call, &kernel, &node, (&identity, present), limit).await?;
    match attach(call, &kernel, (&node, &source), (link, &steps), limit).await {
        Ok((result, cluster)) => {
            if let Some(cluster) = cluster {
                node.reconcile(&kernel, cluster, (call, limit)).await;
            }
            if is_own_ipam(call) {
                node.repair_unrouted(&kernel, call, limit).await;
            }
            Ok(result)
        }
        Err(error) => {
            let error = give_back(call, &kernel, &source, &identity, error).await;
            let limit = Limit::of(CLEAN_UP);
            Err(match weir_ipam::part_sources(&kernel, Some(&identity), limit).await {
                Ok(()) => error,
                Err(second) => {
                    let details = format!("{}; and then: {second}", error.details);
                    error.with_details(details.trim_start_matches("; "))
                }
            })
        }
    }
}

/// Attaches the container, whose `link` is made by these steps. Where that fails the kernel is as
/// it was, but addresses may be assigned.
async fn attach(
    call: &Call,
    kernel: &Kernel,
    (node, source): (&LocalNode, &IpamSource<'_>),
    (link, steps): (ContainerLink, &[Step]),
    limit: Limit,
) -> Result<(AddResult, Option<ClusterReading>), Error> {
    let make = async {
        let _timing = Timing::of("link");
        kernel.apply(steps).await.map_err(|error| failure::of_plan(&error))
    };
    let assign = async {
        let _timing = Timing::of("addresses");
        let assigned = AssertUnwindSafe(source.assign(call, node, limit)).catch_unwind().await;
        // The skeleton would answer a panic by a DEL, also of what an earlier ADD attached.
        assigned.unwrap_or_else(|_| {
            let message = "assigning addresses failed unexpectedly; please report it";
            Err(Error::new(Code::Internal, message))
        })
    };
    // The kernel is asked for the link first: addresses are assigned while it makes that.
    let (applied, given) = match tokio::join!(make, assign) {
        (Ok(applied), Ok(given)) => (applied, given),
        (Ok(applied), Err(error)) => return Err(undo(kernel, applied, error).await),
        (Err(error), _) => return Err(error),
    };
    let Given { result, pools, cluster, running } = given;
    let link = link.with_mtu_of(call, cluster.as_ref());
    let nat = node.nat(pools.as_deref());
    let (result, applied) =
        connect(call, kernel, (node, nat), result, (link, applied, limit)).await?;
    // Another IPAM plugin came to its end meanwhile. Only then does its answer count.
    if let Some(running) = running
        && let Err(error) = running.end().await
    {
        return Err(undo(kernel, applied, error).await);
    }
    Ok((result, cluster))
}

/// Opens the container's namespace, unless it is the node's.
fn open(call: &Call) -> Result<Kernel, Error> {
    let path = Path::new(&call.environment.netns);
    let kernel = Kernel::open_with_container(path).map_err(failure::of_kernel)?;
    if !call.environment.netns_override && is_same_namespace(path).map_err(failure::of_kernel)? {
        return Err(Error::new(
            Code::InvalidNamespace,
            format!(
                "CNI_NETNS {} is the node's own network namespace; name the container's, or set \
                 CNI_NETNS_OVERRIDE=1 if it is meant",
                path.display()
            ),
        ));
    }
    Ok(kernel)
}

/// The MTU: the configured one, else what is known from the cluster, else the node's.
///
/// # Errors
/// [`Code::InvalidConfiguration`] when it will not do for the IP versions that are
/// wanted, as far as that is known beforehand.
pub async fn mtu(call: &Call, kernel: &Kernel, node: &LocalNode) -> Result<Mtu, Error> {
    let with_ipv6 = expected_families(call).is_some_and(|families| families.ipv6);
    let known = call.configuration.mtu.map(Mtu::configured).or(node.pod_mtu());
    let mtu = match known {
        None => {
            let bytes = kernel.uplink_mtu().await.map_err(failure::of_kernel)?;
            Mtu { bytes, source: MtuSource::Uplink }
        }
        // The uplink may have been given a larger one since.
        Some(mtu) if mtu.source == MtuSource::Cluster && mtu.check(with_ipv6).is_err() => {
            node.pod_mtu_now(kernel).await.map_err(failure::of_kernel)?.unwrap_or(mtu)
        }
        Some(mtu) => mtu,
    };
    let checked = mtu.check(with_ipv6);
    checked.map_err(|error| Error::caused(Code::InvalidConfiguration, &error))?;
    Ok(mtu)
}

/// The container's link, before its addresses are known.
struct ContainerLink {
    /// The MTU that it is to have.
    mtu: Mtu,
    /// Whether it was made with another one, before the cluster was known.
    is_of_other_mtu: bool,
    /// The IP versions that it is ready for.
    ready_for: Option<Families>,
    /// Whether an earlier ADD made it.
    present: bool,
    /// The routes of the container by its other interfaces.
    beside: Vec<Route>,
}

impl ContainerLink {
    fn with_mtu_of(self, call: &Call, cluster: Option<&ClusterReading>) -> Self {
        let of_cluster = cluster.and_then(|cluster| cluster.pod_mtu);
        let is_open = call.configuration.mtu.is_none();
        let mtu = of_cluster.filter(|_| is_open).unwrap_or(self.mtu);
        Self { mtu, is_of_other_mtu: mtu.bytes != self.mtu.bytes, ..self }
    }
}

/// What is needed of the kernel to make the link, and the steps that do.
async fn plan_container_link(
    call: &Call,
    kernel: &Kernel,
    node: &LocalNode,
    (identity, present): (&AttachmentIdentity, bool),
    limit: Limit,
) -> Result<(ContainerLink, Vec<Step>), Error> {
    let mtu = mtu(call, kernel, node).await?;
    let (sources, allowed) = (call.configuration.source_check, &call.configuration.allowed_sources);
    if sources == SourceCheck::Strict {
        // Before the container can send anything.
        let ensured = weir_ipam::ensure_source_filter(kernel, limit).await;
        ensured.map_err(failure::of_wiring)?;
    }
    let ready_for = expected_families(call).filter(|_| !present);
    let mut steps = match present {
        true => Vec::new(),
        false => plan_link(identity, call.configuration.mac, mtu.bytes, sources, allowed),
    };
    if let Some(families) = ready_for {
        steps.extend(plan_parameters(identity, families, forwarding(call), sources));
    }
    let families = expected_families(call).unwrap_or(Families { ipv4: true, ipv6: true });
    let beside = kernel.routes_beside(identity, present, families).await;
    let beside = beside.map_err(failure::of_kernel)?;
    Ok((ContainerLink { mtu, is_of_other_mtu: false, ready_for, present, beside }, steps))
}

/// The IP versions that the result will have, where that is known beforehand.
fn expected_families(call: &Call) -> Option<Families> {
    let ipam = call.configuration.ipam.as_ref().filter(|_| is_own_ipam(call))?;
    let wanted = |family| ipam.wants.iter().any(|want| want.family() == family);
    Some(Families { ipv4: wanted(Family::V4), ipv6: wanted(Family::V6) })
}

/// Gives the link its addresses, and the node what it needs for them.
async fn connect(
    call: &Call,
    kernel: &Kernel,
    (node, nat): (&LocalNode, Nat),
    addresses: AddResult,
    (link, applied, limit): (ContainerLink, Applied, Limit),
) -> Result<(AddResult, Applied), Error> {
    let _timing = Timing::of("attach");
    let (attachment, steps) = match plan(call, (kernel, node), &addresses, &link).await {
        Ok(planned) => planned,
        Err(error) => return Err(undo(kernel, applied, error).await),
    };
    let host_interface = attachment.identity().host_interface();
    let may_send_more = !link.beside.is_empty()
        || !call.configuration.allowed_sources.is_empty()
        // What an earlier ADD allowed may not hold any more.
        || link.present && kernel.allows_more(Some(&host_interface));
    let applied = kernel.apply_after(applied, &steps).await;
    let mut applied = applied.map_err(|error| failure::of_plan(&error))?;
    if may_send_more
        && let Err(error) = weir_ipam::allow_sources(kernel, attachment.identity(), limit).await
    {
        return Err(undo(kernel, applied, failure::of_wiring(error)).await);
    }
    if !node.is_kept_by_agent() {
        applied = make_node(kernel, attachment.families(), nat, (applied, limit)).await?;
    }
    tracing::info!(host_interface, addresses = ?attachment.addresses(), "attached");
    Ok((result_of(call, &attachment, addresses), applied))
}

/// Gives the node what its attachments need, where no agent sees to it.
async fn make_node(
    kernel: &Kernel,
    families: Families,
    nat: Nat,
    (applied, limit): (Applied, Limit),
) -> Result<Applied, Error> {
    match weir_ipam::plan_of_node(kernel, families, nat, limit).await {
        Ok((steps, _lock)) => {
            let applied = kernel.apply_after(applied, &steps).await;
            applied.map_err(|error| failure::of_plan(&error))
        }
        Err(error) => Err(undo(kernel, applied, failure::of_wiring(error)).await),
    }
}

/// What is still to be done for an attachment.
async fn plan(
    call: &Call,
    (kernel, node): (&Kernel, &LocalNode),
    addresses: &AddResult,
    link: &ContainerLink,
) -> Result<(Attachment, Vec<Step>), Error> {
    let of_mtu = |mtu| attachment_of(call, addresses, mtu, forwarding(call));
    let attachment = of_mtu(link.mtu)?;
    let whole = if link.present { whole(call, kernel, &attachment).await? } else { None };
    let attachment = match whole {
        Some(bytes) => of_mtu(Mtu { bytes, ..link.mtu })?,
        None => attachment,
    };
    let attachment = attachment.beside(link.beside.clone()).seen_from(node.sources());
    let families = attachment.families();
    let is_other = |ready_for| ready_for != families;
    let steps = if whole.is_some() {
        Vec::new()
    } else if link.present || link.is_of_other_mtu || link.ready_for.is_some_and(is_other) {
        let removed = weir_ipam::remove(kernel, attachment.identity()).await;
        removed.map_err(failure::of_kernel)?;
        plan_attachment(&attachment)
    } else if link.ready_for.is_some() {
        plan_addresses(&attachment)
    } else {
        let forwarding = forwarding(call);
        let sources = call.configuration.source_check;
        let mut steps = plan_parameters(attachment.identity(), families, forwarding, sources);
        steps.extend(plan_addresses(&attachment));
        steps
    };
    Ok((attachment, steps))
}

async fn undo(kernel: &Kernel, applied: Applied, error: Error) -> Error {
    failure::with_left(error, &kernel.undo(applied).await)
}

/// The MTU in bytes that an attachment was born with, if it needs nothing. That may stay:
/// the cluster's may be another one by now, and connections would not survive.
async fn whole(
    call: &Call,
    kernel: &Kernel,
    attachment: &Attachment,
) -> Result<Option<u32>, Error> {
    let mtu = call.configuration.mtu;
    let expected = Expected { mtu, host_mtu: mtu, ..Expected::of(attachment) };
    let found = kernel.inspect(&expected).await.map_err(failure::of_kernel)?;
    let is_whole = compare(&expected, &found).is_empty();
    Ok(found.host.filter(|_| is_whole).map(|host| host.mtu))
}

/// After a failure the addresses are released, whatever was assigned (spec: "Delegated
/// plugin execution"), unless the kernel has the attachment: then they stay with it until
/// DEL. What the kernel has at this moment counts, not what it had when the call began.
async fn give_back(
    call: &Call,
    kernel: &Kernel,
    source: &IpamSource<'_>,
    identity: &AttachmentIdentity,
    error: Error,
) -> Error {
    // A socket of its own: the one that was used may be what failed.
    let has_attachment = async { Kernel::open()?.has_host_end(identity).await };
    let released = match has_attachment.await {
        Ok(true) => Ok(()),
        Ok(false) => match source.release(call, Limit::of(CLEAN_UP)).await {
            Ok(addresses) => {
                weir_ipam::forget_released(kernel, addresses.into_iter().collect()).await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        Err(error) => Err(failure::of_kernel(error)),
    };
    match released {
        Ok(()) => error,
        Err(second) => {
            let details =
                format!("{}; the addresses could not be released: {second}", error.details);
            error.with_details(details.trim_start_matches("; "))
        }
    }
}
