//! Free addresses that a node cannot get, and how that is told.

use std::collections::BTreeSet;
use std::fmt;

use crate::printable::printable;

/// Addresses that are free in the pools that were tried, but not for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnavailableAddresses {
    /// What reserves free addresses: reservations, or the network's gateways.
    pub reserved_by: BTreeSet<String>,
    /// The hosts that have free addresses in their blocks, which strict affinity forbids
    /// to borrow; `no host` for a block without one.
    pub hosts: BTreeSet<String>,
    /// How many addresses these hosts' blocks have free.
    pub free_at_hosts: usize,
    /// How many addresses were released a moment ago and cool down.
    pub cooling: usize,
    /// Whether every block was looked at, so that nothing else is free.
    pub is_all: bool,
    /// The node that gets none.
    pub node: String,
}

impl fmt::Display for UnavailableAddresses {
    /// Nothing, or clauses that each begin with a semicolon.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |names: &BTreeSet<String>| {
            names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ")
        };
        if !self.reserved_by.is_empty() {
            let all = if self.is_all && self.free_at_hosts == 0 { "all" } else { "some" };
            write!(
                formatter,
                "; {all} free addresses there are reserved ({})",
                listed(&self.reserved_by)
            )?;
        }
        if self.cooling > 0 {
            write!(
                formatter,
                "; {} addresses there were released and cool down (ipCooldownSeconds): they can be \
                 used later",
                self.cooling
            )?;
        }
        if self.free_at_hosts > 0 {
            write!(
                formatter,
                "; blocks of {} have {} free addresses, but strict affinity keeps {} from \
                 borrowing them: weirctl ipam configure --strictaffinity=false",
                listed(&self.hosts),
                self.free_at_hosts,
                self.node
            )?;
        }
        Ok(())
    }
}
