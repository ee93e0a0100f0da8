//! A node of a cluster that Calico recorded, with Weir in Calico's place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::agent::{Agent, cluster_routes};
use crate::allocations::{allocations, assert_consistent};
use crate::cluster::{Cluster, Families};
use crate::cnitool::CniTool;
use crate::container::Container;
use crate::node::UPLINK;
use crate::place::Place;
use crate::store::{Entries, recorded_store};
use crate::until::until_reporting;

/// The node that the containers are on.
const NODE: &str = "n1";

/// A field of the future.
const UNKNOWN: &str = "futureField";

/// Members of a block that an assignment changes.
const LIVELY: [&str; 5] =
    ["allocations", "unallocated", "attributes", "sequenceNumber", "sequenceNumberForAllocation"];

/// The recorded node `n1` with its addresses, an etcd with the recorded store, and
/// Weir's agent.
pub struct Moved {
    /// The node and the etcd.
    pub cluster: Cluster,
    /// The agent; `None` where it does not run.
    pub agent: Option<Agent>,
    before: Entries,
}

impl Moved {
    /// For a case of `tests/fixtures/calico-3.31`. In every node, pool, block and
    /// handle there is also a field that nobody knows.
    pub fn new(case: &str) -> Self {
        let mut moved = Self::without_agent(case);
        moved.start_agent();
        moved
    }

    /// As [`Moved::new`], before Weir's agent runs.
    pub fn without_agent(case: &str) -> Self {
        let cluster = Cluster::etcd();
        let before = with_unknown_fields(&recorded_store(case));
        let key = format!("/calico/resources/v3/projectcalico.org/nodes/{NODE}");
        let bgp = parse(&before[&key])["spec"]["bgp"].take();
        cluster.node.run(&["ip", "address", "flush", "dev", UPLINK, "scope", "global"]);
        for address in ["ipv4Address", "ipv6Address"].iter().filter_map(|it| bgp[it].as_str()) {
            cluster.node.run(&["ip", "address", "add", address, "dev", UPLINK, "nodad"]);
        }
        cluster.store.load(&before);
        Self { cluster, agent: None, before }
    }

    /// Starts Weir's agent.
    pub fn start_agent(&mut self) {
        self.agent = Some(Agent::start(&self.cluster.node, &self.cluster.store, NODE, &[]));
    }

    /// Waits until the routes that are no container's are these: destinations with
    /// `via … dev …`, or `blackhole`.
    pub fn assert_routes(&self, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(range, way)| (range.to_string(), way.to_string())).collect();
        let report = || {
            let (routes, log) = (self.routes(), self.agent.as_ref().map(Agent::log));
            format!("{wanted:#?}\nbut {routes:#?}\n{log:?}")
        };
        until_reporting(|| self.routes() == wanted, report);
    }

    fn routes(&self) -> BTreeMap<String, String> {
        let lines = ["-4", "-6"].map(|family| cluster_routes(&self.cluster.node, family)).concat();
        lines.iter().map(|line| destination_and_way(line)).collect()
    }

    /// Adds and deletes containers by cnitool, with addresses of these families, and
    /// requires that the store differs only in what is this node's: after they came,
    /// and after they went.
    pub fn assert_containers_disturb_nobody(&self, families: Families) {
        let list = self.cluster.list(self.cluster.plugin(families));
        let tool = CniTool::new(&self.cluster.node, &list);
        let containers: Vec<Container> =
            ["one", "two", "three"].map(|name| self.cluster.node.container(name)).into();
        let mut given = BTreeSet::new();
        for container in &containers {
            let result = tool.add(container);
            let addresses = result["ips"].as_array().expect("a result has addresses");
            for address in addresses {
                let address = address["address"].as_str().and_then(|it| it.split('/').next());
                given.insert(address.expect("an address").parse().expect("an address"));
            }
            tool.check(container);
        }
        let during = self.cluster.store.entries();
        self.assert_only_own_changed(&during);
        let (had, has) = (allocations(&self.before), allocations(&during));
        assert!(given.iter().all(|it| !had.contains_key(it)), "{given:?} were taken");
        assert!(given.iter().all(|it| has.contains_key(it)), "{given:?} are not in the store");
        for container in &containers {
            tool.delete(container);
        }
        let after = self.cluster.store.entries();
        self.assert_only_own_changed(&after);
        let left = allocations(&after);
        let new = left.iter().filter(|(address, _)| !had.contains_key(*address));
        let new: Vec<&String> = new.map(|(_, handle)| handle).collect();
        let tunnel = format!("ipip-tunnel-addr-{NODE}");
        assert!(new.iter().all(|handle| **handle == tunnel), "{new:?} are left");
    }

    /// Requires that what others have is, byte by byte, as it was.
    pub fn assert_only_own_changed(&self, now: &Entries) {
        assert_consistent(now);
        let keys: BTreeSet<&String> = self.before.keys().chain(now.keys()).collect();
        for key in keys {
            match (self.before.get(key), now.get(key)) {
                (before, now) if before == now => {}
                (Some(before), Some(now)) if key.contains("/assignment/") => {
                    assert_same_holders(key, &parse(before), &parse(now));
                }
                (Some(before), Some(now)) if key.ends_with(&format!("/nodes/{NODE}")) => {
                    assert_same_node(&parse(before), &parse(now));
                }
                (None, Some(value)) => assert!(is_own(key, value), "{key}: {value}"),
                (before, now) => panic!("{key}: {before:?} became {now:?}"),
            }
        }
    }
}

/// The destination of a route as `ip` prints it, and where it leads.
fn destination_and_way(line: &str) -> (String, String) {
    let words: Vec<&str> = line.split(' ').collect();
    if words[0] == "blackhole" {
        return (words[1].to_owned(), words[0].to_owned());
    }
    (words[0].to_owned(), words[1..5].join(" "))
}

/// A key that came with this node's work.
fn is_own(key: &str, value: &str) -> bool {
    let own = [
        format!("/calico/ipam/v2/host/{NODE}/"),
        "/calico/ipam/v2/handle/pods.cnitool-".to_owned(),
        format!("/calico/ipam/v2/handle/ipip-tunnel-addr-{NODE}"),
        "/calico/weir/".to_owned(),
    ];
    let own_block = || parse(value)["affinity"] == format!("host:{NODE}");
    own.iter().any(|prefix| key.starts_with(prefix))
        || (key.contains("/assignment/") && own_block())
}

/// A block of this node: who had an address has it still, and nothing else differs.
fn assert_same_holders(key: &str, before: &Value, now: &Value) {
    assert_eq!(before["affinity"], format!("host:{NODE}"), "{key} is another node's");
    assert_eq!(without(before, &LIVELY), without(now, &LIVELY), "{key}");
    let holder = |block: &Value, ordinal: usize| {
        let index = block["allocations"][ordinal].as_u64()?;
        Some(block["attributes"][usize::try_from(index).ok()?].clone())
    };
    let size = before["allocations"].as_array().map_or(0, Vec::len);
    for ordinal in 0..size {
        if let Some(had) = holder(before, ordinal) {
            assert_eq!(Some(had), holder(now, ordinal), "{key}, address number {ordinal}");
            let number =
                |block: &Value| block["sequenceNumberForAllocation"][ordinal.to_string()].clone();
            assert_eq!(number(before), number(now), "{key}, address number {ordinal}");
        }
    }
}

/// Only the address of the tunnel may have come.
fn assert_same_node(before: &Value, now: &Value) {
    let mut now = now.clone();
    let bgp = now["spec"]["bgp"].as_object_mut().expect("a node has addresses");
    bgp.remove("ipv4IPIPTunnelAddr").expect("nothing else is to change");
    assert_eq!(*before, now);
}

fn without(object: &Value, members: &[&str]) -> Value {
    let mut object = object.clone();
    if let Some(object) = object.as_object_mut() {
        object.retain(|name, _| !members.contains(&name.as_str()));
    }
    object
}

fn with_unknown_fields(entries: &Entries) -> Entries {
    let places = ["/nodes/", "/ippools/", "/assignment/", "/handle/"];
    let add = |(key, value): (&String, &String)| {
        let mut value = parse(value);
        if places.iter().any(|place| key.contains(place)) {
            // A number that a floating-point number cannot hold.
            value[UNKNOWN] = json!({"deep": [9_007_199_254_740_993_u64, null]});
        }
        (key.clone(), value.to_string())
    };
    entries.iter().map(add).collect()
}

fn parse(value: &str) -> Value {
    serde_json::from_str(value).expect("stored values are JSON")
}
