//! Which address an attachment gets, and how it is given back.
//!
//! An address comes out of a block, a block out of a pool. [`assign`] and
//! [`release`] decide: from what has been read of the datastore they say which
//! blocks must be read next, or which transaction to commit. [`engine`] reads
//! and commits, and decides again after a conflict. `docs/ipam.md` has the
//! reasons.

pub mod adopt;
mod affinity;
mod allocation;
pub mod assign;
mod assignee;
mod block;
mod cluster_guid;
pub mod collect;
mod cooldown;
pub mod docker;
pub mod engine;
mod error;
pub mod explain;
mod family;
mod find;
mod find_unavailable;
mod handle;
mod hints;
pub mod history;
mod knowledge;
mod machine;
pub mod map;
mod ownership;
mod passed_over;
mod pending_changes;
mod pools;
mod probe;
mod purpose;
mod ready;
pub mod reclaim;
pub mod release;
mod request;
mod reserved;
mod snapshot;
mod unavailable;
mod unselected;
mod walk;
mod workload;

use serde::Serialize;

pub use affinity::{Affinity, AffinityState};
pub use allocation::{Allocation, HolderFacts};
pub use assignee::Assignee;
pub use block::{
    ATTRIBUTE_BOOT, ATTRIBUTE_INTERFACE, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE,
    ATTRIBUTE_TIMESTAMP, Attribute, Block, InvalidBlock, MAX_BLOCK_BITS, affinity_of_host,
    block_of, host_bits, nth_address,
};
pub use cluster_guid::{cluster_guid, cluster_information, ensure_cluster_guid, set_ready};
pub use cooldown::Cooldown;
pub use error::{ClaimBarrier, Error};
pub use family::Family;
pub use find::FoundAddress;
pub use handle::Handle;
pub use hints::Hints;
pub use knowledge::{
    Blocks, Holdings, Stored, Unreadable, View, read_block, read_pool, read_pools,
};
pub use machine::MachineId;
pub use ownership::{Clash, MachineRecord, Ownership, find_clash};
pub use passed_over::PassedOver;
pub use pools::{PoolReference, choose, verdict};
pub use probe::AddressProbe;
pub use purpose::{ATTRIBUTE_TYPE, Purpose};
pub use ready::{Guarded, ReadyFlag};
pub use reserved::{LocalNetwork, Reserved, ReservedBy, edges_of};
pub(crate) use snapshot::{BlockUse, Counts};
pub use snapshot::{IpamSnapshot, Owner};
pub use unavailable::UnavailableAddresses;
pub use walk::{block_bits, walk};
pub use workload::Workload;

/// What a decision asks for next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decided {
    /// Read these blocks and decide again.
    Read(Vec<ipnet::IpNet>),
    /// Look these addresses up on the network around the node and decide again.
    LookUp(Vec<std::net::IpAddr>),
    /// Commit this; the addresses are assigned, or released, once it is done.
    Commit(crate::datastore::Transaction, Vec<Assigned>),
    /// Nothing to change: the addresses that the attachment has already.
    Done(Vec<Assigned>),
}

/// An address of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: std::net::IpAddr,
    /// The block it lies in.
    pub block: ipnet::IpNet,
}

/// The handle id of a container on a network
/// (`cni-plugin/internal/pkg/utils`, GetHandleID).
pub fn handle_id(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}")
}

/// JSON of a value whose serialisation cannot fail: string keys, no custom
/// code.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
