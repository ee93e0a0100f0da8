//! What the kernel says about the node's tunnel addresses.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_common::network::{AttachmentState, ClusterState};
use weir_common::node::{LocalFacts, lacks_tunnel_address};
use weir_common::tunnel::TunnelKind;

use super::actual::tunnel_links;
use crate::Kernel;
use crate::error::Error;

impl Kernel {
    /// The addresses of the tunnel devices and of the node's containers, and what is reserved
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

    /// The kinds of tunnels by which others send only once `node` has an address for them, and
    /// that it needs and has none for in `inventory`; each with whether its device can receive.
    /// Asks the kernel nothing where there is none.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn lacking_tunnels(
        &self,
        node: &str,
        inventory: &ClusterState,
    ) -> Result<BTreeMap<TunnelKind, bool>, Error> {
        let lacks = |kind: &TunnelKind| {
            kind.row().needs_peer_address && lacks_tunnel_address(*kind, node, inventory)
        };
        let kinds: Vec<TunnelKind> = TunnelKind::ALL.into_iter().filter(lacks).collect();
        if kinds.is_empty() {
            return Ok(BTreeMap::new());
        }
        let devices = self.tunnel_devices().await?;
        let is_ready = |kind| devices.get(&kind).is_some_and(|it| it.claimed && it.up);
        Ok(kinds.into_iter().map(|kind| (kind, is_ready(kind))).collect())
    }

    async fn own_addresses(&self) -> Result<LocalFacts, Error> {
        let links = self.links_and_addresses().await?;
        let of_device = |(kind, link)| {
            let addresses = links.tunnel_addresses(link).into_iter().map(|address| address.addr());
            let is_of_link =
                |address: &IpAddr| matches!(address, IpAddr::V4(it) if it.is_link_local());
            (kind, addresses.filter(|address| !is_of_link(address)).collect::<BTreeSet<_>>())
        };
        let containers = self.attachment_states().await?.into_iter();
        Ok(LocalFacts {
            tunnels: tunnel_links(&links).map(of_device).collect(),
            containers: containers.flat_map(|it: AttachmentState| it.addresses).collect(),
            ..LocalFacts::default()
        })
    }

    /// The inventory, in which `node` keeps the addresses of its tunnel devices of `kinds` that it
    /// needs and a restored datastore has lost ([`LocalFacts::keep_tunnel_addresses`]).
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn keeping_tunnel_addresses<'a>(
        &self,
        node: &str,
        kinds: &BTreeSet<TunnelKind>,
        mut inventory: Cow<'a, ClusterState>,
    ) -> Result<Cow<'a, ClusterState>, Error> {
        if kinds.iter().any(|kind| lacks_tunnel_address(*kind, node, &inventory)) {
            let mut facts = self.own_addresses().await?;
            facts.tunnels.retain(|kind, _| kinds.contains(kind));
            facts.keep_tunnel_addresses(node, inventory.to_mut());
        }
        Ok(inventory)
    }
}
