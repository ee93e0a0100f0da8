//! The address of a node's IPIP tunnel device: taken, kept and given back.
//!
//! What a node should have is decided by the cluster's state and by [`LocalFacts`]. The
//! allocation and the field of the Node that names it change in one transaction, so that
//! the two agree however a process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;

use super::error::Error;
use super::stored::StoredNode;
use super::tunnel_handle::{FIELD, tunnel_handle_id};
use crate::datastore::{Attempts, Datastore, Selection, Snapshot, Transaction, keys};
use crate::ipam::assign::{self, Request, Want};
use crate::ipam::{
    self, Assigned, Assignee, Blocks, Decided, Family, Holdings, MachineId, Ownership, PassedOver,
    PoolReference, Purpose, Reserved, ReservedBy, Stored, View, engine, release, verdict,
};
use crate::network::{ClusterState, needs_tunnel};
use crate::resources::{AllowedUse, EncapsulationMode, IpPool};

/// What a node itself has, as far as its tunnel address depends on it. A datastore that
/// was restored from a snapshot may have lost such things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFacts {
    /// The machine; `None` where it has no identity.
    pub machine: Option<MachineId>,
    /// The addresses of its tunnel device.
    pub tunnel: BTreeSet<Ipv4Addr>,
    /// The addresses of the containers on it.
    pub containers: BTreeSet<IpAddr>,
    /// What is reserved on the network around it, when a new address may be taken.
    pub nearby: Vec<Reserved>,
    /// Whether anything is retained that a restored datastore has lost. Then what the
    /// datastore calls free may be a container's, anywhere.
    pub is_holding: bool,
}

/// What was done about a node's tunnel address.
#[derive(Debug)]
pub enum TunnelOutcome {
    /// Nothing: it is right, or the node is not registered.
    Unchanged,
    /// The node has this one now.
    Taken(Ipv4Addr),
    /// It was given back: no pool needs it.
    Released,
    /// The node needs one and there is none. Asking again does not help before pools,
    /// nodes, blocks or the machine of the node's name change.
    Unavailable(Error),
}

/// Gives `node` a tunnel address if it needs one, by what `inventory` and `facts` say, and
/// takes it back if it needs none. The datastore is asked in any case: the Node's field
/// alone does not say whether the address is allocated.
///
/// # Errors
/// As [`ensure_tunnel_address`] and [`release_tunnel_address`], except what
/// [`TunnelOutcome::Unavailable`] tells.
pub async fn reconcile_tunnel_address(
    datastore: &dyn Datastore,
    node: &str,
    inventory: &ClusterState,
    facts: &LocalFacts,
    now: Timestamp,
) -> Result<TunnelOutcome, Error> {
    let Some(own) = inventory.nodes.get(node) else {
        return Ok(TunnelOutcome::Unchanged);
    };
    let changed = if needs_tunnel(node, inventory) {
        let mut facts = facts.clone();
        facts.tunnel.retain(|address| !is_elsewhere(node, *address, inventory));
        let ensured = ensure_tunnel_address(datastore, node, &facts, now).await;
        ensured.map(|it| (own.tunnel != Some(it)).then_some(TunnelOutcome::Taken(it)))
    } else {
        let released = release_tunnel_address(datastore, node, facts.machine.as_ref()).await;
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
fn is_elsewhere(node: &str, address: Ipv4Addr, inventory: &ClusterState) -> bool {
    let of_others = inventory.blocks.iter().filter(|(_, hosts)| !hosts.contains(node));
    let mut of_others = of_others.map(|(block, _)| block);
    of_others.any(|block| block.contains(&IpAddr::V4(address)))
}

/// Whether `node` needs a tunnel address and is registered with none.
pub fn lacks_tunnel_address(node: &str, inventory: &ClusterState) -> bool {
    let named = inventory.nodes.get(node).and_then(|own| own.tunnel);
    named.is_none() && needs_tunnel(node, inventory)
}

impl LocalFacts {
    /// What no tunnel device is given: what the network around the node has, and its
    /// containers' addresses; not those that the device has already.
    fn reserved(&self) -> impl Iterator<Item = Reserved> {
        let is_own = |reserved: &&Reserved| match reserved.range.addr() {
            IpAddr::V4(address) => self.tunnel.contains(&address),
            IpAddr::V6(_) => false,
        };
        let around = self.nearby.iter().filter(move |it| !is_own(it)).cloned();
        let of_containers = self.containers.iter().map(|address| {
            let link = "of a container".to_owned();
            Reserved { range: (*address).into(), by: ReservedBy::Reached { link } }
        });
        around.chain(of_containers)
    }

    /// Lets `node` keep its device's address in an inventory that has none for it,
    /// though it needs one ([`lacks_tunnel_address`]): one of a pool that has such
    /// addresses, and no container's.
    pub fn keep_tunnel_address(&self, node: &str, inventory: &mut ClusterState) {
        let may_be_kept = |address: &&Ipv4Addr| {
            let address = IpAddr::V4(**address);
            let pool = inventory.pool_of(address.into());
            pool.is_some_and(|(_, pool)| pool.has_tunnel_addresses)
                && !self.containers.contains(&address)
        };
        let kept = self.tunnel.iter().find(may_be_kept).copied();
        if let Some(own) = inventory.nodes.get_mut(node) {
            own.tunnel = own.tunnel.or(kept);
        }
    }
}

/// Makes sure that a node has a tunnel address, and that its Node says so, and
/// returns it.
///
/// An address that it has stays as long as its pool is there, has an `ipipMode`
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
    node: &str,
    facts: &LocalFacts,
    now: Timestamp,
) -> Result<Ipv4Addr, Error> {
    let assignee = tunnel_of(node, facts.machine.as_ref());
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
            TunnelDecision { assignee: &assignee, facts, view, stored, blocks }.decide(now)
        };
        let (assigned, _) =
            engine::settle(datastore, selections.clone(), &[], parse, decide).await?;
        // Without an address one was given back that could not stay.
        if let Some(IpAddr::V4(address)) = assigned.first().map(|assigned| assigned.address) {
            return Ok(address);
        }
    }
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
    let last = selections.len();
    selections.push(Selection::Key(keys::node(node)));
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

/// What a node's tunnel address is assigned to.
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
struct TunnelDecision<'a> {
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
        staying.sort_by_key(|has| self.stored.bgp(FIELD) != Some(&has.address.to_string()));
        match staying.first() {
            Some(&has) => self.noted(Decided::Done(vec![has.clone()])),
            None if !present.is_empty() => {
                let step = give_back(self.assignee, holdings, Some(self.stored), self.blocks)?;
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
        let kept = self.facts.tunnel.iter().filter(|it| self.may_stay(IpAddr::V4(**it)));
        for &address in kept {
            match self.assign(Want::Exactly(address.into()), now) {
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

    fn assign(&self, want: Want, now: Timestamp) -> Result<Decided, ipam::Error> {
        let request = Request {
            assignee: self.assignee.clone(),
            facts: BTreeMap::new(),
            wants: vec![want],
            gateways: Vec::new(),
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
