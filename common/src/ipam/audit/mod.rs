//! Comparing blocks, handles, affinities and pools with one another and with
//! the attachments in a node's kernel, and mending what does not agree.
//!
//! [`audit`] is pure: from what was listed it says what is damaged.
//! [`mend`] is pure too: from the values of one finding's keys it makes the
//! transaction that mends it. [`engine`] lists, looks again and commits.
//! `docs/audit.md` has the kinds of damage and what a repair never does.

mod affinities;
mod allocation;
mod attachments;
mod blocks;
pub mod engine;
mod evidence;
mod finding;
mod handles;
mod kind;
mod listing;
mod mend;
mod node;
mod report;
mod wording;

use std::collections::BTreeSet;

pub use allocation::Allocation;
pub use evidence::Evidence;
pub use finding::{Claim, Finding};
pub use kind::Kind;
pub use listing::{Listing, Owner};
pub use mend::{Mend, mend};
pub use node::{Attached, CALL_DEADLINE, Circumstances, ThisNode, Unjudged};
pub use report::{Record, RecordedAddress, Report};

/// Finds what is damaged, in order of kind and key.
///
/// A listing of a store that others write to meanwhile is not of one moment:
/// then [`engine::confirm`] tells what is damaged from what was in motion.
pub fn audit(listing: &Listing, circumstances: &Circumstances<'_>) -> Vec<Finding> {
    let hosts = node::Hosts::new(listing, circumstances);
    let mut findings = attachments::addresses_of_gone_hosts(listing, &hosts);
    if let Some(node) = circumstances.node {
        findings.extend(attachments::leaked_addresses(listing, node, circumstances.now));
        findings.extend(attachments::unrecorded_attachments(listing, node));
    }
    findings.extend(handles::check(listing));
    findings.extend(affinities::check(listing, &hosts));
    findings.extend(blocks::check(listing, circumstances.node));
    findings.extend(unreadable(listing));
    findings.sort_by_cached_key(Finding::subject);
    findings
}

/// The hosts that are gone, of those that hold blocks.
pub(super) fn hosts_gone<'a>(
    listing: &'a Listing,
    circumstances: &Circumstances<'_>,
) -> BTreeSet<&'a str> {
    let hosts = node::Hosts::new(listing, circumstances);
    let owners = listing.blocks.values().filter_map(|block| block.owner.host());
    owners.map(AsRef::as_ref).filter(|host| hosts.is_gone(host)).collect()
}

fn unreadable(listing: &Listing) -> impl Iterator<Item = Finding> {
    let values = listing.unreadable.iter();
    values.map(|(key, reason)| Finding::Unreadable { key: key.clone(), reason: reason.clone() })
}
