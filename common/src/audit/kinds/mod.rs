//! The kinds of damage, one file each.

use std::fmt;

use serde::{Serialize, Serializer};

use super::finding::{Finding, listed};
use super::scope::{AffinityUse, Scope};
use super::values::CurrentValues;
use crate::datastore::{Transaction, keys};

/// All that makes up a kind of damage.
pub(super) struct Damage {
    /// The name in reports, which scripts rely on.
    pub name: &'static str,
    /// When its turn is in a repair: what is attached is recorded before anything becomes
    /// free, what gives addresses back comes before what repairs handles, and blocks are
    /// removed once they are empty.
    pub turn: u8,
    /// What else than the values in the store its findings rest on.
    pub rests_on: RestsOn,
    /// Finds it.
    pub find: fn(&Scope<'_>) -> Vec<Finding>,
    /// Adds what repairs a finding, as it was found again in the current values; `None`
    /// when there is nothing to repair.
    pub repair: fn(&Finding, &CurrentValues, &mut Transaction) -> Option<()>,
}

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

/// One row a kind: the variant, the file that finds and repairs it, its name in reports,
/// what it rests on, and its turn in a repair.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $file:ident, $name:literal, $rests_on:ident, $turn:literal;)*) => {
        $(pub(super) mod $file;)*

        /// A kind of damage that an audit finds, in the order of reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DamageKind {
            $($(#[$doc])* $kind,)*
        }

        impl DamageKind {
            /// All kinds, in order.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            pub(super) fn damage(self) -> Damage {
                match self {
                    $(Self::$kind => Damage {
                        name: $name,
                        turn: $turn,
                        rests_on: RestsOn::$rests_on,
                        find: $file::find,
                        repair: $file::repair,
                    },)*
                }
            }
        }
    };
}

kinds! {
    /// 1: an address of this node whose attachment the kernel does not have.
    AddressWithoutAttachment => address_without_attachment, "address-without-attachment", Kernel, 2;
    /// 2: an attachment in the kernel whose address is not in the store.
    AttachmentWithoutAddress => attachment_without_address, "attachment-without-address", Kernel, 0;
    /// 3: a handle that has no address.
    HandleWithoutAddress => handle_without_address, "handle-without-address", Keys, 7;
    /// 4: an address whose handle is not there.
    AddressWithoutHandle => address_without_handle, "address-without-handle", Keys, 7;
    /// 5: a handle that counts other addresses than the blocks hold.
    HandleCount => handle_count, "handle-count", Keys, 7;
    /// 6: an affinity to a block that is not there.
    AffinityWithoutBlock => affinity_without_block, "affinity-without-block", Keys, 6;
    /// 7: a block whose affinity's key is missing or another host's.
    BlockAffinity => block_affinity, "block-affinity", Keys, 5;
    /// 8: an affinity whose claim or release was left halfway.
    AffinityUnsettled => affinity_unsettled, "affinity-unsettled", Keys, 4;
    /// 9: a block that lies in no pool.
    BlockWithoutPool => block_without_pool, "block-without-pool", Pools, 8;
    /// 10: a block that overlaps another, or has another size than its pool says.
    BlockMisfit => block_misfit, "block-misfit", Pools, 8;
    /// 11: a block with ordinals both free and taken, or neither.
    BlockUnsound => block_unsound, "block-unsound", Kernel, 1;
    /// 12: an address or a block of a host that is gone.
    HostGone => host_gone, "host-gone", Keys, 3;
    /// A value that cannot be read.
    Unreadable => unreadable, "unreadable", Keys, 9;
}

impl DamageKind {
    /// The name in reports, which scripts rely on.
    pub fn name(self) -> &'static str {
        self.damage().name
    }
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
