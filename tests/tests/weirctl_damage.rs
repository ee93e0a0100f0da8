//! The twelve kinds of damage (`docs/audit.md`) on a node with containers: each
//! is found and mended by `weirctl`, alone and with all others, on both
//! datastores, and what lives is not touched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_common::datastore::keys;
use weir_common::ipam::Block;
use weir_tests::{
    Answer, Cluster, CniTool, Container, Families, Place, address, allocations, assert_consistent,
};

/// All kinds, as a report names them.
const KINDS: [&str; 12] = [
    "address-without-attachment",
    "attachment-without-address",
    "handle-without-address",
    "address-without-handle",
    "handle-count",
    "affinity-without-block",
    "block-affinity",
    "affinity-unsettled",
    "block-without-pool",
    "block-misfit",
    "block-unsound",
    "host-gone",
];

/// How many worlds are there at a time: a repair mostly waits.
const AT_ONCE: usize = 4;

/// A node with three containers that live and one that is to go.
struct World {
    cluster: Cluster,
    tool: CniTool,
    live: Vec<(Container, IpAddr)>,
    leaking: (Container, IpAddr),
}

impl World {
    fn new(cluster: Cluster) -> Self {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "blockSize": 29}));
        let tool = CniTool::new(&cluster.node, &cluster.list(cluster.plugin(Families::V4)));
        let start = |name: &str| {
            let container = cluster.node.container(name);
            let address = address(&tool.add(&container), 0).parse().expect("an address");
            (container, address)
        };
        let live = ["web", "db", "cache"].map(start).into();
        let leaking = start("leaking");
        for name in ["n1", "n2"] {
            let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": name}, "spec": {}});
            cluster.store.put(&keys::node(name), &node);
        }
        let world = Self { cluster, tool, live, leaking };
        assert_eq!(world.findings(), [] as [String; 0], "before anything is damaged");
        world
    }

    fn check(&self, more: &[&str]) -> Answer {
        self.cluster.weirctl(&[&["ipam", "check", "--gone-host", "n9"], more].concat())
    }

    /// The kinds that are found.
    fn findings(&self) -> Vec<String> {
        let answer = self.check(&["-o", "json"]);
        let report: Value = serde_json::from_str(&answer.stdout).expect("a report");
        let findings = report["findings"].as_array().expect("findings").iter();
        let mut kinds: Vec<String> =
            findings.map(|it| it["kind"].as_str().expect("a kind").to_owned()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// The block of the containers.
    fn block(&self) -> IpNet {
        IpNet::new(self.live[0].1, 29).expect("a length").trunc()
    }

    fn edit(&self, key: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_str(&self.cluster.store.entries()[key]).expect("JSON");
        change(&mut value);
        self.cluster.store.put(key, &value);
    }

    fn affinity(&self, host: &str, block: &str, state: &str) {
        let key = keys::affinity(host, block.parse().expect("a block"));
        self.cluster.store.put(&key, &json!({"state": state, "deleted": false}));
    }

    /// A block of this host with its affinity; `taken` has its second address.
    fn block_of(&self, host: &str, block: &str, taken: Option<&str>) {
        let mut value = Block::new(block.parse().expect("a block"), host, 1);
        if let Some(handle) = taken {
            let holder = json!({"handle_id": handle, "secondary": {"node": host}});
            value.assign(1, serde_json::from_value(holder).expect("a holder"));
            self.cluster.store.put(&keys::handle(handle), &json!({"block": {block: 1}}));
        }
        let json = serde_json::from_slice(&value.to_json()).expect("JSON");
        self.cluster.store.put(&keys::block(value.cidr), &json);
        self.affinity(host, block, "confirmed");
    }

    fn plant(&self, kind: &str) {
        let store = &self.cluster.store;
        let block = self.block();
        match kind {
            "address-without-attachment" => {
                let node = &self.cluster.node;
                let line = ["ip", "-o", "route", "show", &self.leaking.1.to_string()];
                let listing = node.run(&line);
                let link = listing.split_whitespace().skip_while(|word| *word != "dev").nth(1);
                node.run(&["ip", "link", "delete", link.expect("a link")]);
                // Its ADD might still be going on.
                self.cluster.age_allocations();
            }
            "attachment-without-address" => {
                let flag = format!("--ip={}", self.live[2].1);
                assert!(self.cluster.weirctl(&["ipam", "release", &flag]).succeeded);
            }
            "handle-without-address" => {
                let handle = json!({"block": {block.to_string(): 1}, "deleted": false});
                store.put(&keys::handle("pods.nothing"), &handle);
            }
            "address-without-handle" => store.remove(&keys::handle(&self.handle(0))),
            "handle-count" => self.edit(&keys::handle(&self.handle(1)), |handle| {
                handle["block"][block.to_string()] = json!(3);
            }),
            "affinity-without-block" => self.affinity("n1", "10.7.0.224/29", "confirmed"),
            "block-affinity" => self.affinity("n2", &block.to_string(), "confirmed"),
            "affinity-unsettled" => self.affinity("n2", "10.7.0.216/29", "pending"),
            "block-without-pool" => self.block_of("n1", "10.9.0.0/29", None),
            "block-misfit" => self.block_of("n2", "10.7.0.128/30", None),
            "block-unsound" => self.edit(&keys::block(block), |block| {
                let taken = block["allocations"].as_array().expect("a list").iter();
                let taken = taken.clone().position(|it| !it.is_null()).expect("one is taken");
                block["unallocated"].as_array_mut().expect("a list").insert(0, json!(taken));
            }),
            "host-gone" => self.block_of("n9", "10.7.0.240/29", Some("pods.far")),
            other => panic!("no damage is called {other}"),
        }
    }

    /// The handle of a live container.
    fn handle(&self, number: usize) -> String {
        let all = allocations(&self.cluster.store.entries());
        all[&self.live[number].1].clone()
    }

    /// Plants, looks and mends: the live keep what they have, and only they
    /// have something.
    fn suffer(&self, kinds: &[&str]) {
        let mut expected: BTreeMap<IpAddr, String> = allocations(&self.cluster.store.entries());
        kinds.iter().for_each(|kind| self.plant(kind));
        if kinds.contains(&"address-without-attachment") {
            expected.remove(&self.leaking.1);
        }
        let mut named: Vec<&str> = kinds.to_vec();
        named.sort_unstable();
        assert_eq!(self.findings(), named);
        let answer = self.check(&["--repair"]);
        assert!(answer.succeeded, "{kinds:?}: {answer:?}");
        for kind in kinds {
            assert!(answer.stdout.contains(&format!("[{kind}] ")), "{kind}: {answer:?}");
        }
        assert_eq!(self.findings(), [] as [String; 0], "after {kinds:?}");
        let entries = self.cluster.store.entries();
        assert_consistent(&entries);
        assert_eq!(allocations(&entries), expected, "after {kinds:?}");
        for (container, _) in &self.live {
            self.tool.check(container);
            assert!(container.reaches("172.30.0.11"), "after {kinds:?}");
        }
    }
}

fn one_by_one(cluster: fn() -> Cluster) {
    for kinds in KINDS.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for kind in kinds {
                scope.spawn(move || World::new(cluster()).suffer(&[kind]));
            }
        });
    }
}

#[test]
fn one_by_one_on_the_embedded_store() {
    one_by_one(Cluster::embedded);
}

#[test]
fn one_by_one_on_etcd() {
    one_by_one(Cluster::etcd);
}

#[test]
fn together_on_the_embedded_store() {
    World::new(Cluster::embedded()).suffer(&KINDS);
}

#[test]
fn together_on_etcd() {
    World::new(Cluster::etcd()).suffer(&KINDS);
}
