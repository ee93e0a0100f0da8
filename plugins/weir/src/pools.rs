//! The node's NAT, from what the IPAM plugin says of the pools.

use weir_common::cni::{AddResult, PoolNotice};
use weir_common::network::{Nat, NatPool, NatTable};

/// What NAT the pools of an IPAM result ask for. Under an IPAM plugin that knows
/// no pools the table stays as it is.
pub fn nat(result: &AddResult) -> Nat {
    let pool =
        |notice: &PoolNotice| NatPool { cidr: notice.cidr, nat_outgoing: notice.nat_outgoing };
    match &result.pools {
        None => Nat::AsItIs,
        Some(notices) => {
            let pools: Vec<NatPool> = notices.iter().map(pool).collect();
            Nat::Exactly(NatTable::from_pools(&pools))
        }
    }
}
