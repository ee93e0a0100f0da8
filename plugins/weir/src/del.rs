//! DEL: detach a container.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weir_common::cni::Error;
use weir_common::cni::skeleton::Call;
use weir_kernel::{Kernel, OwnLink};
use weir_process::{Limit, Timing, WORK};

use crate::attachment::identity_of;
use crate::source::IpamSource;
use crate::{failure, lock};

/// Removes what is there of the attachment and has its addresses released. The
/// container's namespace is not looked at: with the host's end of a veth the
/// other one goes too.
///
/// Once the host's routes are gone nothing reaches the addresses any more, so
/// they are released while the kernel takes its time over the link.
///
/// # Errors
/// All that failed, after everything has been tried; another call keeps the attachment's
/// lock.
pub async fn del(call: &Call) -> Result<(), Error> {
    let limit = Limit::of(WORK);
    let identity = match identity_of(call) {
        Ok(identity) => identity,
        // An ADD refuses it before it does anything (spec: "DEL" of what is not there).
        Err(error) => {
            tracing::debug!(%error, "nothing to remove: no ADD can have made it");
            return Ok(());
        }
    };
    let _locks = lock(&identity, limit).await?;
    let kernel = Kernel::open().map_err(failure::of_kernel)?;
    let link = kernel.remove_routes(&identity).await.map_err(failure::of_kernel);
    let (removed, released) = match link {
        Ok(removed) => {
            let (link, addresses) = removed.unzip();
            let release = release(call, &kernel, addresses.unwrap_or_default(), limit);
            tokio::join!(remove_link(&kernel, link), release)
        }
        // An address is not released while a route to it may be left.
        Err(error) => (Err(error), Ok(())),
    };
    let removed = match removed {
        Ok(()) => {
            let parted = weir_ipam::part_sources(&kernel, Some(&identity), limit).await;
            parted.map_err(failure::of_wiring)
        }
        failed => failed,
    };
    match (removed, released) {
        (Ok(()), released) => released,
        (removed, Ok(())) => removed,
        (Err(first), Err(second)) => Err(first.with_details(format!("and then: {second}"))),
    }
}

async fn remove_link(kernel: &Kernel, link: Option<OwnLink>) -> Result<(), Error> {
    let _timing = Timing::of("link");
    match link {
        None => Ok(()),
        Some(link) => kernel.remove_link(link).await.map_err(failure::of_kernel),
    }
}

/// Releases the addresses, after the connections of those that were `routed` are forgotten: the
/// next ADD may get them at once. Those whose routes are gone already are known only then.
async fn release(
    call: &Call,
    kernel: &Kernel,
    routed: BTreeSet<IpAddr>,
    limit: Limit,
) -> Result<(), Error> {
    weir_ipam::forget(kernel, routed.clone()).await;
    let timing = Timing::of("addresses");
    let released = IpamSource::find(call)?.release(call, limit).await?;
    drop(timing);
    let others = released.into_iter().filter(|address| !routed.contains(address)).collect();
    weir_ipam::forget_released(kernel, others).await;
    Ok(())
}
