//! Which address the next attachment gets, and why, without assigning it.
//!
//! The address itself comes from [`assign::decide`], which is what an ADD asks;
//! only what there is to say about it is gathered here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::assign::{self, Request, Want, held_blocks};
use super::{
    Assigned, Block, Blocks, Error, Family, PassedOver, PoolReference, Step, Stored, View, choose,
    verdict,
};
use crate::datastore::{Datastore, Snapshot};
use crate::resources::IpPool;

/// What the next attachment of a host gets, step by step.
#[derive(Debug)]
pub struct Explanation {
    /// The host.
    pub host: String,
    /// What was considered for each address wanted, in the order asked.
    pub wants: Vec<Considered>,
    /// The addresses, or why an ADD fails.
    pub outcome: Result<Vec<Next>, Error>,
}

/// What was considered for one address.
#[derive(Debug)]
pub struct Considered {
    /// Its family.
    pub family: Family,
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
}

/// What can be had of a block that a host has.
#[derive(Debug)]
pub enum HeldState {
    /// So many of its addresses are free and not reserved.
    Free(usize),
    /// The affinity is there, the block is not: it is made when it is used.
    NotThereYet,
    /// The block says that it is another host's, or no host's.
    NotTheHosts(Option<String>),
    /// The block cannot be read.
    Unreadable(Error),
}

/// An address that the next attachment gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The address.
    pub address: IpAddr,
    /// The block.
    pub block: IpNet,
    /// How it is come by.
    pub way: Way,
}

/// How an address is come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a block that the host has.
    Held,
    /// From a block that the host claims for it.
    Claimed,
    /// From the block of this host, or of no host.
    Borrowed(Option<String>),
}

/// Explains what an attachment to `host` that has nothing yet would get.
///
/// The store may change until the ADD comes; nothing is changed here.
///
/// # Errors
/// [`Error::Datastore`]; [`Error::Malformed`] when what every ADD reads cannot
/// be read. Why an ADD would fail otherwise is part of the explanation.
pub async fn explain(
    datastore: &dyn Datastore,
    host: &str,
    wants: Vec<Want>,
    now: Timestamp,
) -> Result<Explanation, Error> {
    let request = newcomer(host, wants);
    let selections = View::selections(&request.host, &request.handle_id);
    let view = View::parse(&datastore.read(&selections).await?)?;
    let mut blocks = Blocks::default();
    let mut considered = Vec::new();
    for want in &request.wants {
        considered.push(consider(datastore, want, &view, &mut blocks, host).await?);
    }
    let outcome = foresee(datastore, &request, &view, blocks, now).await;
    match outcome {
        Err(error @ Error::Datastore(_)) => Err(error),
        outcome => Ok(Explanation { host: host.to_owned(), wants: considered, outcome }),
    }
}

/// The request of an attachment that nobody knows. No handle has an empty id.
fn newcomer(host: &str, wants: Vec<Want>) -> Request {
    Request {
        host: host.to_owned(),
        handle_id: String::new(),
        interface: String::new(),
        facts: Default::default(),
        wants,
        reserved: Vec::new(),
    }
}

/// Makes the decision, reading what it asks for, and stops before it is carried
/// out.
async fn foresee(
    datastore: &dyn Datastore,
    request: &Request,
    view: &View,
    mut blocks: Blocks,
    now: Timestamp,
) -> Result<Vec<Next>, Error> {
    loop {
        match assign::decide(request, view, &blocks, now)? {
            Step::Read(cidrs) => {
                let answer = datastore.read(&Blocks::selections(&cidrs)).await?;
                blocks.learn(&cidrs, &answer)?;
            }
            Step::Commit(_, assigned) | Step::Done(assigned) => {
                let next = assigned.into_iter().map(|it| find_way(it, &blocks, &request.host));
                return Ok(next.collect());
            }
        }
    }
}

fn find_way(assigned: Assigned, blocks: &Blocks, host: &str) -> Next {
    let Assigned { address, block } = assigned;
    let way = match blocks.get(block).flatten().map(|stored| stored.value.host()) {
        None => Way::Claimed,
        Some(Some(owner)) if owner == host => Way::Held,
        Some(owner) => Way::Borrowed(owner.map(str::to_owned)),
    };
    Next { address, block, way }
}

/// Says of each pool whether it is used, and of each block held what is free.
async fn consider(
    datastore: &dyn Datastore,
    want: &Want,
    view: &View,
    blocks: &mut Blocks,
    host: &str,
) -> Result<Considered, Error> {
    let (family, asked) = (want.family(), pools_asked(want));
    // Why none can be used is the outcome.
    let used = choose(&view.pools, family, asked, host, &view.labels).unwrap_or_default();
    let places = held_blocks(view, &used);
    let mut unreadable =
        read_blocks(datastore, blocks, places.iter().map(|(_, block)| *block)).await?;
    let describe = |(pool, block): (&Stored<IpPool>, IpNet)| HeldBlock {
        block,
        pool: pool.value.name.clone(),
        state: match unreadable.remove(&block) {
            Some(error) => HeldState::Unreadable(error),
            None => state_of(blocks.get(block).flatten(), view, host),
        },
    };
    let held = places.into_iter().map(describe).collect();
    let is_used = |pool: &IpPool| used.iter().any(|used| used.value.name == pool.name);
    let others = view.pools.iter().map(|pool| &pool.value).filter(|pool| !is_used(pool));
    let passed_over = others.filter_map(|pool| Some((pool.clone(), not_used(pool, want, view)?)));
    Ok(Considered {
        family,
        passed_over: passed_over.collect(),
        pools: used.into_iter().map(|pool| pool.value.clone()).collect(),
        held,
    })
}

fn pools_asked(want: &Want) -> &[PoolReference] {
    match want {
        Want::Any { pools, .. } => pools,
        Want::Exactly(_) => &[],
    }
}

/// Why a pool of the family wanted is not used; `None` for one of the other
/// family.
fn not_used(pool: &IpPool, want: &Want, view: &View) -> Option<NotUsed> {
    let (family, asked) = (want.family(), pools_asked(want));
    if Family::of(pool.cidr.addr()) != family {
        return None;
    }
    let asked_for = asked.iter().any(|reference| reference.names(pool));
    match verdict(pool, family, asked_for, &view.labels) {
        _ if !asked.is_empty() && !asked_for => Some(NotUsed::NotAskedFor),
        why => why.map(NotUsed::PassedOver),
    }
}

/// Reads blocks, and returns those that cannot be read: they do not keep an ADD
/// from the ones tried before them.
async fn read_blocks(
    datastore: &dyn Datastore,
    blocks: &mut Blocks,
    cidrs: impl Iterator<Item = IpNet>,
) -> Result<BTreeMap<IpNet, Error>, Error> {
    let cidrs = blocks.unknown(cidrs);
    let Snapshot { selected, revision } = datastore.read(&Blocks::selections(&cidrs)).await?;
    let mut unreadable = BTreeMap::new();
    for (cidr, entries) in cidrs.into_iter().zip(selected) {
        let alone = Snapshot { selected: vec![entries], revision };
        if let Err(error) = blocks.learn(&[cidr], &alone) {
            unreadable.insert(cidr, error);
        }
    }
    Ok(unreadable)
}

/// What can be had of a block that was read.
fn state_of(block: Option<&Stored<Block>>, view: &View, host: &str) -> HeldState {
    match block.map(|stored| &stored.value) {
        None => HeldState::NotThereYet,
        Some(block) if block.host() == Some(host) => {
            let reserved = |ordinal: &usize| {
                let address = block.address(*ordinal);
                view.reserved.iter().any(|range| range.contains(&address))
            };
            HeldState::Free(block.free().filter(|ordinal| !reserved(ordinal)).count())
        }
        Some(block) => HeldState::NotTheHosts(block.host().map(str::to_owned)),
    }
}
