//! A node of a large cluster. The other nodes are only in the datastore.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weir_common::datastore::{DatastoreConfiguration, EtcdConfiguration, Transaction, Write, keys};
use weir_common::ipam::{Affinity, Block};
use weir_tests::{Agent, Etcd, Node, Place, Store, UPLINK, binaries};

/// How many other nodes there are, with ten blocks each.
pub const NODES: usize = 1000;

/// How many blocks they have.
pub const BLOCKS: usize = 10 * NODES;

/// The node's name.
const NODE_NAME: &str = "n1";

/// The node's address; the other nodes are in the same subnet.
const NODE_ADDRESS: &str = "172.29.255.1/16";

/// The node that has what comes and goes.
const BUSY_NODE: &str = "host-7.cluster.example";

/// How many blocks are written in one transaction.
const TOGETHER: usize = 50;

/// The node, with an etcd of its own that knows the cluster.
pub struct World {
    /// The node.
    pub node: Node,
    store: Store,
    endpoint: String,
    block_size: u8,
}

impl World {
    /// A node whose kernel has no routes yet; blocks have this prefix length.
    pub fn new(block_size: u8) -> Self {
        let node = Node::new(NODE_NAME);
        node.run(&["ip", "address", "add", NODE_ADDRESS, "dev", UPLINK]);
        let etcd = Etcd::start(&node);
        let mut crowd = Command::new(binaries().join("examples/crowd"));
        let addresses = BLOCKS << (32 - block_size);
        crowd.args([etcd.endpoint(), addresses.to_string(), block_size.to_string()]);
        let output = node.output(&mut crowd, "");
        assert!(output.status.success(), "crowd: {}", String::from_utf8_lossy(&output.stderr));
        Self { node, endpoint: etcd.endpoint(), store: Store::Etcd(etcd), block_size }
    }

    /// Starts the node's agent.
    pub fn start_agent(&self) -> Agent {
        let arguments = ["--ip-autodetection-method", NODE_ADDRESS];
        Agent::start(&self.node, &self.store, NODE_NAME, &arguments)
    }

    /// Waits until the agent says that it is well: it has compared everything.
    pub fn await_health(agent: &Agent) {
        await_until("the agent is well", || agent.is_well());
    }

    /// The routes that Weir has made.
    pub fn routes(&self) -> BTreeSet<String> {
        let routes = self.node.run(&["ip", "route", "show", "proto", "77"]);
        routes.lines().map(str::to_owned).collect()
    }

    /// Waits until there are so many.
    pub fn await_routes(&self, count: usize) {
        await_until(&format!("{count} routes"), || self.routes().len() == count);
    }

    /// A block that is not there from the beginning.
    pub fn additional_block(&self, number: usize) -> IpNet {
        let size = 1 << (32 - self.block_size);
        let first = (10 << 24) + u32::try_from((BLOCKS + number) * size).expect("few blocks");
        IpNet::new(Ipv4Addr::from_bits(first).into(), self.block_size).expect("a prefix length")
    }

    /// Gives another node these blocks, each as one claim writes it.
    pub fn add_blocks(&self, blocks: &[IpNet]) {
        self.commit(blocks, |&block| {
            let value = Block::new(block, BUSY_NODE, 1).to_json();
            let affinity = Affinity::default().to_json();
            [
                Write::Put { key: keys::block(block), value },
                Write::Put { key: keys::affinity(BUSY_NODE, block), value: affinity },
            ]
        });
    }

    /// Takes them away.
    pub fn remove_blocks(&self, blocks: &[IpNet]) {
        self.commit(blocks, |&block| {
            let keys = [keys::block(block), keys::affinity(BUSY_NODE, block)];
            keys.map(|key| Write::Delete { key })
        });
    }

    fn commit(&self, blocks: &[IpNet], writes: impl Fn(&IpNet) -> [Write; 2] + Sync) {
        self.node.enter(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("starting a runtime");
            let endpoints = vec![self.endpoint.clone()];
            let configuration = DatastoreConfiguration::Etcd(EtcdConfiguration::new(endpoints));
            runtime.block_on(async {
                let store = weir_datastore::open(&configuration).await.expect("opening etcd");
                for part in blocks.chunks(TOGETHER) {
                    let writes = part.iter().flat_map(&writes).collect();
                    let transaction = Transaction { compares: Vec::new(), writes };
                    store.commit(transaction).await.expect("writing to etcd");
                }
            });
        });
    }
}

fn await_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}
