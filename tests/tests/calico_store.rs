//! `weir-ipam` at work in a store that Calico wrote.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, Entries, Families, allocations, assert_consistent, recorded_store,
};

/// A copy of the recorded store `busy`, in each kind of datastore.
fn busy() -> [Cluster; 2] {
    [Cluster::embedded(), Cluster::etcd()].map(|cluster| {
        cluster.store.load(&recorded_store("busy"));
        cluster
    })
}

fn call(cluster: &Cluster, host: &str, families: Families, container_id: &str) -> Call {
    cluster.ipam(families, container_id).configure("/nodename", host.into())
}

fn address(result: &Value, index: usize) -> String {
    result["ips"][index]["address"].as_str().expect("an address").to_owned()
}

/// Adds IPv4 attachments out of pool `blue` on this host, one after the other.
fn add_blue(cluster: &Cluster, host: &str, ids: &[&str]) -> Vec<Answer> {
    let pools = json!(["blue"]);
    let add = |id: &&str| {
        let call = call(cluster, host, Families::V4, id);
        call.configure("/ipam/ipv4_pools", pools.clone()).run(&cluster.node, "ADD")
    };
    ids.iter().map(add).collect()
}

/// The keys of Calico whose values differ. Weir keeps hints in a place of its
/// own, under `/calico/weir/`.
fn changed(before: &Entries, after: &Entries) -> BTreeSet<String> {
    let keys = before.keys().chain(after.keys()).filter(|key| !key.starts_with("/calico/weir/"));
    keys.filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| format!("/calico/ipam/v2/{key}")).collect()
}

#[test]
fn the_recorded_store_is_consistent() {
    for case in ["small", "seed", "busy"] {
        assert_consistent(&recorded_store(case));
    }
}

#[test]
fn a_hosts_own_blocks_come_first() {
    for cluster in busy() {
        let before = cluster.store.entries();
        let own = add_blue(&cluster, "n1", &["a", "b", "c"]);
        let own: BTreeSet<String> = own.iter().map(|it| address(&it.result(), 0)).collect();
        assert_eq!(own, ["10.7.0.9/30", "10.7.0.10/30", "10.7.0.19/30"].map(String::from).into());
        let after = cluster.store.entries();
        assert_consistent(&after);
        let expected = [
            "assignment/ipv4/block/10.7.0.8-30",
            "assignment/ipv4/block/10.7.0.16-30",
            "handle/pods.a",
            "handle/pods.b",
            "handle/pods.c",
        ];
        assert_eq!(changed(&before, &after), keys(&expected));
    }
}

#[test]
fn a_full_pool_is_borrowed_from_and_reservations_are_passed_over() {
    for cluster in busy() {
        let ids = ["a", "b", "c", "d", "e"];
        let answers = add_blue(&cluster, "n1", &ids);
        let given: BTreeSet<String> =
            answers.iter().map(|answer| address(&answer.result(), 0)).collect();
        // n2's 10.7.0.24/30 has two to lend; 10.7.0.4 and 10.7.0.5 are
        // reserved.
        let expected = ["10.7.0.9", "10.7.0.10", "10.7.0.19", "10.7.0.26", "10.7.0.27"];
        assert_eq!(given, expected.map(|address| format!("{address}/30")).into());
        assert_consistent(&cluster.store.entries());
        let full = add_blue(&cluster, "n3", &["f"]);
        full[0].failure().expect(101, &["blue", "n3"]);
    }
}

#[test]
fn a_host_with_only_reserved_addresses_left_takes_others() {
    for cluster in busy() {
        let given = address(&add_blue(&cluster, "n3", &["a"])[0].result(), 0);
        assert!(!["10.7.0.4/30", "10.7.0.5/30"].contains(&given.as_str()), "{given}");
        assert_consistent(&cluster.store.entries());
    }
}

#[test]
fn a_dual_stack_attachment_takes_the_head_of_both_queues() {
    for cluster in busy() {
        let before = cluster.store.entries();
        let result = call(&cluster, "n5", Families::Dual, "a").add(&cluster.node);
        assert_eq!(address(&result, 0), "10.8.0.69/28");
        assert_eq!(address(&result, 1), "fd00:7::fc01:3ef3:4b44:f905/122");
        let after = cluster.store.entries();
        assert_consistent(&after);
        let (v4, v6) = ("10.8.0.64-28", "fd00:7::fc01:3ef3:4b44:f900-122");
        let blocks = [("ipv4", v4), ("ipv6", v6)]
            .map(|(family, it)| format!("assignment/{family}/block/{it}"));
        assert_eq!(changed(&before, &after), keys(&[&blocks[0], &blocks[1], "handle/pods.a"]));
        assert_sequence(&before, &after, &blocks[0]);
        assert_sequence(&before, &after, &blocks[1]);
        call(&cluster, "n5", Families::Dual, "a").delete(&cluster.node);
        assert_eq!(allocations(&before), allocations(&cluster.store.entries()));
    }
}

/// The block's number goes up by one, and the new address, ordinal 5, has the
/// one before; both exceed what a floating-point number can hold.
fn assert_sequence(before: &Entries, after: &Entries, block: &str) {
    let read = |entries: &Entries| -> Value {
        serde_json::from_str(&entries[&format!("/calico/ipam/v2/{block}")]).expect("JSON")
    };
    let (before, after) = (read(before), read(after));
    let number = before["sequenceNumber"].as_u64().expect("a number");
    assert_eq!(after["sequenceNumber"].as_u64(), Some(number + 1));
    assert_eq!(after["sequenceNumberForAllocation"]["5"].as_u64(), Some(number));
}

#[test]
fn an_address_can_be_asked_for_in_a_manual_pool() {
    for cluster in busy() {
        let asked = call(&cluster, "n2", Families::V4, "a").with("CNI_ARGS", "IP=10.9.0.17");
        assert_eq!(address(&asked.add(&cluster.node), 0), "10.9.0.17/32");
        let taken = call(&cluster, "n2", Families::V4, "b").with("CNI_ARGS", "IP=10.9.0.10");
        taken.run(&cluster.node, "ADD").failure().expect(102, &["10.9.0.10", "pods.hand0"]);
        assert_consistent(&cluster.store.entries());
    }
}

#[test]
fn what_calico_gave_is_known_and_given_back() {
    for cluster in busy() {
        let before = cluster.store.entries();
        let existing = call(&cluster, "n1", Families::V4, "blue10");
        assert_eq!(address(&existing.add(&cluster.node), 0), "10.7.0.8/30");
        assert_eq!(before, cluster.store.entries());
        existing.delete(&cluster.node);
        let after = cluster.store.entries();
        assert_consistent(&after);
        let expected = ["assignment/ipv4/block/10.7.0.8-30", "handle/pods.blue10"];
        assert_eq!(changed(&before, &after), keys(&expected));
        let freed: IpAddr = "10.7.0.8".parse().unwrap();
        assert!(!allocations(&after).contains_key(&freed));
        let block: Value =
            serde_json::from_str(&after["/calico/ipam/v2/assignment/ipv4/block/10.7.0.8-30"])
                .expect("JSON");
        assert_eq!(block["unallocated"], json!([1, 2, 0]), "the freed one goes to the tail");
    }
}

#[test]
fn a_borrowed_address_and_both_of_a_dual_stack_are_given_back() {
    for cluster in busy() {
        for (host, id, count) in [("n4", "blue44", 1), ("n6", "edge62", 2)] {
            let before = allocations(&cluster.store.entries());
            call(&cluster, host, Families::Dual, id).delete(&cluster.node);
            let after = cluster.store.entries();
            assert_consistent(&after);
            assert_eq!(before.len() - allocations(&after).len(), count, "{id}");
        }
    }
}

/// What Calico 2 left of four containers in a block of `n1`: the handle is the bare id or names
/// the pod, and nothing else is recorded. The handle of the tunnel must stay out of it.
fn with_calico_2(cluster: &Cluster) {
    let holders = [
        json!({"handle_id": "c0ffee", "secondary": null}),
        json!({"handle_id": "shop.cart", "secondary": null}),
        json!({"handle_id": "ipip-tunnel-addr-n9",
            "secondary": {"node": "n1", "type": "ipipTunnelAddress"}}),
        json!({"handle_id": "bank.till", "secondary": {"node": "n2"}}),
    ];
    let block = json!({
        "cidr": "10.9.0.32/29", "affinity": "host:n1",
        "allocations": [0, 1, 2, 3, null, null, null, null], "unallocated": [4, 5, 6, 7],
        "attributes": holders, "strictAffinity": false,
    });
    let affinity = json!({"state": "confirmed", "deleted": false});
    cluster.store.put("/calico/ipam/v2/assignment/ipv4/block/10.9.0.32-29", &block);
    cluster.store.put("/calico/ipam/v2/host/n1/ipv4/block/10.9.0.32-29", &affinity);
    for holder in &holders {
        let handle = holder["handle_id"].as_str().expect("a handle");
        let counts = json!({"block": {"10.9.0.32/29": 1}, "deleted": false});
        cluster.store.put(&format!("/calico/ipam/v2/handle/{handle}"), &counts);
    }
}

#[test]
fn what_calico_2_assigned_goes_with_its_container() {
    for cluster in busy() {
        with_calico_2(&cluster);
        let before = cluster.store.entries();
        let del = |id: &str, pod: &str| {
            let arguments = match pod.split_once('.') {
                Some((namespace, name)) => {
                    format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}")
                }
                None => String::new(),
            };
            let call = call(&cluster, "n1", Families::V4, id).with("CNI_ARGS", &arguments);
            call.delete(&cluster.node);
        };
        // Another container, the tunnel's handle as an id, and another node's pod.
        del("c0ffee1", "");
        del("ipip-tunnel-addr-n9", "");
        del("feed", "bank.till");
        assert_eq!(before, cluster.store.entries());
        let check = || cluster.weirctl(&["ipam", "check"]).stdout;
        assert!(check().contains("2 addresses whose entries name no node"), "{}", check());
        let gc = call(&cluster, "n1", Families::V4, "");
        let gc = gc.configure("/cniVersion", "1.1.0".into());
        let gc = gc.configure("/cni.dev~1valid-attachments", json!([]));
        let logged = gc.configure("/log_level", "info".into()).run(&cluster.node, "GC").stderr;
        assert!(logged.contains("not judged: Calico assigned them"), "{logged}");
        // Twice, as runtimes do.
        for _ in 0..2 {
            del("c0ffee", "");
            del("feed", "shop.cart");
        }
        let after = cluster.store.entries();
        assert_consistent(&after);
        for handle in ["c0ffee", "shop.cart"] {
            assert!(!after.contains_key(&format!("/calico/ipam/v2/handle/{handle}")), "{handle}");
        }
        for handle in ["bank.till", "ipip-tunnel-addr-n9"] {
            assert!(after.contains_key(&format!("/calico/ipam/v2/handle/{handle}")), "{handle}");
        }
        assert!(!check().contains("name no node"), "{}", check());
    }
}

/// A block as a newer Calico leaves it: its first address cools down, its second one has.
#[test]
fn what_cools_down_is_passed_over_and_newer_fields_stay() {
    let now = Timestamp::now();
    let cold = |seconds: i64| {
        let at = now - SignedDuration::from_secs(seconds);
        json!({"handle_id": null, "secondary": {"node": "n1"}, "releasedAt": at.to_string()})
    };
    for cluster in busy() {
        let key = "/calico/ipam/v2/assignment/ipv4/block/10.9.0.32-29";
        let block = json!({
            "cidr": "10.9.0.32/29", "affinity": "host:n1",
            "affinity_claim_time": "2026-11-23T03:00:00Z",
            "allocations": [0, 1, null, null, null, null, null, null],
            "unallocated": [2, 3, 4, 5, 6, 7], "attributes": [cold(60), cold(1000)],
        });
        let affinity = json!({"state": "confirmed", "deleted": false});
        cluster.store.put(key, &block);
        cluster.store.put("/calico/ipam/v2/host/n1/ipv4/block/10.9.0.32-29", &affinity);
        let config = json!({"auto_allocate_blocks": true, "ipCooldownSeconds": 900});
        cluster.store.put("/calico/ipam/v2/config", &config);
        let ask = |id: &str, address: &str| {
            let call = call(&cluster, "n1", Families::V4, id);
            call.with("CNI_ARGS", &format!("IP={address}"))
        };
        let refused = ask("a", "10.9.0.32").run(&cluster.node, "ADD");
        refused.failure().expect(102, &["10.9.0.32", "cools down"]);
        assert_eq!(address(&ask("b", "10.9.0.33").add(&cluster.node), 0), "10.9.0.33/32");
        ask("b", "10.9.0.33").delete(&cluster.node);
        let after: Value = serde_json::from_str(&cluster.store.entries()[key]).expect("JSON");
        assert_eq!(after["affinity_claim_time"], block["affinity_claim_time"]);
        assert_eq!(after["attributes"], json!([cold(60)]));
        let shown = cluster.weirctl(&["ipam", "show", "--ip=10.9.0.32"]).stdout;
        assert!(shown.contains("is cooling down: it was released at"), "{shown}");
        let checked = cluster.weirctl(&["ipam", "check"]);
        assert!(checked.succeeded && checked.stdout.contains("Cooling down: 1 "), "{checked:?}");
    }
}
