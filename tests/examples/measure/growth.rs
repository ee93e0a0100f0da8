//! IPAM plugins with few and with many addresses taken.

use serde_json::{Value, json};
use weir_tests::{Call, Cluster, Entries, Families, Node, Place};

use crate::samples::{Table, in_turn};
use crate::timed;

/// How many addresses are taken, in all of the measured cases.
const TAKEN: [u32; 2] = [100, 10_000];
/// Addresses in a block.
const BLOCK: u32 = 64;
/// Where the pool begins: 10.7.0.0/16.
const FIRST: u32 = 0x0a07_0000;

/// One plugin on a node of its own.
struct Subject {
    name: String,
    call: Call,
    node: Node,
    /// Kept, because its datastore goes with it.
    _cluster: Option<Cluster>,
}

/// Measures all subjects in turn. All addresses are the measured node's, for
/// that is what host-local's are.
pub fn measure(rounds: usize) -> Table {
    let subjects: Vec<Subject> = TAKEN
        .into_iter()
        .flat_map(|taken| {
            [
                host_local(taken),
                weir_ipam("embedded", Cluster::embedded(), taken),
                weir_ipam("etcd", Cluster::etcd(), taken),
            ]
        })
        .collect();
    let mut table = Table::default();
    for round in 0..rounds {
        for subject in in_turn(&subjects, round) {
            let call = subject.call.clone().with("CNI_CONTAINERID", &format!("c{round}"));
            table.add(&subject.name, timed(&subject.node, &call, "ADD"));
            call.delete(&subject.node);
        }
    }
    for name in ["weir-ipam, embedded", "weir-ipam, etcd", "host-local"] {
        let target = name.starts_with("weir").then_some(1.3);
        table.compare(&row(name, TAKEN[1]), &row(name, TAKEN[0]), target);
    }
    for (name, taken) in ["weir-ipam, embedded", "weir-ipam, etcd"]
        .into_iter()
        .flat_map(|name| TAKEN.map(|it| (name, it)))
    {
        table.compare(&row(name, taken), &row("host-local", taken), None);
    }
    table
}

fn row(name: &str, taken: u32) -> String {
    format!("{name}, {taken} taken")
}

fn host_local(taken: u32) -> Subject {
    let node = Node::bare("n1");
    let directory = "/var/lib/cni/networks/pods";
    node.enter(|| {
        std::fs::create_dir_all(directory).expect("making host-local's directory");
        // host-local gives .0 to nobody and .1 to the gateway.
        for number in 2..taken + 2 {
            let path = format!("{directory}/{}", address(number));
            std::fs::write(path, format!("fill{number}\r\neth0")).expect("taking an address");
        }
        let last = address(taken + 1).to_string();
        std::fs::write(format!("{directory}/last_reserved_ip.0"), last).expect("taking addresses");
    });
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/16"}]]});
    let configuration = json!({"cniVersion": "1.0.0", "name": "pods", "type": "ptp", "ipam": ipam});
    let call = Call::reference("host-local", configuration).with("CNI_NETNS", "/run/netns/none");
    Subject { name: row("host-local", taken), call, node, _cluster: None }
}

fn weir_ipam(store: &str, cluster: Cluster, taken: u32) -> Subject {
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/16"}));
    cluster.store.load(&filled(taken));
    let call = cluster.ipam(Families::V4, "c");
    let node = cluster.node.clone();
    Subject {
        name: row(&format!("weir-ipam, {store}"), taken),
        call,
        node,
        _cluster: Some(cluster),
    }
}

/// Blocks of node `n1` with the first `taken` addresses of the pool taken, as
/// Calico would have written them.
fn filled(taken: u32) -> Entries {
    let mut entries = Entries::new();
    for block in 0..taken.div_ceil(BLOCK) {
        let used = BLOCK.min(taken - block * BLOCK);
        let first = address(block * BLOCK);
        let mut put = |key: String, value: Value| {
            entries.insert(format!("/calico/ipam/v2/{key}"), value.to_string());
        };
        let handle = |ordinal: u32| format!("pods.fill{}", block * BLOCK + ordinal);
        put(format!("assignment/ipv4/block/{first}-26"), block_value(block, used, handle));
        let affinity = json!({"state": "confirmed", "deleted": false});
        put(format!("host/n1/ipv4/block/{first}-26"), affinity);
        for ordinal in 0..used {
            let counts = json!({format!("{first}/26"): 1});
            let value = json!({"block": counts, "deleted": false});
            put(format!("handle/{}", handle(ordinal)), value);
        }
    }
    entries
}

fn block_value(block: u32, used: u32, handle: impl Fn(u32) -> String) -> Value {
    let attributes = (0..used).map(|ordinal| {
        let secondary = json!({"node": "n1", "timestamp": "2026-11-23 03:40:21.64 +0000 UTC"});
        json!({"handle_id": handle(ordinal), "secondary": secondary})
    });
    let allocations = (0..BLOCK).map(|ordinal| (ordinal < used).then_some(ordinal));
    let number = 1_795_405_220_000_000_000_u64;
    let numbers = (0..used).map(|ordinal| (ordinal.to_string(), json!(number)));
    json!({
        "cidr": format!("{}/26", address(block * BLOCK)),
        "affinity": "host:n1",
        "allocations": allocations.collect::<Vec<_>>(),
        "unallocated": (used..BLOCK).collect::<Vec<_>>(),
        "attributes": attributes.collect::<Vec<_>>(),
        "sequenceNumber": number + 1,
        "sequenceNumberForAllocation": numbers.collect::<serde_json::Map<_, _>>(),
        "deleted": false,
    })
}

/// An address of the pool.
fn address(number: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(FIRST + number)
}
