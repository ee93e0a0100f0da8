//! What the agent writes into the datastore: its node's addresses, and the
//! address of the tunnel device.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_common::datastore::Datastore;
use weir_common::ipam::{Clash, Family, MachineId, Ownership};
use weir_common::network::{ClusterState, Detected, Peer, Problem};
use weir_common::node::{
    Error, GRACE_TIME, NodeAddresses, OwnAddress, Standing, Verdict, register,
};
use weir_common::resources::Birth;
use weir_kernel::Kernel;

use super::pace::WritePace;
use super::tunnel_address::TunnelAddress;
use crate::new_birth;
use crate::session::chain;

/// How long the datastore may take to tell of what was written: so long must a node be
/// missing before it counts as deleted.
const TELLING_TIME: Duration = Duration::from_secs(3);

/// A node's registration, kept up to date.
pub struct Registration {
    datastore: Arc<dyn Datastore>,
    node: String,
    /// This machine; `None` where it has no identity.
    machine: Option<MachineId>,
    /// Those of the families that are looked for.
    addresses: Vec<OwnAddress>,
    started: Instant,
    /// What the node should be registered with by now.
    expected: NodeAddresses,
    pace: WritePace,
    /// What the datastore had when the node was last written, and when that was.
    written: Option<(Option<Peer>, Instant)>,
    /// Whether the node has been registered, so that one that somebody deletes stays
    /// deleted.
    is_known: bool,
    /// Whether the datastore has told of it.
    was_seen: bool,
    /// Since when the datastore has not had the node although it had.
    absent: Option<Instant>,
    tunnel: TunnelAddress,
}

/// What came of keeping a registration up to date.
#[derive(Debug, Default)]
pub struct Renewed {
    /// What keeps the node from a tunnel address where it needs one.
    pub problem: Option<Problem>,
    /// What could not be found out or written, in words. It is tried again.
    pub failures: Vec<String>,
    /// When to look again, though nothing changes.
    pub due: Option<Instant>,
}

/// What is to be written, by what was decided on each family.
#[derive(Debug, Default)]
struct Wanted {
    addresses: NodeAddresses,
    /// Whether any of them takes the place of what somebody else wrote.
    restores: bool,
    warnings: Vec<String>,
}

impl Registration {
    /// The registration of `node`; a family without an address is left as it is.
    pub fn new(
        datastore: Arc<dyn Datastore>,
        node: String,
        machine: Option<MachineId>,
        addresses: Vec<OwnAddress>,
    ) -> Self {
        Self {
            datastore,
            node,
            machine,
            addresses,
            started: Instant::now(),
            expected: NodeAddresses::default(),
            pace: WritePace::default(),
            written: None,
            is_known: false,
            was_seen: false,
            absent: None,
            tunnel: TunnelAddress::default(),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Says that the node's name is another machine's, if it is: then nothing is written.
    pub fn clash(&self, inventory: &ClusterState) -> Option<Clash> {
        let recorded = inventory.machines.get(&self.node);
        Ownership::new(self.machine.as_ref(), recorded).clash(&self.node)
    }

    /// Writes what is not as it should be. `forgotten` says that the datastore was
    /// restored from a state without this node, `is_holding` that anything is held that it
    /// has forgotten. Nothing is asked of the datastore when everything is as it should be.
    /// What fails keeps nothing else from being done.
    pub async fn renew(
        &mut self,
        kernel: &Kernel,
        inventory: &ClusterState,
        forgotten: bool,
        is_holding: bool,
    ) -> Renewed {
        let own = inventory.nodes.get(&self.node);
        self.was_seen |= own.is_some();
        self.is_known |= self.was_seen;
        let mut renewed = Renewed::default();
        if !self.is_known || own.is_some() {
            let wanted = self.decide(kernel, own, &mut renewed).await;
            let is_unrecorded =
                self.machine.is_some() && !inventory.machines.contains_key(&self.node);
            self.write(wanted, own, forgotten, is_unrecorded, &mut renewed).await;
        }
        let is_absent = self.is_known && own.is_none();
        self.absent = is_absent.then(|| self.absent.unwrap_or_else(Instant::now));
        if let Some(since) = self.absent.filter(|_| self.is_awaited()) {
            // By then the node counts as deleted, and nothing else may ask for a look.
            renewed.look_again(since + TELLING_TIME + Duration::from_millis(1));
        }
        let machine = self.machine.clone();
        let standing = async || match kernel.standing(is_holding).await {
            Ok(standing) => Ok(Standing { machine, ..standing }),
            Err(error) => Err(chain(&error)),
        };
        let (datastore, node) = (&self.datastore, &self.node);
        match self.tunnel.renew(datastore, node, inventory, is_holding, standing).await {
            Ok(problem) => renewed.problem = problem,
            Err(failure) => renewed.failures.push(failure),
        }
        renewed
    }

    /// Decides on the address of each family.
    async fn decide(
        &mut self,
        kernel: &Kernel,
        own: Option<&Peer>,
        renewed: &mut Renewed,
    ) -> Wanted {
        let mut wanted = Wanted::default();
        self.expected = NodeAddresses::default();
        let interfaces = match kernel.interfaces().await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                renewed.failures.push(chain(&error));
                return wanted;
            }
        };
        for address in &mut self.addresses {
            let family = address.family();
            let source = match address.destination() {
                Some(destination) => kernel.source_towards(destination).await,
                None => Ok(None),
            };
            let source = match source {
                Ok(source) => source.map(|source| source.addr()),
                Err(error) => {
                    renewed.failures.push(chain(&error));
                    continue;
                }
            };
            let registered = own.and_then(|own| match family {
                Family::V4 => own.ipv4,
                Family::V6 => own.ipv6,
            });
            match address.decide(registered, &interfaces, source, self.started.elapsed()) {
                Ok(Verdict::Stays(address)) => self.expected.set(family, address),
                Ok(Verdict::Register(found)) => {
                    self.expected.set(family, found.address);
                    wanted.warnings.extend(found.warning());
                    wanted.addresses.set(family, found.address);
                }
                Ok(Verdict::Restore(address)) => {
                    self.expected.set(family, address);
                    wanted.restores = true;
                    wanted.addresses.set(family, address);
                }
                Ok(Verdict::Unsteady(until)) => renewed.look_again(self.started + until),
                Ok(Verdict::Gone { registered, next, until }) => {
                    renewed.look_again(self.started + until);
                    let Detected { address, interface } = next;
                    renewed.failures.push(format!(
                        "the address {registered} that node {} is registered with is gone from \
                         this machine; unless it comes back within {} s, {address} of {} takes \
                         its place",
                        self.node,
                        GRACE_TIME.as_secs(),
                        interface.unwrap_or_default()
                    ));
                }
                Err(error) => renewed.failures.push(format!(
                    "{}; or if it is to have none, start this agent with {} none",
                    chain(&error),
                    flag(family)
                )),
            }
        }
        wanted
    }

    /// Writes what is wanted, the Node if there is none, and the name's machine if it
    /// `is_unrecorded`.
    async fn write(
        &mut self,
        wanted: Wanted,
        own: Option<&Peer>,
        forgotten: bool,
        is_unrecorded: bool,
        renewed: &mut Renewed,
    ) {
        let Wanted { mut addresses, restores, warnings } = wanted;
        let is_new = own.is_none() && renewed.failures.is_empty();
        let is_to_record = is_unrecorded && own.is_some();
        if addresses == NodeAddresses::default() && !is_new && !forgotten && !is_to_record {
            return;
        }
        if let Some(due) = self.pace.wait(Instant::now()).filter(|_| !forgotten) {
            renewed.look_again(due);
            if self.is_on_its_way(own) {
                return;
            }
            if restores {
                renewed.failures.push(format!(
                    "the address of node {} in the datastore is not its own again, and is put \
                     right soon; look for another host whose agent runs by this node's name",
                    self.node
                ));
            }
            return;
        }
        if forgotten && let Some(own) = own {
            addresses.ipv4 = addresses.ipv4.or(own.ipv4);
            addresses.ipv6 = addresses.ipv6.or(own.ipv6);
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        // A Node that is there is changed only: it may be deleted before this write.
        let birth = (own.is_none() || forgotten).then(new_birth);
        let written = self.register(addresses, birth.as_ref(), renewed).await;
        if written.is_some() {
            self.written = Some((own.cloned(), Instant::now()));
        }
        match written {
            Some(written) if restores => tracing::error!(
                node = self.node, was = ?own.map(|own| (own.ipv4, own.ipv6)), ?written,
                "somebody wrote another address for this node into the datastore, which is put \
                 right; if it happens again, look for another host whose agent runs by this \
                 node's name"
            ),
            Some(written) => tracing::info!(node = self.node, ?written, "registered"),
            None => {}
        }
    }

    /// Whether the datastore may not have told yet of what was written.
    fn is_on_its_way(&self, own: Option<&Peer>) -> bool {
        let written = self.written.as_ref();
        written.is_some_and(|(before, at)| before.as_ref() == own && at.elapsed() < TELLING_TIME)
    }

    /// Registers the node with these addresses, or with those that no other node has.
    /// Returns what was written, if anything was.
    async fn register(
        &mut self,
        mut addresses: NodeAddresses,
        birth: Option<&Birth>,
        renewed: &mut Renewed,
    ) -> Option<NodeAddresses> {
        loop {
            let datastore = self.datastore.as_ref();
            let (node, machine) = (&self.node, self.machine.as_ref());
            let registered = register(datastore, node, addresses, birth, machine).await;
            match registered {
                Ok(changed) => {
                    self.is_known = true;
                    if changed {
                        self.pace.written(Instant::now());
                    }
                    return changed.then_some(addresses);
                }
                Err(error) => {
                    renewed.failures.push(chain(&error));
                    let Error::AddressTaken { address, .. } = error else { return None };
                    addresses.remove(Family::of(address.addr()));
                    if addresses == NodeAddresses::default() {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether somebody deleted this node's Node while the agent runs. It stays
    /// deleted: a node that is taken out of the cluster must not come back by
    /// itself. What the datastore has not told of yet is not deleted.
    pub fn is_deleted(&self) -> bool {
        self.was_seen && self.absent.is_some_and(|since| since.elapsed() > TELLING_TIME)
    }

    /// Whether this node has been registered and the datastore has not told of it yet.
    pub fn is_awaited(&self) -> bool {
        self.absent.is_some_and(|since| since.elapsed() <= TELLING_TIME)
    }

    /// Whether a problem is one of this node's registration, of an address that is looked
    /// for: a node without IPv6 is as it should be where others have it.
    pub fn concerns(&self, problem: &Problem) -> bool {
        match problem {
            Problem::NotRegistered { family, .. } => {
                self.addresses.iter().any(|address| address.family() == *family)
            }
            problem => problem.isolates_node(),
        }
    }

    /// Whether the datastore has what this node wrote, as far as `inventory` says.
    pub fn is_settled(&self, inventory: &ClusterState) -> bool {
        let NodeAddresses { ipv4, ipv6 } = self.expected;
        let is_registered = inventory.nodes.get(&self.node).is_some_and(|own| {
            ipv4.is_none_or(|address| own.ipv4 == Some(address))
                && ipv6.is_none_or(|address| own.ipv6 == Some(address))
        });
        is_registered && self.tunnel.is_settled(inventory, &self.node)
    }
}

impl Renewed {
    fn look_again(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }
}

/// The argument that says how a family's address is found.
fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "--ip-autodetection-method",
        Family::V6 => "--ip6-autodetection-method",
    }
}
