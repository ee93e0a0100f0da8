//! What the agent writes into the datastore: its node's addresses, and the
//! address of the tunnel device.

use std::sync::Arc;

use weir_common::datastore::Datastore;
use weir_common::ipam::Family;
use weir_common::network::{AutodetectionMethod, Inventory, NodeInterface, has_settled_tunnel};
use weir_common::node::{NodeAddresses, Settled, register, settle_tunnel_address};
use weir_kernel::Kernel;

use crate::new_birth;
use crate::session::chain;

/// A node's registration, kept up to date.
pub struct Registration {
    datastore: Arc<dyn Datastore>,
    node: String,
    ipv4: Option<AutodetectionMethod>,
    ipv6: Option<AutodetectionMethod>,
    /// What this run registered last, so that a node that somebody deletes stays
    /// deleted.
    registered: Option<NodeAddresses>,
    warned: Option<String>,
}

impl Registration {
    /// The registration of `node`; a family without a method is left as it is.
    pub fn new(
        datastore: Arc<dyn Datastore>,
        node: String,
        ipv4: Option<AutodetectionMethod>,
        ipv6: Option<AutodetectionMethod>,
    ) -> Self {
        Self { datastore, node, ipv4, ipv6, registered: None, warned: None }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Writes what has changed. `forgotten` says that the datastore was restored
    /// from a state without this node. Nothing is asked of the datastore when
    /// everything is as it should be.
    ///
    /// # Errors
    /// What could not be found out or written, in words. It is tried again.
    pub async fn renew(
        &mut self,
        kernel: &Kernel,
        inventory: &Inventory,
        forgotten: bool,
    ) -> Result<(), String> {
        let addresses = self.detect(kernel).await?;
        let is_there = !forgotten && is_registered(inventory, &self.node, addresses);
        if !is_there && (forgotten || self.registered != Some(addresses)) {
            register(self.datastore.as_ref(), &self.node, addresses, &new_birth())
                .await
                .map_err(|error| chain(&error))?;
            tracing::info!(node = self.node, ?addresses, "registered");
        }
        self.registered = Some(addresses);
        self.renew_tunnel_address(inventory).await
    }

    /// Whether the datastore has what this node wrote, as far as `inventory` says.
    pub fn is_settled(&self, inventory: &Inventory) -> bool {
        let addresses = self.registered.unwrap_or_default();
        is_registered(inventory, &self.node, addresses) && has_settled_tunnel(&self.node, inventory)
    }

    async fn renew_tunnel_address(&self, inventory: &Inventory) -> Result<(), String> {
        let (datastore, now) = (self.datastore.as_ref(), jiff::Timestamp::now());
        let settled = settle_tunnel_address(datastore, &self.node, inventory, now).await;
        match settled.map_err(|error| chain(&error))? {
            Settled::AsItWas => {}
            Settled::Taken(address) => tracing::info!(%address, "has a tunnel address"),
            Settled::GivenBack => tracing::info!("gave the tunnel address back: no pool needs it"),
        }
        Ok(())
    }

    async fn detect(&mut self, kernel: &Kernel) -> Result<NodeAddresses, String> {
        let interfaces = kernel.interfaces().await.map_err(|error| chain(&error))?;
        let interfaces: Vec<NodeInterface> = interfaces
            .into_iter()
            .map(|it| NodeInterface { name: it.name, up: it.up, addresses: it.addresses })
            .collect();
        let methods = [(Family::V4, self.ipv4.clone()), (Family::V6, self.ipv6.clone())];
        let mut addresses = NodeAddresses::default();
        for (family, method) in methods {
            let Some(method) = method else { continue };
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
            match family {
                Family::V4 => addresses.ipv4 = Some(detected.address),
                Family::V6 => addresses.ipv6 = Some(detected.address),
            }
        }
        Ok(addresses)
    }
}

fn is_registered(inventory: &Inventory, node: &str, addresses: NodeAddresses) -> bool {
    inventory.nodes.get(node).is_some_and(|peer| {
        addresses.ipv4.is_none_or(|address| peer.ipv4 == Some(address))
            && addresses.ipv6.is_none_or(|address| peer.ipv6 == Some(address))
    })
}
