//! CHECK: the addresses of ADD's result must still be the attachment's.

use std::net::IpAddr;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error};
use weir_common::ipam::engine;
use weir_process::{block_on, within_turn};

use crate::handle_of;

pub fn check(call: &Call) -> Result<(), Error> {
    call.configuration.require_ipam()?;
    let Some(result) = &call.configuration.prev_result else {
        return Err(Error::new(
            Code::InvalidConfiguration,
            "prevResult is missing: CHECK compares with the result of ADD",
        ));
    };
    let handle_id = handle_of(call);
    let datastore = call.configuration.datastore.clone()?;
    let held = block_on(within_turn("looking the addresses up", async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(engine::lookup(datastore.as_ref(), &handle_id, &call.environment.interface).await?)
    }))?;
    let held: Vec<IpAddr> = held.into_iter().map(|assigned| assigned.address).collect();
    let interface = container_interface(call, result);
    // Other plugins of a chain may have given addresses to other interfaces.
    let own = result.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == interface);
    let mut expected = own.map(|ip| ip.address.addr());
    match expected.find(|address| !held.contains(address)) {
        None => Ok(()),
        Some(lost) => Err(Error::new(
            Code::CheckFailed,
            format!(
                "address {lost} is not allocated to {handle_id}; delete and add the container \
                 again; see: weirctl ipam show --ip={lost}"
            ),
        )),
    }
}

/// The index of the container's interface in a result; `None` when the result
/// lists no interfaces.
fn container_interface(call: &Call, result: &AddResult) -> Option<usize> {
    let (name, netns) = (&call.environment.interface, &call.environment.netns);
    let mut interfaces = result.interfaces.iter();
    interfaces.position(|interface| interface.name == *name && interface.sandbox == *netns)
}
