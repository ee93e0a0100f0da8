//! Why a node's own data are not written.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::datastore;
use crate::ipam::{self, PassedOver};
use crate::printable::{printable, shell_word};
use crate::tunnel::TunnelKind;

/// A refused or failed operation. Nothing was changed, save that after a failure
/// of the datastore a commit may have taken effect; doing it again finds out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node has no Node resource.
    #[error(
        "node {0} is not registered, so it cannot have a tunnel address; start \"weirctl node \
         run\", or restart it where it runs, or write a Node resource with its address"
    )]
    NotRegistered(String),
    /// Another node is registered with the same address.
    #[error(
        "address {} of node {node} is that of node {}, too; give one of them another \
         address, or \"weirctl delete node {}\" if it is gone",
        address.addr(),
        printable(other),
        shell_word(other)
    )]
    AddressTaken {
        /// The address.
        address: IpNet,
        /// This node.
        node: String,
        /// The other node.
        other: String,
    },
    /// Another machine is recorded for the node's name.
    #[error(transparent)]
    Clash(#[from] ipam::Clash),
    /// No pool may give an address to the node's tunnel device.
    #[error(
        "node {node} needs an address for its {kind} tunnel and no pool with {} gives one: {}; see: \
         weirctl get ippool -o wide",
        kind.row().mode_field,
        listed(passed_over)
    )]
    NoTunnelPool {
        /// The kind of tunnel.
        kind: TunnelKind,
        /// The node.
        node: String,
        /// The pools with it, each with what is in the way.
        passed_over: Vec<(String, PassedOver)>,
    },
    /// The datastore was restored, and what it calls free may be a container's.
    #[error(
        "node {node} needs a tunnel address and takes no new one, which may be a container's: the \
         datastore has gone back in time; {}; run \"weirctl ipam check --repair\" on each node",
        lost(had.as_deref())
    )]
    NothingNew {
        /// The node.
        node: String,
        /// The address that its tunnel device has, and why it cannot be recorded.
        had: Option<Box<(IpAddr, ipam::Error)>>,
    },
    /// The address cannot be assigned or released.
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
}

impl Error {
    /// Whether there is no address: asking again does not help before pools,
    /// nodes, blocks or the machine of the node's name change.
    pub(super) fn means_none_left(&self) -> bool {
        matches!(
            self,
            Self::Clash(_)
                | Self::NoTunnelPool { .. }
                | Self::NothingNew { .. }
                | Self::Ipam(ipam::Error::Exhausted { .. })
        )
    }
}

impl From<datastore::Error> for Error {
    fn from(error: datastore::Error) -> Self {
        Self::Ipam(error.into())
    }
}

impl From<datastore::Contended> for Error {
    fn from(error: datastore::Contended) -> Self {
        Self::Ipam(error.into())
    }
}

fn lost(had: Option<&(IpAddr, ipam::Error)>) -> String {
    match had {
        Some((_, why)) => format!("the one that it had cannot be recorded: {why}"),
        None => "it has had none".to_owned(),
    }
}

fn listed(passed_over: &[(String, PassedOver)]) -> String {
    let one =
        |(pool, why): &(String, PassedOver)| printable(&format!("pool {pool} {why}")).into_owned();
    let all: Vec<String> = passed_over.iter().map(one).collect();
    if all.is_empty() { "there is none".to_owned() } else { all.join(", ") }
}
