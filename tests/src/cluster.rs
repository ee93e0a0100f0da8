//! A node with a datastore and pools: where most tests begin.

use serde_json::{Value, json};

use crate::allocations::{allocations, assert_consistent, handles};
use crate::container::Container;
use crate::etcd::Etcd;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::{Answer, Call};
use crate::store::Store;
use crate::weirctl::{create_pool, weirctl};

/// Which addresses containers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// An IPv4 address out of 10.7.0.0/24.
    V4,
    /// An IPv6 address out of fd00:7::/112.
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// The pools that containers get them from, as (name, CIDR).
    pub fn pools(self) -> &'static [(&'static str, &'static str)] {
        const POOLS: [(&str, &str); 2] = [("blue", "10.7.0.0/24"), ("blue-v6", "fd00:7::/112")];
        match self {
            Self::V4 => &POOLS[..1],
            Self::V6 => &POOLS[1..],
            Self::Dual => &POOLS,
        }
    }

    /// The IPAM section of a plugin's configuration.
    pub fn ipam(self) -> Value {
        let text = |wanted: bool| if wanted { "true" } else { "false" };
        json!({
            "type": "weir-ipam",
            "assign_ipv4": text(self != Self::V6),
            "assign_ipv6": text(self != Self::V4),
        })
    }
}

/// A node named `n1` with a datastore.
pub struct Cluster {
    /// The node.
    pub node: Node,
    /// Its datastore.
    pub store: Store,
}

impl Cluster {
    /// With an empty embedded datastore.
    pub fn embedded() -> Self {
        Self::embedded_on(Node::new("n1"))
    }

    /// With an empty etcd.
    pub fn etcd() -> Self {
        let node = Node::new("n1");
        Self { store: Store::Etcd(Etcd::start(&node)), node }
    }

    /// With an empty embedded datastore, on this node.
    pub fn embedded_on(node: Node) -> Self {
        Self { store: Store::Embedded(node.clone()), node }
    }

    /// Creates the families' pools.
    #[must_use]
    pub fn with_pools(self, families: Families) -> Self {
        for (name, cidr) in families.pools() {
            self.create_pool(name, json!({"cidr": cidr}));
        }
        self
    }

    /// Creates one pool with weirctl.
    pub fn create_pool(&self, name: &str, spec: Value) {
        create_pool(&self.node, &self.store, name, spec);
    }

    /// Runs weirctl on this cluster's datastore.
    pub fn weirctl(&self, arguments: &[&str]) -> Answer {
        self.weirctl_with(arguments, "")
    }

    /// As [`Cluster::weirctl`], with `input` on the standard input, in the
    /// directory `/run`.
    pub fn weirctl_with(&self, arguments: &[&str], input: &str) -> Answer {
        weirctl(&self.node, &self.store, arguments, input)
    }

    /// The configuration of a `weir` in network `pods`, without what a
    /// configuration list has outside its plugins.
    pub fn plugin(&self, families: Families) -> Value {
        let mut plugin = json!({
            "type": "weir",
            "log_level": "info",
            "nodename": "n1",
            "ipam": families.ipam(),
        });
        merge(&mut plugin, self.store.configuration());
        plugin
    }

    /// A configuration list for network `pods` with this one plugin.
    pub fn list(&self, plugin: Value) -> Value {
        json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})
    }

    /// A call of `weir` in network `pods` for this container.
    pub fn weir(&self, families: Families, container: &Container) -> Call {
        self.call("weir", families).container(container)
    }

    /// A call of `weir-ipam` alone on node `n1`, for a container id without a
    /// namespace.
    pub fn ipam(&self, families: Families, container_id: &str) -> Call {
        self.call("weir-ipam", families)
            .with("CNI_CONTAINERID", container_id)
            .with("CNI_NETNS", "/run/netns/none")
    }

    fn call(&self, program: &str, families: Families) -> Call {
        Call::new(program, self.configuration(families))
    }

    /// What a runtime gives `weir` in network `pods` to read.
    pub fn configuration(&self, families: Families) -> Value {
        let mut configuration = self.plugin(families);
        merge(&mut configuration, json!({"cniVersion": "1.0.0", "name": "pods"}));
        configuration
    }

    /// Requires that no address is taken, no handle is left and blocks and
    /// affinities agree.
    pub fn assert_nothing_allocated(&self) {
        let entries = self.store.entries();
        assert_consistent(&entries);
        assert!(allocations(&entries).is_empty(), "{:?}", allocations(&entries));
        assert!(handles(&entries).is_empty(), "{:?}", handles(&entries));
    }

    /// Makes every allocation older than any call may take.
    pub fn age_allocations(&self) {
        self.store.age_allocations();
    }

    /// The names of the node's interfaces.
    pub fn interfaces(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.node.run(&["ip", "-j", "link", "show"]))
            .expect("ip prints JSON");
        let links = links.as_array().expect("a list of links").iter();
        links.filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect()
    }
}

/// Adds the members of one JSON object to another.
pub fn merge(target: &mut Value, additions: Value) {
    let (Value::Object(target), Value::Object(additions)) = (target, additions) else {
        panic!("only objects can be merged");
    };
    target.extend(additions);
}
