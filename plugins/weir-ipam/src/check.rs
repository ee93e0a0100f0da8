//! CHECK: the addresses of ADD's result must still be the attachment's, and it must
//! have one at all: no ADD succeeds without.

use std::net::IpAddr;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error};
use weir_common::ipam::{Assignee, engine};
use weir_process::{block_on, within_turn};

use crate::assignee_of;

pub fn check(call: &Call) -> Result<(), Error> {
    call.configuration.require_ipam()?;
    let Some(result) = &call.configuration.prev_result else {
        return Err(Error::new(
            Code::InvalidConfiguration,
            "prevResult is missing: CHECK compares with the result of ADD",
        ));
    };
    let assignee = assignee_of(call)?;
    let datastore = call.configuration.datastore.clone()?;
    let held = block_on(within_turn("looking the addresses up", async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(engine::lookup(datastore.as_ref(), &assignee).await?)
    }))?;
    let held: Vec<IpAddr> = held.into_iter().map(|assigned| assigned.address).collect();
    match (expected(call, result).find(|address| !held.contains(address)), &held[..]) {
        (Some(lost), _) => Err(failed(&format!("address {lost} is not"), &assignee)),
        // Where the result names only others' addresses (host-local: `cmdCheck`).
        (None, []) => Err(failed("no address is", &assignee)),
        (None, _) => Ok(()),
    }
}

/// The addresses that the attachment must have: other plugins of a chain may have
/// given addresses to other interfaces.
fn expected(call: &Call, result: &AddResult) -> impl Iterator<Item = IpAddr> {
    let interface = container_interface(call, result);
    let own = move |of: Option<usize>| of.is_none() || of == interface;
    result.ips.iter().filter(move |ip| own(ip.interface)).map(|ip| ip.address.addr())
}

fn failed(what: &str, assignee: &Assignee) -> Error {
    let Assignee { handle_id, host, purpose, .. } = assignee;
    let message = format!(
        "{what} allocated to {} of {handle_id} on node {host}; delete and add the \
         container again; see: weirctl ipam check",
        purpose.interface()
    );
    Error::new(Code::CheckFailed, message)
}

/// The index of the container's interface in a result; `None` when the result
/// lists no interfaces.
fn container_interface(call: &Call, result: &AddResult) -> Option<usize> {
    let (name, netns) = (&call.environment.interface, &call.environment.netns);
    let mut interfaces = result.interfaces.iter();
    interfaces.position(|interface| interface.name == *name && interface.sandbox == *netns)
}
