//! The decision which addresses an attachment gets.
//!
//! In this order: what it has already; a block the host holds; a block the host
//! can claim; an address borrowed from another host's block.

use std::cmp::Reverse;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::assignee::Assignee;
use super::block::{ATTRIBUTE_NODE, Attribute, Block, block_of};
use super::cooldown::Cooldown;
use super::error::{ClaimBarrier, Error};
use super::family::Family;
use super::knowledge::{Blocks, Stored, View};
use super::passed_over::PassedOver;
use super::pending_changes::{BlockState, PendingChanges};
use super::pools::described;
use super::pools::{PoolReference, choose, verdict};
use super::unavailable::UnavailableAddresses;
use super::walk::{MAX_WALK, walk};
use super::{Assigned, Decided};
use crate::resources::{AllowedUse, IpPool};

pub use super::request::{Request, Want};

/// How many blocks are looked at in one round trip at the most.
const MAX_BATCH: usize = 4096;

/// Decides on a request.
///
/// `now` is recorded in the allocation and is where a new block's sequence
/// number starts. An address that the attachment has already is stamped again, so
/// that no program that saw the allocation before releases it while its container is
/// being attached again (`docs/audit.md`).
///
/// # Errors
/// When the request cannot be fulfilled; see [`Error`].
pub fn decide(
    request: &Request,
    view: &View,
    blocks: &Blocks,
    now: Timestamp,
) -> Result<Decided, Error> {
    view.holdings.ready.require()?;
    let unread = view.holdings.unread(blocks)?;
    if !unread.is_empty() {
        return Ok(Decided::Read(unread));
    }
    let assignee = &request.assignee;
    let mut present = view.holdings.addresses(assignee, blocks);
    let pending = PendingChanges::new(request, view, blocks, now);
    let cooldown = Cooldown::new(&view.config, now);
    let mut search = Search { assignee, view, blocks, cooldown, pending };
    let mut assigned = Vec::new();
    let (mut missing, mut new) = (Vec::new(), Vec::new());
    for want in &request.wants {
        if let Some(index) = present.iter().position(|has| want.is_met_by(has.address)) {
            let has = present.remove(index);
            search.pending.renew(&has);
            assigned.push(has);
            continue;
        }
        match search.place(want, &present) {
            Ok(Placement::At(at)) => {
                new.push(at.address);
                assigned.push(at);
            }
            Ok(Placement::NotLookedUp(address)) => return Ok(Decided::LookUp(vec![address])),
            Ok(Placement::NotKnownYet(blocks)) => missing.extend(blocks),
            Err(error) if missing.is_empty() => return Err(error),
            // Of several wants that cannot be met the first is named, whatever
            // has been read so far.
            Err(_) => break,
        }
    }
    let unknown = view.to_look_up(new.into_iter());
    Ok(if !missing.is_empty() {
        Decided::Read(missing)
    } else if !unknown.is_empty() {
        Decided::LookUp(unknown)
    } else if search.pending.is_empty() {
        Decided::Done(assigned)
    } else {
        Decided::Commit(search.pending.into_transaction(), assigned)
    })
}

impl Want {
    /// The family of the address that is wanted.
    pub fn family(&self) -> Family {
        match self {
            Self::Any { family, .. } => *family,
            Self::Exactly(address) => Family::of(*address),
        }
    }

    fn is_met_by(&self, address: IpAddr) -> bool {
        match self {
            Self::Any { family, .. } => Family::of(address) == *family,
            Self::Exactly(wanted) => *wanted == address,
        }
    }
}

enum Placement {
    At(Assigned),
    NotKnownYet(Vec<IpNet>),
    /// It is not known yet whether this address is in use on the network.
    NotLookedUp(IpAddr),
}

/// The search for an address, over what was read and is pending.
struct Search<'a> {
    assignee: &'a Assignee,
    view: &'a View,
    blocks: &'a Blocks,
    cooldown: Cooldown,
    pending: PendingChanges<'a>,
}

impl<'a> Search<'a> {
    fn place(&mut self, want: &Want, present: &[Assigned]) -> Result<Placement, Error> {
        match want {
            Want::Any { family, pools } => self.place_any(*family, pools),
            Want::Exactly(address) => {
                let of_family = |has: &&Assigned| Family::of(has.address) == Family::of(*address);
                let holds: Vec<IpAddr> =
                    present.iter().filter(of_family).map(|has| has.address).collect();
                if !holds.is_empty() {
                    return Err(Error::HoldsOther { address: *address, holds });
                }
                self.place_exactly(*address)
            }
        }
    }

    fn place_any(&mut self, family: Family, asked: &[PoolReference]) -> Result<Placement, Error> {
        let view = self.view;
        let pools = choose(
            &view.pools,
            family,
            self.assignee.purpose.allowed_use(),
            asked,
            &self.assignee.host,
            &view.labels,
        )?;
        if let Some(placement) = self.try_held(&pools)? {
            return Ok(placement);
        }
        let barrier = match view.config.auto_allocate_blocks {
            true => self.block_limit(family),
            false => Some(ClaimBarrier::Off),
        };
        if barrier.is_none()
            && let Some(placement) = self.try_claim(&pools)?
        {
            return Ok(placement);
        }
        if !view.config.strict_affinity
            && let Some(placement) = self.try_borrow(&pools)?
        {
            return Ok(placement);
        }
        let node = self.assignee.host.clone();
        let claimed = barrier.is_none();
        let unavailable =
            UnavailableAddresses::find(&node, (view, self.blocks), self.cooldown, &pools, claimed)
                .into();
        Err(Error::Exhausted { family, node, pools: described(pools), barrier, unavailable })
    }

    /// The limit of blocks for a host, if this one has reached it.
    fn block_limit(&self, family: Family) -> Option<ClaimBarrier> {
        let limit = self.view.config.max_blocks_per_host;
        let of_family = |cidr: &&IpNet| Family::of(cidr.addr()) == family;
        let held = self.view.affinities.keys().filter(of_family).count();
        (limit > 0 && held >= limit as usize).then_some(ClaimBarrier::Limit(limit))
    }

    /// A free address in a block the host holds.
    fn try_held(&mut self, pools: &[&'a Stored<IpPool>]) -> Result<Option<Placement>, Error> {
        let mut held = held_blocks(self.view, pools);
        held.retain(|(_, cidr)| self.view.excludes(*cidr).is_none());
        for (looked_at, (pool, cidr)) in held.iter().enumerate() {
            let found = match self.pending.known(*cidr) {
                BlockState::Nothing => {
                    let ahead = held[looked_at..].iter().map(|(_, cidr)| *cidr);
                    return Ok(Some(self.look_at(ahead, 3 * looked_at + 1)));
                }
                BlockState::Unreadable(why) => return Err(why.clone().into()),
                BlockState::Absent => self.pending.claim_next(pool, *cidr),
                BlockState::Content(block) if block.host() == Some(&self.assignee.host) => {
                    let taken = self.pending.take_next(pool, *cidr);
                    if taken.is_none() {
                        self.pending.note_full(*cidr);
                    }
                    taken
                }
                BlockState::Content(_) => None,
            };
            if let Some(assigned) = found {
                return Ok(Some(Placement::At(assigned)));
            }
        }
        Ok(None)
    }

    /// The first address of a block that no host has claimed.
    fn try_claim(&mut self, pools: &[&'a Stored<IpPool>]) -> Result<Option<Placement>, Error> {
        let view = self.view;
        let open = |cidr: &IpNet| !view.reserved.iter().any(|it| it.range.contains(cidr));
        self.try_walk(pools, open, |pending, pool, cidr| match pending.known(cidr) {
            BlockState::Absent => pending.claim_next(pool, cidr),
            _ => None,
        })
    }

    /// A free address in another host's block, or in one without a host.
    fn try_borrow(&mut self, pools: &[&'a Stored<IpPool>]) -> Result<Option<Placement>, Error> {
        self.try_walk(pools, |_| true, |pending, pool, cidr| pending.take_next(pool, cidr))
    }

    /// Tries the blocks of each pool in the host's order, as far as they are
    /// known.
    fn try_walk(
        &mut self,
        pools: &[&'a Stored<IpPool>],
        open: impl Fn(&IpNet) -> bool,
        take: impl Fn(&mut PendingChanges<'a>, &'a Stored<IpPool>, IpNet) -> Option<Assigned>,
    ) -> Result<Option<Placement>, Error> {
        for pool in pools {
            let blocks = || walk(pool.value.cidr, pool.value.block_size, &self.assignee.host);
            let is_open = |cidr: &IpNet| self.view.excludes(*cidr).is_none() && open(cidr);
            let candidates = || blocks().take(MAX_WALK).filter(&is_open);
            for (looked_at, cidr) in candidates().enumerate() {
                match self.pending.known(cidr) {
                    BlockState::Nothing => {
                        let ahead = candidates().skip(looked_at).take(MAX_BATCH);
                        return Ok(Some(self.look_at(ahead, 3 * looked_at + 4)));
                    }
                    BlockState::Unreadable(why) => return Err(why.clone().into()),
                    BlockState::Absent | BlockState::Content(_) => {}
                }
                if let Some(assigned) = take(&mut self.pending, pool, cidr) {
                    return Ok(Some(Placement::At(assigned)));
                }
            }
        }
        Ok(None)
    }

    fn place_exactly(&mut self, address: IpAddr) -> Result<Placement, Error> {
        let view = self.view;
        let outside = || Error::OutsidePools { address, existing: described(&view.pools) };
        let pool = pool_of(view, address, self.assignee.purpose.allowed_use())?;
        let cidr = block_of(address, pool.value.block_size).ok_or_else(outside)?;
        match self.pending.known(cidr) {
            BlockState::Nothing => return Ok(Placement::NotKnownYet(vec![cidr])),
            BlockState::Unreadable(why) => return Err(why.clone().into()),
            BlockState::Absent => self.check_limit(Family::of(address), pool)?,
            // Assigned since the handle was read, or Calico lost the handle.
            BlockState::Content(block) if self.is_own(block, address) => {
                return Ok(Placement::At(Assigned { address, block: cidr }));
            }
            BlockState::Content(block) => {
                self.check_takeable(block, address)?;
            }
        }
        if let Some(by) = view.withholds(address) {
            return Err(Error::Withheld { address, by: by.clone() });
        }
        if !view.to_look_up([address].into_iter()).is_empty() {
            return Ok(Placement::NotLookedUp(address));
        }
        let taken = self.pending.take_exactly(pool, cidr, address);
        taken.map(Placement::At).ok_or_else(outside)
    }

    fn is_own(&self, block: &Block, address: IpAddr) -> bool {
        let holder = block.ordinal(address).and_then(|ordinal| block.holder(ordinal));
        holder.is_some_and(|holder| self.assignee.has(holder, self.view.holdings.machine()))
    }

    /// Refuses an address that is taken or cools down, or that lies in a block from which this
    /// host may not borrow.
    fn check_takeable(&self, block: &Block, address: IpAddr) -> Result<(), Error> {
        let holder = block.ordinal(address).and_then(|ordinal| block.holder(ordinal));
        if let Some(holder) = holder.filter(|holder| !self.cooldown.is_over(holder)) {
            return Err(Error::Taken { address, holder: describe(holder) });
        }
        if self.view.config.strict_affinity && block.host() != Some(&self.assignee.host) {
            let owner = block.host().map_or("no host".to_owned(), |owner| format!("host {owner}"));
            return Err(Error::OtherHost { address, block: block.cidr, owner });
        }
        Ok(())
    }

    fn check_limit(&self, family: Family, pool: &'a Stored<IpPool>) -> Result<(), Error> {
        match self.block_limit(family) {
            None => Ok(()),
            barrier => {
                let (node, pools) = (self.assignee.host.clone(), described([pool]));
                let unavailable = Box::default();
                Err(Error::Exhausted { family, node, pools, barrier, unavailable })
            }
        }
    }

    /// Asks for the next blocks of a search: few at first, more the longer it
    /// takes, so that the usual case reads little and the worst makes few round
    /// trips.
    fn look_at(&self, ahead: impl Iterator<Item = IpNet>, at_most: usize) -> Placement {
        let mut unknown = self.blocks.unknown(ahead);
        unknown.truncate(at_most.min(MAX_BATCH));
        Placement::NotKnownYet(unknown)
    }
}

/// The pool that an address asked for is taken from. A container gets it whatever the pool's
/// addresses are used for, as Calico gives it (`libcalico-go/lib/ipam/ipam.go`, AssignIP).
///
/// # Errors
/// When the address lies in no enabled pool, or its pool cannot be used.
pub(super) fn pool_of(
    view: &View,
    address: IpAddr,
    purpose: AllowedUse,
) -> Result<&Stored<IpPool>, Error> {
    let around =
        |pool: &&Stored<IpPool>| !pool.value.disabled && pool.value.cidr.contains(&address);
    let Some(pool) = view.pools.iter().find(around) else {
        return Err(Error::OutsidePools { address, existing: described(&view.pools) });
    };
    match verdict(&pool.value, Family::of(address), purpose, true, &view.labels) {
        Some(why) if why != PassedOver::NotFor(AllowedUse::Workload) => {
            Err(Error::UnusablePool { pool: pool.value.name.clone(), why })
        }
        _ => Ok(pool),
    }
}

/// The blocks of these pools that the host holds, in the order in which they are
/// tried: those of the first pool first, and of one pool the one claimed last
/// first. Each one looked at costs, so those that are noted to be full come
/// last; they come at all because Calico frees addresses without knowing of the
/// notes.
pub(super) fn held_blocks<'a>(
    view: &View,
    pools: &[&'a Stored<IpPool>],
) -> Vec<(&'a Stored<IpPool>, IpNet)> {
    let mut held = Vec::new();
    for (cidr, affinity) in &view.affinities {
        let holds = |pool: &&Stored<IpPool>| {
            pool.value.cidr.contains(cidr) && pool.value.block_size == cidr.prefix_len()
        };
        if let Some(position) = pools.iter().position(holds) {
            let full = view.full.contains(cidr);
            held.push((full, position, Reverse(affinity.revision), *cidr));
        }
    }
    held.sort();
    held.into_iter().map(|(_, position, _, cidr)| (pools[position], cidr)).collect()
}

/// A holder in words: pod or handle, and node.
pub(super) fn describe(holder: &Attribute) -> String {
    if holder.is_cooling_down() {
        return "its last container, which released it a moment ago: it cools down \
                (ipCooldownSeconds)"
            .to_owned();
    }
    let who = match (holder.fact("namespace"), holder.fact("pod")) {
        (Some(namespace), Some(pod)) => format!("pod {namespace}/{pod}"),
        _ => format!("handle {}", holder.handle_id.as_deref().unwrap_or("without an id")),
    };
    match holder.fact(ATTRIBUTE_NODE) {
        Some(node) => format!("{who} on node {node}"),
        None => who,
    }
}
