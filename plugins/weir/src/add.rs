//! ADD: attach a container.

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error};
use weir_common::network::{Attachment, Expected, NodeNeeds, compare, plan_attachment, plan_node};
use weir_kernel::{Applied, Kernel, is_same_namespace};

use crate::delegate::Delegate;
use crate::{attachment, del, failure, identity_of, ipam_of, pools};

/// Attaches the container, or leaves everything as it was. An attachment that is
/// there already is answered as it was the first time, after being made anew if
/// it is not whole.
///
/// # Errors
/// Whatever is in the way.
pub async fn add(call: &Call) -> Result<AddResult, Error> {
    let ipam = ipam_of(call)?;
    let identity = identity_of(call)?;
    let delegate = Delegate::find(call, ipam)?;
    let kernel = open(call)?;
    let present = kernel.is_attached(&identity).await.map_err(failure::of_kernel)?;
    let mut running = delegate.start("ADD")?;
    // What else is needed is found out while the IPAM plugin works.
    let (addresses, mtu) = tokio::join!(running.result(call), mtu(call, &kernel));
    let attached = match (addresses, mtu) {
        (Ok(addresses), Ok(mtu)) => attach(call, &kernel, addresses, mtu, present).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    // The IPAM plugin came to its end meanwhile. Only then does its answer count.
    let attached = match (attached, running.end().await) {
        (Ok((_, applied)), Err(error)) => {
            let left = kernel.undo(applied).await;
            Err(failure::with_left(error, &left))
        }
        (attached, _) => attached.map(|(result, _)| result),
    };
    match attached {
        // The addresses of an attachment that was there stay with it until DEL.
        Err(error) if !present => Err(give_back(&delegate, error).await),
        attached => attached,
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

/// The MTU in bytes: the configured one, else the node's.
async fn mtu(call: &Call, kernel: &Kernel) -> Result<u32, Error> {
    match call.configuration.mtu {
        Some(mtu) => Ok(mtu),
        None => kernel.uplink_mtu().await.map_err(failure::of_kernel),
    }
}

async fn attach(
    call: &Call,
    kernel: &Kernel,
    addresses: AddResult,
    mtu: u32,
    present: bool,
) -> Result<(AddResult, Applied), Error> {
    let attachment = attachment::attachment(call, &addresses, mtu)?;
    let whole = present && is_whole(kernel, &attachment).await?;
    if present && !whole {
        del::remove(kernel, attachment.identity()).await?;
    }
    let mut steps = if whole { Vec::new() } else { plan_attachment(&attachment) };
    let state = kernel.node_state(attachment.has_v6()).map_err(failure::of_kernel)?;
    let (ipv4, ipv6) = (attachment.has_v4(), attachment.has_v6());
    let needs = NodeNeeds { ipv4, ipv6, nat: pools::nat(&addresses) };
    steps.extend(plan_node(&needs, &state));
    let applied = kernel.apply(&steps).await.map_err(|error| failure::of_plan(&error))?;
    let host_interface = attachment.identity().host_interface();
    tracing::info!(host_interface, addresses = ?attachment.addresses(), "attached");
    Ok((attachment::result(call, &attachment, addresses), applied))
}

async fn is_whole(kernel: &Kernel, attachment: &Attachment) -> Result<bool, Error> {
    let found = kernel.inspect(attachment.identity()).await.map_err(failure::of_kernel)?;
    Ok(compare(&Expected::of(attachment), &found).is_empty())
}

/// After a failure the IPAM plugin is told to release, whatever it may have
/// assigned ([S] "Delegated plugin execution").
async fn give_back(delegate: &Delegate<'_>, error: Error) -> Error {
    match delegate.release().await {
        Ok(()) => error,
        Err(second) => {
            let details =
                format!("{}; the addresses could not be released: {second}", error.details);
            error.with_details(details.trim_start_matches("; "))
        }
    }
}
