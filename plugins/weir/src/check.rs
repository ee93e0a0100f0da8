//! CHECK: is the attachment as ADD made it?

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, Interface};
use weir_common::network::{Difference, Expected, compare};
use weir_kernel::Kernel;

use weir_process::DEADLINE;

use crate::delegate::{Delegate, is_own_ipam};
use crate::{attachment, failure};

/// Asks the IPAM plugin, and compares the kernel with the result of ADD. What
/// later plugins of the chain added is let be.
///
/// # Errors
/// Everything that is not as it should be.
pub async fn check(call: &Call) -> Result<(), Error> {
    let Some(result) = &call.configuration.prev_result else {
        return Err(Error::new(
            Code::InvalidConfiguration,
            "prevResult is missing: CHECK compares with the result of ADD",
        ));
    };
    let delegate = Delegate::find(call, call.configuration.require_ipam()?)?;
    delegate.start("CHECK", DEADLINE)?.finish().await?;
    let expected = expected(call, result)?;
    let path = Path::new(&call.environment.netns);
    let kernel = Kernel::open_with_container(path).map_err(failure::of_kernel)?;
    let found = kernel.inspect(&expected.identity).await.map_err(failure::of_kernel)?;
    let differences: Vec<String> =
        compare(&expected, &found).iter().map(Difference::to_string).collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Code::CheckFailed,
        format!("{}; delete and add the container again", differences.join("; ")),
    ))
}

/// What ADD made, by its result. Hardware address and MTU are the result's and
/// the configuration's: another plugin of the chain may have set them.
fn expected(call: &Call, result: &AddResult) -> Result<Expected, Error> {
    let container = container_interface(call, result)?;
    let index = result.interfaces.iter().position(|interface| interface == container);
    let mut own = result.clone();
    own.ips.retain(|ip| ip.interface.is_none() || ip.interface == index);
    if is_own_ipam(call) {
        // weir-ipam gives the configured ones: all others are another plugin's.
        own.routes = call.configuration.require_ipam()?.routes.clone();
    }
    let mtu = call.configuration.mtu;
    let attachment = attachment::attachment(call, &own, mtu.unwrap_or(ANY_MTU))?;
    Ok(Expected { mac: container.mac.parse().ok(), mtu, ..Expected::of(&attachment) })
}

/// An MTU for a plan in which it is not looked at.
const ANY_MTU: u32 = 1500;

fn container_interface<'a>(call: &Call, result: &'a AddResult) -> Result<&'a Interface, Error> {
    let (name, netns) = (&call.environment.interface, &call.environment.netns);
    let wanted = |interface: &&Interface| interface.name == *name && interface.sandbox == *netns;
    result.interfaces.iter().find(wanted).ok_or_else(|| {
        Error::new(
            Code::CheckFailed,
            format!(
                "prevResult has no interface {name} in {netns}; delete and add the container again"
            ),
        )
    })
}
