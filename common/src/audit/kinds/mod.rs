//! What finds and repairs each kind of damage, one file each.

mod address_without_attachment;
mod address_without_handle;
mod affinity_unsettled;
mod affinity_without_block;
pub(super) mod attachment_without_address;
mod block_affinity;
mod block_misfit;
mod block_unsound;
mod block_without_pool;
mod handle_count;
mod handle_without_address;
mod host_gone;
mod unreadable;

use super::finding::Finding;
use super::kind::DamageKind;
use super::scope::Scope;
use super::values::CurrentValues;
use crate::datastore::Transaction;

/// What a kind's file does.
pub(super) struct Damage {
    /// Finds it.
    pub find: fn(&Scope<'_>) -> Vec<Finding>,
    /// Adds what repairs a finding, as it was found again in the current values; `None`
    /// when there is nothing to repair.
    pub repair: fn(&Finding, &CurrentValues, &mut Transaction) -> Option<()>,
}

impl DamageKind {
    /// What finds and repairs it.
    pub(super) fn damage(self) -> Damage {
        match self {
            Self::AddressWithoutAttachment => Damage {
                find: address_without_attachment::find,
                repair: address_without_attachment::repair,
            },
            Self::AttachmentWithoutAddress => Damage {
                find: attachment_without_address::find,
                repair: attachment_without_address::repair,
            },
            Self::HandleWithoutAddress => Damage {
                find: handle_without_address::find,
                repair: handle_without_address::repair,
            },
            Self::AddressWithoutHandle => Damage {
                find: address_without_handle::find,
                repair: address_without_handle::repair,
            },
            Self::HandleCount => Damage { find: handle_count::find, repair: handle_count::repair },
            Self::AffinityWithoutBlock => Damage {
                find: affinity_without_block::find,
                repair: affinity_without_block::repair,
            },
            Self::BlockAffinity => {
                Damage { find: block_affinity::find, repair: block_affinity::repair }
            }
            Self::AffinityUnsettled => {
                Damage { find: affinity_unsettled::find, repair: affinity_unsettled::repair }
            }
            Self::BlockWithoutPool => {
                Damage { find: block_without_pool::find, repair: block_without_pool::repair }
            }
            Self::BlockMisfit => Damage { find: block_misfit::find, repair: block_misfit::repair },
            Self::BlockUnsound => {
                Damage { find: block_unsound::find, repair: block_unsound::repair }
            }
            Self::HostGone => Damage { find: host_gone::find, repair: host_gone::repair },
            Self::Unreadable => Damage { find: unreadable::find, repair: unreadable::repair },
        }
    }
}
