//! One address in use and who has it, condensed.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use super::assignee::Assignee;
use super::assignee::Named;
use super::block::{
    ATTRIBUTE_INTERFACE, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE, ATTRIBUTE_TIMESTAMP,
    Attribute, Block,
};
use super::machine::MachineId;
use super::purpose::ATTRIBUTE_TYPE;

/// The handle under which Calico keeps the first and the last addresses of a
/// block from Windows nodes; it has no key of its own
/// (`libcalico-go/lib/ipam/ipam_block.go`).
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// An address in use. A store has millions of them: this holds only what is asked of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub address: IpAddr,
    /// The block it lies in.
    pub block: IpNet,
    /// The handle of its holder; `None` for an address that cannot be given back by handle.
    pub handle: Option<Box<str>>,
    /// The other facts about its holder.
    pub holder: Arc<HolderFacts>,
    /// When it was assigned, as far as that is recorded.
    pub made: Option<Timestamp>,
    /// The block's sequence number when it was assigned: another one means
    /// that the address has another holder now.
    pub sequence: Option<u64>,
    /// Whether it was given back and only waits to be used again.
    pub cooling_down: bool,
}

/// What the addresses of a block often have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderFacts {
    /// The node.
    pub node: Option<Box<str>>,
    /// The machine on which it was assigned; earlier versions and Calico name none.
    pub machine: Option<Box<str>>,
    /// The network, where the handle leaves it open.
    pub network: Option<Box<str>>,
    /// The interface; Calico names none.
    pub interface: Option<Box<str>>,
    /// What it is for, when it is not a container's ([`ATTRIBUTE_TYPE`]).
    pub use_type: Option<Box<str>>,
}

impl Allocation {
    /// The allocation of an ordinal; `None` when it is free.
    pub fn read(block: &Block, ordinal: usize) -> Option<Self> {
        Self::read_after(None, block, ordinal)
    }

    /// All allocations of a block.
    pub fn all_of(block: &Block) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for ordinal in 0..block.allocations.len() {
            all.extend(Self::read_after(all.last(), block, ordinal));
        }
        all.shrink_to_fit();
        all
    }

    /// As [`Allocation::read`]; shares the holder of the `previous` one if it is the same.
    fn read_after(previous: Option<&Self>, block: &Block, ordinal: usize) -> Option<Self> {
        let attribute = block.holder(ordinal)?;
        let known = previous.map(|it| &it.holder).filter(|it| it.is(attribute));
        Some(Self {
            address: block.address(ordinal),
            block: block.cidr,
            handle: attribute.handle_id.as_deref().map(Box::from),
            holder: known.map_or_else(|| Arc::new(HolderFacts::read(attribute)), Arc::clone),
            made: attribute.fact(ATTRIBUTE_TIMESTAMP).and_then(parse_timestamp),
            sequence: sequence_of(block, ordinal),
            cooling_down: attribute.is_cooling_down(),
        })
    }

    /// The node of its holder.
    pub fn node(&self) -> Option<&str> {
        self.holder.node.as_deref()
    }

    /// Whether it is this assignee's ([`Assignee::has`]).
    pub fn is_of(&self, assignee: &Assignee, recorded: Option<&MachineId>) -> bool {
        let named = Named {
            handle: self.handle.as_deref(),
            host: self.node(),
            network: self.holder.network.as_deref(),
            interface: self.holder.interface.as_deref(),
            machine: self.holder.machine.as_deref(),
        };
        !self.cooling_down && assignee.agrees(named, recorded)
    }

    /// Whether only a kernel can tell that it is in use: not that of a tunnel, nor one that
    /// Calico keeps from Windows, nor one that cools down.
    pub(crate) fn needs_kernel(&self) -> bool {
        self.needs_handle() && !self.holder.use_type.as_deref().is_some_and(is_tunnel)
    }

    /// Whether it is neither a container's nor a tunnel's: a load balancer's.
    pub(crate) fn is_of_other_use(&self) -> bool {
        self.holder.use_type.as_deref().is_some_and(|it| !is_tunnel(it))
    }

    /// Whether a handle must account for it.
    pub fn needs_handle(&self) -> bool {
        !self.cooling_down && self.handle.as_deref() != Some(WINDOWS_RESERVED)
    }
}

impl HolderFacts {
    /// The facts in the order of the fields.
    fn facts(attribute: &Attribute) -> [Option<&str>; 5] {
        [ATTRIBUTE_NODE, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_INTERFACE, ATTRIBUTE_TYPE]
            .map(|fact| attribute.fact(fact))
    }

    fn read(attribute: &Attribute) -> Self {
        let [node, machine, network, interface, use_type] =
            Self::facts(attribute).map(|fact| fact.map(Box::from));
        Self { node, machine, network, interface, use_type }
    }

    fn is(&self, attribute: &Attribute) -> bool {
        let own = [&self.node, &self.machine, &self.network, &self.interface, &self.use_type];
        own.map(Option::as_deref) == Self::facts(attribute)
    }
}

/// Whether a type is that of a tunnel's address: of one of Calico's five kinds
/// (`libcalico-go/lib/backend/model/block.go`).
fn is_tunnel(use_type: &str) -> bool {
    use_type.ends_with("TunnelAddress")
}

/// The sequence number under which an ordinal was assigned.
fn sequence_of(block: &Block, ordinal: usize) -> Option<u64> {
    block.sequence_number_for_allocation.get(&ordinal.to_string()).copied()
}

/// A moment in Go's default form, `2026-11-23 03:40:17.28409748 +0000 UTC`.
pub(super) fn parse_timestamp(text: &str) -> Option<Timestamp> {
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
