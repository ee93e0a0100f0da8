//! ADD: attach a container.

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error};
use weir_common::network::{
    Attachment, Expected, Nat, NodeNeeds, compare, plan_attachment, plan_node,
};
use weir_kernel::{Kernel, is_same_namespace};
use weir_process::{DEADLINE, within};

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
    let addresses = delegate.start("ADD")?.result(call);
    // What else is needed is found out while the IPAM plugin works.
    let (addresses, needed) = tokio::join!(addresses, Needed::find(call, &kernel));
    let attached = match (addresses, needed) {
        (Ok(addresses), Ok(needed)) => attach(call, &kernel, addresses, needed, present).await,
        (Err(error), _) | (_, Err(error)) => Err(error),
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

/// What an attachment needs besides its addresses.
struct Needed {
    mtu: u32,
    nat: Nat,
}

impl Needed {
    async fn find(call: &Call, kernel: &Kernel) -> Result<Self, Error> {
        let configuration = &call.configuration;
        let mtu = match configuration.mtu {
            Some(mtu) => mtu,
            None => kernel.uplink_mtu().await.map_err(failure::of_kernel)?,
        };
        let nat = within(DEADLINE, pools::nat(configuration, ipam_of(call)?)).await?;
        Ok(Self { mtu, nat })
    }
}

async fn attach(
    call: &Call,
    kernel: &Kernel,
    addresses: AddResult,
    needed: Needed,
    present: bool,
) -> Result<AddResult, Error> {
    let attachment = attachment::attachment(call, &addresses, needed.mtu)?;
    let whole = present && is_whole(kernel, &attachment).await?;
    if present && !whole {
        del::remove(kernel, attachment.identity()).await?;
    }
    let mut steps = if whole { Vec::new() } else { plan_attachment(&attachment) };
    let state = kernel.node_state(attachment.has_v6()).map_err(failure::of_kernel)?;
    steps.extend(plan_node(&node_needs(&attachment, needed.nat), &state));
    // What was applied stays: nothing after this can fail.
    let _ = kernel.apply(&steps).await.map_err(|error| failure::of_plan(&error))?;
    let host_interface = attachment.identity().host_interface();
    tracing::info!(host_interface, addresses = ?attachment.addresses(), "attached");
    Ok(attachment::result(call, &attachment, addresses))
}

async fn is_whole(kernel: &Kernel, attachment: &Attachment) -> Result<bool, Error> {
    let found = kernel.inspect(attachment.identity()).await.map_err(failure::of_kernel)?;
    Ok(compare(&Expected::of(attachment), &found).is_empty())
}

fn node_needs(attachment: &Attachment, nat: Nat) -> NodeNeeds {
    NodeNeeds { ipv4: attachment.has_v4(), ipv6: attachment.has_v6(), nat }
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
