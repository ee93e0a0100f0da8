//! What the agent writes into the datastore: its node's addresses, and the
//! addresses of its tunnel devices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_common::datastore::{Datastore, Event, keys};
use weir_common::ipam::{Clash, Family, MachineId, Ownership, cluster_guid, ensure_cluster_guid};
use weir_common::network::{ClusterState, Detected, Peer, Problem};
use weir_common::node::{
    AddressDecision, Error, GRACE_TIME, LocalFacts, NodeAddresses, OwnAddress, register,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::{Kernel, Reconciled};

use super::tunnel_address::{TunnelAddresses, TunnelUse, TunnelsRenewed};
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
    /// Whether the node has been registered, so that one that is deleted stays deleted.
    is_known: bool,
    /// Whether the datastore has told of it.
    was_seen: bool,
    /// Since when the datastore has not had the node although it had.
    absent: Option<Instant>,
    tunnels: TunnelAddresses,
    /// Whether this agent has seen to the cluster's GUID.
    has_tried_guid: bool,
    /// The cluster's id, once it is known.
    pub cluster_guid: Option<String>,
}

/// What came of keeping a registration up to date.
#[derive(Debug, Default)]
pub struct Renewed {
    /// What could not be found out or written, in words. It is tried again.
    pub failures: Vec<String>,
    /// When to look again, though nothing changes.
    pub due: Option<Instant>,
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
            is_known: false,
            was_seen: false,
            absent: None,
            tunnels: TunnelAddresses::default(),
            has_tried_guid: false,
            cluster_guid: None,
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Says that another machine is recorded for the node's name: then nothing is written.
    pub fn clash(&self, inventory: &ClusterState) -> Option<Clash> {
        let recorded = inventory.machines.get(&self.node);
        Ownership::new(self.machine.as_ref(), recorded).clash(&self.node)
    }

    /// Notes whether the datastore tells of this node's Node, which may be gone again before
    /// anything is reconciled.
    pub fn heard_of(&mut self, events: &[Event]) {
        let key = keys::node(&self.node);
        self.was_seen |= self.is_known && events.iter().any(|event| event.key() == key);
    }

    /// The datastore went back in time: what it says of this node may be old.
    pub fn datastore_went_back(&mut self) {
        self.addresses.iter_mut().for_each(OwnAddress::datastore_went_back);
    }

    /// Writes what differs of the node's addresses. `forgotten` says that the datastore was
    /// restored from a state without this node. The
    /// datastore is asked nothing when everything is right. A failure in one part does not
    /// stop the others.
    pub async fn renew(
        &mut self,
        kernel: &Kernel,
        inventory: &ClusterState,
        forgotten: bool,
    ) -> Renewed {
        let own = inventory.nodes.get(&self.node);
        self.was_seen |= own.is_some();
        self.is_known |= self.was_seen;
        let mut renewed = Renewed::default();
        if !self.is_known || own.is_some() {
            let found = self.decide(kernel, own, &mut renewed).await;
            let is_unrecorded =
                self.machine.is_some() && !inventory.machines.contains_key(&self.node);
            let is_needed = match own {
                None => renewed.failures.is_empty(),
                Some(_) => is_unrecorded || forgotten,
            };
            if is_needed || !found.is_empty() {
                self.write(found, own, forgotten, &mut renewed).await;
            }
        }
        if self.is_known && !self.has_tried_guid {
            self.has_tried_guid = true;
            self.cluster_guid = self.ensure_cluster_guid().await;
        }
        let is_absent = self.is_known && own.is_none();
        self.absent = is_absent.then(|| self.absent.unwrap_or_else(Instant::now));
        if let Some(since) = self.absent.filter(|_| self.is_awaited()) {
            // By then the node counts as deleted, and nothing else may ask for a look.
            renewed.look_again(since + TELLING_TIME + Duration::from_millis(1));
        }
        renewed
    }

    /// Takes the tunnel addresses that the node needs, and gives back those that it does not.
    /// `done` is what the kernel was made just now by the same `inventory`, and comes first: a
    /// kind that other nodes send by once the Node has an address for it must be ready to
    /// receive, and an address is given back only when no route of this node needs it any more.
    /// `is_holding` says that anything is retained that a restored datastore has lost. The
    /// datastore is asked nothing when everything is right.
    pub async fn renew_tunnels(
        &mut self,
        kernel: &Kernel,
        inventory: &ClusterState,
        is_holding: bool,
        done: &Reconciled,
    ) -> TunnelsRenewed {
        let tunnels = match self.tunnel_use(kernel, inventory, done).await {
            Ok(tunnels) => tunnels,
            Err(failure) => {
                return TunnelsRenewed { failures: vec![failure], ..TunnelsRenewed::default() };
            }
        };
        let machine = self.machine.clone();
        let facts = async || match kernel.local_facts(&self.node, inventory, is_holding).await {
            Ok(facts) => Ok(LocalFacts { machine, ..facts }),
            Err(error) => Err(chain(&error)),
        };
        let (datastore, known) = (self.datastore.as_ref(), (inventory, is_holding));
        self.tunnels.renew(datastore, &self.node, known, &tunnels, facts).await
    }

    async fn tunnel_use(
        &self,
        kernel: &Kernel,
        inventory: &ClusterState,
        done: &Reconciled,
    ) -> Result<TunnelUse, String> {
        let own = inventory.nodes.get(&self.node);
        let mut still_used = done.still_used.clone();
        if !done.failures.is_empty() {
            // A route that could not be moved may be among them.
            still_used.extend(own.iter().flat_map(|own| own.tunnels.keys()));
        }
        let lacking = kernel.lacking_tunnels(&self.node, inventory).await;
        let lacking = lacking.map_err(|error| chain(&error))?.into_iter();
        let not_ready =
            lacking.filter_map(|(kind, is_ready)| (!is_ready).then_some(kind)).collect();
        Ok(TunnelUse { still_used, not_ready })
    }

    /// The kinds of tunnels whose devices do not keep addresses that the datastore does not know:
    /// where it says that there is none, another node may have them.
    pub fn lacking_tunnels(&self) -> BTreeSet<TunnelKind> {
        self.tunnels.lacking()
    }

    /// The cluster's id, which the first agent gives it. The node works without one.
    async fn ensure_cluster_guid(&self) -> Option<String> {
        let datastore = self.datastore.as_ref();
        let (birth, guid) = (new_birth(), new_birth().uid);
        let ensured = async {
            ensure_cluster_guid(datastore, &birth, &guid).await?;
            cluster_guid(datastore).await
        };
        ensured.await.unwrap_or_else(|error| {
            let error = chain(&error);
            tracing::warn!(error, "the cluster gets no clusterGUID from this agent");
            None
        })
    }

    /// Decides on the address of each family, and returns those to register.
    async fn decide(
        &mut self,
        kernel: &Kernel,
        own: Option<&Peer>,
        renewed: &mut Renewed,
    ) -> Vec<Detected> {
        let mut wanted = Vec::new();
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
                Ok(AddressDecision::Keep(address)) => self.expected.set(family, address),
                Ok(AddressDecision::Register(found)) => {
                    self.expected.set(family, found.address);
                    wanted.push(found);
                }
                Ok(AddressDecision::Contested { registered, own }) => {
                    renewed.failures.push(format!(
                        "node {0} is registered with {registered}, which another host or program \
                         has written: this machine has {own}, and writes nothing; look for another \
                         host whose agent runs by this node's name; to register {own} again, \
                         restart this agent, or correct the Node: weirctl get node {0} -o yaml",
                        self.node
                    ));
                }
                Ok(AddressDecision::Unsteady(until)) => renewed.look_again(self.started + until),
                Ok(AddressDecision::Gone { registered, next, until }) => {
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

    /// Registers the node with the addresses that were found, or with those of them that
    /// no other node has; and records its machine.
    async fn write(
        &mut self,
        found: Vec<Detected>,
        own: Option<&Peer>,
        forgotten: bool,
        renewed: &mut Renewed,
    ) {
        let mut addresses = NodeAddresses::default();
        if let Some(own) = own.filter(|_| forgotten) {
            addresses = NodeAddresses { ipv4: own.ipv4, ipv6: own.ipv6 };
        }
        for it in &found {
            addresses.set(Family::of(it.address.addr()), it.address);
        }
        // A Node that is there is changed only: it may be deleted before this write.
        let birth = (own.is_none() || forgotten).then(new_birth);
        loop {
            let (datastore, machine) = (self.datastore.as_ref(), self.machine.as_ref());
            let registered =
                register(datastore, &self.node, addresses, birth.as_ref(), machine).await;
            match registered {
                Ok(changed) => {
                    self.is_known = true;
                    if changed {
                        let warnings = found.iter().filter_map(Detected::warning);
                        warnings.for_each(|warning| tracing::warn!("{warning}"));
                        tracing::info!(node = self.node, written = ?addresses, "registered");
                    }
                    return;
                }
                Err(error) => {
                    renewed.failures.push(chain(&error));
                    let Error::AddressTaken { address, .. } = error else { return };
                    addresses.remove(Family::of(address.addr()));
                    if addresses == NodeAddresses::default() {
                        return;
                    }
                }
            }
        }
    }

    /// Whether this node's Node was deleted while the agent runs. It stays deleted: a node
    /// that is taken out of the cluster must not come back by itself. What the datastore
    /// has not told of yet is not deleted.
    pub fn is_deleted(&self) -> bool {
        self.was_seen && self.absent.is_some_and(|since| since.elapsed() > TELLING_TIME)
    }

    /// Whether this node has been registered and the datastore has not told of it yet.
    pub fn is_awaited(&self) -> bool {
        self.absent.is_some_and(|since| since.elapsed() <= TELLING_TIME)
    }

    /// Whether a problem is one of this node's registration, of an address that is looked
    /// for: a node without IPv6 is right where others have it.
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
        is_registered && self.tunnels.is_settled(inventory, &self.node)
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
