//! Kind 8: an affinity whose claim or release was left halfway.

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::scope::{AffinityUse, Scope};
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;
use crate::ipam::AffinityState;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let unsettled = |it: &AffinityUse<'_>| it.state != AffinityState::Confirmed;
    scope.affinities_of_living().filter(unsettled).map(|it| describe(&it)).collect()
}

fn describe(affinity: &AffinityUse<'_>) -> Finding {
    let AffinityUse { host, block, state, content } = affinity;
    let what = if *state == AffinityState::Pending { "the claim" } else { "the release" };
    let problem = format!("host {host} has left {what} of block {block} halfway");
    let is_empty = content.is_some_and(|it| it.allocations.is_empty());
    let remedy = match settlement(affinity.is_owned(), *state, is_empty) {
        Settlement::Confirm => "confirm the affinity: the block is the host's",
        Settlement::Release => "delete block and affinity: nothing in it is in use",
        Settlement::Delete => "delete the affinity: the block is not the host's",
    };
    Finding::of_affinity(DamageKind::AffinityUnsettled, host, *block, problem, remedy)
}

/// How an affinity that is not confirmed is settled.
enum Settlement {
    /// The block is the host's.
    Confirm,
    /// The block is the host's and empty, and was to be given back: both are deleted.
    Release,
    /// The block is not the host's.
    Delete,
}

fn settlement(is_owned: bool, state: AffinityState, is_empty: bool) -> Settlement {
    match state {
        _ if !is_owned => Settlement::Delete,
        AffinityState::PendingDeletion if is_empty => Settlement::Release,
        _ => Settlement::Confirm,
    }
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    let key = &found.keys[0];
    let affinity = values.affinities.get(key)?;
    let block = values.blocks.get(&found.block?).map(|stored| &stored.value);
    let is_owned = block.is_some_and(|it| it.host() == found.host.as_deref());
    let is_empty = block.is_some_and(|it| it.is_empty());
    match settlement(is_owned, affinity.value.state, is_empty) {
        Settlement::Release => values.give_up(found, tx),
        Settlement::Delete => values.delete_affinity(found, tx),
        Settlement::Confirm => {
            let confirmed = affinity.value.confirmed().to_json();
            tx.update(key.clone(), affinity.revision, confirmed);
            values.require_blocks(&[found.block?], tx);
            Some(())
        }
    }
}
