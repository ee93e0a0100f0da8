//! What the kernel says about the node's tunnel address.

use std::borrow::Cow;

use weir_common::network::{AttachmentState, ClusterState};
use weir_common::node::{LocalFacts, lacks_tunnel_address};

use crate::Kernel;
use crate::error::Error;

impl Kernel {
    /// The addresses of the tunnel device and of the node's containers, and what is reserved
    /// around `node` where `inventory` has the other nodes. `is_holding` says whether anything
    /// is retained that a restored datastore has lost.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn local_facts(
        &self,
        node: &str,
        inventory: &ClusterState,
        is_holding: bool,
    ) -> Result<LocalFacts, Error> {
        let nearby = self.reserved_around(node, inventory).await?;
        Ok(LocalFacts { nearby, is_holding, ..self.own_addresses().await? })
    }

    async fn own_addresses(&self) -> Result<LocalFacts, Error> {
        let device = self.tunnel_device().await?;
        let addresses = device.map(|device| device.addresses).unwrap_or_default();
        let containers = self.attachment_states().await?.into_iter();
        Ok(LocalFacts {
            tunnel: addresses.into_iter().map(|address| address.addr()).collect(),
            containers: containers.flat_map(|it: AttachmentState| it.addresses).collect(),
            ..LocalFacts::default()
        })
    }

    /// The inventory, in which `node` keeps its device's tunnel address if it needs
    /// one and a restored datastore has lost it ([`LocalFacts::keep_tunnel_address`]).
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn keeping_tunnel_address<'a>(
        &self,
        node: &str,
        mut inventory: Cow<'a, ClusterState>,
    ) -> Result<Cow<'a, ClusterState>, Error> {
        if lacks_tunnel_address(node, &inventory) {
            self.own_addresses().await?.keep_tunnel_address(node, inventory.to_mut());
        }
        Ok(inventory)
    }
}
