//! Blocks: the unit in which addresses are claimed and handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::null::null_is_default;

/// Blocks are at most this many addresses large: /20 and /116
/// (`libcalico-go/lib/clientv3/ippool.go`).
pub const MAX_BLOCK_BITS: u8 = 12;

/// The key under which an allocation's attributes name the boot of the node under
/// which it was made: an attachment does not outlive it. Weir's own; Calico passes
/// over it.
pub const ATTRIBUTE_BOOT: &str = "boot_id";
/// The key under which an allocation's attributes name the machine on which it was made:
/// another one may run under the same node name. Weir's own.
pub const ATTRIBUTE_MACHINE: &str = "machine";
/// The key under which an allocation's attributes name the network, where the
/// handle leaves it open. Weir's own.
pub const ATTRIBUTE_NETWORK: &str = "network";
/// The key under which an allocation's attributes name the interface, so that
/// two interfaces of one container are told apart.
pub const ATTRIBUTE_INTERFACE: &str = "interface";
/// The key under which an allocation's attributes name the node.
pub const ATTRIBUTE_NODE: &str = "node";
/// The key under which an allocation's attributes say when it was made.
pub const ATTRIBUTE_TIMESTAMP: &str = "timestamp";

/// The field that newer versions of Calico set in place of the handle when an address was given
/// back and must not be used again for a while (`libcalico-go/lib/backend/model/block.go`).
const RELEASED_AT: &str = "releasedAt";

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The handle, `<network>.<container id>`; absent for reserved addresses.
    pub handle_id: Option<String>,
    /// Facts about the holder: node, timestamp, interface, namespace, pod.
    pub secondary: Option<BTreeMap<String, String>>,
    /// Fields Weir does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Attribute {
    /// One of the facts about the holder.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.secondary.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether the address was given back and only waits to be used again: it belongs to
    /// nothing then.
    pub fn is_cooling_down(&self) -> bool {
        self.unknown.get(RELEASED_AT).is_some_and(|moment| !moment.is_null())
    }

    /// When the address was given back, if it was and that can be read.
    pub fn released_at(&self) -> Option<Timestamp> {
        self.unknown.get(RELEASED_AT)?.as_str()?.parse().ok()
    }

    /// Whether this handle has the address.
    pub fn is_of(&self, handle_id: &str) -> bool {
        self.handle_id.as_deref() == Some(handle_id) && !self.is_cooling_down()
    }

    /// The interface within the container; Calico names none.
    pub fn interface(&self) -> Option<&str> {
        self.fact(ATTRIBUTE_INTERFACE)
    }
}

/// A block of addresses as stored (`libcalico-go/lib/backend/model/block.go`).
///
/// An address is named by its ordinal, its distance from the block's first
/// address. A method that changes a block takes it by value or is called on a
/// copy: what was read stays as it was read, for the comparison at commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The addresses.
    pub cidr: IpNet,
    /// `host:<name>` of the host the block belongs to.
    pub affinity: Option<String>,
    /// For each ordinal, the index of its holder in `attributes`.
    pub allocations: Vec<Option<usize>>,
    /// The free ordinals: the next one to hand out is the first, a released
    /// one goes to the end.
    pub unallocated: Vec<usize>,
    /// The holders; none that has no address.
    pub attributes: Vec<Attribute>,
    /// Grows with every change. Starts at the time of creation in nanoseconds,
    /// so that it does not repeat when the block is deleted and made again.
    #[serde(rename = "sequenceNumber", default)]
    pub sequence_number: u64,
    /// The sequence number at which each ordinal was last handed out.
    #[serde(rename = "sequenceNumberForAllocation", default, deserialize_with = "null_is_default")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Set while Calico removes the key; Weir removes it at once.
    #[serde(default)]
    pub deleted: bool,
    /// Fields Weir does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// Why a stored block cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBlock {
    /// Not a block's JSON.
    #[error("it is not a block")]
    Json(#[from] serde_json::Error),
    /// It is larger than a block may be.
    #[error("a block of {0} is larger than 4096 addresses")]
    TooLarge(IpNet),
    /// It does not have one allocation entry for each address.
    #[error("{found} allocation entries for {expected} addresses")]
    Length {
        /// Addresses in the block.
        expected: usize,
        /// Entries found.
        found: usize,
    },
    /// An allocation names a holder that is not there.
    #[error("ordinal {ordinal} is allocated to attribute {attribute}, which is not there")]
    Attribute {
        /// The address's ordinal.
        ordinal: usize,
        /// The index named.
        attribute: usize,
    },
    /// A free ordinal lies outside the block.
    #[error("ordinal {0} is called free but lies outside the block")]
    Ordinal(usize),
}

impl Block {
    /// A block without allocations that belongs to `host`.
    ///
    /// `sequence_number` is the present time in nanoseconds. The block size
    /// must be within [`MAX_BLOCK_BITS`].
    pub fn new(cidr: IpNet, host: &str, sequence_number: u64) -> Self {
        let size = size_of(cidr);
        Self {
            cidr,
            affinity: Some(affinity_of_host(host)),
            allocations: vec![None; size],
            unallocated: (0..size).collect(),
            attributes: Vec::new(),
            sequence_number,
            sequence_number_for_allocation: BTreeMap::new(),
            deleted: false,
            unknown: Map::new(),
        }
    }

    /// Reads a stored block and checks that its parts fit together.
    ///
    /// An ordinal that is both free and allocated, or neither, is let pass: it
    /// is never handed out (see [`Block::free`]), and `ipam check` reports it.
    ///
    /// # Errors
    /// [`InvalidBlock`] when an operation on it could panic or hand out an
    /// address twice.
    pub fn from_json(value: &[u8]) -> Result<Self, InvalidBlock> {
        let block: Self = serde_json::from_slice(value)?;
        if host_bits(block.cidr) > MAX_BLOCK_BITS {
            return Err(InvalidBlock::TooLarge(block.cidr));
        }
        let expected = size_of(block.cidr);
        if block.allocations.len() != expected {
            return Err(InvalidBlock::Length { expected, found: block.allocations.len() });
        }
        for (ordinal, allocation) in block.allocations.iter().enumerate() {
            if let Some(attribute) = *allocation
                && attribute >= block.attributes.len()
            {
                return Err(InvalidBlock::Attribute { ordinal, attribute });
            }
        }
        match block.unallocated.iter().find(|ordinal| **ordinal >= expected) {
            Some(ordinal) => Err(InvalidBlock::Ordinal(*ordinal)),
            None => Ok(block),
        }
    }

    /// The value to store.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// The host the block belongs to.
    pub fn host(&self) -> Option<&str> {
        self.affinity.as_deref()?.strip_prefix("host:")
    }

    /// Whether no address is allocated.
    pub fn is_empty(&self) -> bool {
        self.allocations.iter().all(Option::is_none)
    }

    /// The address of an ordinal within the block.
    pub fn address(&self, ordinal: usize) -> IpAddr {
        nth_address(self.cidr, ordinal as u128)
    }

    /// The ordinal of an address, if it lies in the block.
    pub fn ordinal(&self, address: IpAddr) -> Option<usize> {
        if !self.cidr.contains(&address) {
            return None;
        }
        usize::try_from(to_bits(address) - to_bits(self.cidr.network())).ok()
    }

    /// The ordinals that can be handed out, the next one first.
    pub fn free(&self) -> impl Iterator<Item = usize> {
        self.unallocated.iter().copied().filter(|ordinal| self.allocations[*ordinal].is_none())
    }

    /// Who has the address of this ordinal.
    pub fn holder(&self, ordinal: usize) -> Option<&Attribute> {
        self.attributes.get((*self.allocations.get(ordinal)?)?)
    }

    /// The ordinals whose holder fulfils `wanted`, in order.
    pub fn held_by(&self, wanted: impl Fn(&Attribute) -> bool) -> Vec<usize> {
        let ordinals = 0..self.allocations.len();
        ordinals.filter(|ordinal| self.holder(*ordinal).is_some_and(&wanted)).collect()
    }

    /// Hands out a free ordinal.
    ///
    /// Holders that are equal share one entry, as in Calico
    /// (`ipam_block.go`, findOrAddAttribute).
    pub fn assign(&mut self, ordinal: usize, holder: Attribute) {
        debug_assert!(self.allocations[ordinal].is_none(), "ordinal {ordinal} is taken");
        self.allocate(ordinal, holder);
        self.unallocated.retain(|free| *free != ordinal);
    }

    /// Puts another holder in the place of an ordinal's, as a new allocation: with
    /// the present sequence number.
    pub fn reassign(&mut self, ordinal: usize, holder: Attribute) {
        self.allocate(ordinal, holder);
        self.drop_unused_holders();
    }

    fn allocate(&mut self, ordinal: usize, holder: Attribute) {
        let known = self.attributes.iter().position(|attribute| *attribute == holder);
        let index = known.unwrap_or_else(|| {
            self.attributes.push(holder);
            self.attributes.len() - 1
        });
        self.allocations[ordinal] = Some(index);
        self.sequence_number_for_allocation.insert(ordinal.to_string(), self.sequence_number);
    }

    /// Takes ordinals back. They go to the end of the queue of free ones, in
    /// the order given; holders left without an address are removed and the
    /// indices of the others follow.
    pub fn release(&mut self, ordinals: &[usize]) {
        for ordinal in ordinals {
            if self.allocations[*ordinal].take().is_some() {
                self.unallocated.retain(|free| free != ordinal);
                self.unallocated.push(*ordinal);
            }
        }
        self.drop_unused_holders();
    }

    /// Removes holders without an address; the indices of the others follow.
    fn drop_unused_holders(&mut self) {
        let used: BTreeSet<usize> = self.allocations.iter().flatten().copied().collect();
        let position: BTreeMap<usize, usize> =
            used.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        for index in self.allocations.iter_mut().flatten() {
            *index = position[index];
        }
        let mut index = 0;
        self.attributes.retain(|_| {
            index += 1;
            used.contains(&(index - 1))
        });
    }

    /// Counts one change of the block; called once for each version stored.
    pub fn advance(&mut self) {
        self.sequence_number = self.sequence_number.wrapping_add(1);
    }
}

/// The affinity string of a host.
pub fn affinity_of_host(host: &str) -> String {
    format!("host:{host}")
}

/// The block of `prefix_length` that contains `address`.
///
/// `None` when the family has no such prefix length.
pub fn block_of(address: IpAddr, prefix_length: u8) -> Option<IpNet> {
    IpNet::new(address, prefix_length).ok().map(|block| block.trunc())
}

/// The address at distance `n` from the first one of `cidr`, which must have
/// that many.
pub fn nth_address(cidr: IpNet, n: u128) -> IpAddr {
    let bits = to_bits(cidr.network()) + n;
    match cidr {
        IpNet::V4(_) => IpAddr::V4((bits as u32).into()),
        IpNet::V6(_) => IpAddr::V6(bits.into()),
    }
}

/// The number of bits that tell the addresses of `cidr` apart.
pub fn host_bits(cidr: IpNet) -> u8 {
    cidr.max_prefix_len() - cidr.prefix_len()
}

fn size_of(cidr: IpNet) -> usize {
    1 << host_bits(cidr).min(MAX_BLOCK_BITS)
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        Block::new("10.0.0.0/30".parse().unwrap(), "n1", 100)
    }

    fn holder(handle: &str) -> Attribute {
        Attribute { handle_id: Some(handle.to_owned()), ..Attribute::default() }
    }

    /// Without serde_json's `float_roundtrip` a number drifts a little each time that
    /// the block is written.
    #[test]
    fn numbers_that_weir_does_not_know_stay_as_they_are() {
        let number = format!("-92233720368{}54775808", "0".repeat(117));
        let text = String::from_utf8(block().to_json()).unwrap();
        let text = text.replacen('{', &format!("{{\"later\":{number},"), 1);
        let read = Block::from_json(text.as_bytes()).unwrap();
        assert_eq!(Block::from_json(&read.to_json()).unwrap(), read);
    }

    #[test]
    fn free_ordinals_are_a_queue() {
        let mut block = block();
        block.assign(0, holder("a"));
        block.assign(1, holder("b"));
        block.release(&[0]);
        assert_eq!(block.unallocated, [2, 3, 0]);
        assert_eq!(block.free().next(), Some(2));
    }

    #[test]
    fn a_release_compacts_the_holders() {
        let mut block = block();
        for (ordinal, handle) in ["a", "b", "c"].into_iter().enumerate() {
            block.assign(ordinal, holder(handle));
        }
        block.release(&[1]);
        assert_eq!(block.allocations, [Some(0), None, Some(1), None]);
        assert_eq!(block.attributes, [holder("a"), holder("c")]);
        assert_eq!(block.sequence_number_for_allocation.len(), 3);
    }

    #[test]
    fn an_ordinal_gets_another_holder_and_sequence_number() {
        let mut block = block();
        block.assign(0, holder("a"));
        block.assign(1, holder("a"));
        block.advance();
        block.reassign(0, holder("b"));
        assert_eq!(block.attributes, [holder("a"), holder("b")]);
        assert_eq!(block.allocations[..2], [Some(1), Some(0)]);
        block.reassign(1, holder("b"));
        assert_eq!(block.attributes, [holder("b")]);
        assert_eq!(block.allocations[..2], [Some(0), Some(0)]);
        assert_eq!(block.unallocated, [2, 3]);
        assert_eq!(block.sequence_number_for_allocation["0"], 101);
    }

    #[test]
    fn equal_holders_share_an_entry() {
        let mut block = block();
        block.assign(0, holder("a"));
        block.assign(1, holder("a"));
        block.release(&[0]);
        assert_eq!(block.attributes, [holder("a")]);
        assert_eq!(block.held_by(|holder| holder.handle_id.as_deref() == Some("a")), [1]);
    }

    #[test]
    fn an_ordinal_both_free_and_taken_is_not_handed_out() {
        let mut block = block();
        block.assign(0, holder("a"));
        block.unallocated.insert(0, 0);
        let block = Block::from_json(&block.to_json()).unwrap();
        assert_eq!(block.free().next(), Some(1));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let mut short = block();
        short.allocations.pop();
        let mut dangling = block();
        dangling.allocations[0] = Some(3);
        let mut outside = block();
        outside.unallocated.push(4);
        for (broken, reason) in [
            (short, "3 allocation entries for 4 addresses"),
            (dangling, "ordinal 0 is allocated to attribute 3"),
            (outside, "ordinal 4"),
        ] {
            let error = Block::from_json(&broken.to_json()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let huge = r#"{"cidr":"10.0.0.0/8","affinity":null,"allocations":[],"unallocated":[],"attributes":[]}"#;
        assert!(matches!(Block::from_json(huge.as_bytes()), Err(InvalidBlock::TooLarge(_))));
    }

    #[test]
    fn addresses_and_ordinals_are_two_sides() {
        let block = Block::new("fd00::40/122".parse().unwrap(), "n1", 1);
        assert_eq!(block.address(63), "fd00::7f".parse::<IpAddr>().unwrap());
        assert_eq!(block.ordinal("fd00::7f".parse().unwrap()), Some(63));
        assert_eq!(block.ordinal("fd00::80".parse().unwrap()), None);
        assert_eq!(
            block_of("10.1.2.77".parse().unwrap(), 26),
            Some("10.1.2.64/26".parse().unwrap())
        );
    }
}
