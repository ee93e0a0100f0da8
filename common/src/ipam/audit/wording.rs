//! Findings in words: what is wrong, what a repair does, what keeps it from it.

use std::fmt::Display;
use std::net::IpAddr;

use super::super::affinity::AffinityState;
use super::finding::Finding;
use super::listing::Owner;

impl Finding {
    /// What is wrong, as a sentence without its full stop.
    pub fn problem(&self) -> String {
        match self {
            Self::LeakedAddress(allocation) => format!(
                "address {} belongs to {} of handle {}, which is not in this node's kernel",
                allocation.address,
                allocation.interface.as_deref().unwrap_or("an interface"),
                allocation.handle.as_deref().unwrap_or("none"),
            ),
            Self::UnrecordedAttachment { identity, addresses, .. } => format!(
                "{} of container {} in network {} is in this node's kernel, but {} is not its own \
                 in the store",
                identity.interface(),
                identity.container_id(),
                identity.network(),
                if addresses.is_empty() { "any address".to_owned() } else { listed(addresses) },
            ),
            Self::EmptyHandle { handle, .. } => format!("handle {handle} has no address"),
            Self::MissingHandle { handle, addresses } => format!(
                "handle {handle} is not there, but has {}",
                listed(addresses.iter().map(|allocation| allocation.address)),
            ),
            Self::NobodysAddress(allocation) => {
                format!("address {} is in use under no handle", allocation.address)
            }
            Self::WrongCount { handle, counts } => {
                let wrong = counts.iter().filter(|(_, says, has)| says != has);
                let text =
                    wrong.map(|(block, says, has)| format!("{says} in {block} where it has {has}"));
                format!("handle {handle} counts {}", listed(text))
            }
            _ => self.problem_of_block(),
        }
    }

    fn problem_of_block(&self) -> String {
        match self {
            Self::AffinityWithoutBlock(claim) => {
                format!("host {} has block {}, which is not there", claim.host, claim.block)
            }
            Self::MissingAffinity(claim) => format!(
                "block {} belongs to host {}, which has no affinity to it",
                claim.block, claim.host
            ),
            Self::ForeignAffinity { claim, owner } => format!(
                "host {} has an affinity to block {}, which belongs to {}",
                claim.host,
                claim.block,
                owner_text(owner)
            ),
            Self::UnsettledAffinity { claim, state, .. } => format!(
                "host {} has left {} of block {} halfway",
                claim.host,
                if *state == AffinityState::Pending { "the claim" } else { "the release" },
                claim.block
            ),
            Self::BlockWithoutPool { block, in_use, .. } => {
                format!("block {block} lies in no pool and has {in_use} addresses in use")
            }
            Self::MisfitBlock { block, pool, overlaps, .. } => {
                let size = pool.as_ref().map(|(pool, size)| format!("pool {pool} has /{size}"));
                let over = overlaps.iter().map(|other| format!("block {other} overlaps it"));
                format!("block {block} does not fit: {}", listed(size.into_iter().chain(over)))
            }
            Self::UnsoundBlock { block, both, neither, doubtful, .. } => {
                let state = |addresses: Vec<&IpAddr>, state: &str| {
                    (!addresses.is_empty()).then(|| format!("{} {state}", listed(addresses)))
                };
                let both = state(both.iter().collect(), "both free and taken, or free twice");
                let mut neither: Vec<&IpAddr> = neither.iter().chain(doubtful).collect();
                neither.sort_unstable();
                let neither = state(neither, "neither free nor taken");
                let parts: Vec<String> = both.into_iter().chain(neither).collect();
                format!("block {block} has {}", parts.join("; "))
            }
            Self::AddressOfGoneHost { allocation, host, .. } => format!(
                "address {} is in use on host {host}, which is not among the registered nodes",
                allocation.address
            ),
            Self::BlockOfGoneHost { claim, .. } => format!(
                "block {} is kept for host {}, which is not among the registered nodes",
                claim.block, claim.host
            ),
            Self::Unreadable { key, reason } => format!("{key} cannot be read: {reason}"),
            // The others are worded above.
            _ => String::new(),
        }
    }

    /// What a repair does, in the imperative.
    pub fn remedy(&self) -> String {
        match self {
            Self::LeakedAddress(_) | Self::AddressOfGoneHost { .. } => "release it".to_owned(),
            Self::UnrecordedAttachment { .. } => {
                "record it, if no other container has the address".to_owned()
            }
            Self::EmptyHandle { .. } => "delete the handle".to_owned(),
            Self::MissingHandle { .. } => "make the handle anew".to_owned(),
            Self::NobodysAddress(allocation) => {
                format!("if nobody uses it: weirctl ipam release --ip={}", allocation.address)
            }
            Self::WrongCount { .. } => "count again".to_owned(),
            Self::AffinityWithoutBlock(_) | Self::ForeignAffinity { .. } => {
                "delete the affinity".to_owned()
            }
            Self::MissingAffinity(_) => "make the affinity anew".to_owned(),
            Self::UnsettledAffinity { .. } => self.settlement().remedy().to_owned(),
            Self::BlockWithoutPool { .. } | Self::MisfitBlock { .. } => {
                "delete the block when nothing in it is in use".to_owned()
            }
            Self::UnsoundBlock { .. } => {
                "make the list of free addresses anew; what is taken stays taken".to_owned()
            }
            Self::BlockOfGoneHost { .. } => {
                "delete the affinity, and the block if it is empty; else it becomes nobody's"
                    .to_owned()
            }
            Self::Unreadable { .. } => "mend or delete it with the datastore's client".to_owned(),
        }
    }

    /// Why a repair leaves this alone; `None` when it is safe to mend.
    pub fn obstacle(&self) -> Option<String> {
        match self {
            Self::NobodysAddress(_) => Some("it may be in use".to_owned()),
            Self::UnrecordedAttachment { addresses, .. } if addresses.is_empty() => Some(
                "the kernel does not say which address it has; delete the container and make it \
                 again"
                    .to_owned(),
            ),
            Self::BlockWithoutPool { in_use, .. } if *in_use > 0 => Some(format!(
                "{in_use} addresses in it are in use; create a pool around it, or remove the \
                 containers"
            )),
            Self::MisfitBlock { in_use, .. } if *in_use > 0 => Some(format!(
                "{in_use} addresses in it are in use; disable its pool, move the containers to \
                 another one, and repair again"
            )),
            Self::AddressOfGoneHost { host, named: false, .. } => Some(perhaps_there(host)),
            Self::BlockOfGoneHost { claim, named: false } => Some(perhaps_there(&claim.host)),
            Self::UnsoundBlock { host, both, neither, doubtful, .. }
                if both.is_empty() && neither.is_empty() =>
            {
                Some(perhaps_used(host.as_deref(), doubtful))
            }
            Self::Unreadable { .. } => {
                Some("Weir does not overwrite what it cannot read; mend or delete it with the datastore's \
                      client".to_owned())
            }
            _ => None,
        }
    }

    /// How a claim or a release left halfway is ended.
    pub(super) fn settlement(&self) -> Settlement {
        match self {
            Self::UnsettledAffinity { claim, state, owner: Some(Owner::Host(host)), in_use }
                if *host == claim.host =>
            {
                match state {
                    AffinityState::PendingDeletion if *in_use == 0 => Settlement::Release,
                    _ => Settlement::Confirm,
                }
            }
            _ => Settlement::Forget,
        }
    }
}

/// How an affinity that is not confirmed is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// The block is the host's: the affinity is confirmed.
    Confirm,
    /// The block is the host's and empty, and was to be given back: both are
    /// deleted.
    Release,
    /// The block is not the host's: the affinity is deleted.
    Forget,
}

impl Settlement {
    fn remedy(self) -> &'static str {
        match self {
            Self::Confirm => "confirm the affinity: the block is the host's",
            Self::Release => "delete block and affinity: nothing in it is in use",
            Self::Forget => "delete the affinity: the block is not the host's",
        }
    }
}

fn perhaps_there(host: &str) -> String {
    format!(
        "{host} may be there without being registered; if it is gone for good, add: \
         --gone-host {host}"
    )
}

fn perhaps_used(host: Option<&str>, addresses: &[IpAddr]) -> String {
    let addresses = listed(addresses);
    match host {
        Some(host) => format!(
            "{addresses} may be in use all the same; a repair on node {host} frees what that node \
             has no route to"
        ),
        None => format!("{addresses} may be in use all the same, and the block is no node's"),
    }
}

fn owner_text(owner: &Owner) -> String {
    match owner {
        Owner::Host(host) => format!("host {host}"),
        Owner::Nobody => "no host".to_owned(),
        Owner::Other => "something that is no host".to_owned(),
    }
}

/// At most eight items, and how many more there are.
fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    const SHOWN: usize = 8;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let mut text = items[..items.len().min(SHOWN)].join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}
