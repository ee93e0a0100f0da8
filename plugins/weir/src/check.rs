//! CHECK: is the attachment as ADD made it?

use std::net::IpAddr;
use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, Interface, OwnRoutes, own_routes};
use weir_common::network::{Difference, Expected, Trouble, compare, needs_nat};
use weir_kernel::Kernel;

use weir_process::DEADLINE;

use crate::cluster::Keeper;
use crate::delegate::{Delegate, is_own_ipam};
use crate::{attachment, failure};

/// Asks the IPAM plugin, and compares the kernel with the result of ADD, and with what
/// the container needs of the node. What later plugins of the chain added is let be.
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
    let differs = (!differences.is_empty()).then(|| {
        let message = format!("{}; delete and add the container again", differences.join("; "));
        Error::new(Code::CheckFailed, message)
    });
    let errors = differs.into_iter().chain(nat(call, &kernel, &expected.addresses).err());
    Error::joined(errors).map_or(Ok(()), Err)
}

/// Whether the NAT is there that the pools of these addresses asked for when an ADD
/// last made it.
fn nat(call: &Call, kernel: &Kernel, addresses: &[IpAddr]) -> Result<(), Error> {
    if !is_own_ipam(call) {
        return Ok(());
    }
    let pools = Keeper::find(call).pools_without_nat(kernel).map_err(failure::of_kernel)?;
    if addresses.iter().any(|&address| needs_nat(&pools, address)) {
        return Err(Error::new(Code::CheckFailed, Trouble::NatMissing.to_string()));
    }
    Ok(())
}

/// What ADD made, by its result. Hardware address and MTU are the result's and
/// the configuration's: another plugin of the chain may have set them.
fn expected(call: &Call, result: &AddResult) -> Result<Expected, Error> {
    let container = container_interface(call, result)?;
    let index = result.interfaces.iter().position(|interface| interface == container);
    let mut own = result.clone();
    own.ips.retain(|ip| ip.interface.is_none() || ip.interface == index);
    let configuration = &call.configuration;
    let include = configuration.include_default_routes;
    let OwnRoutes { routes, default_routes } =
        own_routes(configuration.require_ipam()?, include, &result.routes);
    own.routes = routes;
    let mtu = configuration.mtu;
    let any = mtu.unwrap_or(ANY_MTU);
    let attachment = attachment::with_default_routes(call, &own, any, default_routes)?;
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
