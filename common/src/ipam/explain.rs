//! Which address the next attachment gets, and why, without assigning it.
//!
//! The address itself comes from [`assign::decide`], which is what an ADD asks;
//! only what there is to say about it is gathered here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::assign::{self, Request, Want, held_blocks, pool_of};
use super::assignee::Assignee;
use super::block::{Block, nth_address};
use super::cooldown::Cooldown;
use super::error::Error;
use super::family::Family;
use super::knowledge::{Blocks, Stored, Unreadable, View};
use super::passed_over::PassedOver;
use super::pools::{PoolReference, choose, verdict};
use super::purpose::Purpose;
use super::reserved::{Reserved, ReservedBy};
use super::{Assigned, Decided};
use crate::datastore::{self, Datastore};
use crate::resources::{AllowedUse, IpPool};

/// What the next attachment of a host gets, step by step.
#[derive(Debug)]
pub struct Explanation {
    /// The host.
    pub host: String,
    /// What was considered for each address wanted, in the order asked; nothing
    /// when what every ADD reads cannot be used.
    pub wants: Vec<Considered>,
    /// The addresses, or why an ADD fails.
    pub outcome: Result<Vec<Next>, Error>,
}

/// What was considered for one address.
#[derive(Debug)]
pub struct Considered {
    /// What is wanted.
    pub want: Want,
    /// The pools that are used, in this order.
    pub pools: Vec<IpPool>,
    /// The other pools, and why they are not used.
    pub passed_over: Vec<(IpPool, NotUsed)>,
    /// The blocks that the host has, in the order in which they are tried.
    pub held: Vec<HeldBlock>,
}

/// Why a pool is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUsed {
    /// Other pools were asked for.
    #[error("was not asked for")]
    NotAskedFor,
    /// It would do, but another one that was asked for too does not, and then
    /// none is used.
    #[error("is not used, because another pool that was asked for cannot be")]
    WithAnother,
    /// The address asked for is not in it.
    #[error("does not contain {0}")]
    Elsewhere(IpAddr),
    /// It may not be used.
    #[error(transparent)]
    PassedOver(#[from] PassedOver),
}

/// A block that a host has.
#[derive(Debug)]
pub struct HeldBlock {
    /// The block.
    pub block: IpNet,
    /// The pool it lies in.
    pub pool: String,
    /// What can be had of it.
    pub state: HeldState,
    /// How many of its addresses were released and cool down.
    pub cooling: usize,
}

/// What can be had of a block that a host has.
#[derive(Debug)]
pub enum HeldState {
    /// So many of its addresses are free and not reserved.
    Free(usize),
    /// Some of its addresses are free, but these reserve all of them.
    Reserved(BTreeSet<String>),
    /// The affinity is there, the block is not: it is made when it is used.
    NotThereYet,
    /// The block says that it is another host's, or no host's.
    NotTheHosts(Option<String>),
    /// The block cannot be read.
    Unreadable(Unreadable),
}

/// An address that the next attachment gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The address.
    pub address: IpAddr,
    /// The block.
    pub block: IpNet,
    /// Where it comes from.
    pub source: AddressSource,
    /// The free addresses of the block that come before it, and what reserves each.
    pub passed_over: Vec<(IpAddr, ReservedBy)>,
}

/// Where an address comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// From a block that the host has.
    Held,
    /// From a block that the host claims for it.
    Claimed,
    /// From the block of this host, or of no host.
    Borrowed(Option<String>),
}

/// Explains what the [`newcomer`] of a `request` would get, where `nearby` is reserved around
/// the host.
///
/// The store may change until the ADD comes; nothing is changed here.
///
/// # Errors
/// When the datastore fails. Why an ADD would fail otherwise is part of the
/// explanation.
pub async fn explain(
    datastore: &dyn Datastore,
    request: &Request,
    nearby: Vec<Reserved>,
    now: Timestamp,
) -> Result<Explanation, datastore::Error> {
    let host = request.assignee.host.as_str();
    let selections = View::selections(&request.assignee);
    let view = match View::parse(&datastore.read(&selections).await?) {
        Ok(view) => view.serving(request).reserving(nearby),
        Err(error) => {
            return Ok(Explanation {
                host: host.to_owned(),
                wants: Vec::new(),
                outcome: Err(error),
            });
        }
    };
    let cooldown = Cooldown::new(&view.config, now);
    let mut blocks = Blocks::default();
    let mut considered = Vec::new();
    for want in &request.wants {
        considered.push(consider(datastore, want, (&view, cooldown), &mut blocks, host).await?);
    }
    let outcome = foresee(datastore, request, view, blocks, now).await?;
    Ok(Explanation { host: host.to_owned(), wants: considered, outcome })
}

/// The request of an attachment to `host` that has nothing yet. No handle has an empty id.
pub fn newcomer(host: &str, wants: Vec<Want>) -> Request {
    Request {
        assignee: Assignee {
            host: host.to_owned(),
            machine: None,
            network: None,
            handle_id: String::new(),
            purpose: Purpose::Interface(String::new()),
        },
        facts: Default::default(),
        wants,
        gateways: Vec::new(),
        within: None,
    }
}

/// Makes the decision, reading what it asks for, and stops before it is carried
/// out.
async fn foresee(
    datastore: &dyn Datastore,
    request: &Request,
    mut view: View,
    mut blocks: Blocks,
    now: Timestamp,
) -> Result<Result<Vec<Next>, Error>, datastore::Error> {
    loop {
        match assign::decide(request, &view, &blocks, now) {
            Ok(Decided::Read(cidrs)) => read_blocks(datastore, &mut blocks, &cidrs).await?,
            Ok(Decided::Commit(_, assigned) | Decided::Done(assigned)) => {
                let next = assigned.into_iter().map(|assigned| {
                    let passed_over = passed_over(&assigned, &blocks, &view);
                    Next { passed_over, ..source_of(assigned, &blocks, &request.assignee.host) }
                });
                return Ok(Ok(next.collect()));
            }
            // All that is reserved around the node is in the view already.
            Ok(Decided::LookUp(addresses)) => view.learn_reserved(addresses, Vec::new()),
            Err(error) => return Ok(Err(error)),
        }
    }
}

async fn read_blocks(
    datastore: &dyn Datastore,
    blocks: &mut Blocks,
    cidrs: &[IpNet],
) -> Result<(), datastore::Error> {
    let answer = datastore.read(&Blocks::selections(cidrs)).await?;
    blocks.learn(cidrs, &answer.selected);
    Ok(())
}

fn source_of(assigned: Assigned, blocks: &Blocks, host: &str) -> Next {
    let Assigned { address, block } = assigned;
    let source = match blocks.get(block).flatten().map(|stored| stored.value.host()) {
        None => AddressSource::Claimed,
        Some(Some(owner)) if owner == host => AddressSource::Held,
        Some(owner) => AddressSource::Borrowed(owner.map(str::to_owned)),
    };
    Next { address, block, source, passed_over: Vec::new() }
}

/// The free addresses of a block that come before the assigned one, and what reserves each.
fn passed_over(assigned: &Assigned, blocks: &Blocks, view: &View) -> Vec<(IpAddr, ReservedBy)> {
    let is_reserved = |address: IpAddr| Some((address, view.reserves(address)?.clone()));
    match blocks.get(assigned.block).flatten() {
        Some(stored) => {
            let block = &stored.value;
            let free = block.free().map(|ordinal| block.address(ordinal));
            free.take_while(|address| *address != assigned.address)
                .filter_map(is_reserved)
                .collect()
        }
        None => {
            let all = (0..).map(|ordinal| nth_address(assigned.block, ordinal));
            all.take_while(|address| *address != assigned.address).filter_map(is_reserved).collect()
        }
    }
}

/// Says of each pool whether it is used, and of each block held what is free.
async fn consider(
    datastore: &dyn Datastore,
    want: &Want,
    (view, cooldown): (&View, Cooldown),
    blocks: &mut Blocks,
    host: &str,
) -> Result<Considered, datastore::Error> {
    let used = pools_used(want, view, host);
    let mut places = held_blocks(view, &used);
    if let Want::Exactly(address) = want {
        places.retain(|(_, block)| block.contains(address));
    }
    let unknown = blocks.unknown(places.iter().map(|(_, block)| *block));
    read_blocks(datastore, blocks, &unknown).await?;
    let describe = |(pool, block): (&Stored<IpPool>, IpNet)| {
        let state = state_of(block, blocks, (view, cooldown), host);
        let content = blocks.get(block).flatten();
        let cooling = content.map_or(0, |stored| cooldown.cooling(&stored.value));
        HeldBlock { block, pool: pool.value.name.clone(), state, cooling }
    };
    let held = places.into_iter().map(describe).collect();
    let is_used = |pool: &IpPool| used.iter().any(|used| used.value.name == pool.name);
    let others = view.pools.iter().map(|pool| &pool.value).filter(|pool| !is_used(pool));
    let passed_over = others.filter_map(|pool| Some((pool.clone(), not_used(pool, want, view)?)));
    Ok(Considered {
        want: want.clone(),
        passed_over: passed_over.collect(),
        pools: used.into_iter().map(|pool| pool.value.clone()).collect(),
        held,
    })
}

/// The pools that the address may come from, in this order. Why there are none
/// is the outcome.
fn pools_used<'a>(want: &Want, view: &'a View, host: &str) -> Vec<&'a Stored<IpPool>> {
    match want {
        Want::Any { family, pools } => {
            choose(&view.pools, *family, AllowedUse::Workload, pools, host, &view.labels)
                .unwrap_or_default()
        }
        Want::Exactly(address) => {
            pool_of(view, *address, AllowedUse::Workload).into_iter().collect()
        }
    }
}

/// Why a pool is not used; `None` for one of the other family that was not asked
/// for.
fn not_used(pool: &IpPool, want: &Want, view: &View) -> Option<NotUsed> {
    let family = want.family();
    let names = |reference: &PoolReference| reference.names(pool);
    let (asked_for, not_asked_for) = match want {
        Want::Any { pools, .. } if pools.is_empty() => (false, None),
        Want::Any { pools, .. } if pools.iter().any(names) => (true, None),
        Want::Any { .. } => (false, Some(NotUsed::NotAskedFor)),
        Want::Exactly(address) if pool.cidr.contains(address) => (true, None),
        Want::Exactly(address) => (false, Some(NotUsed::Elsewhere(*address))),
    };
    if Family::of(pool.cidr.addr()) != family && !asked_for {
        return None;
    }
    let why = || {
        verdict(pool, family, AllowedUse::Workload, asked_for, &view.labels)
            .map(NotUsed::PassedOver)
    };
    not_asked_for.or_else(why).or(asked_for.then_some(NotUsed::WithAnother))
}

/// What can be had of a block that was looked at.
fn state_of(
    cidr: IpNet,
    blocks: &Blocks,
    (view, cooldown): (&View, Cooldown),
    host: &str,
) -> HeldState {
    if let Some(why) = blocks.unreadable(cidr) {
        return HeldState::Unreadable(why.clone());
    }
    match blocks.get(cidr).flatten().map(|stored| &stored.value) {
        None => HeldState::NotThereYet,
        Some(block) if block.host() == Some(host) => state_of_own(block, view, cooldown),
        Some(block) => HeldState::NotTheHosts(block.host().map(str::to_owned)),
    }
}

fn state_of_own(block: &Block, view: &View, cooldown: Cooldown) -> HeldState {
    let mut by = BTreeSet::new();
    let mut free = 0;
    for ordinal in cooldown.free(block) {
        match view.reserves(block.address(ordinal)) {
            Some(reserved) => drop(by.insert(reserved.to_string())),
            None => free += 1,
        }
    }
    if free == 0 && !by.is_empty() { HeldState::Reserved(by) } else { HeldState::Free(free) }
}
