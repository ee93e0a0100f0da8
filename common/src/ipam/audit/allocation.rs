//! One address in use, condensed.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::assignee::Assignee;
use super::super::assignee::Named;
use super::super::block::{
    ATTRIBUTE_INTERFACE, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE, ATTRIBUTE_TIMESTAMP,
    Attribute, Block,
};
use super::super::machine::MachineId;

/// The handle under which Calico keeps the first and the last addresses of a
/// block from Windows nodes; it has no key of its own
/// (`libcalico-go/lib/ipam/ipam_block.go`).
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// The attribute that Calico sets when an address was given back and must not
/// be used again for a while (`ipCooldownSeconds`). The handle is gone by then.
const RELEASED_AT: &str = "releasedAt";

/// An address in use and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// The block it lies in.
    pub block: IpNet,
    /// The handle of its holder; `None` for an address that nobody can give
    /// back by handle.
    pub handle: Option<Arc<str>>,
    /// The node of its holder.
    pub node: Option<Arc<str>>,
    /// The machine on which it was made; earlier versions and Calico name none.
    pub machine: Option<Arc<str>>,
    /// The network, where the handle leaves it open.
    pub network: Option<Arc<str>>,
    /// The holder's interface; Calico names none.
    pub interface: Option<Arc<str>>,
    /// When it was handed out, as far as that is recorded.
    pub made: Option<Timestamp>,
    /// The block's sequence number when it was handed out: another one means
    /// that the address has another holder now.
    pub sequence: Option<u64>,
    /// Whether it was given back and only waits to be used again.
    pub(super) cooling_down: bool,
}

impl Allocation {
    /// The allocation of an ordinal; `None` when it is free. `name` gives the
    /// one copy of a name.
    pub(in crate::ipam) fn read(
        block: &Block,
        ordinal: usize,
        mut name: impl FnMut(&str) -> Arc<str>,
    ) -> Option<Self> {
        let holder = block.holder(ordinal)?;
        let mut fact = |key| holder.fact(key).map(&mut name);
        let (node, network) = (fact(ATTRIBUTE_NODE), fact(ATTRIBUTE_NETWORK));
        let (interface, machine) = (fact(ATTRIBUTE_INTERFACE), fact(ATTRIBUTE_MACHINE));
        Some(Self {
            address: block.address(ordinal),
            block: block.cidr,
            handle: holder.handle_id.as_deref().map(name),
            node,
            machine,
            network,
            interface,
            made: holder.fact(ATTRIBUTE_TIMESTAMP).and_then(parse_timestamp),
            sequence: sequence_of(block, ordinal),
            cooling_down: is_cooling_down(holder),
        })
    }

    /// Whether it is this assignee's ([`Assignee::has`]).
    pub(super) fn is_of(&self, assignee: &Assignee, recorded: Option<&MachineId>) -> bool {
        let named = Named {
            handle: self.handle.as_deref(),
            host: self.node.as_deref(),
            network: self.network.as_deref(),
            interface: self.interface.as_deref(),
            machine: self.machine.as_deref(),
        };
        assignee.agrees(named, recorded)
    }

    /// Whether a handle must account for it.
    pub(super) fn needs_handle(&self) -> bool {
        !self.cooling_down && self.handle.as_deref() != Some(WINDOWS_RESERVED)
    }
}

/// The sequence number under which an ordinal was handed out.
pub(in crate::ipam) fn sequence_of(block: &Block, ordinal: usize) -> Option<u64> {
    block.sequence_number_for_allocation.get(&ordinal.to_string()).copied()
}

fn is_cooling_down(holder: &Attribute) -> bool {
    holder.unknown.get(RELEASED_AT).is_some_and(|moment| !moment.is_null())
}

/// A moment in Go's default form, `2026-11-23 03:40:17.28409748 +0000 UTC`.
fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let mut parts = text.split_whitespace();
    let (date, time, offset) = (parts.next()?, parts.next()?, parts.next()?);
    format!("{date}T{time}{offset}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_timestamps_are_read() {
        let expected = Timestamp::new(1_795_405_217, 284_097_480).unwrap();
        for text in [
            "2026-11-23 03:40:17.28409748 +0000 UTC",
            "2026-11-23 04:40:17.28409748 +0100 CET m=+0.1",
        ] {
            assert_eq!(parse_timestamp(text), Some(expected), "{text}");
        }
        assert_eq!(
            parse_timestamp("2026-11-23 03:40:17 +0000 UTC"),
            Some(Timestamp::new(1_795_405_217, 0).unwrap())
        );
        assert_eq!(parse_timestamp("yesterday"), None);
    }
}
