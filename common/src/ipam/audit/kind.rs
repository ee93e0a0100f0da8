//! The kinds of damage.

/// A kind of damage that an audit finds.
///
/// The order is that in which findings are reported; `Kind::turn` is that in
/// which they are mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 1: an address of this node whose attachment the kernel does not have.
    AddressWithoutAttachment,
    /// 2: an attachment in the kernel whose address is not in the store.
    AttachmentWithoutAddress,
    /// 3: a handle that names no address.
    HandleWithoutAddress,
    /// 4: an address whose handle is not there.
    AddressWithoutHandle,
    /// 5: a handle that counts other addresses than the blocks hold.
    HandleCount,
    /// 6: an affinity to a block that is not there.
    AffinityWithoutBlock,
    /// 7: a block whose affinity's key is missing or another host's.
    BlockAffinity,
    /// 8: an affinity whose claim or release was left halfway.
    AffinityUnsettled,
    /// 9: a block that lies in no pool.
    BlockWithoutPool,
    /// 10: a block that overlaps another, or has another size than its pool
    /// says.
    BlockMisfit,
    /// 11: a block with ordinals both free and taken, or neither.
    BlockUnsound,
    /// 12: an address or a block of a host that is gone.
    HostGone,
    /// A value that cannot be read.
    Unreadable,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 13] = [
        Self::AddressWithoutAttachment,
        Self::AttachmentWithoutAddress,
        Self::HandleWithoutAddress,
        Self::AddressWithoutHandle,
        Self::HandleCount,
        Self::AffinityWithoutBlock,
        Self::BlockAffinity,
        Self::AffinityUnsettled,
        Self::BlockWithoutPool,
        Self::BlockMisfit,
        Self::BlockUnsound,
        Self::HostGone,
        Self::Unreadable,
    ];

    /// The name in reports, which scripts rely on.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddressWithoutAttachment => "address-without-attachment",
            Self::AttachmentWithoutAddress => "attachment-without-address",
            Self::HandleWithoutAddress => "handle-without-address",
            Self::AddressWithoutHandle => "address-without-handle",
            Self::HandleCount => "handle-count",
            Self::AffinityWithoutBlock => "affinity-without-block",
            Self::BlockAffinity => "block-affinity",
            Self::AffinityUnsettled => "affinity-unsettled",
            Self::BlockWithoutPool => "block-without-pool",
            Self::BlockMisfit => "block-misfit",
            Self::BlockUnsound => "block-unsound",
            Self::HostGone => "host-gone",
            Self::Unreadable => "unreadable",
        }
    }

    /// When its turn is in a repair: what is attached is recorded before
    /// anything becomes free, what gives addresses back comes before what mends
    /// handles, and blocks are removed once they are empty.
    pub(super) fn turn(self) -> u8 {
        match self {
            Self::AttachmentWithoutAddress => 0,
            Self::BlockUnsound => 1,
            Self::AddressWithoutAttachment => 2,
            Self::HostGone => 3,
            Self::AffinityUnsettled => 4,
            Self::BlockAffinity => 5,
            Self::AffinityWithoutBlock => 6,
            Self::HandleWithoutAddress | Self::AddressWithoutHandle | Self::HandleCount => 7,
            Self::BlockWithoutPool | Self::BlockMisfit => 8,
            Self::Unreadable => 9,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
