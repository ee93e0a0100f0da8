//! ADD: assign the addresses an attachment asks for.

use ipnet::IpNet;
use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Error, PoolNotice, ip_configuration};
use weir_common::ipam::assign::Request;
use weir_common::ipam::{Assigned, Purpose, engine};
use weir_common::resources::IpPool;
use weir_process::{DELEGATED, block_on, node_name, within};

use crate::{handle_of, lock};

pub fn add(call: &Call) -> Result<AddResult, Error> {
    let ipam = call.configuration.require_ipam()?;
    weir_process::start_log(&call.configuration);
    let request = Request {
        host: node_name(&call.configuration.node_name)?,
        handle_id: handle_of(call),
        purpose: Purpose::Interface(call.environment.interface.clone()),
        facts: call.configuration.facts.clone(),
        wants: ipam.wants.clone(),
        reserved: ipam.gateways.iter().map(IpNet::addr).collect(),
    };
    // The wait for other calls of this host does not count against the deadline.
    let datastore = call.configuration.datastore.clone()?;
    let lock = lock(ipam);
    // The block that the last call took an address from likely has another.
    let likely: Vec<IpNet> = lock.memo().lines().filter_map(|line| line.parse().ok()).collect();
    let assignment = block_on(within(DELEGATED, async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(engine::assign(datastore.as_ref(), &request, &likely, Timestamp::now()).await?)
    }))?;
    for Assigned { address, block } in &assignment.addresses {
        tracing::debug!(%address, %block, handle = request.handle_id, "assigned");
    }
    let blocks: Vec<String> =
        assignment.addresses.iter().map(|assigned| assigned.block.to_string()).collect();
    lock.leave(&blocks.join("\n"));
    let notice = |pool: &IpPool| PoolNotice { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing };
    let addresses = assignment.addresses.iter();
    Ok(AddResult {
        ips: addresses.map(|assigned| ip_configuration(assigned, &ipam.gateways)).collect(),
        routes: ipam.routes.clone(),
        pools: Some(assignment.pools.iter().map(notice).collect()),
        ..AddResult::default()
    })
}
