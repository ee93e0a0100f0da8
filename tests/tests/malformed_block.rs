//! A stored block that cannot be used: who needs it is told its key, nobody gets an
//! address twice, and it is left as it is.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{Call, Cluster, Families, Running, address, assert_consistent};

/// Weir's own code for a stored value that cannot be used.
const MALFORMED: u64 = 103;
/// What the keys of blocks begin with.
const BLOCKS: &str = "/calico/ipam/v2/assignment/";

/// A call of weir-ipam by a host of this name.
fn call_of(cluster: &Cluster, host: &str, container: &str) -> Call {
    cluster
        .ipam(Families::V4, container)
        .configure("/nodename", host.into())
        .configure("/ipam_lock_file", format!("/run/{host}.lock").into())
}

/// Ways in which a good block may be damaged.
fn damages(good: &str) -> Vec<String> {
    let changed = |pointer: &str, value: Value| {
        let mut block: Value = serde_json::from_str(good).expect("a block is JSON");
        *block.pointer_mut(pointer).expect("blocks have this") = value;
        block.to_string()
    };
    vec![
        String::new(),
        "[]".to_owned(),
        good[..good.len() / 2].to_owned(),
        changed("/cidr", json!("10.8.0.0/26")),
        changed("/cidr", json!("10.0.0.0/8")),
        changed("/allocations", json!([0])),
        changed("/allocations/0", json!(7)),
        changed("/unallocated/0", json!(64)),
        changed("/sequenceNumber", json!(-1)),
    ]
}

/// The only block's key and value.
fn block_of(cluster: &Cluster) -> (String, String) {
    let mut entries = cluster.store.entries().into_iter();
    entries.find(|(key, _)| key.starts_with(BLOCKS)).expect("a block is there")
}

/// Adds 16 containers of a host whose block is damaged and 24 of three others, all
/// at once.
fn add_beside(cluster: &Cluster, key: &str, round: usize) -> BTreeSet<String> {
    let start = |host: &str, number: usize| {
        let call = call_of(cluster, host, &format!("{host}-r{round}-c{number}"));
        (host == "damaged", call.start(&cluster.node, "ADD"))
    };
    let hosts = ["damaged", "h1", "damaged", "h2", "h3"];
    let running: Vec<(bool, Running)> = (0..8)
        .flat_map(|number| hosts.iter().enumerate().map(move |(at, host)| (host, 10 * at + number)))
        .map(|(host, number)| start(host, number))
        .collect();
    let mut given = BTreeSet::new();
    for (damaged, call) in running {
        let answer = call.finish();
        if damaged {
            answer.failure().expect(MALFORMED, &[key, "weirctl ipam check"]);
        } else {
            let address = address(&answer.result(), 0).to_owned();
            assert!(given.insert(address.clone()), "{address} was given twice");
        }
    }
    given
}

fn damaged_blocks(cluster: Cluster) {
    // So many blocks that the other hosts' claims do not come by the damaged one.
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/16"}));
    let holder = call_of(&cluster, "damaged", "holder").add(&cluster.node);
    let held = address(&holder, 0).to_owned();
    let (key, good) = block_of(&cluster);
    let mut given = BTreeSet::from([held.clone()]);
    for (round, damage) in damages(&good).into_iter().enumerate() {
        cluster.store.load(&[(key.clone(), damage.clone())].into());
        for address in add_beside(&cluster, &key, round) {
            assert!(given.insert(address.clone()), "{address} was given twice");
        }
        let asked = call_of(&cluster, "h1", "asks").with("CNI_ARGS", &format!("IP={held}"));
        asked.run(&cluster.node, "ADD").failure().expect(MALFORMED, &[&key]);
        let delete = call_of(&cluster, "damaged", "holder").run(&cluster.node, "DEL");
        delete.failure().expect(MALFORMED, &[&key]);
        assert_eq!(cluster.store.entries()[&key], damage, "it is left as it is");
    }
    cluster.store.load(&[(key, good)].into());
    assert_consistent(&cluster.store.entries());
    let next = call_of(&cluster, "damaged", "next").add(&cluster.node);
    assert!(given.insert(address(&next, 0).to_owned()), "{next} was given twice");
    call_of(&cluster, "damaged", "holder").delete(&cluster.node);
}

#[test]
fn in_etcd() {
    damaged_blocks(Cluster::etcd());
}

#[test]
fn in_the_embedded_store() {
    damaged_blocks(Cluster::embedded());
}
