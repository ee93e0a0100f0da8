//! Carries decisions out against a datastore.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::assign::{self, Request};
use super::assignee::Assignee;
use super::block::Attribute;
use super::error::Error;
use super::knowledge::{Blocks, Holdings, View};
use super::ownership::Clash;
use super::probe::AddressProbe;
use super::reserved::Reserved;
use super::unselected::UnselectedBlocks;
use super::workload::Workload;
use super::{Assigned, Decided, release};
pub use crate::datastore::MAX_ATTEMPTS;
use crate::datastore::{self, Datastore, Decision, Selection, Snapshot, keys, transact};
use crate::resources::IpPool;

/// What an assignment comes to.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The addresses, in the order in which they were asked for.
    pub addresses: Vec<Assigned>,
    /// All pools there are, as they were at that moment.
    pub pools: Vec<IpPool>,
    /// Says that the host's name is recorded for another machine, if it is.
    pub clash: Option<Clash>,
}

/// Assigns the addresses an attachment asks for, all or none. Repeated for the
/// same attachment it returns the same addresses.
///
/// One read, one read of blocks, and one commit, while the host holds a block
/// with a free address; one read less when that block is among the `likely`
/// ones, which are read in advance and change nothing else.
///
/// # Errors
/// See [`Error`]; nothing was changed, save that after
/// [`Error::Datastore`] the commit may have taken effect: asked again, the
/// attachment gets the addresses it was given then.
pub async fn assign(
    datastore: &dyn Datastore,
    request: &Request,
    likely: &[IpNet],
    now: Timestamp,
) -> Result<Assignment, Error> {
    assign_around(datastore, request, likely, now, None).await
}

/// As [`assign()`], and nothing that is in use on the network around the node.
///
/// # Errors
/// As [`assign()`], and [`Error::Probe`].
pub async fn assign_around(
    datastore: &dyn Datastore,
    request: &Request,
    likely: &[IpNet],
    now: Timestamp,
    probe: Option<&dyn AddressProbe>,
) -> Result<Assignment, Error> {
    let selections = View::selections(&request.assignee);
    let parse = |snapshot: &Snapshot| {
        let view = View::parse(snapshot)?.serving(request);
        Ok(if probe.is_some() { view.looking_up([]) } else { view })
    };
    let decide = |view: &View, blocks: &Blocks| assign::decide(request, view, blocks, now);
    let look_up = probe.map(|it| LookUp { probe: it, learn: View::learn_reserved });
    let settled = settle_looking_up(datastore, (selections, likely), parse, decide, look_up);
    let (addresses, view) = settled.await?;
    let assignee = &request.assignee;
    let clash = assignee.ownership(view.holdings.machine()).clash(&assignee.host);
    let pools = view.pools.into_iter().map(|pool| pool.value).collect();
    Ok(Assignment { addresses, pools, clash })
}

/// What a DEL does besides releasing an assignee's addresses.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    /// The same container as Calico 2 recorded it, which is released after the assignee.
    /// Calico's plugin tries both handles in this order
    /// (`cni-plugin/pkg/ipamplugin/ipam_plugin.go`, cmdDel).
    pub workload: Option<Workload>,
    /// Whether empty blocks of pools that no longer select the host are given up.
    pub gives_up_blocks: bool,
}

/// Releases all addresses of an assignee, and what else is `leaving`, and returns them. That
/// there is nothing else is learnt without a request of its own.
///
/// # Errors
/// See [`Error`]; what was released until then stays released.
pub async fn release(
    datastore: &dyn Datastore,
    assignee: &Assignee,
    leaving: &Leaving,
) -> Result<Vec<Assigned>, Error> {
    let workload = leaving.workload.as_ref();
    let mut selections = Holdings::selections(assignee);
    let earlier = selections.len();
    selections.extend(workload.map(|it| Selection::Key(keys::handle(&it.handle_id))));
    let own_blocks = selections.len();
    if leaving.gives_up_blocks {
        selections.extend(UnselectedBlocks::selections(&assignee.host));
    }
    let parse = |snapshot: &Snapshot| {
        let is_there = workload.is_some() && snapshot.entry(earlier).is_some();
        let unselected = match leaving.gives_up_blocks {
            true => UnselectedBlocks::parse(&assignee.host, snapshot, own_blocks),
            false => UnselectedBlocks::default(),
        };
        Ok((Holdings::parse(snapshot)?, unselected, is_there))
    };
    let decide = |(holdings, unselected, _): &(Holdings, UnselectedBlocks, bool),
                  blocks: &Blocks| {
        let has = |holder: &Attribute| assignee.has(holder, holdings.machine());
        release::decide_by(&assignee.handle_id, has, (holdings, unselected), blocks)
    };
    let (mut addresses, (_, _, is_there)) =
        settle(datastore, selections, &[], parse, decide).await?;
    if let Some(workload) = workload.filter(|_| is_there) {
        let none = UnselectedBlocks::default();
        let decide = |holdings: &Holdings, blocks: &Blocks| {
            let has = |holder: &Attribute| workload.has(holder, holdings.machine());
            release::decide_by(&workload.handle_id, has, (holdings, &none), blocks)
        };
        let selections = Holdings::selections_of(&assignee.host, &workload.handle_id);
        let (more, _) = settle(datastore, selections, &[], Holdings::parse, decide).await?;
        addresses.extend(more);
    }
    Ok(addresses)
}

/// The addresses that an assignee has.
///
/// # Errors
/// See [`Error`].
pub async fn lookup(
    datastore: &dyn Datastore,
    assignee: &Assignee,
) -> Result<Vec<Assigned>, Error> {
    let decide = |holdings: &Holdings, blocks: &Blocks| {
        let unread = holdings.unread(blocks)?;
        Ok(if unread.is_empty() {
            Decided::Done(holdings.addresses(assignee, blocks))
        } else {
            Decided::Read(unread)
        })
    };
    let selections = Holdings::selections(assignee);
    let (addresses, _) = settle(datastore, selections, &[], Holdings::parse, decide).await?;
    Ok(addresses)
}

/// Reads what a decision needs until it is made, and commits it. Returns the addresses
/// and what they were decided on.
///
/// # Errors
/// Those of `parse` and `decide`; [`Error::Contended`], [`Error::Datastore`].
pub(crate) async fn settle<Known, Failed>(
    datastore: &dyn Datastore,
    selections: Vec<Selection>,
    likely: &[IpNet],
    parse: impl Fn(&Snapshot) -> Result<Known, Failed>,
    decide: impl Fn(&Known, &Blocks) -> Result<Decided, Failed>,
) -> Result<(Vec<Assigned>, Known), Failed>
where
    Failed: From<datastore::Error> + From<datastore::Contended> + From<Error>,
{
    settle_looking_up(datastore, (selections, likely), parse, decide, None).await
}

/// Where addresses are looked up, and how what is known takes in what was found.
struct LookUp<'a, Known> {
    probe: &'a dyn AddressProbe,
    learn: fn(&mut Known, Vec<IpAddr>, Vec<Reserved>),
}

/// The same for a decision that may ask for addresses to be looked up.
async fn settle_looking_up<Known, Failed>(
    datastore: &dyn Datastore,
    (mut selections, likely): (Vec<Selection>, &[IpNet]),
    parse: impl Fn(&Snapshot) -> Result<Known, Failed>,
    decide: impl Fn(&Known, &Blocks) -> Result<Decided, Failed>,
    look_up: Option<LookUp<'_, Known>>,
) -> Result<(Vec<Assigned>, Known), Failed>
where
    Failed: From<datastore::Error> + From<datastore::Contended> + From<Error>,
{
    let in_advance = selections.len();
    selections.extend(Blocks::selections(likely));
    let (selections, parse, decide, look_up) = (&selections, &parse, &decide, &look_up);
    transact(datastore, |_| async move {
        let snapshot = datastore.read(selections).await?;
        let mut known = parse(&snapshot)?;
        let mut blocks = Blocks::default();
        blocks.learn(likely, &snapshot.selected[in_advance..]);
        loop {
            match decide(&known, &blocks)? {
                Decided::Done(addresses) => return Ok(Decision::Done((addresses, known))),
                Decided::Commit(transaction, addresses) => {
                    return Ok(Decision::Commit(transaction, (addresses, known)));
                }
                Decided::Read(cidrs) => {
                    let answer = datastore.read(&Blocks::selections(&cidrs)).await?;
                    blocks.learn(&cidrs, &answer.selected);
                }
                Decided::LookUp(addresses) => {
                    if let Some(LookUp { probe, learn }) = look_up {
                        let found = probe.reserved_near(&addresses).await?;
                        learn(&mut known, addresses, found);
                    }
                }
            }
        }
    })
    .await
}
