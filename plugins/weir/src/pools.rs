//! The node's NAT, from the pools in the datastore.

use weir_common::cni::{Configuration, Error, IpamConfiguration};
use weir_common::datastore::{Selection, keys};
use weir_common::ipam;
use weir_common::network::{Nat, NatPool, NatTable};
use weir_common::resources::IpPool;

/// The IPAM plugin whose pools are in the datastore.
pub const OWN_IPAM: &str = "weir-ipam";

/// What NAT the pools ask for. Under somebody else's IPAM plugin the datastore
/// is not looked at.
///
/// # Errors
/// The datastore fails, or a stored pool cannot be used.
pub async fn nat(configuration: &Configuration, ipam: &IpamConfiguration) -> Result<Nat, Error> {
    if ipam.plugin != OWN_IPAM {
        return Ok(Nat::AsItIs);
    }
    let datastore = weir_datastore::open(&configuration.datastore).await?;
    let snapshot = datastore.read(&[Selection::Prefix(keys::POOLS.to_owned())]).await?;
    let mut pools = Vec::new();
    for entry in snapshot.selected.into_iter().flatten() {
        let pool = IpPool::from_json(&entry.value).map_err(|error| ipam::Error::Malformed {
            key: entry.key.clone(),
            reason: error.to_string(),
        })?;
        pools.push(NatPool { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing });
    }
    Ok(Nat::Exactly(NatTable::from_pools(&pools)))
}
