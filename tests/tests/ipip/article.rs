//! Three nodes and one pool after another, as an operator tries the modes: without tunnel,
//! `always`, `cross-subnet`. What is looked at is what operators look at: which nodes have
//! `tunl0` in service, and by what device each route goes.

use std::collections::BTreeMap;

use serde_json::Value;
use weir_tests::{Fleet, Member, Place, Pod, Subnet};

/// The v1 files for users, in the order in which they are tried.
const POOLS: [&str; 3] = ["bgp", "ipip-always", "ipip-cross-subnet"];

/// By what device a node's route to a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Nic,
    Tunnel,
}

use Device::{Nic, Tunnel};

/// What is to be seen in a mode: the nodes with a tunnel, and the device to each other node.
struct Expected {
    has_tunnel: bool,
    towards: fn(from: usize, to: usize) -> Device,
}

fn by_nic(_from: usize, _to: usize) -> Device {
    Nic
}

fn by_tunnel(_from: usize, _to: usize) -> Device {
    Tunnel
}

/// The third node is elsewhere.
fn by_tunnel_to_elsewhere(from: usize, to: usize) -> Device {
    if from == 2 || to == 2 { Tunnel } else { Nic }
}

fn file(name: &str) -> String {
    let path = format!("{}/../conf/pools/ipPool-{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    assert!(std::path::Path::new(&path).is_file(), "{path}");
    path
}

/// The routes of a node to blocks of others, whoever made them, with their devices.
fn routes(member: &Member) -> BTreeMap<String, String> {
    let text = member.node().run(&["ip", "-j", "route", "show", "table", "main"]);
    let listed: Vec<Value> = serde_json::from_str(&text).expect("ip prints JSON");
    let has_next_hop = listed.iter().filter(|route| route["gateway"].is_string());
    let route = |route: &Value| {
        let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
        (text("dst"), text("dev"))
    };
    has_next_hop.map(route).filter(|(range, _)| range != "default").collect()
}

/// The blocks of a node: one, or two where its tunnel and its container took an address at the
/// same moment.
fn blocks_of(member: &Member) -> Vec<String> {
    let blackholes = member.node().run(&["ip", "route", "show", "type", "blackhole"]);
    let range = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    blackholes.lines().filter_map(range).collect()
}

fn try_out(fleet: &Fleet, name: &str, expected: &Expected) {
    let pool_file = file(name);
    let answer = fleet.weirctl(0, &["create", "-f", &pool_file]);
    assert!(answer.succeeded, "{answer:?}");
    let pool = fleet.weirctl(0, &["get", "ippool", "-o", "json"]);
    let pool: Value = serde_json::from_str(&pool.stdout).expect("JSON");
    let pool = pool["items"][0]["metadata"]["name"].as_str().expect("a pool").to_owned();
    let pods: Vec<Pod> = (0..3)
        .map(|member| fleet.named_pod(member, &pool, &format!("n{}-{name}", member + 1)))
        .collect();
    for member in &fleet.members {
        let what = format!("{name}: tunl0 of {}: {}", member.name, expected.has_tunnel);
        fleet.until(&what, || match expected.has_tunnel {
            true => member.has_tunnel(),
            false => member.has_no_tunnel(),
        });
    }
    let has_block = |member: &Member| !blocks_of(member).is_empty();
    let what = format!("{name}: each node has the route of its block");
    fleet.until(&what, || fleet.members.iter().all(has_block));
    for (from, member) in fleet.members.iter().enumerate() {
        let device = |to| if (expected.towards)(from, to) == Nic { "eth0" } else { "tunl0" };
        let wanted = || -> BTreeMap<String, String> {
            let others = (0..3).filter(|to| *to != from);
            let blocks = others.map(|to| (to, blocks_of(&fleet.members[to])));
            let way = |to, block| (block, device(to).to_owned());
            blocks.flat_map(|(to, blocks)| blocks.into_iter().map(move |it| way(to, it))).collect()
        };
        let what = format!("{name}: {} has {:?}", member.name, wanted());
        fleet.until(&what, || routes(member) == wanted());
    }
    for (member, pod) in pods.iter().enumerate() {
        fleet.call(member, &pool, &pod.container).delete(fleet.members[member].node());
    }
    let answer = fleet.weirctl(0, &["delete", "-f", &pool_file]);
    assert!(answer.succeeded, "{answer:?}");
    let is_clear = |member: &Member| routes(member).is_empty() && member.has_no_tunnel();
    fleet.until("nothing is left", || fleet.members.iter().all(is_clear));
}

fn cluster(subnets: &[Subnet; 3]) -> Fleet {
    let mut fleet = Fleet::new(subnets);
    fleet.start_agents();
    fleet
}

#[test]
fn all_nodes_in_one_subnet() {
    let fleet = cluster(&[Subnet::First; 3]);
    let expected = [
        Expected { has_tunnel: false, towards: by_nic },
        Expected { has_tunnel: true, towards: by_tunnel },
        Expected { has_tunnel: false, towards: by_nic },
    ];
    for (name, expected) in POOLS.iter().zip(&expected) {
        try_out(&fleet, name, expected);
    }
}

/// Without a tunnel, the routes to the node elsewhere come by BGP.
#[test]
fn one_node_elsewhere() {
    let fleet = cluster(&[Subnet::First, Subnet::First, Subnet::Second]);
    let expected = [
        Expected { has_tunnel: false, towards: by_nic },
        Expected { has_tunnel: true, towards: by_tunnel },
        Expected { has_tunnel: true, towards: by_tunnel_to_elsewhere },
    ];
    for (name, expected) in POOLS.iter().zip(&expected) {
        try_out(&fleet, name, expected);
    }
}
