//! ADD: attach a container.

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, attachment_of, identity_of, result_of};
use weir_common::ipam::Family;
use weir_common::network::{
    Attachment, AttachmentIdentity, Expected, Families, Mtu, MtuSource, Nat, NodeNeeds, Route,
    Step, compare, plan_addresses, plan_attachment, plan_link, plan_node, plan_parameters,
};
use weir_kernel::{Applied, Kernel, is_same_namespace};
use weir_process::{ANSWER, CLEAN_UP, Lock, NAT_LOCK, Timing};

use crate::cluster::{Keeper, Upkeep};
use crate::delegate::{Delegate, is_own_ipam};
use crate::{del, failure, forwarding, pools};

/// Attaches the container, or leaves everything as it was. An attachment that is
/// there already is answered as it was the first time, after being made anew if
/// it is not whole.
///
/// # Errors
/// Whatever is in the way.
pub async fn add(call: &Call) -> Result<AddResult, Error> {
    let ipam = call.configuration.require_ipam()?;
    let identity = identity_of(call)?;
    let keeper = Keeper::find(call);
    let delegate = Delegate::find(call, ipam)?.asking(keeper.question());
    let kernel = open(call)?;
    let present = kernel.is_attached(&identity).await.map_err(failure::of_kernel)?;
    let checked = match expected_families(call).is_some_and(|families| families.ipv6) {
        true => Some(mtu(call, &kernel, &keeper).await?),
        // Nothing is too small for IPv4: it is looked up meanwhile.
        false => None,
    };
    let mut running = delegate.start("ADD", ANSWER)?;
    // While the IPAM plugin works, what needs no address is done.
    let ask = async {
        let _timing = Timing::of("addresses");
        running.result(call).await
    };
    let prepare = prepare(call, &kernel, &keeper, checked, &identity, present);
    let (mut addresses, link) = tokio::join!(ask, prepare);
    let upkeep = match &mut addresses {
        Ok(addresses) => {
            let notice = addresses.cluster.take().map(|notice| *notice);
            Upkeep::take(&kernel, notice).await
        }
        Err(_) => None,
    };
    let attached = match (addresses, link) {
        (Ok(addresses), Ok(link)) => {
            let link = link.with_upkeep(call, upkeep.as_ref());
            attach(call, &kernel, &keeper, addresses, link).await
        }
        (Err(error), Ok(link)) => Err(undo(&kernel, link.applied, error).await),
        (_, Err(error)) => Err(error),
    };
    // The IPAM plugin came to its end meanwhile. Only then does its answer count.
    let attached = match (attached, running.end().await) {
        (Ok((_, applied)), Err(error)) => Err(undo(&kernel, applied, error).await),
        (attached, _) => attached.map(|(result, _)| result),
    };
    match attached {
        // The addresses of an attachment that was there stay with it until DEL.
        Err(error) if !present => Err(give_back(&delegate, error).await),
        Err(error) => Err(error),
        Ok(result) => {
            if let Some(upkeep) = upkeep {
                upkeep.carry_out(&kernel, &keeper).await;
            }
            Ok(result)
        }
    }
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
pub async fn mtu(call: &Call, kernel: &Kernel, keeper: &Keeper) -> Result<Mtu, Error> {
    let with_ipv6 = expected_families(call).is_some_and(|families| families.ipv6);
    let known = call.configuration.mtu.map(Mtu::configured).or(keeper.pod_mtu());
    let mtu = match known {
        None => {
            let bytes = kernel.uplink_mtu().await.map_err(failure::of_kernel)?;
            Mtu { bytes, source: MtuSource::Uplink }
        }
        // The uplink may have been given a larger one since.
        Some(mtu) if mtu.source == MtuSource::Cluster && mtu.check(with_ipv6).is_err() => {
            keeper.pod_mtu_anew(kernel).await.map_err(failure::of_kernel)?.unwrap_or(mtu)
        }
        Some(mtu) => mtu,
    };
    let checked = mtu.check(with_ipv6);
    checked.map_err(|error| Error::caused(Code::InvalidConfiguration, &error))?;
    Ok(mtu)
}

/// The container's link, before its addresses are known.
struct Link {
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
    applied: Applied,
}

impl Link {
    fn with_upkeep(self, call: &Call, upkeep: Option<&Upkeep>) -> Self {
        let of_cluster = upkeep.and_then(Upkeep::pod_mtu);
        let is_open = call.configuration.mtu.is_none();
        let mtu = of_cluster.filter(|_| is_open).unwrap_or(self.mtu);
        Self { mtu, is_of_other_mtu: mtu.bytes != self.mtu.bytes, ..self }
    }
}

async fn prepare(
    call: &Call,
    kernel: &Kernel,
    keeper: &Keeper,
    checked: Option<Mtu>,
    identity: &AttachmentIdentity,
    present: bool,
) -> Result<Link, Error> {
    let _timing = Timing::of("link");
    let mtu = match checked {
        Some(mtu) => mtu,
        None => mtu(call, kernel, keeper).await?,
    };
    let ready_for = expected_families(call).filter(|_| !present);
    let mut steps =
        if present { Vec::new() } else { plan_link(identity, call.configuration.mac, mtu.bytes) };
    if let Some(families) = ready_for {
        steps.extend(plan_parameters(identity, families, forwarding(call)));
    }
    let beside = kernel.routes_beside(identity).await.map_err(failure::of_kernel)?;
    let applied = kernel.apply(&steps).await.map_err(|error| failure::of_plan(&error))?;
    Ok(Link { mtu, is_of_other_mtu: false, ready_for, present, beside, applied })
}

/// The IP versions that the result will have, where that is known beforehand.
fn expected_families(call: &Call) -> Option<Families> {
    let ipam = call.configuration.ipam.as_ref().filter(|_| is_own_ipam(call))?;
    let wanted = |family| ipam.wants.iter().any(|want| want.family() == family);
    Some(Families { ipv4: wanted(Family::V4), ipv6: wanted(Family::V6) })
}

async fn attach(
    call: &Call,
    kernel: &Kernel,
    keeper: &Keeper,
    addresses: AddResult,
    link: Link,
) -> Result<(AddResult, Applied), Error> {
    let _timing = Timing::of("attach");
    let (attachment, steps) = match plan(call, kernel, &addresses, &link).await {
        Ok(planned) => planned,
        Err(error) => return Err(undo(kernel, link.applied, error).await),
    };
    let applied = kernel.apply_after(link.applied, &steps).await;
    let applied = applied.map_err(|error| failure::of_plan(&error))?;
    let applied = if keeper.is_agent() {
        applied
    } else {
        make_node(kernel, attachment.families(), pools::nat(&addresses), applied).await?
    };
    let host_interface = attachment.identity().host_interface();
    tracing::info!(host_interface, addresses = ?attachment.addresses(), "attached");
    Ok((result_of(call, &attachment, addresses), applied))
}

/// Gives the node what its attachments need, where no agent sees to it.
async fn make_node(
    kernel: &Kernel,
    families: Families,
    nat: Nat,
    applied: Applied,
) -> Result<Applied, Error> {
    let state = match kernel.node_state(families.ipv6) {
        Ok(state) => state,
        Err(error) => return Err(undo(kernel, applied, failure::of_kernel(error)).await),
    };
    let Families { ipv4, ipv6 } = families;
    let steps = plan_node(&NodeNeeds { ipv4, ipv6, nat: nat.clone() }, &state);
    // A GC looks for attachments and removes the NAT under the same lock.
    let _lock = (nat != Nat::AsItIs).then(|| Lock::take(Path::new(NAT_LOCK)));
    kernel.apply_after(applied, &steps).await.map_err(|error| failure::of_plan(&error))
}

/// What is still to be done for an attachment.
async fn plan(
    call: &Call,
    kernel: &Kernel,
    addresses: &AddResult,
    link: &Link,
) -> Result<(Attachment, Vec<Step>), Error> {
    let of_mtu = |mtu| attachment_of(call, addresses, mtu, forwarding(call));
    let attachment = of_mtu(link.mtu)?;
    let whole = if link.present { whole(call, kernel, &attachment).await? } else { None };
    let attachment = match whole {
        Some(bytes) => of_mtu(Mtu { bytes, ..link.mtu })?,
        None => attachment,
    };
    let attachment = attachment.beside(link.beside.clone());
    let families = attachment.families();
    let is_other = |ready_for| ready_for != families;
    let steps = if whole.is_some() {
        Vec::new()
    } else if link.present || link.is_of_other_mtu || link.ready_for.is_some_and(is_other) {
        del::remove(kernel, attachment.identity()).await?;
        plan_attachment(&attachment)
    } else if link.ready_for.is_some() {
        plan_addresses(&attachment)
    } else {
        let forwarding = forwarding(call);
        let mut steps = plan_parameters(attachment.identity(), families, forwarding);
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

/// After a failure the IPAM plugin is told to release, whatever it may have
/// assigned (spec: "Delegated plugin execution").
async fn give_back(delegate: &Delegate<'_>, error: Error) -> Error {
    match delegate.release(CLEAN_UP).await {
        Ok(()) => error,
        Err(second) => {
            let details =
                format!("{}; the addresses could not be released: {second}", error.details);
            error.with_details(details.trim_start_matches("; "))
        }
    }
}
