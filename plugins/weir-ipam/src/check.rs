//! CHECK: the addresses of ADD's result must still be the attachment's.

use std::net::IpAddr;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::ipam::engine;
use weir_process::{DEADLINE, block_on, within};

use crate::{handle_of, ipam_of};

pub fn check(call: &Call) -> Result<(), Error> {
    ipam_of(call)?;
    weir_process::start_log(&call.configuration);
    let Some(result) = &call.configuration.prev_result else {
        return Err(Error::new(
            Code::InvalidConfiguration,
            "prevResult is missing: CHECK compares with the result of ADD",
        ));
    };
    let handle_id = handle_of(call);
    let held = block_on(within(DEADLINE, async {
        let datastore = weir_datastore::open(&call.configuration.datastore).await?;
        Ok(engine::lookup(datastore.as_ref(), &handle_id, &call.environment.interface).await?)
    }))?;
    let held: Vec<IpAddr> = held.into_iter().map(|assigned| assigned.address).collect();
    let mut expected = result.ips.iter().map(|ip| ip.address.addr());
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
