//! Lists a store, looks again at what was found, and mends it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;

use super::super::assign::{Request, Want};
use super::super::release_one::{self, Release, Seen};
use super::super::{Assignee, Attribute, Error, engine};
use super::evidence::Evidence;
use super::finding::Finding;
use super::listing::Listing;
use super::mend::{Mend, mend};
use super::node::{Attached, Circumstances};
use crate::datastore::{Datastore, Outcome, Paging, Revision};
use crate::node::is_tunnel_address;

/// A listing, and the moments between which it was made.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What was listed.
    pub listing: Listing,
    /// The store's revision when it began.
    pub revision: Revision,
    /// Whether the store stayed the same meanwhile: what is found in it needs
    /// no second look.
    pub steady: bool,
}

/// Why a repair leaves what is being changed.
const IN_MOTION: &str = "others are changing it";

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
    list_telling(datastore, &|_| {}).await
}

/// As [`list`]; after each page `told` is given the number of entries read so far.
///
/// # Errors
/// [`Error::Datastore`].
pub async fn list_telling(
    datastore: &dyn Datastore,
    told: &(dyn Fn(usize) + Sync),
) -> Result<Listed, Error> {
    let mut entries = 0;
    let mut listing = Listing::default();
    let mut revisions: Vec<Revision> = Vec::new();
    for prefix in Listing::PREFIXES {
        let mut after: Option<String> = None;
        let mut paging = Paging::default();
        loop {
            let page = datastore.list(prefix, after.as_deref(), paging.limit()).await?;
            revisions.push(page.revision);
            paging.learn(&page);
            page.entries.iter().for_each(|entry| listing.learn(entry));
            entries += page.entries.len();
            told(entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    revisions.dedup();
    let revision = revisions.first().copied().unwrap_or_default();
    Ok(Listed { listing, revision, steady: revisions.len() <= 1 })
}

/// Of these findings, those that still hold when all that each rests on is read
/// as of one moment.
///
/// What others were changing while the store was listed looks like damage. So
/// does a change that Calico makes step by step, for a few milliseconds: see
/// [`seen_twice`].
///
/// # Errors
/// See [`Error`].
pub async fn confirm(
    datastore: &dyn Datastore,
    listing: &Listing,
    findings: Vec<Finding>,
    circumstances: &Circumstances<'_>,
) -> Result<Vec<Finding>, Error> {
    let mut confirmed = Vec::new();
    for finding in findings {
        let holds = match &finding {
            Finding::UnrecordedAttachment { identity, addresses, .. } => {
                let Some(node) = circumstances.node else { continue };
                let held = engine::lookup(datastore, &node.assignee(identity)).await?;
                let owns =
                    |address: &IpAddr| held.iter().any(|assigned| assigned.address == *address);
                if addresses.is_empty() { held.is_empty() } else { !addresses.iter().all(owns) }
            }
            _ => {
                let evidence = read(datastore, listing, &finding).await?;
                mend(&finding, &evidence, circumstances) != Mend::Gone
            }
        };
        if holds {
            confirmed.push(finding);
        }
    }
    Ok(confirmed)
}

/// Of the findings of the later of two looks, those that the earlier one had
/// alike.
///
/// What others do step by step looks like damage for a moment: a repair begins
/// with what was there some seconds before.
pub fn seen_twice<'a>(
    earlier: &[Finding],
    later: &'a [Finding],
) -> impl Iterator<Item = &'a Finding> {
    let known: HashMap<_, &Finding> = earlier.iter().map(|it| (it.subject(), it)).collect();
    later.iter().filter(move |it| known.get(&it.subject()).is_some_and(|known| known.is_alike(it)))
}

/// Findings in the order in which a repair mends them. One may stand in the way
/// of another, and mending one may show another: audit again until nothing is
/// mended any more.
pub fn in_turn(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.kind().turn());
    findings
}

/// A repair of what was found in one listing.
pub struct Repair<'a> {
    datastore: &'a dyn Datastore,
    listing: &'a Listing,
    since: Revision,
    ours: BTreeSet<Revision>,
}

impl<'a> Repair<'a> {
    /// A repair of what was found in `listing`, and in an earlier one that
    /// began at the revision `since` of the store.
    pub fn new(datastore: &'a dyn Datastore, listing: &'a Listing, since: Revision) -> Self {
        Self { datastore, listing, since, ours: BTreeSet::new() }
    }

    /// Mends one finding by its own transaction, if it is safe.
    ///
    /// Findings come [`in_turn`]. For one that rests on the kernel
    /// ([`Finding::rests_on_kernel`]) the node must have been read just now,
    /// while no address is handed out on this host, and none until this returns:
    /// see `docs/audit.md`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn mend(
        &mut self,
        finding: &Finding,
        circumstances: &Circumstances<'_>,
    ) -> Result<Repaired, Error> {
        if let Finding::UnrecordedAttachment { identity, addresses, .. } = finding {
            let has = |attached: &Attached| {
                attached.identity == *identity
                    && addresses.iter().all(|address| attached.addresses.contains(address))
            };
            let node = circumstances.node.filter(|node| node.attachments.iter().any(has));
            return match (node, finding.obstacle()) {
                (None, _) => Ok(Repaired::Gone),
                (_, Some(obstacle)) => Ok(Repaired::Left(obstacle)),
                (Some(node), None) => {
                    let assignee = node.assignee(identity);
                    record(self.datastore, assignee, addresses, circumstances.now).await
                }
            };
        }
        for _ in 0..engine::MAX_ATTEMPTS {
            let evidence = read(self.datastore, self.listing, finding).await?;
            match mend(finding, &evidence, circumstances) {
                Mend::Gone => return Ok(Repaired::Gone),
                Mend::Left(obstacle) => return Ok(Repaired::Left(obstacle)),
                Mend::Commit(_) if evidence.is_in_motion(finding, self.since, &self.ours) => {
                    return Ok(Repaired::Left(IN_MOTION.to_owned()));
                }
                Mend::Commit(transaction) => {
                    if let Outcome::Committed(revision) = self.datastore.commit(transaction).await?
                    {
                        self.ours.insert(revision);
                        return Ok(Repaired::Mended);
                    }
                }
            }
        }
        Err(crate::datastore::Contended::new(finding.keys()).into())
    }
}

async fn read(
    datastore: &dyn Datastore,
    listing: &Listing,
    finding: &Finding,
) -> Result<Evidence, Error> {
    let snapshot = datastore.read(&Evidence::selections(finding)).await?;
    Evidence::parse(finding, &snapshot, listing)
}

/// Records the addresses that an attachment has in the kernel, by the same
/// decision as an ADD that asks for them by number: who has one meanwhile keeps
/// it, unless that is the tunnel of a node, which can do with another.
async fn record(
    datastore: &dyn Datastore,
    assignee: Assignee,
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<Repaired, Error> {
    let request = Request {
        assignee,
        facts: Default::default(),
        wants: addresses.iter().copied().map(Want::Exactly).collect(),
        gateways: Vec::new(),
    };
    let mut outcome = engine::assign(datastore, &request, &[], now).await;
    for _ in addresses {
        let Err(Error::Taken { address, .. }) = &outcome else { break };
        if !release_from_tunnel(datastore, *address).await? {
            break;
        }
        outcome = engine::assign(datastore, &request, &[], now).await;
    }
    match outcome {
        Ok(_) => Ok(Repaired::Mended),
        Err(error @ (Error::Datastore(_) | Error::NotReady | Error::Contended { .. })) => {
            Err(error)
        }
        Err(refused) => Ok(Repaired::Left(refused.to_string())),
    }
}

/// Releases an address if a node's tunnel has it, and says whether that is so. The node
/// looks for another one as soon as it does not name this one any more.
async fn release_from_tunnel(datastore: &dyn Datastore, address: IpAddr) -> Result<bool, Error> {
    let Some(found) = release_one::look_up(datastore, address).await? else {
        return Ok(true);
    };
    let holder = release_one::holder(datastore, address).await?;
    let is_tunnel = |it: &Attribute| {
        it.handle_id.as_deref() == found.handle.as_deref() && is_tunnel_address(it)
    };
    if !holder.as_ref().is_some_and(is_tunnel) {
        return Ok(false);
    }
    let released = release_one::release(datastore, &Seen::from(&found)).await?;
    Ok(!matches!(released, Release::Reassigned(_)))
}
