//! The address of a node's tunnel device, of each kind: taken, kept and given back.
//!
//! What a node should have is decided by the cluster's state and by [`LocalFacts`]. The
//! allocation and the field of the Node that names it change in one transaction, so that
//! the two agree however a process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;

use super::error::Error;
use super::stored::StoredNode;
use crate::datastore::{Attempts, Datastore, Selection, Snapshot, Transaction, keys};
use crate::ipam::assign::{self, Request, Want};
use crate::ipam::{
    self, Assigned, Assignee, Blocks, Decided, Family, Holdings, MachineId, Ownership, PassedOver,
    PoolReference, Purpose, Reserved, ReservedBy, Stored, View, engine, release, verdict,
};
use crate::network::{ClusterState, needs_tunnel};
use crate::resources::{AllowedUse, IpPool};
use crate::tunnel::TunnelKind;

/// What a node itself has, as far as its tunnel address depends on it. A datastore that
/// was restored from a snapshot may have lost such things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFacts {
    /// The machine; `None` where it has no identity.
    pub machine: Option<MachineId>,
    /// The addresses of its tunnel devices.
    pub tunnels: BTreeMap<TunnelKind, BTreeSet<IpAddr>>,
    /// The addresses of the containers on it.
    pub containers: BTreeSet<IpAddr>,
    /// What is reserved on the network around it, when a new address may be taken.
    pub nearby: Vec<Reserved>,
    /// Whether anything is retained that a restored datastore has lost. Then what the
    /// datastore calls free may be a container's, anywhere.
    pub is_holding: bool,
}

/// What was done about a node's tunnel address of one kind.
#[derive(Debug)]
pub enum TunnelOutcome {
    /// Nothing: it is right, or the node is not registered.
    Unchanged,
    /// The node has this one now.
    Taken(IpAddr),
    /// It was given back: no pool needs it.
    Released,
    /// The node needs one and there is none. Asking again does not help before pools,
    /// nodes, blocks or the machine of the node's name change.
    Unavailable(Error),
}

/// Gives `node` a tunnel address of a kind if it needs one, by what `inventory` and `facts` say,
/// and takes it back if it needs none and sends nothing by it any more (`is_still_used`). The
/// datastore is asked in any case: the Node's field
/// alone does not say whether the address is allocated.
///
/// # Errors
/// As [`ensure_tunnel_address`] and [`release_tunnel_address`], except what
/// [`TunnelOutcome::Unavailable`] tells.
pub async fn reconcile_tunnel_address(
    datastore: &dyn Datastore,
    kind: TunnelKind,
    node: &str,
    is_still_used: bool,
    inventory: &ClusterState,
    facts: &LocalFacts,
    now: Timestamp,
) -> Result<TunnelOutcome, Error> {
    let Some(own) = inventory.nodes.get(node) else {
        return Ok(TunnelOutcome::Unchanged);
    };
    let had = own.tunnels.get(&kind);
    let changed = if needs_tunnel(kind, node, inventory) {
        let mut facts = facts.clone();
        let own_addresses = facts.tunnels.entry(kind).or_default();
        own_addresses.retain(|address| !is_elsewhere(node, *address, inventory));
        let ensured = ensure_tunnel_address(datastore, kind, node, &facts, now).await;
        ensured.map(|it| (had != Some(&it)).then_some(TunnelOutcome::Taken(it)))
    } else if is_still_used {
        return Ok(TunnelOutcome::Unchanged);
    } else {
        let machine = facts.machine.as_ref();
        let released = release_tunnel_address(datastore, kind, node, machine).await;
        released.map(|it| it.map(|_| TunnelOutcome::Released))
    };
    match changed {
        Ok(changed) => Ok(changed.unwrap_or(TunnelOutcome::Unchanged)),
        Err(error) if error.means_none_left() => Ok(TunnelOutcome::Unavailable(error)),
        Err(error) => Err(error),
    }
}

/// Whether an address lies in another node's block. A restored datastore may have
/// lost that block, and it is not to be claimed because of one borrowed address.
fn is_elsewhere(node: &str, address: IpAddr, inventory: &ClusterState) -> bool {
    let of_others = inventory.blocks.iter().filter(|(_, hosts)| !hosts.contains(node));
    let mut of_others = of_others.map(|(block, _)| block);
    of_others.any(|block| block.contains(&address))
}

/// Whether `node` needs a tunnel address of a kind and is registered with none.
pub fn lacks_tunnel_address(kind: TunnelKind, node: &str, inventory: &ClusterState) -> bool {
    let named = inventory.nodes.get(node).and_then(|own| own.tunnels.get(&kind));
    named.is_none() && needs_tunnel(kind, node, inventory)
}

impl LocalFacts {
    /// What no tunnel device is given: what the network around the node has, and its
    /// containers' addresses; not those that the device has already.
    fn reserved(&self) -> impl Iterator<Item = Reserved> {
        let is_own = |reserved: &&Reserved| {
            self.tunnels.values().any(|addresses| addresses.contains(&reserved.range.addr()))
        };
        let around = self.nearby.iter().filter(move |it| !is_own(it)).cloned();
        let of_containers = self.containers.iter().map(|address| {
            let link = "of a container".to_owned();
            Reserved { range: (*address).into(), by: ReservedBy::Reached { link } }
        });
        around.chain(of_containers)
    }

    /// Lets `node` keep its devices' addresses in an inventory that has none for it,
    /// though it needs them ([`lacks_tunnel_address`]): those of pools that have such
    /// addresses, and no container's.
    pub fn keep_tunnel_addresses(&self, node: &str, inventory: &mut ClusterState) {
        for (&kind, addresses) in &self.tunnels {
            let may_be_kept = |address: &&IpAddr| {
                let pool = inventory.pool_of((**address).into());
                pool.is_some_and(|(_, pool)| pool.is_of(kind) && pool.has_tunnel_addresses)
                    && !self.containers.contains(*address)
            };
            let kept = addresses.iter().find(may_be_kept).copied();
            let is_lost = lacks_tunnel_address(kind, node, inventory);
            let own = inventory.nodes.get_mut(node).filter(|_| is_lost);
            if let (Some(own), Some(kept)) = (own, kept) {
                own.tunnels.insert(kind, kept);
            }
        }
    }

    fn of_kind(&self, kind: TunnelKind) -> impl Iterator<Item = IpAddr> {
        self.tunnels.get(&kind).into_iter().flatten().copied()
    }
}

/// Makes sure that a node has a tunnel address of a kind, and that its Node says so, and
/// returns it.
///
/// An address that it has stays as long as its pool is there, asks for the kind
/// and allows tunnels; that the pool is disabled or selects other nodes concerns
/// new addresses only. (Calico gives the address up then.) Nor may a container on the
/// node have it. Otherwise it is given back and another one taken: that of the node's
/// tunnel device, which a restored datastore may have lost; else, unless such a
/// datastore calls too much free ([`LocalFacts::is_holding`]), one of the first pool that
/// is enabled and selects the node.
///
/// # Errors
/// [`Error::NotRegistered`], [`Error::Clash`], [`Error::NoTunnelPool`],
/// [`Error::NothingNew`];
/// [`Error::Ipam`] when there is no address, or the datastore fails.
pub async fn ensure_tunnel_address(
    datastore: &dyn Datastore,
    kind: TunnelKind,
    node: &str,
    facts: &LocalFacts,
    now: Timestamp,
) -> Result<IpAddr, Error> {
    let assignee = tunnel_of(kind, node, facts.machine.as_ref());
    let mut selections = View::selections(&assignee);
    let last = selections.len();
    selections.push(Selection::Key(keys::node(node)));
    let parse = |snapshot: &Snapshot| -> Result<_, Error> {
        Ok((View::parse(snapshot)?.reserving(facts.reserved()), read_node(snapshot, last)?))
    };
    let mut attempts = Attempts::default();
    loop {
        attempts.begin()?;
        let decide = |(view, stored): &(View, Option<StoredNode>), blocks: &Blocks| {
            let stored = stored.as_ref().ok_or_else(|| Error::NotRegistered(node.to_owned()))?;
            TunnelDecision { kind, assignee: &assignee, facts, view, stored, blocks }.decide(now)
        };
        let (assigned, _) =
            engine::settle(datastore, selections.clone(), &[], parse, decide).await?;
        // Without an address one was given back that could not stay.
        if let Some(assigned) = assigned.first() {
            return Ok(assigned.address);
        }
    }
}

/// Gives back a node's tunnel address of a kind, and takes it out of its Node. Answers
/// which it was; `None` when there was none.
///
/// # Errors
/// [`Error::Clash`]; [`Error::Ipam`] when the datastore fails.
pub async fn release_tunnel_address(
    datastore: &dyn Datastore,
    kind: TunnelKind,
    node: &str,
    machine: Option<&MachineId>,
) -> Result<Option<IpAddr>, Error> {
    let assignee = tunnel_of(kind, node, machine);
    let mut selections = Holdings::selections(&assignee);
    let last = selections.len();
    selections.push(Selection::Key(keys::node(node)));
    let parse = |snapshot: &Snapshot| -> Result<_, Error> {
        Ok((Holdings::parse(snapshot)?, read_node(snapshot, last)?))
    };
    let decide = |(holdings, stored): &(Holdings, Option<StoredNode>), blocks: &Blocks| {
        give_back(kind, &assignee, holdings, stored.as_ref(), blocks)
    };
    let (released, _) = engine::settle(datastore, selections, &[], parse, decide).await?;
    Ok(released.first().map(|released| released.address))
}

fn read_node(snapshot: &Snapshot, index: usize) -> Result<Option<StoredNode>, Error> {
    let entry = snapshot.selected.get(index).and_then(|entries| entries.first());
    entry.map(StoredNode::read).transpose()
}

/// What a node's tunnel address is assigned to.
fn tunnel_of(kind: TunnelKind, node: &str, machine: Option<&MachineId>) -> Assignee {
    Assignee {
        host: node.to_owned(),
        machine: machine.cloned(),
        network: None,
        handle_id: kind.handle_of(node),
        purpose: Purpose::Tunnel(kind),
    }
}

/// What a decision about a node's tunnel address rests on.
struct TunnelDecision<'a> {
    kind: TunnelKind,
    assignee: &'a Assignee,
    facts: &'a LocalFacts,
    view: &'a View,
    stored: &'a StoredNode,
    blocks: &'a Blocks,
}

impl TunnelDecision<'_> {
    fn decide(&self, now: Timestamp) -> Result<Decided, Error> {
        let holdings = &self.view.holdings;
        require_own_name(self.assignee, holdings)?;
        let unread = self.blocks.unknown(holdings.blocks().into_iter());
        if !unread.is_empty() {
            return Ok(Decided::Read(unread));
        }
        let present = holdings.addresses(self.assignee, self.blocks);
        let mut staying: Vec<&Assigned> =
            present.iter().filter(|has| self.may_stay(has.address)).collect();
        // Of several the one in use.
        let named = self.stored.get(self.kind.row().address_field);
        staying.sort_by_key(|has| named != Some(&has.address.to_string()));
        match staying.first() {
            Some(&has) => self.noted(Decided::Done(vec![has.clone()])),
            None if !present.is_empty() => {
                let stored = Some(self.stored);
                let step = give_back(self.kind, self.assignee, holdings, stored, self.blocks)?;
                Ok(match step {
                    Decided::Commit(transaction, _) => Decided::Commit(transaction, Vec::new()),
                    other => other,
                })
            }
            None => self.noted(self.take(now)?),
        }
    }

    /// Takes the address of the tunnel device, or a new one.
    fn take(&self, now: Timestamp) -> Result<Decided, Error> {
        let mut had = None;
        let kept = self.facts.of_kind(self.kind).filter(|address| self.may_stay(*address));
        for address in kept {
            match self.assign(Want::Exactly(address), now) {
                Err(why) if is_refusal(&why) => had = Some(Box::new((address, why))),
                outcome => return Ok(outcome?),
            }
        }
        if self.facts.is_holding {
            return Err(Error::NothingNew { node: self.assignee.host.clone(), had });
        }
        self.take_new(now)
    }

    fn take_new(&self, now: Timestamp) -> Result<Decided, Error> {
        let labels = &self.view.labels;
        let of_kind =
            self.view.pools.iter().map(|pool| &pool.value).filter(|pool| is_of(self.kind, pool));
        let (mut pools, mut passed_over) = (Vec::new(), Vec::new());
        for pool in of_kind {
            match why_not(self.kind, pool, labels) {
                None => pools.push(PoolReference::Name(pool.name.clone())),
                Some(why) => passed_over.push((pool.name.clone(), why)),
            }
        }
        if pools.is_empty() {
            let (kind, node) = (self.kind, self.assignee.host.clone());
            return Err(Error::NoTunnelPool { kind, node, passed_over });
        }
        Ok(self.assign(Want::Any { family: family_of(self.kind), pools }, now)?)
    }

    fn assign(&self, want: Want, now: Timestamp) -> Result<Decided, ipam::Error> {
        let request = Request {
            assignee: self.assignee.clone(),
            facts: BTreeMap::new(),
            wants: vec![want],
            gateways: Vec::new(),
            within: None,
        };
        assign::decide(&request, self.view, self.blocks, now)
    }

    /// The step, with the node naming the address. An address that the node has
    /// already must still be its own then: another program may be releasing it.
    fn noted(&self, step: Decided) -> Result<Decided, Error> {
        let (mut transaction, assigned) = match step {
            Decided::Commit(transaction, assigned) => (transaction, assigned),
            Decided::Done(assigned) => (self.unchanged_handle(), assigned),
            to_read => return Ok(to_read),
        };
        let address = assigned.first().map(|assigned| assigned.address.to_string());
        note(self.kind, Some(self.stored), address, &self.view.holdings, &mut transaction)?;
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
        pool.is_some_and(|pool| is_of(self.kind, pool) && pool.allows(AllowedUse::Tunnel))
            && !self.facts.containers.contains(&address)
    }
}

/// Refuses what another machine has the node's name for.
fn require_own_name(assignee: &Assignee, holdings: &Holdings) -> Result<(), Error> {
    let ownership = Ownership::new(assignee.machine.as_ref(), holdings.machine());
    ownership.clash(&assignee.host).map_or(Ok(()), |clash| Err(clash.into()))
}

/// Gives back all addresses of the handle and empties the node's field.
fn give_back(
    kind: TunnelKind,
    assignee: &Assignee,
    holdings: &Holdings,
    stored: Option<&StoredNode>,
    blocks: &Blocks,
) -> Result<Decided, Error> {
    require_own_name(assignee, holdings)?;
    let (mut transaction, released) = match release::decide(assignee, holdings, blocks)? {
        Decided::Commit(transaction, released) => (transaction, released),
        Decided::Done(_) => (Transaction::default(), Vec::new()),
        to_read => return Ok(to_read),
    };
    note(kind, stored, None, holdings, &mut transaction)?;
    Ok(commit_or_done(transaction, released))
}

/// Adds to a transaction that the node names this address, or none. One that had
/// nothing to write before gets the ready flag's comparison, too.
fn note(
    kind: TunnelKind,
    stored: Option<&StoredNode>,
    address: Option<String>,
    holdings: &Holdings,
    transaction: &mut Transaction,
) -> Result<(), Error> {
    let alone = transaction.writes.is_empty();
    if let Some(stored) = stored {
        stored.set(&[(kind.row().address_field, address)], transaction);
    }
    if alone && !transaction.writes.is_empty() {
        holdings.ready.require()?;
        holdings.ready.guard(transaction);
    }
    Ok(())
}

fn commit_or_done(transaction: Transaction, addresses: Vec<Assigned>) -> Decided {
    if transaction.writes.is_empty() {
        Decided::Done(addresses)
    } else {
        Decided::Commit(transaction, addresses)
    }
}

/// Whether an address that was asked for cannot be had, while others can.
fn is_refusal(error: &ipam::Error) -> bool {
    use ipam::Error::{Exhausted, OtherHost, OutsidePools, Taken, UnusablePool, Withheld};
    matches!(
        error,
        Exhausted { .. }
            | OtherHost { .. }
            | OutsidePools { .. }
            | Taken { .. }
            | UnusablePool { .. }
            | Withheld { .. }
    )
}

/// Whether nodes may tunnel by this kind to reach a pool's addresses.
fn is_of(kind: TunnelKind, pool: &IpPool) -> bool {
    pool.tunnel().is_some_and(|(its, _)| its == kind)
}

fn family_of(kind: TunnelKind) -> Family {
    if kind.row().is_ipv6 { Family::V6 } else { Family::V4 }
}

/// Why a pool with the kind of tunnel gives a node with these labels no tunnel address: as Calico
/// (`allocateip.go`, determineEnabledPoolCIDRs), which asks neither for the
/// assignment mode nor for a namespace.
fn why_not(
    kind: TunnelKind,
    pool: &IpPool,
    labels: &BTreeMap<String, String>,
) -> Option<PassedOver> {
    let selected = pool.node_selector.matches(labels);
    verdict(pool, family_of(kind), AllowedUse::Tunnel, true, labels)
        .or_else(|| (!selected).then(|| PassedOver::NotSelected(pool.node_selector.to_string())))
}
