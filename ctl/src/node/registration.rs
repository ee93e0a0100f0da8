//! What the agent writes into the datastore: its node's addresses, and the
//! address of the tunnel device.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use weir_common::datastore::Datastore;
use weir_common::ipam::Family;
use weir_common::network::{AutodetectionMethod, Inventory, NodeInterface, Peer, Problem};
use weir_common::node::{NodeAddresses, register};
use weir_kernel::Kernel;

use super::tunnel_address::TunnelAddress;
use crate::new_birth;
use crate::session::chain;

/// How long a node must have other addresses before it is registered with them,
/// and be missing from the datastore before it counts as deleted.
const STEADY_TIME: Duration = Duration::from_secs(3);

/// How an address of the node is found.
#[derive(Clone, Debug)]
pub struct Detection {
    /// By this method.
    pub method: AutodetectionMethod,
    /// Whether the address that the node is registered with comes first, as long as
    /// the node has it. So nobody is routed to the bridge of containers that another
    /// program has just made. (Calico, without `IP`: `node/pkg/lifecycle/startup`.)
    pub keeps_registered: bool,
}

/// A node's registration, kept up to date.
pub struct Registration {
    datastore: Arc<dyn Datastore>,
    node: String,
    ipv4: Option<Detection>,
    ipv6: Option<Detection>,
    /// What this run registered last, so that a node that somebody deletes stays
    /// deleted.
    registered: Option<NodeAddresses>,
    /// Other addresses than those, and since when they have been detected.
    candidate: Option<(NodeAddresses, Instant)>,
    /// Since when the datastore has not had the node although it was registered.
    absent: Option<Instant>,
    tunnel: TunnelAddress,
    warned: Option<String>,
}

impl Registration {
    /// The registration of `node`; a family without a detection is left as it is.
    pub fn new(
        datastore: Arc<dyn Datastore>,
        node: String,
        ipv4: Option<Detection>,
        ipv6: Option<Detection>,
    ) -> Self {
        Self {
            datastore,
            node,
            ipv4,
            ipv6,
            registered: None,
            candidate: None,
            absent: None,
            tunnel: TunnelAddress::default(),
            warned: None,
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Writes what has changed. `forgotten` says that the datastore was restored
    /// from a state without this node, `is_holding` that anything is held that it has
    /// forgotten. Nothing is asked of the datastore when
    /// everything is as it should be. Returns what keeps the node from a tunnel
    /// address where it needs one.
    ///
    /// # Errors
    /// What could not be found out or written, in words. It is tried again.
    pub async fn renew(
        &mut self,
        kernel: &Kernel,
        inventory: &Inventory,
        forgotten: bool,
        is_holding: bool,
    ) -> Result<Option<Problem>, String> {
        let own = inventory.nodes.get(&self.node).cloned().unwrap_or_default();
        let detected = self.detect(kernel, &own).await?;
        let addresses = self.steady(detected);
        let is_there = !forgotten && is_registered(inventory, &self.node, addresses);
        let was_deleted = self.absent.is_some() && !forgotten;
        if !is_there && !was_deleted && (forgotten || self.registered != Some(addresses)) {
            // What it was registered with counts for a family that is not looked for.
            let written = NodeAddresses {
                ipv4: addresses.ipv4.or(own.ipv4),
                ipv6: addresses.ipv6.or(own.ipv6),
            };
            register(self.datastore.as_ref(), &self.node, written, &new_birth())
                .await
                .map_err(|error| chain(&error))?;
            tracing::info!(node = self.node, ?addresses, "registered");
        }
        self.registered = Some(addresses);
        let is_absent = !inventory.nodes.contains_key(&self.node);
        self.absent = is_absent.then(|| self.absent.unwrap_or_else(Instant::now));
        let standing = async || kernel.standing(is_holding).await.map_err(|error| chain(&error));
        self.tunnel.renew(&self.datastore, &self.node, inventory, is_holding, standing).await
    }

    /// Whether somebody deleted this node's Node while the agent runs. It stays
    /// deleted: a node that is taken out of the cluster must not come back by
    /// itself. For a moment after the registration nobody can tell.
    pub fn is_deleted(&self) -> bool {
        self.absent.is_some_and(|since| since.elapsed() > STEADY_TIME)
    }

    /// Whether this node has been registered and the datastore has not told of it yet.
    pub fn is_awaited(&self) -> bool {
        self.absent.is_some() && !self.is_deleted()
    }

    /// Whether the datastore has what this node wrote, as far as `inventory` says.
    pub fn is_settled(&self, inventory: &Inventory) -> bool {
        let addresses = self.registered.unwrap_or_default();
        is_registered(inventory, &self.node, addresses)
            && self.tunnel.is_settled(inventory, &self.node)
    }

    /// The addresses to be registered with: those detected, once they are steady.
    /// An address that is away for a moment (a lease is renewed, a link flaps)
    /// moves no routes of the cluster.
    fn steady(&mut self, detected: NodeAddresses) -> NodeAddresses {
        let Some(registered) = self.registered.filter(|registered| *registered != detected) else {
            self.candidate = None;
            return detected;
        };
        let since = match self.candidate {
            Some((candidate, since)) if candidate == detected => since,
            _ => Instant::now(),
        };
        self.candidate = Some((detected, since));
        if since.elapsed() < STEADY_TIME { registered } else { detected }
    }

    async fn detect(&mut self, kernel: &Kernel, own: &Peer) -> Result<NodeAddresses, String> {
        let interfaces = kernel.interfaces().await.map_err(|error| chain(&error))?;
        let families =
            [(Family::V4, self.ipv4.clone(), own.ipv4), (Family::V6, self.ipv6.clone(), own.ipv6)];
        let mut addresses = NodeAddresses::default();
        for (family, detection, registered) in families {
            let Some(Detection { method, keeps_registered }) = detection else { continue };
            let registered = registered.filter(|it| keeps_registered && has(&interfaces, it));
            if let Some(registered) = registered {
                addresses.set(family, registered);
                continue;
            }
            let source = match method.destination() {
                Some(destination) => {
                    kernel.source_towards(destination).await.map_err(|error| chain(&error))?
                }
                None => None,
            };
            let source = source.map(|source| source.addr());
            let detected = method.detect(family, &interfaces, source);
            let detected = detected.map_err(|error| chain(&error))?;
            if let Some(warning) = detected.warning().filter(|it| self.warned.as_ref() != Some(it))
            {
                tracing::warn!("{warning}");
                self.warned = Some(warning);
            }
            addresses.set(family, detected.address);
        }
        Ok(addresses)
    }
}

/// Whether an interface that is up has an address, whatever subnet it is registered
/// with.
fn has(interfaces: &[NodeInterface], address: &IpNet) -> bool {
    let up = interfaces.iter().filter(|interface| interface.up);
    up.flat_map(|interface| &interface.addresses).any(|own| own.addr() == address.addr())
}

fn is_registered(inventory: &Inventory, node: &str, addresses: NodeAddresses) -> bool {
    inventory.nodes.get(node).is_some_and(|peer| {
        addresses.ipv4.is_none_or(|address| peer.ipv4 == Some(address))
            && addresses.ipv6.is_none_or(|address| peer.ipv6 == Some(address))
    })
}
