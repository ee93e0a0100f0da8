//! Lists a store, looks again at what was found, and mends it.

use std::net::IpAddr;

use jiff::Timestamp;

use super::super::assign::{Request, Want};
use super::super::{Error, engine};
use super::evidence::Evidence;
use super::finding::{Finding, handle_of};
use super::listing::Listing;
use super::mend::{Mend, mend};
use super::node::ThisNode;
use crate::datastore::{Datastore, Outcome, Revision};
use crate::network::AttachmentIdentity;

/// How many entries are asked for first: a full block of the largest size alone
/// has about one megabyte.
const FIRST_PAGE: usize = 16;
/// How many times larger the next page may be: empty blocks may come before
/// full ones.
const GROWTH: usize = 8;
/// How many bytes a page should have.
const PAGE_BYTES: usize = 1 << 20;
/// The most entries in a page.
const LARGEST_PAGE: usize = 1024;

/// A listing, and the moments between which it was made.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What was listed.
    pub listing: Listing,
    /// Whether the store stayed the same meanwhile: what is found in it needs
    /// no second look.
    pub steady: bool,
}

/// What a repair did about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// It mended it.
    Mended,
    /// It was gone already.
    Gone,
    /// It left it alone, for this reason.
    Left(String),
}

/// Lists all that a store says about addresses, page by page.
///
/// # Errors
/// [`Error::Datastore`].
pub async fn list(datastore: &dyn Datastore) -> Result<Listed, Error> {
    let mut listing = Listing::default();
    let mut revisions: Vec<Revision> = Vec::new();
    for prefix in Listing::PREFIXES {
        let mut after: Option<String> = None;
        let mut limit = FIRST_PAGE;
        loop {
            let page = datastore.list(prefix, after.as_deref(), limit).await?;
            revisions.push(page.revision);
            let bytes: usize = page.entries.iter().map(|entry| entry.value.len()).sum();
            limit = next_limit(limit, page.entries.len(), bytes);
            page.entries.iter().for_each(|entry| listing.learn(entry));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    revisions.dedup();
    Ok(Listed { listing, steady: revisions.len() <= 1 })
}

/// How many entries make a page of the size wanted, if they go on like these.
fn next_limit(limit: usize, entries: usize, bytes: usize) -> usize {
    let fitting = PAGE_BYTES * entries.max(1) / bytes.max(1);
    fitting.clamp(1, LARGEST_PAGE.min(limit * GROWTH))
}

/// Of these findings, those that still hold when all that each rests on is read
/// as of one moment.
///
/// What others were changing while the store was listed looks like damage. So
/// does a change that Calico makes step by step, for a few milliseconds: give
/// it a moment before a repair.
///
/// # Errors
/// See [`Error`].
pub async fn confirm(
    datastore: &dyn Datastore,
    listing: &Listing,
    findings: Vec<Finding>,
    node: Option<&ThisNode>,
    now: Timestamp,
) -> Result<Vec<Finding>, Error> {
    let mut confirmed = Vec::new();
    for finding in findings {
        let holds = match &finding {
            Finding::UnrecordedAttachment { identity, addresses, .. } => {
                let handle = handle_of(identity);
                let held = engine::lookup(datastore, &handle, identity.interface()).await?;
                let owns =
                    |address: &IpAddr| held.iter().any(|assigned| assigned.address == *address);
                if addresses.is_empty() { held.is_empty() } else { !addresses.iter().all(owns) }
            }
            _ => {
                let evidence = read(datastore, listing, &finding).await?;
                mend(&finding, &evidence, node, now) != Mend::Gone
            }
        };
        if holds {
            confirmed.push(finding);
        }
    }
    Ok(confirmed)
}

/// Mends what is safe to mend, each finding by its own transaction, and says of
/// each what became of it.
///
/// One finding may stand in the way of another, and mending one may show
/// another: audit again until nothing is mended any more.
///
/// # Errors
/// See [`Error`]. What was mended until then stays mended.
pub async fn repair(
    datastore: &dyn Datastore,
    listing: &Listing,
    mut findings: Vec<Finding>,
    node: Option<&ThisNode>,
    now: Timestamp,
) -> Result<Vec<(Finding, Repaired)>, Error> {
    findings.sort_by_key(|finding| finding.kind().turn());
    let mut repaired = Vec::with_capacity(findings.len());
    for finding in findings {
        let done = match &finding {
            Finding::UnrecordedAttachment { identity, host, addresses } => {
                match finding.obstacle() {
                    Some(obstacle) => Repaired::Left(obstacle),
                    None => record(datastore, identity, host, addresses, now).await?,
                }
            }
            _ => settle(datastore, listing, &finding, node, now).await?,
        };
        repaired.push((finding, done));
    }
    Ok(repaired)
}

async fn read(
    datastore: &dyn Datastore,
    listing: &Listing,
    finding: &Finding,
) -> Result<Evidence, Error> {
    let snapshot = datastore.read(&Evidence::selections(finding)).await?;
    Evidence::parse(finding, &snapshot, listing)
}

/// Mends one finding, and reads again when others were faster.
async fn settle(
    datastore: &dyn Datastore,
    listing: &Listing,
    finding: &Finding,
    node: Option<&ThisNode>,
    now: Timestamp,
) -> Result<Repaired, Error> {
    for _ in 0..engine::MAX_ATTEMPTS {
        let evidence = read(datastore, listing, finding).await?;
        match mend(finding, &evidence, node, now) {
            Mend::Gone => return Ok(Repaired::Gone),
            Mend::Left(obstacle) => return Ok(Repaired::Left(obstacle)),
            Mend::Commit(transaction) => {
                if let Outcome::Committed(_) = datastore.commit(transaction).await? {
                    return Ok(Repaired::Mended);
                }
            }
        }
    }
    Err(Error::Contended(engine::MAX_ATTEMPTS))
}

/// Records the addresses that an attachment has in the kernel, by the same
/// decision as an ADD that asks for them by number: who has one meanwhile keeps
/// it.
async fn record(
    datastore: &dyn Datastore,
    identity: &AttachmentIdentity,
    host: &str,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<Repaired, Error> {
    let request = Request {
        host: host.to_owned(),
        handle_id: handle_of(identity),
        interface: identity.interface().to_owned(),
        facts: Default::default(),
        wants: addresses.iter().copied().map(Want::Exactly).collect(),
        reserved: Vec::new(),
    };
    match engine::assign(datastore, &request, &[], now).await {
        Ok(_) => Ok(Repaired::Mended),
        Err(error @ (Error::Datastore(_) | Error::NotReady | Error::Contended(_))) => Err(error),
        Err(refused) => Ok(Repaired::Left(refused.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_what_is_in_them() {
        assert_eq!(next_limit(64, 64, 64 * 100), 512, "not too many at once");
        assert_eq!(next_limit(1024, 1024, 1024 * 100), LARGEST_PAGE);
        assert_eq!(next_limit(64, 64, 64 << 14), 64);
        assert_eq!(next_limit(64, 64, 64 << 20), 1);
        assert_eq!(next_limit(1, 0, 0), 8);
    }
}
