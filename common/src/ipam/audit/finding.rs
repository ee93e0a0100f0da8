//! What an audit finds.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::super::affinity::AffinityState;
use super::super::handle_id;
use super::allocation::Allocation;
use super::kind::Kind;
use super::listing::Owner;
use crate::datastore::keys;
use crate::network::AttachmentIdentity;

/// One host's claim to one block: the affinity's key, whether it is there or
/// only ought to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The block.
    pub block: IpNet,
    /// The host.
    pub host: Arc<str>,
}

impl Claim {
    /// The affinity's key.
    pub fn key(&self) -> String {
        keys::affinity(&self.host, self.block)
    }
}

/// One piece of damage. [`Finding::kind`] says of which of the twelve kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An address of this node whose attachment the kernel does not have.
    LeakedAddress(Allocation),
    /// An attachment in this node's kernel without its address in the store.
    UnrecordedAttachment {
        /// The attachment.
        identity: AttachmentIdentity,
        /// The node.
        host: Arc<str>,
        /// Its addresses that the store does not give to it, as far as the
        /// kernel tells.
        addresses: Vec<IpAddr>,
    },
    /// A handle without an address.
    EmptyHandle {
        /// The handle's id.
        handle: Arc<str>,
        /// The blocks that it names.
        named: Vec<IpNet>,
    },
    /// Addresses whose handle is not there.
    MissingHandle {
        /// The handle's id.
        handle: Arc<str>,
        /// The addresses.
        addresses: Vec<Allocation>,
    },
    /// An address that names no handle at all.
    NobodysAddress(Allocation),
    /// A handle that counts other addresses than the blocks hold.
    WrongCount {
        /// The handle's id.
        handle: Arc<str>,
        /// Every block that it names or that holds one of its addresses, with
        /// what the handle says and what the block holds.
        counts: Vec<(IpNet, u64, u64)>,
    },
    /// A confirmed affinity to a block that is not there.
    AffinityWithoutBlock(Claim),
    /// A block of a host that has no affinity to it.
    MissingAffinity(Claim),
    /// A confirmed affinity of a host to a block that is not that host's.
    ForeignAffinity {
        /// The affinity.
        claim: Claim,
        /// Whose the block is.
        owner: Owner,
    },
    /// An affinity that is not confirmed.
    UnsettledAffinity {
        /// The affinity.
        claim: Claim,
        /// Its state.
        state: AffinityState,
        /// Whose the block is; `None` when it is not there.
        owner: Option<Owner>,
        /// How many addresses in the block are in use.
        in_use: usize,
    },
    /// A block that lies in no pool.
    BlockWithoutPool {
        /// The block.
        block: IpNet,
        /// The host that has it.
        host: Option<Arc<str>>,
        /// How many addresses in it are in use.
        in_use: usize,
    },
    /// A block that overlaps others, or has another size than its pool says.
    MisfitBlock {
        /// The block.
        block: IpNet,
        /// The host that has it.
        host: Option<Arc<str>>,
        /// How many addresses in it are in use.
        in_use: usize,
        /// The pool around it and that pool's block size, when it is another.
        pool: Option<(String, u8)>,
        /// The blocks that it overlaps.
        overlaps: Vec<IpNet>,
    },
    /// A block with ordinals both free and taken, or neither.
    UnsoundBlock {
        /// The block.
        block: IpNet,
        /// The host that has it.
        host: Option<Arc<str>>,
        /// The addresses that are both, or free twice.
        both: Vec<IpAddr>,
        /// The addresses that are neither, and that nobody uses.
        neither: Vec<IpAddr>,
        /// The addresses that are neither, and that somebody may use.
        doubtful: Vec<IpAddr>,
    },
    /// An address of a host that is gone.
    AddressOfGoneHost {
        /// The address.
        allocation: Allocation,
        /// The host.
        host: Arc<str>,
        /// Whether somebody said that the host is gone: that it is not registered
        /// does not prove it.
        named: bool,
    },
    /// A block, or an affinity, of a host that is gone.
    BlockOfGoneHost {
        /// The affinity, present or not.
        claim: Claim,
        /// Whether somebody said that the host is gone: that it is not registered
        /// does not prove it.
        named: bool,
    },
    /// A value that cannot be read.
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Finding {
    /// The kind of damage.
    pub fn kind(&self) -> Kind {
        match self {
            Self::LeakedAddress(_) => Kind::AddressWithoutAttachment,
            Self::UnrecordedAttachment { .. } => Kind::AttachmentWithoutAddress,
            Self::EmptyHandle { .. } => Kind::HandleWithoutAddress,
            Self::MissingHandle { .. } | Self::NobodysAddress(_) => Kind::AddressWithoutHandle,
            Self::WrongCount { .. } => Kind::HandleCount,
            Self::AffinityWithoutBlock(_) => Kind::AffinityWithoutBlock,
            Self::MissingAffinity(_) | Self::ForeignAffinity { .. } => Kind::BlockAffinity,
            Self::UnsettledAffinity { .. } => Kind::AffinityUnsettled,
            Self::BlockWithoutPool { .. } => Kind::BlockWithoutPool,
            Self::MisfitBlock { .. } => Kind::BlockMisfit,
            Self::UnsoundBlock { .. } => Kind::BlockUnsound,
            Self::AddressOfGoneHost { .. } | Self::BlockOfGoneHost { .. } => Kind::HostGone,
            Self::Unreadable { .. } => Kind::Unreadable,
        }
    }

    /// The damaged keys.
    pub fn keys(&self) -> Vec<String> {
        match self {
            Self::LeakedAddress(allocation)
            | Self::NobodysAddress(allocation)
            | Self::AddressOfGoneHost { allocation, .. } => vec![keys::block(allocation.block)],
            Self::UnrecordedAttachment { identity, .. } => vec![keys::handle(&handle_of(identity))],
            Self::EmptyHandle { handle, .. }
            | Self::MissingHandle { handle, .. }
            | Self::WrongCount { handle, .. } => vec![keys::handle(handle)],
            Self::AffinityWithoutBlock(claim)
            | Self::MissingAffinity(claim)
            | Self::ForeignAffinity { claim, .. }
            | Self::UnsettledAffinity { claim, .. }
            | Self::BlockOfGoneHost { claim, .. } => vec![claim.key()],
            Self::BlockWithoutPool { block, .. } | Self::UnsoundBlock { block, .. } => {
                vec![keys::block(*block)]
            }
            Self::MisfitBlock { block, overlaps, .. } => {
                std::iter::once(block).chain(overlaps).map(|block| keys::block(*block)).collect()
            }
            Self::Unreadable { key, .. } => vec![key.clone()],
        }
    }

    /// The allocations concerned.
    pub fn allocations(&self) -> &[Allocation] {
        match self {
            Self::LeakedAddress(allocation)
            | Self::NobodysAddress(allocation)
            | Self::AddressOfGoneHost { allocation, .. } => std::slice::from_ref(allocation),
            Self::MissingHandle { addresses, .. } => addresses,
            _ => &[],
        }
    }

    /// The handle concerned.
    pub fn handle(&self) -> Option<String> {
        match self {
            Self::EmptyHandle { handle, .. }
            | Self::MissingHandle { handle, .. }
            | Self::WrongCount { handle, .. } => Some(handle.to_string()),
            Self::UnrecordedAttachment { identity, .. } => Some(handle_of(identity)),
            _ => self.allocations().first()?.handle.as_deref().map(str::to_owned),
        }
    }

    /// The host concerned.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::UnrecordedAttachment { host, .. } | Self::AddressOfGoneHost { host, .. } => {
                Some(host)
            }
            Self::AffinityWithoutBlock(claim)
            | Self::MissingAffinity(claim)
            | Self::ForeignAffinity { claim, .. }
            | Self::UnsettledAffinity { claim, .. }
            | Self::BlockOfGoneHost { claim, .. } => Some(&claim.host),
            Self::BlockWithoutPool { host, .. }
            | Self::MisfitBlock { host, .. }
            | Self::UnsoundBlock { host, .. } => host.as_deref(),
            _ => self.allocations().first()?.node.as_deref(),
        }
    }

    /// The block concerned, if it is one.
    pub fn block(&self) -> Option<IpNet> {
        match self {
            Self::AffinityWithoutBlock(claim)
            | Self::MissingAffinity(claim)
            | Self::ForeignAffinity { claim, .. }
            | Self::UnsettledAffinity { claim, .. }
            | Self::BlockOfGoneHost { claim, .. } => Some(claim.block),
            Self::BlockWithoutPool { block, .. }
            | Self::MisfitBlock { block, .. }
            | Self::UnsoundBlock { block, .. } => Some(*block),
            Self::MissingHandle { .. } => None,
            _ => self.allocations().first().map(|allocation| allocation.block),
        }
    }

    /// Whether it rests on what this node's kernel has, so that the kernel must
    /// be read again before it is mended.
    pub fn rests_on_kernel(&self) -> bool {
        matches!(
            self,
            Self::LeakedAddress(_) | Self::UnrecordedAttachment { .. } | Self::UnsoundBlock { .. }
        )
    }

    /// Whether two looks saw the same damage. How many addresses of a block are
    /// in use, and what else is wrong in it, may change meanwhile.
    pub fn is_alike(&self, other: &Self) -> bool {
        match self {
            Self::UnsoundBlock { .. } | Self::UnsettledAffinity { .. } => {
                self.subject() == other.subject() && self.settlement() == other.settlement()
            }
            _ => self == other,
        }
    }

    /// The keys that must not have changed between two looks: all but those of
    /// blocks in which one address or one ordinal is damaged, which a busy node
    /// changes all the time. What is damaged there is told by the allocation's
    /// sequence number.
    pub(super) fn steady_keys(&self) -> Vec<String> {
        match self {
            Self::LeakedAddress(_) | Self::AddressOfGoneHost { .. } | Self::UnsoundBlock { .. } => {
                Vec::new()
            }
            _ => self.keys(),
        }
    }

    /// What tells findings apart: two audits that find the same damage give it
    /// the same subject, whatever else changed.
    pub(super) fn subject(&self) -> (Kind, String, Option<IpAddr>, Option<u64>) {
        let key = match self {
            Self::UnrecordedAttachment { identity, .. } => identity.alias(),
            _ => self.keys().swap_remove(0),
        };
        let address = match self {
            Self::MissingHandle { .. } => None,
            _ => self.allocations().first(),
        };
        let sequence = address.and_then(|allocation| allocation.sequence);
        (self.kind(), key, address.map(|allocation| allocation.address), sequence)
    }
}

fn handle_of(identity: &AttachmentIdentity) -> String {
    handle_id(identity.network(), identity.container_id())
}
