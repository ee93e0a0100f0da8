//! GC while others ADD and DEL: of another host, and of another network of this host.
//! They share blocks and container ids with what is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, Families, Running, address, allocations, assert_consistent,
};

const ROUNDS: usize = 4;
const EACH: usize = 8;

/// `weir-ipam` of a host and a network, with a lock of its own: what GC and the others
/// meet in is the datastore.
fn call(cluster: &Cluster, (host, network): (&str, &str), id: &str) -> Call {
    cluster
        .ipam(Families::V4, id)
        .configure("/nodename", host.into())
        .configure("/name", network.into())
        .configure("/ipam_lock_file", format!("/run/{host}-{network}.lock").into())
}

/// GC of network `pods` on n1, whose runtime knows of no container.
fn collection(cluster: &Cluster) -> Call {
    let call = call(cluster, ("n1", "pods"), "").configure("/cniVersion", "1.1.0".into());
    ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]
        .iter()
        .fold(call, |call, variable| call.with(variable, ""))
        .configure("/cni.dev~1valid-attachments", json!([]))
        .configure("/cni.dev~1attachments", json!([]))
}

#[test]
fn a_collection_touches_neither_another_host_nor_another_network() {
    let cluster = Cluster::etcd();
    // Two blocks for three: all have addresses in the same ones.
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/25", "blockSize": 26}));
    let others = [("n2", "pods"), ("n1", "other"), ("n1", "pods.c0")];
    let mut alive: BTreeMap<(usize, usize), (Call, Value)> = BTreeMap::new();
    for round in 0..ROUNDS {
        // What is collected, under ids that the others use, too.
        let dead: Vec<Call> =
            (0..EACH).map(|id| call(&cluster, ("n1", "pods"), &format!("c{id}"))).collect();
        dead.iter().for_each(|call| drop(call.add(&cluster.node)));
        let leaving = std::mem::take(&mut alive);
        let coming = (0..others.len()).flat_map(|other| (0..EACH).map(move |id| (other, id)));
        // Every second one of the last round goes, the others are added again.
        let mut adding: Vec<((usize, usize), Call, Running)> = Vec::new();
        let mut deleting: Vec<Running> = Vec::new();
        let collecting = collection(&cluster).start(&cluster.node, "GC");
        for (other, id) in coming {
            let attachment = (other, id);
            let call = call(&cluster, others[other], &format!("c{id}"));
            if (id + round) % 2 == 0 && leaving.contains_key(&attachment) {
                deleting.push(call.start(&cluster.node, "DEL"));
            } else {
                let running = call.start(&cluster.node, "ADD");
                adding.push((attachment, call, running));
            }
        }
        let again = collection(&cluster).start(&cluster.node, "GC");
        for (attachment, call, running) in adding {
            let result = running.finish().result();
            if let Some((_, before)) = leaving.get(&attachment) {
                assert_eq!(address(before, 0), address(&result, 0), "{attachment:?}");
            }
            alive.insert(attachment, (call, result));
        }
        let ends = deleting.into_iter().chain([collecting, again]).map(Running::finish);
        ends.for_each(|answer: Answer| answer.silence());
        let entries = cluster.store.entries();
        assert_consistent(&entries);
        let expected: BTreeSet<IpAddr> = alive
            .values()
            .map(|(_, result)| address(result, 0).parse().expect("an address"))
            .collect();
        assert_eq!(expected.len(), alive.len(), "an address was given twice");
        assert_eq!(allocations(&entries).into_keys().collect::<BTreeSet<_>>(), expected);
    }
    for (call, result) in alive.values() {
        call.check(&cluster.node, result).silence();
        call.delete(&cluster.node);
    }
    cluster.assert_nothing_allocated();
}
