//! What a call of `weir-ipam` comes to: whom addresses are for, what is asked for, what
//! ADD answers, and what CHECK compares.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::arguments::Arguments;
use super::configuration::IpamConfiguration;
use super::error::{Code, Error};
use super::gateway::ip_configuration;
use super::result::AddResult;
use super::skeleton::Call;
use crate::ipam::assign::{Request, Want};
use crate::ipam::engine::{Assignment, Leaving};
use crate::ipam::{ATTRIBUTE_BOOT, Assigned, Assignee, MachineId, Workload};

/// Whom the addresses of a call on this `host`, which runs on this `machine`, are assigned
/// to.
pub fn assignee_of(call: &Call, host: &str, machine: Option<MachineId>) -> Assignee {
    let environment = &call.environment;
    let (container, interface) = (&environment.container_id, &environment.interface);
    Assignee::interface(host, &call.configuration.network, container, interface).on(machine)
}

/// What a DEL does besides releasing its assignee's addresses. Arguments that cannot be read
/// name no pod, and are not an obstacle to it. A network that asks for pools uses them whatever
/// they select.
pub fn leaving_of(call: &Call, assignee: &Assignee) -> Leaving {
    let arguments = Arguments::parse(&call.environment.arguments).unwrap_or_default();
    let pod = arguments.pod_namespace.zip(arguments.pod_name);
    let asks_for_none = |want: &Want| matches!(want, Want::Any { pools, .. } if pools.is_empty());
    let ipam = call.configuration.ipam.as_ref();
    Leaving {
        workload: Workload::new(assignee, &call.environment.container_id, pod),
        gives_up_blocks: ipam.is_some_and(|ipam| ipam.wants.iter().all(asks_for_none)),
    }
}

/// What an ADD on this `host`, which runs on this `machine`, asks for. The id of the
/// machine's present boot is recorded with the allocation.
///
/// # Errors
/// As [`NetworkConfiguration::require_ipam`](super::NetworkConfiguration::require_ipam).
pub fn request_of(
    call: &Call,
    host: &str,
    machine: Option<MachineId>,
    boot_id: Option<&str>,
) -> Result<Request, Error> {
    let ipam = call.configuration.require_ipam()?;
    let mut facts: BTreeMap<String, String> = call.configuration.facts.clone();
    facts.extend(boot_id.map(|id| (ATTRIBUTE_BOOT.to_owned(), id.to_owned())));
    Ok(Request {
        assignee: assignee_of(call, host, machine),
        facts,
        wants: ipam.wants.clone(),
        gateways: ipam.gateways.clone(),
        within: None,
    })
}

/// What ADD answers. An address that was asked for comes by itself, not with the length of its
/// block, as Calico's IPAM plugin gives it (`cni-plugin/pkg/ipamplugin/ipam_plugin.go`, cmdAdd).
pub fn assigned(ipam: &IpamConfiguration, assignment: &Assignment) -> AddResult {
    let told = |assigned: &Assigned| {
        let Assigned { address, block } = *assigned;
        let is_asked_for = ipam.wants.contains(&Want::Exactly(address));
        let block = if is_asked_for { address.into() } else { block };
        ip_configuration(&Assigned { address, block }, &ipam.gateways)
    };
    AddResult {
        ips: assignment.addresses.iter().map(told).collect(),
        routes: ipam.routes.clone(),
        ..AddResult::default()
    }
}

/// Compares the result of ADD with the addresses that are `held`. There must be one: no
/// ADD succeeds without, also where the result names only others' (host-local: `cmdCheck`).
///
/// # Errors
/// [`Code::CheckFailed`] when an address of the result is not held, or none is.
pub fn check_held(
    call: &Call,
    result: &AddResult,
    assignee: &Assignee,
    held: &[Assigned],
) -> Result<(), Error> {
    let is_lost = |address: &IpAddr| held.iter().all(|assigned| assigned.address != *address);
    match expected(call, result).find(is_lost) {
        Some(lost) => Err(failed(&format!("address {lost} is not"), assignee)),
        None if held.is_empty() => Err(failed("no address is", assignee)),
        None => Ok(()),
    }
}

/// The addresses that the attachment must have: other plugins of a chain may have given
/// addresses to other interfaces.
fn expected(call: &Call, result: &AddResult) -> impl Iterator<Item = IpAddr> {
    let environment = &call.environment;
    let interface = result.container_interface(&environment.interface, &environment.netns);
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
