//! The kinds of damage, by name.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a finding rests on besides the values of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestsOn {
    /// Nothing.
    Keys,
    /// What this node's kernel has, so that it must be read again before the repair.
    Kernel,
    /// Which pools there are.
    Pools,
}

/// One row a kind: the variant, its name in reports, what it rests on, and when its turn is
/// in a repair.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal, $rests_on:ident, $turn:literal;)*) => {
        /// A kind of damage that an audit finds, in the order of reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DamageKind {
            $($(#[$doc])* $kind,)*
        }

        impl DamageKind {
            /// All kinds, in order.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name in reports, which scripts rely on.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Whether its findings rest on what this node's kernel has.
            pub fn rests_on_kernel(self) -> bool {
                self.rests_on() == RestsOn::Kernel
            }

            /// What else than the values in the store its findings rest on.
            pub(super) fn rests_on(self) -> RestsOn {
                match self { $(Self::$kind => RestsOn::$rests_on,)* }
            }

            /// When its turn is in a repair: what is attached is recorded before anything
            /// becomes free, what gives addresses back comes before what repairs handles,
            /// and blocks are removed once they are empty.
            pub(super) fn turn(self) -> u8 {
                match self { $(Self::$kind => $turn,)* }
            }
        }
    };
}

kinds! {
    /// 1: an address of this node whose attachment the kernel does not have.
    AddressWithoutAttachment => "address-without-attachment", Kernel, 2;
    /// 2: an attachment in the kernel whose address is not in the store.
    AttachmentWithoutAddress => "attachment-without-address", Kernel, 0;
    /// 3: a handle that has no address.
    HandleWithoutAddress => "handle-without-address", Keys, 7;
    /// 4: an address whose handle is not there.
    AddressWithoutHandle => "address-without-handle", Keys, 7;
    /// 5: a handle that counts other addresses than the blocks hold.
    HandleCount => "handle-count", Keys, 7;
    /// 6: an affinity to a block that is not there.
    AffinityWithoutBlock => "affinity-without-block", Keys, 6;
    /// 7: a block whose affinity's key is missing or another host's.
    BlockAffinity => "block-affinity", Keys, 5;
    /// 8: an affinity whose claim or release was left halfway.
    AffinityUnsettled => "affinity-unsettled", Keys, 4;
    /// 9: a block that lies in no pool.
    BlockWithoutPool => "block-without-pool", Pools, 8;
    /// 10: a block that overlaps another, or has another size than its pool says.
    BlockMisfit => "block-misfit", Pools, 8;
    /// 11: a block with ordinals both free and taken, or neither.
    BlockUnsound => "block-unsound", Kernel, 1;
    /// 12: an address or a block of a host that is gone.
    HostGone => "host-gone", Keys, 3;
    /// A value that cannot be read.
    Unreadable => "unreadable", Keys, 9;
}

impl Serialize for DamageKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
