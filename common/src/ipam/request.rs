//! What a call asks IPAM for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::assignee::Assignee;
use super::family::Family;
use super::pools::PoolReference;

/// One address an attachment wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any address of a family.
    Any {
        /// The family.
        family: Family,
        /// The pools to take it from; empty for all that serve the node.
        pools: Vec<PoolReference>,
    },
    /// This very address.
    Exactly(IpAddr),
}

/// What an attachment asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks.
    pub assignee: Assignee,
    /// More facts to record with the allocation: `namespace`, `pod`, `boot_id`.
    pub facts: BTreeMap<String, String>,
    /// The addresses; all are assigned or none.
    pub wants: Vec<Want>,
    /// The network's gateways, each with the prefix length of its subnet. No container is
    /// given one of them or an edge of their subnets, not even when it asks for it, as it may
    /// for the addresses of an `IPReservation` (host-local:
    /// `plugins/ipam/host-local/backend/allocator/allocator.go`, Get).
    pub gateways: Vec<IpNet>,
    /// The only range from which addresses of its family are handed out by themselves. A
    /// container may ask for one outside of it, as Docker gives it (`--ip` and `--ip-range`).
    pub within: Option<IpNet>,
}
