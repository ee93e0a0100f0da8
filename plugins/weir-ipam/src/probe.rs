//! What is in use on the network around this node, for an ADD.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use weir_common::cni::NetworkConfiguration;
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::{AddressProbe, Error, Reserved};
use weir_common::network::{addresses_of_nodes, read_nodes};
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
    /// Whether blackholes that were made before the state file may hide what is around the
    /// node.
    may_be_hidden: bool,
}

impl<'a> NodeNetwork<'a> {
    /// Opens a connection to the kernel.
    ///
    /// # Errors
    /// [`Error::Probe`].
    pub fn open(
        datastore: &'a dyn Datastore,
        configuration: &NetworkConfiguration,
        node: &'a str,
    ) -> Result<Self, Error> {
        let place = configuration.datastore.as_ref().map(DatastoreConfiguration::place);
        let may_be_hidden = configuration.main_plugin == OWN_MAIN_PLUGIN
            && read_state(Path::new(STATE_FILE)).is_none();
        let kernel = Kernel::open().map_err(failed)?;
        Ok(Self { kernel, datastore, place: place.unwrap_or_default(), node, may_be_hidden })
    }

    /// The addresses of other nodes: as the agent or ADD knew them last; where neither keeps
    /// this node, as they are registered now.
    async fn nodes(&self) -> Result<BTreeMap<IpAddr, String>, Error> {
        let known = read_whole_state(Path::new(STATE_FILE));
        let known = known.filter(|(state, _)| state.datastore == self.place);
        if let Some((_, cache)) = known {
            return Ok(addresses_of_nodes(self.node, &cache.state()));
        }
        Ok(addresses_of_nodes(self.node, &read_nodes(self.datastore).await?))
    }
}

#[async_trait]
impl AddressProbe for NodeNetwork<'_> {
    async fn reserved_near(&self, addresses: &[IpAddr]) -> Result<Vec<Reserved>, Error> {
        let _timing = Timing::of("look addresses up");
        if !self.may_be_hidden && !self.kernel.may_be_in_use(addresses).await.map_err(failed)? {
            return Ok(Vec::new());
        }
        let network = self.kernel.local_network().await.map_err(failed)?;
        let is_near = network.is_near(addresses);
        let nodes = if is_near { self.nodes().await? } else { BTreeMap::new() };
        Ok(network.reserved(&nodes))
    }
}

fn failed(error: weir_kernel::Error) -> Error {
    Error::Probe(Box::new(error))
}
