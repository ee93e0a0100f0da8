//! The world of the tests of container runtimes.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::allocations::allocations;
use crate::cluster::{Cluster, Families, merge};
use crate::cnitool::CniTool;
use crate::network::Network;
use crate::node::UPLINK;
use crate::place::Place;
use crate::plugin::Call;
use crate::runtimes::SERVED;
use crate::snapshot::Snapshot;
use crate::until::until;

/// A cluster of one node with a network around it, where containers are published.
pub struct Published {
    /// The network, whose router is outside.
    pub network: Network,
    /// The node, with a pool of IPv4 addresses.
    pub cluster: Cluster,
}

impl Published {
    /// With the list `pods`: `weir`, then portmap. It publishes what the runtime is
    /// asked for or, for one that cannot be asked, these ports always.
    pub fn new() -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1)).with_pools(Families::V4);
        let world = Self { network, cluster };
        world.write_list(json!({}));
        world
    }

    /// Writes the list again, with these additions to portmap's configuration.
    pub fn write_list(&self, additions: Value) {
        let list = self.list(additions).to_string();
        self.cluster.node.write("/etc/cni/net.d/10-pods.conflist", &list);
    }

    fn list(&self, additions: Value) -> Value {
        let mut portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        merge(&mut portmap, additions);
        let weir = self.cluster.plugin(Families::V4);
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [weir, portmap]})
    }

    /// The only allocation's address.
    pub fn address(&self) -> String {
        let allocations = allocations(&self.cluster.store.entries());
        assert_eq!(allocations.len(), 1, "{allocations:?}");
        allocations.keys().map(ToString::to_string).collect()
    }

    /// Requires that a container of the image answers from outside at port 8080 of
    /// the node, sooner or later.
    pub fn assert_published(&self) {
        let served = || self.network.router().enter(fetch).ok().as_deref() == Some(SERVED);
        until("port 8080 is published", served);
    }

    /// Waits until no container's link is left. The kernel takes a namespace and the
    /// links in it down a moment after its last user has gone.
    pub fn until_links_are_gone(&self) {
        let gone = || self.cluster.interfaces() == ["lo", UPLINK];
        until("the links go with their containers", gone);
    }

    /// What is done about containers whose runtime never called DEL. First GC of
    /// `weir`, as a runtime asks for it that has no container: it gives back all that
    /// is Weir's. Then `cnitool gc`, which calls DEL for the attachments in libcni's
    /// cache: portmap 1.1.1 has no GC, and so the list is of a version without it. The
    /// list then has these additions to portmap's configuration.
    pub fn collect(&self, additions: Value) {
        let weir = Call::new("weir", self.cluster.configuration(Families::V4));
        let weir = weir
            .configure("/cniVersion", "1.1.0".into())
            .configure("/cni.dev~1valid-attachments", json!([]));
        weir.run(&self.cluster.node, "GC").silence();
        self.cluster.assert_nothing_allocated();
        assert_eq!(self.cluster.interfaces(), ["lo", UPLINK]);
        let tool = CniTool::new(&self.cluster.node, &self.list(additions));
        tool.run_at("gc", "/run/netns/any").silence();
    }

    /// Requires that nothing is left of any container: no allocation, no link, no
    /// namespace, no published port.
    pub fn assert_clean(&self) {
        self.cluster.assert_nothing_allocated();
        assert_eq!(self.cluster.interfaces(), ["lo", UPLINK]);
        assert_eq!(self.cluster.node.run(&["ls", "/run/netns"]), "");
        assert!(self.network.router().enter(fetch).is_err(), "port 8080 is still published");
    }

    /// Does `work` twice, and requires that nothing is left after each time.
    pub fn twice(&self, mut work: impl FnMut()) {
        let after = [(); 2].map(|()| {
            work();
            self.assert_clean();
            Snapshot::of(&self.cluster.node)
        });
        after[0].assert_unchanged(&after[1]);
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

/// What is answered at port 8080 of the first node of a network.
fn fetch() -> io::Result<String> {
    let address = SocketAddr::from(([172, 30, 0, 11], 8080));
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    connection.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.trim().to_owned())
}
