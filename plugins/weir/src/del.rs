//! DEL: detach a container.

use weir_common::cni::Error;
use weir_common::cni::skeleton::Call;
use weir_kernel::{Kernel, OwnLink};

use crate::delegate::Delegate;
use crate::{failure, identity_of, ipam_of};

/// Removes what is there of the attachment and has its addresses released. The
/// container's namespace is not looked at: with the host's end of a veth the
/// other one goes too.
///
/// Once the host's routes are gone nothing reaches the addresses any more, so
/// they are released while the kernel takes its time over the link.
///
/// # Errors
/// All that failed, after everything has been tried.
pub async fn del(call: &Call) -> Result<(), Error> {
    let kernel = Kernel::open().map_err(failure::of_kernel)?;
    let link = kernel.remove_routes(&identity_of(call)?).await.map_err(failure::of_kernel);
    let (removed, released) = match link {
        Ok(link) => tokio::join!(remove(&kernel, link), release(call)),
        // An address is not released while a route to it may be left.
        Err(error) => (Err(error), Ok(())),
    };
    match (removed, released) {
        (Ok(()), released) => released,
        (removed, Ok(())) => removed,
        (Err(first), Err(second)) => Err(first.with_details(format!("and then: {second}"))),
    }
}

async fn remove(kernel: &Kernel, link: Option<OwnLink>) -> Result<(), Error> {
    match link {
        None => Ok(()),
        Some(link) => kernel.remove_link(link).await.map_err(failure::of_kernel),
    }
}

async fn release(call: &Call) -> Result<(), Error> {
    Delegate::find(call, ipam_of(call)?)?.release().await
}
