//! Why an address is not assigned or released.

use std::fmt::{Display, Formatter};
use std::net::IpAddr;

use ipnet::IpNet;

use super::docker::hand_over_barrier::HandOverBarrier;
use super::family::Family;
use super::passed_over::PassedOver;
use super::reserved::ReservedBy;
use super::unavailable::UnavailableAddresses;
use crate::datastore;
use crate::printable::{printable, shell_word};

/// A refused or failed operation. Nothing was changed, save that after
/// [`Error::Datastore`] a commit may have taken effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no pool of this family at all.
    #[error(
        "no {0} pool is configured; create one: weirctl create -f pool.yaml \
         (an example is in conf/pools)"
    )]
    NoPool(Family),
    /// There are pools, but none that this node may use.
    #[error(
        "no {family} pool serves node {node}: {}; see: weirctl get ippool -o wide",
        listed(passed_over.iter().map(|(pool, why)| format!("{pool} {why}")))
    )]
    NoPoolForNode {
        /// The family asked for.
        family: Family,
        /// The node.
        node: String,
        /// Each pool and why it is passed over.
        passed_over: Vec<(String, PassedOver)>,
    },
    /// A pool was asked for that is not there.
    #[error(
        "pool {asked} does not exist; there are {}; see: weirctl get ippool",
        listed(existing.iter().cloned())
    )]
    UnknownPool {
        /// The name or CIDR asked for.
        asked: String,
        /// The pools there are.
        existing: Vec<String>,
    },
    /// A pool was asked for that cannot be used.
    #[error(
        "pool {} was asked for but {}; ask for another one or change it: weirctl get ippool {} -o yaml",
        printable(pool),
        printable(&why.to_string()),
        shell_word(pool)
    )]
    UnusablePool {
        /// The pool's name.
        pool: String,
        /// What is in the way.
        why: PassedOver,
    },
    /// An address was asked for that lies in no enabled pool.
    #[error(
        "address {address} lies in no enabled pool; there are {}; see: weirctl get ippool -o wide",
        listed(existing.iter().cloned())
    )]
    OutsidePools {
        /// The address asked for.
        address: IpAddr,
        /// The pools there are.
        existing: Vec<String>,
    },
    /// An address was asked for that is taken.
    #[error(
        "address {address} is taken by {}; see: weirctl ipam show --ip={address}",
        printable(holder)
    )]
    Taken {
        /// The address asked for.
        address: IpAddr,
        /// Its holder.
        holder: String,
    },
    /// An address was asked for that no container is given.
    #[error("address {address} is {}, which no container is given; ask for another one", printable(&by.what_it_is()))]
    Withheld {
        /// The address asked for.
        address: IpAddr,
        /// What it is.
        by: ReservedBy,
    },
    /// The network around the node cannot be looked at.
    #[error("it cannot be told which addresses are in use on this node's network")]
    Probe(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address was asked for in a block of another host, and addresses may
    /// not be borrowed.
    #[error(
        "address {address} lies in block {block} of {}, and strict affinity forbids to \
         borrow it; see: weirctl ipam show --show-configuration",
        printable(owner)
    )]
    OtherHost {
        /// The address asked for.
        address: IpAddr,
        /// Its block.
        block: IpNet,
        /// The block's host.
        owner: String,
    },
    /// The attachment has addresses, but not the one asked for.
    #[error(
        "address {address} was asked for, but the attachment has {}; delete it first (CNI DEL)",
        listed(holds.iter().map(IpAddr::to_string))
    )]
    HoldsOther {
        /// The address asked for.
        address: IpAddr,
        /// What it has.
        holds: Vec<IpAddr>,
    },
    /// Docker's container cannot have an address that dockerd names.
    #[error("address {address} is not for this container: {barrier}")]
    NotHandedOver {
        /// The address.
        address: IpAddr,
        /// What is in the way.
        barrier: HandOverBarrier,
    },
    /// No address is left that the node may have.
    #[error(
        "no {family} address is left for node {node} in {}{}{}{unavailable}; see: weirctl ipam show --show-blocks",
        // What was not looked at may have some.
        if barrier.is_some() { "the blocks that it may use of " } else { "" },
        listed(pools.iter().cloned()),
        barrier.map(|barrier| barrier.to_string()).unwrap_or_default()
    )]
    Exhausted {
        /// The family asked for.
        family: Family,
        /// The node.
        node: String,
        /// The pools that were tried.
        pools: Vec<String>,
        /// What kept the node from claiming another block, if that stopped the search.
        barrier: Option<ClaimBarrier>,
        /// What is free, but not for this node.
        unavailable: Box<UnavailableAddresses>,
    },
    /// The datastore is being moved; no program may write.
    #[error(
        "the datastore is locked for migration (datastoreReady is false); try again when it is \
         done: weirctl datastore unlock"
    )]
    NotReady,
    /// Others change the same data again and again.
    #[error(transparent)]
    Contended(#[from] datastore::Contended),
    /// A stored value cannot be used.
    #[error(
        "the stored value of {} cannot be used: {reason}; see: weirctl ipam check",
        printable(key)
    )]
    Malformed {
        /// The key.
        key: String,
        /// What is wrong with it, and its causes.
        reason: String,
    },
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] datastore::Error),
}

impl Error {
    /// Whether pools are missing, which may be because another datastore was meant.
    pub fn lacks_pools(&self) -> bool {
        matches!(self, Self::NoPool(_) | Self::UnknownPool { .. })
    }
}

/// What keeps a node from claiming another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimBarrier {
    /// `autoAllocateBlocks` is off.
    Off,
    /// It holds as many as `maxBlocksPerHost` allows.
    Limit(u32),
}

impl Display for ClaimBarrier {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => formatter.write_str(
                "; it may claim no other block because autoAllocateBlocks is off, turn it on: \
                 weirctl patch ipamconfig default -p 'spec: {autoAllocateBlocks: true}'",
            ),
            Self::Limit(limit) => write!(
                formatter,
                " (the node holds {limit} blocks, the most that maxBlocksPerHost allows)"
            ),
        }
    }
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| printable(&item).into_owned()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
