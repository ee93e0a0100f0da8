//! What is in use on the network around this node, for who assigns an address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use weir_common::cni::skeleton::Call;
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::{AddressProbe, Error, Reserved, ReservedBy};
use weir_common::network::{AttachmentIdentity, addresses_of_nodes, read_nodes};
use weir_kernel::Kernel;
use weir_process::{STATE_FILE, Timing, read_state, read_whole_state};

use crate::evidence::OWN_MAIN_PLUGIN;

/// The network around this node, as its kernel and the state file have it.
pub struct NodeNetwork<'a> {
    kernel: Kernel,
    /// Where nodes are registered.
    datastore: &'a dyn Datastore,
    /// The place of that datastore.
    place: String,
    /// This node's name.
    node: &'a str,
    /// The host end of the own attachment: what it has is no other's.
    host_interface: Option<String>,
    /// The addresses of other nodes that lie in pools, where somebody keeps this node.
    nodes_in_pools: BTreeMap<IpAddr, String>,
    /// Whether blackholes that were made before the state file may hide what is around the
    /// node.
    may_be_hidden: bool,
    /// What is reserved, once it was listed.
    reserved: OnceCell<Vec<Reserved>>,
}

impl<'a> NodeNetwork<'a> {
    /// Opens a connection to the kernel, for a container that Weir wires and that has no host
    /// end yet. `place` is that of the datastore.
    ///
    /// # Errors
    /// [`Error::Probe`].
    pub fn open(datastore: &'a dyn Datastore, place: String, node: &'a str) -> Result<Self, Error> {
        let state = read_state(Path::new(STATE_FILE));
        let may_be_hidden = state.is_none();
        let state = state.filter(|state| state.datastore == place);
        Ok(Self {
            kernel: Kernel::open().map_err(failed)?,
            datastore,
            place,
            node,
            host_interface: None,
            nodes_in_pools: state.map(|state| state.nodes_in_pools).unwrap_or_default(),
            may_be_hidden,
            reserved: OnceCell::new(),
        })
    }

    /// The same for a call.
    ///
    /// # Errors
    /// [`Error::Probe`].
    pub(crate) fn of_call(
        datastore: &'a dyn Datastore,
        call: &Call,
        node: &'a str,
    ) -> Result<Self, Error> {
        let (configuration, environment) = (&call.configuration, &call.environment);
        let place = configuration.datastore.as_ref().map(DatastoreConfiguration::place);
        let identity = AttachmentIdentity::new(
            &configuration.network,
            &environment.container_id,
            &environment.interface,
        );
        let network = Self::open(datastore, place.unwrap_or_default(), node)?;
        let is_own = configuration.main_plugin == OWN_MAIN_PLUGIN;
        Ok(Self {
            host_interface: identity.ok().map(|identity| identity.host_interface()),
            may_be_hidden: is_own && network.may_be_hidden,
            ..network
        })
    }

    async fn list(&self) -> Result<Vec<Reserved>, Error> {
        let network = self.kernel.local_network().await.map_err(failed)?;
        let nodes = self.nodes().await?;
        let mut reserved = network.reserved(&nodes);
        let own = self.host_interface.as_ref();
        reserved.retain(|it| !matches!(&it.by, ReservedBy::Reached { link } if Some(link) == own));
        Ok(reserved)
    }

    /// The addresses of other nodes: as the agent or ADD knew them last; where neither keeps
    /// this node, as they are registered now.
    async fn nodes(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let known = read_whole_state(Path::new(STATE_FILE));
        let known = known.filter(|(state, _)| state.datastore == self.place);
        Ok(match known {
            Some((_, cache)) => addresses_of_nodes(self.node, &cache.state()),
            None => addresses_of_nodes(self.node, &read_nodes(self.datastore).await?),
        })
    }
}

#[async_trait]
impl AddressProbe for NodeNetwork<'_> {
    async fn reserved_near(&self, addresses: &[IpAddr]) -> Result<Vec<Reserved>, Error> {
        let _timing = Timing::of("look addresses up");
        let is_nodes = addresses.iter().any(|it| self.nodes_in_pools.contains_key(it));
        let is_listed = self.reserved.initialized() || self.may_be_hidden || is_nodes;
        if !is_listed && !self.kernel.may_be_in_use(addresses).await.map_err(failed)? {
            return Ok(Vec::new());
        }
        self.reserved.get_or_try_init(|| self.list()).await.cloned()
    }
}

fn failed(error: weir_kernel::Error) -> Error {
    Error::Probe(Box::new(error))
}
