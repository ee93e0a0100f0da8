//! The address of a node's IPIP tunnel device: taken, kept and given back.
//!
//! The allocation and the field of the Node that names it change in one
//! transaction, so that the two agree however a process ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::error::Error;
use super::standing::Standing;
use super::stored::StoredNode;
use super::tunnel::{FIELD, tunnel_handle_id};
use crate::datastore::{Datastore, Selection, Snapshot, Transaction, keys};
use crate::ipam::assign::{self, Request, Want};
use crate::ipam::{
    self, Assigned, Assignee, Blocks, Family, Holdings, MachineId, Ownership, PassedOver,
    PoolReference, Purpose, Step, Stored, View, engine, release, verdict,
};
use crate::resources::{AllowedUse, EncapsulationMode, IpPool};

/// Makes sure that a node has a tunnel address, and that its Node says so, and
/// returns it.
///
/// An address that it has stays as long as its pool is there, has an `ipipMode`
/// and allows tunnels; that the pool is disabled or selects other nodes concerns
/// new addresses only. (Calico gives the address up then.) Nor may a container on the
/// node have it. Otherwise it is given back and another one taken: that of the node's
/// tunnel device, which a restored datastore may have forgotten; else, unless such a
/// datastore calls too much free ([`Standing::is_holding`]), one of the first pool that
/// is enabled and selects the node.
///
/// # Errors
/// [`Error::NotRegistered`], [`Error::Clash`], [`Error::NoTunnelPool`],
/// [`Error::NothingNew`];
/// [`Error::Ipam`] when there is no address, or the datastore fails.
pub async fn ensure_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    standing: &Standing,
    now: Timestamp,
) -> Result<Ipv4Addr, Error> {
    let assignee = tunnel_of(node, standing.machine.as_ref());
    let mut selections = View::selections(&assignee);
    selections.push(Selection::Key(keys::node(node)));
    let last = selections.len() - 1;
    let taken: Vec<IpAddr> = standing.containers.iter().copied().collect();
    let parse = |snapshot: &Snapshot| -> Result<_, Error> {
        Ok((View::parse(snapshot)?.reserving(&taken), read_node(snapshot, last)?))
    };
    for _ in 0..engine::MAX_ATTEMPTS {
        let decide = |(view, stored): &(View, Option<StoredNode>), blocks: &Blocks| {
            let stored = stored.as_ref().ok_or_else(|| Error::NotRegistered(node.to_owned()))?;
            Ensuring { assignee: &assignee, standing, view, stored, blocks }.decide(now)
        };
        let (assigned, _) =
            engine::settle(datastore, selections.clone(), &[], parse, decide).await?;
        // Without an address one was given back that could not stay.
        if let Some(IpAddr::V4(address)) = assigned.first().map(|assigned| assigned.address) {
            return Ok(address);
        }
    }
    Err(crate::datastore::Contended::new(vec![keys::node(node), keys::handle(&assignee.handle_id)])
        .into())
}

/// Gives back a node's tunnel address, and takes it out of its Node. Answers
/// which it was; `None` when there was none.
///
/// # Errors
/// [`Error::Clash`]; [`Error::Ipam`] when the datastore fails.
pub async fn release_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    machine: Option<&MachineId>,
) -> Result<Option<IpAddr>, Error> {
    let assignee = tunnel_of(node, machine);
    let mut selections = Holdings::selections(&assignee);
    selections.push(Selection::Key(keys::node(node)));
    let last = selections.len() - 1;
    let parse = |snapshot: &Snapshot| -> Result<_, Error> {
        Ok((Holdings::parse(snapshot)?, read_node(snapshot, last)?))
    };
    let decide = |(holdings, stored): &(Holdings, Option<StoredNode>), blocks: &Blocks| {
        give_back(&assignee, holdings, stored.as_ref(), blocks)
    };
    let (released, _) = engine::settle(datastore, selections, &[], parse, decide).await?;
    Ok(released.first().map(|released| released.address))
}

fn read_node(snapshot: &Snapshot, index: usize) -> Result<Option<StoredNode>, Error> {
    let entry = snapshot.selected.get(index).and_then(|entries| entries.first());
    entry.map(StoredNode::read).transpose()
}

/// Whom a node's tunnel address is assigned to.
fn tunnel_of(node: &str, machine: Option<&MachineId>) -> Assignee {
    Assignee {
        host: node.to_owned(),
        machine: machine.cloned(),
        network: None,
        handle_id: tunnel_handle_id(node),
        purpose: Purpose::Tunnel,
    }
}

/// What a decision about a node's tunnel address rests on.
struct Ensuring<'a> {
    assignee: &'a Assignee,
    standing: &'a Standing,
    view: &'a View,
    stored: &'a StoredNode,
    blocks: &'a Blocks,
}

impl Ensuring<'_> {
    fn decide(&self, now: Timestamp) -> Result<Step, Error> {
        let holdings = &self.view.holdings;
        require_own_name(self.assignee, holdings)?;
        let unread = self.blocks.unknown(holdings.blocks().into_iter());
        if !unread.is_empty() {
            return Ok(Step::Read(unread));
        }
        let present = holdings.addresses(self.assignee, self.blocks);
        let mut staying: Vec<&Assigned> =
            present.iter().filter(|has| self.may_stay(has.address)).collect();
        // Of several the one in use.
        staying.sort_by_key(|has| self.stored.bgp(FIELD) != Some(&has.address.to_string()));
        match staying.first() {
            Some(&has) => self.noted(Step::Done(vec![has.clone()])),
            None if !present.is_empty() => {
                let step = give_back(self.assignee, holdings, Some(self.stored), self.blocks)?;
                Ok(match step {
                    Step::Commit(transaction, _) => Step::Commit(transaction, Vec::new()),
                    other => other,
                })
            }
            None => self.noted(self.take(now)?),
        }
    }

    /// Takes the address of the tunnel device, or a new one.
    fn take(&self, now: Timestamp) -> Result<Step, Error> {
        let mut had = None;
        let kept = self.standing.tunnel.iter().filter(|it| self.may_stay(IpAddr::V4(**it)));
        for &address in kept {
            match self.assign(Want::Exactly(address.into()), now) {
                Err(why) if is_refusal(&why) => had = Some(Box::new((address, why))),
                outcome => return Ok(outcome?),
            }
        }
        if self.standing.is_holding {
            return Err(Error::NothingNew { node: self.assignee.host.clone(), had });
        }
        self.take_new(now)
    }

    fn take_new(&self, now: Timestamp) -> Result<Step, Error> {
        let labels = &self.view.labels;
        let of_ipip = self.view.pools.iter().map(|pool| &pool.value).filter(|pool| is_ipip(pool));
        let (mut pools, mut passed_over) = (Vec::new(), Vec::new());
        for pool in of_ipip {
            match why_not(pool, labels) {
                None => pools.push(PoolReference::Name(pool.name.clone())),
                Some(why) => passed_over.push((pool.name.clone(), why)),
            }
        }
        if pools.is_empty() {
            return Err(Error::NoTunnelPool { node: self.assignee.host.clone(), passed_over });
        }
        Ok(self.assign(Want::Any { family: Family::V4, pools }, now)?)
    }

    fn assign(&self, want: Want, now: Timestamp) -> Result<Step, ipam::Error> {
        let request = Request {
            assignee: self.assignee.clone(),
            facts: BTreeMap::new(),
            wants: vec![want],
            gateways: Vec::new(),
        };
        assign::decide(&request, self.view, self.blocks, now)
    }

    /// The step, with the node naming the address. An address that the node has
    /// already must still be its own then: somebody may be releasing it.
    fn noted(&self, step: Step) -> Result<Step, Error> {
        let (mut transaction, assigned) = match step {
            Step::Read(blocks) => return Ok(Step::Read(blocks)),
            Step::Commit(transaction, assigned) => (transaction, assigned),
            Step::Done(assigned) => (self.unchanged_handle(), assigned),
        };
        let address = assigned.first().map(|assigned| assigned.address.to_string());
        note(Some(self.stored), address, &self.view.holdings, &mut transaction)?;
        Ok(commit_or_done(transaction, assigned))
    }

    fn unchanged_handle(&self) -> Transaction {
        let mut transaction = Transaction::default();
        if let Some(handle) = &self.view.holdings.handle {
            transaction.unchanged(keys::handle(&self.assignee.handle_id), handle.revision);
        }
        transaction
    }

    fn may_stay(&self, address: IpAddr) -> bool {
        let around = |pool: &&Stored<IpPool>| pool.value.cidr.contains(&address);
        let pool = self.view.pools.iter().find(around).map(|pool| &pool.value);
        pool.is_some_and(|pool| is_ipip(pool) && pool.allows(AllowedUse::Tunnel))
            && !self.standing.is_containers(address)
    }
}

/// Refuses what another machine has the node's name for.
fn require_own_name(assignee: &Assignee, holdings: &Holdings) -> Result<(), Error> {
    let ownership = Ownership::new(assignee.machine.as_ref(), holdings.machine());
    ownership.clash(&assignee.host).map_or(Ok(()), |clash| Err(clash.into()))
}

/// Gives back all addresses of the handle and empties the node's field.
fn give_back(
    assignee: &Assignee,
    holdings: &Holdings,
    stored: Option<&StoredNode>,
    blocks: &Blocks,
) -> Result<Step, Error> {
    require_own_name(assignee, holdings)?;
    let (mut transaction, released) = match release::decide(assignee, holdings, blocks)? {
        Step::Read(blocks) => return Ok(Step::Read(blocks)),
        Step::Commit(transaction, released) => (transaction, released),
        Step::Done(_) => (Transaction::default(), Vec::new()),
    };
    note(stored, None, holdings, &mut transaction)?;
    Ok(commit_or_done(transaction, released))
}

/// Adds to a transaction that the node names this address, or none. One that had
/// nothing to write before gets the ready flag's comparison, too.
fn note(
    stored: Option<&StoredNode>,
    address: Option<String>,
    holdings: &Holdings,
    transaction: &mut Transaction,
) -> Result<(), Error> {
    let alone = transaction.writes.is_empty();
    if let Some(stored) = stored {
        stored.set_bgp(&[(FIELD, address)], transaction);
    }
    if alone && !transaction.writes.is_empty() {
        holdings.ready.require()?;
        holdings.ready.guard(transaction);
    }
    Ok(())
}

fn commit_or_done(transaction: Transaction, addresses: Vec<Assigned>) -> Step {
    if transaction.writes.is_empty() {
        Step::Done(addresses)
    } else {
        Step::Commit(transaction, addresses)
    }
}

/// Whether an address that was asked for cannot be had, while others can.
fn is_refusal(error: &ipam::Error) -> bool {
    use ipam::Error::{Exhausted, OtherHost, OutsidePools, Taken, UnusablePool};
    matches!(
        error,
        Exhausted { .. }
            | OtherHost { .. }
            | OutsidePools { .. }
            | Taken { .. }
            | UnusablePool { .. }
    )
}

/// Whether nodes may tunnel to reach a pool's addresses.
fn is_ipip(pool: &IpPool) -> bool {
    pool.cidr.addr().is_ipv4() && pool.ipip_mode != EncapsulationMode::Never
}

/// Why an IPIP pool gives a node with these labels no tunnel address: as Calico
/// (`allocateip.go`, determineEnabledPoolCIDRs), which asks neither for the
/// assignment mode nor for a namespace.
fn why_not(pool: &IpPool, labels: &BTreeMap<String, String>) -> Option<PassedOver> {
    let selected = pool.node_selector.matches(labels);
    verdict(pool, Family::V4, AllowedUse::Tunnel, true, labels)
        .or_else(|| (!selected).then(|| PassedOver::NotSelected(pool.node_selector.to_string())))
}
