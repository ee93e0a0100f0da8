//! What a node writes about itself, against a store in memory.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;
use weir_common::audit::release_one::{self, SeenAddress, look_up};
use weir_common::datastore::keys;
use weir_common::ipam::{Family, MachineId, PassedOver};
use weir_common::node::{
    Error, LocalFacts, NodeAddresses, ensure_tunnel_address, register, release_tunnel_address,
};
use weir_common::resources::{AllowedUse, Birth};
use weir_common::tunnel::TunnelKind::{self, Ipip, Vxlan};
use weir_datastore::Memory;
use weir_datastore::memory::{CommitFault, MemoryCall};

fn birth() -> Birth {
    Birth { uid: "uid-1".to_owned(), timestamp: "2026-11-23T03:40:20Z".to_owned() }
}

fn v4(address: &str) -> NodeAddresses {
    NodeAddresses { ipv4: Some(address.parse().unwrap()), ipv6: None }
}

fn stored(store: &Memory, node: &str) -> Value {
    serde_json::from_slice(&store.dump()[&keys::node(node)]).unwrap()
}

/// What the Node says its tunnel address is.
fn noted(store: &Memory, kind: TunnelKind, node: &str) -> Option<String> {
    let path = kind.row().address_field.join("/");
    Some(stored(store, node)["spec"].pointer(&format!("/{path}"))?.as_str()?.to_owned())
}

/// The addresses in use under the handle of the node's tunnel.
fn allocated(store: &Memory, kind: TunnelKind, node: &str) -> Vec<String> {
    let of_node = |(_, handle): &(_, String)| *handle == kind.handle_of(node);
    let all = allocations(store).into_iter().filter(of_node);
    all.map(|(address, _)| address.to_string()).collect()
}

async fn ensure(store: &Memory, node: &str) -> Result<IpAddr, Error> {
    ensure_as(store, node, &LocalFacts::default()).await
}

async fn ensure_as(store: &Memory, node: &str, facts: &LocalFacts) -> Result<IpAddr, Error> {
    let ensured = ensure_tunnel_address(store, Ipip, node, facts, now()).await;
    if let Ok(address) = &ensured {
        assert_eq!(noted(store, Ipip, node).as_deref(), Some(address.to_string().as_str()));
        assert_eq!(allocated(store, Ipip, node), [address.to_string()]);
    }
    assert_consistent(store);
    ensured
}

/// A registered node and an IPIP pool of 16 addresses.
async fn tunnelling() -> Memory {
    let store = Memory::new();
    ipip(&store, "ten", json!({}));
    register(&store, "n1", v4("172.16.1.11/24"), Some(&birth()), None).await.unwrap();
    store
}

fn ipip(store: &Memory, name: &str, spec: Value) {
    let mut full = json!({"ipipMode": "Always", "blockSize": 30});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let cidr = if name == "ten" { "10.0.0.0/28" } else { "10.1.0.0/28" };
    pool(store, name, cidr, full);
}

#[tokio::test]
async fn a_node_is_registered_as_calico_stores_it() {
    let store = Memory::new();
    let both = NodeAddresses {
        ipv4: Some("172.16.1.11/24".parse().unwrap()),
        ipv6: Some("2001:db8::1/64".parse().unwrap()),
    };
    assert!(register(&store, "n1", both, Some(&birth()), None).await.unwrap());
    let text = String::from_utf8(store.dump()[&keys::node("n1")].clone()).unwrap();
    assert_eq!(
        text,
        r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","uid":"uid-1","creationTimestamp":"2026-11-23T03:40:20Z"},"spec":{"bgp":{"ipv4Address":"172.16.1.11/24","ipv6Address":"2001:db8::1/64"}},"status":{}}"#
    );
    let before = store.dump();
    assert!(!register(&store, "n1", both, Some(&birth()), None).await.unwrap());
    assert!(!register(&store, "n1", NodeAddresses::default(), Some(&birth()), None).await.unwrap());
    assert_eq!(store.dump(), before);
}

/// Another program may delete it between a look at it and the write that follows.
#[tokio::test]
async fn a_node_that_was_deleted_is_not_brought_back_by_a_change() {
    let store = Memory::new();
    let own = Some(&MachineId::from_source("first"));
    assert!(!register(&store, "n1", v4("172.16.1.11/24"), None, own).await.unwrap());
    assert!(store.dump().is_empty(), "{:?}", store.dump());
}

#[tokio::test]
async fn a_registered_node_keeps_all_but_its_addresses() {
    let store = Memory::new();
    let mut node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1", "uid": "u", "labels": {"zone": "a"}, "generation": 3},
        "spec": {
            "bgp": {"asNumber": 64513, "ipv4Address": "172.16.1.11", "ipv6Address": "2001:DB8::1/64",
                "ipv4IPIPTunnelAddr": "10.0.0.1", "later": true},
            "orchRefs": [{"nodeName": "n1", "orchestrator": "k8s"}], "newer": {"x": 1},
        },
        "status": {"podCIDRs": ["10.9.0.0/24"]},
    });
    put(&store, keys::node("n1"), node.clone());
    let addresses = NodeAddresses {
        ipv4: Some("172.16.1.11/24".parse().unwrap()),
        ipv6: Some("2001:db8::1/64".parse().unwrap()),
    };
    assert!(register(&store, "n1", addresses, Some(&birth()), None).await.unwrap());
    // The IPv6 address is only written in another way, and so stays.
    node["spec"]["bgp"]["ipv4Address"] = "172.16.1.11/24".into();
    assert_eq!(stored(&store, "n1"), node);
}

#[tokio::test]
async fn a_node_whose_parts_are_no_objects_is_named_and_left_alone() {
    let good = json!({"metadata": {"name": "n1"}, "spec": {"bgp": {}}});
    for part in ["/metadata", "/spec", "/spec/bgp"] {
        let store = Memory::new();
        let mut node = good.clone();
        *node.pointer_mut(part).unwrap() = json!("mine");
        put(&store, keys::node("n1"), node);
        let before = store.dump();
        let error =
            register(&store, "n1", v4("172.31.1.1/24"), Some(&birth()), None).await.unwrap_err();
        assert!(error.to_string().contains(&keys::node("n1")), "{error}");
        assert_eq!(store.dump(), before, "{part}");
    }
}

#[tokio::test]
async fn an_address_of_another_node_is_refused() {
    let store = recorded("busy");
    let before = store.dump();
    let error =
        register(&store, "n9", v4("172.16.1.12/20"), Some(&birth()), None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("172.16.1.12 of node n9 is that of node n2"), "{text}");
    assert!(text.contains("weirctl delete node n2"), "{text}");
    assert_eq!(store.dump(), before);
    assert!(!register(&store, "n2", v4("172.16.1.12/24"), Some(&birth()), None).await.unwrap());
    assert_eq!(store.dump(), before);
}

/// Another node registers the address between what a node reads and what it writes.
#[tokio::test]
async fn of_two_nodes_at_once_one_gets_the_address() {
    let addresses = v4("172.16.1.11/24");
    for earlier in [None, Some("172.16.1.7/24")] {
        let store = Memory::new();
        if let Some(earlier) = earlier {
            register(&store, "n1", v4(earlier), Some(&birth()), None).await.unwrap();
        }
        let before = store.dump().get(&keys::node("n1")).cloned();
        store.before_each(MemoryCall::Commit, move |nth, other| async move {
            if nth == 1 {
                register(&other, "n2", addresses, Some(&birth()), None).await.unwrap();
            }
        });
        let error = register(&store, "n1", addresses, Some(&birth()), None).await.unwrap_err();
        assert!(matches!(&error, Error::AddressTaken { other, .. } if other == "n2"), "{error}");
        assert_eq!(store.dump().get(&keys::node("n1")), before.as_ref(), "nothing is written");
        assert_eq!(stored(&store, "n2")["spec"]["bgp"]["ipv4Address"], "172.16.1.11/24");
    }
}

#[tokio::test]
async fn nothing_is_registered_while_the_store_is_moved() {
    let store = Memory::new();
    let locked = json!({"spec": {"datastoreReady": false}});
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), locked);
    let error =
        register(&store, "n1", v4("172.16.1.11/24"), Some(&birth()), None).await.unwrap_err();
    assert!(error.to_string().contains("datastoreReady is false"), "{error}");
}

#[tokio::test]
async fn a_registration_survives_conflicts_and_is_finished_after_a_crash() {
    let store = Memory::new();
    store.fail_commit(1, CommitFault::Conflict);
    assert!(register(&store, "n1", v4("172.16.1.11/24"), Some(&birth()), None).await.unwrap());
    let dying = store.another_process();
    dying.fail_commit(1, CommitFault::CrashAfter);
    register(&dying, "n1", v4("172.16.1.12/24"), Some(&birth()), None).await.unwrap_err();
    assert!(!register(&store, "n1", v4("172.16.1.12/24"), Some(&birth()), None).await.unwrap());
    assert_eq!(stored(&store, "n1")["spec"]["bgp"]["ipv4Address"], "172.16.1.12/24");
}

#[tokio::test]
async fn a_tunnel_address_is_stored_as_calico_does() {
    let store = tunnelling().await;
    let address = ensure(&store, "n1").await.unwrap();
    let block = blocks(&store).remove(0);
    let holder = block.holder(block.ordinal(address).unwrap()).unwrap().clone();
    assert_eq!(holder.handle_id.as_deref(), Some("ipip-tunnel-addr-n1"));
    let facts: BTreeMap<&str, &str> = holder.secondary.iter().flatten().map(pair).collect();
    let expected = [
        ("node", "n1"),
        ("timestamp", "2026-11-23 03:40:17.28409748 +0000 UTC"),
        ("type", "ipipTunnelAddress"),
    ];
    assert_eq!(facts, expected.into());
}

fn pair<'a>((key, value): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (key, value)
}

#[tokio::test]
async fn a_tunnel_address_is_kept() {
    let store = tunnelling().await;
    let address = ensure(&store, "n1").await.unwrap();
    let before = store.dump();
    store.reset_counters();
    assert_eq!(ensure(&store, "n1").await.unwrap(), address);
    assert_eq!(store.dump(), before);
    assert_eq!(store.counters().commits, 0);
    let concerns_new_ones_only = [
        json!({"disabled": true}),
        json!({"nodeSelector": "zone == 'edge'"}),
        json!({
            "ipipMode": "CrossSubnet", "assignmentMode": "Manual",
        }),
    ];
    for spec in concerns_new_ones_only {
        ipip(&store, "ten", spec.clone());
        assert_eq!(ensure(&store, "n1").await.unwrap(), address, "{spec}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_stay_makes_room_for_another() {
    for spec in [json!({"ipipMode": "Never"}), json!({"allowedUses": ["Workload"]})] {
        let store = tunnelling().await;
        let old = ensure(&store, "n1").await.unwrap();
        ipip(&store, "ten", spec.clone());
        let error = ensure(&store, "n1").await.unwrap_err();
        assert!(matches!(error, Error::NoTunnelPool { .. }), "{error}");
        assert_eq!(noted(&store, Ipip, "n1"), None, "{spec}: what cannot stay is given back");
        assert_eq!(allocated(&store, Ipip, "n1"), [""; 0]);
        ipip(&store, "other", json!({"ipipMode": "CrossSubnet", "assignmentMode": "Manual"}));
        let new = ensure(&store, "n1").await.unwrap();
        assert!(new != old && cidr_contains("10.1.0.0/28", new), "{spec}: {new}");
    }
}

fn cidr_contains(cidr: &str, address: IpAddr) -> bool {
    cidr.parse::<ipnet::IpNet>().unwrap().contains(&address)
}

#[tokio::test]
async fn pools_that_give_no_tunnel_address_are_named() {
    let store = tunnelling().await;
    ipip(&store, "ten", json!({"disabled": true}));
    pool(&store, "plain", "10.2.0.0/24", json!({}));
    pool(&store, "pods", "10.3.0.0/24", json!({"ipipMode": "Always", "allowedUses": ["Workload"]}));
    pool(
        &store,
        "edge",
        "10.4.0.0/24",
        json!({
            "ipipMode": "Always", "nodeSelector": "zone == 'edge'",
        }),
    );
    let error = ensure(&store, "n1").await.unwrap_err();
    let text = error.to_string();
    let Error::NoTunnelPool { passed_over, .. } = error else { panic!("{text}") };
    let expected = [
        ("edge".to_owned(), PassedOver::NotSelected("zone == 'edge'".to_owned())),
        ("pods".to_owned(), PassedOver::NotFor(AllowedUse::Tunnel)),
        ("ten".to_owned(), PassedOver::Disabled),
    ];
    assert_eq!(passed_over, expected);
    assert!(text.contains("pool pods is not allowed for tunnels (allowedUses)"), "{text}");
    let unknown = ensure(&store, "n7").await.unwrap_err();
    assert!(matches!(unknown, Error::NotRegistered(_)), "{unknown}");
}

#[tokio::test]
async fn a_node_that_says_something_else_is_corrected() {
    let store = tunnelling().await;
    let address = ensure(&store, "n1").await.unwrap();
    for wrong in [json!("10.0.0.15"), json!(""), Value::Null] {
        let mut node = stored(&store, "n1");
        node["spec"]["bgp"]["ipv4IPIPTunnelAddr"] = wrong;
        put(&store, keys::node("n1"), node);
        assert_eq!(ensure(&store, "n1").await.unwrap(), address);
    }
    // The address that the node names may be a container's by now.
    let pod = assign(&store, &request("n1", "a", &[Family::V4])).await.unwrap()[0];
    let mut node = stored(&store, "n1");
    node["spec"]["bgp"]["ipv4IPIPTunnelAddr"] = pod.to_string().into();
    put(&store, keys::node("n1"), node);
    assert_eq!(ensure(&store, "n1").await.unwrap(), address);
}

#[tokio::test]
async fn a_released_tunnel_address_leaves_no_trace() {
    let store = tunnelling().await;
    let node = stored(&store, "n1");
    assert_eq!(release_tunnel_address(&store, Ipip, "n1", None).await.unwrap(), None);
    let address = ensure(&store, "n1").await.unwrap();
    let other = assign(&store, &request("n1", "a", &[Family::V4])).await.unwrap();
    let released = release_tunnel_address(&store, Ipip, "n1", None).await.unwrap();
    assert_eq!(released, Some(address));
    assert_eq!(stored(&store, "n1"), node);
    assert_eq!(allocations(&store).keys().copied().collect::<Vec<_>>(), other);
    assert_consistent(&store);
    // A node that has nothing but a tunnel address has an empty bgp without it.
    put(
        &store,
        keys::node("n2"),
        json!({
            "metadata": {"name": "n2"}, "spec": {"bgp": {"ipv4IPIPTunnelAddr": "10.0.0.9"}},
        }),
    );
    assert_eq!(release_tunnel_address(&store, Ipip, "n2", None).await.unwrap(), None);
    assert_eq!(stored(&store, "n2")["spec"], json!({}));
    // Without a node the address is given back all the same.
    let last = ensure(&store, "n1").await.unwrap();
    let without = Memory::new();
    without.seed(store.dump().into_iter().filter(|(key, _)| *key != keys::node("n1")));
    assert_eq!(release_tunnel_address(&without, Ipip, "n1", None).await.unwrap(), Some(last));
}

#[tokio::test]
async fn a_recorded_store_takes_tunnel_addresses_beside_what_is_there() {
    let store = recorded("seed");
    let before = store.dump();
    let address = ensure(&store, "n1").await.unwrap();
    assert!(cidr_contains("10.253.0.0/24", address) || cidr_contains("10.252.0.0/24", address));
    let disturbed = store
        .dump()
        .into_iter()
        .filter(|(key, value)| before.get(key).is_some_and(|was| was != value));
    let keys: Vec<String> = disturbed.map(|(key, _)| key).collect();
    assert!(
        keys.iter().all(|key| *key == keys::node("n1") || key.starts_with(keys::BLOCKS)),
        "{keys:?}"
    );
    release_tunnel_address(&store, Ipip, "n1", None).await.unwrap();
    assert_eq!(
        stored(&store, "n1"),
        serde_json::from_slice::<Value>(&before[&keys::node("n1")]).unwrap()
    );
}

#[tokio::test]
async fn an_address_that_is_released_meanwhile_is_not_named() {
    let store = tunnelling().await;
    let unnamed = stored(&store, "n1");
    ensure(&store, "n1").await.unwrap();
    put(&store, keys::node("n1"), unnamed);
    store.before_each(MemoryCall::Commit, |nth, other| async move {
        if nth == 1 {
            release_number(&other, Ipip, "n1").await;
        }
    });
    let address =
        ensure_tunnel_address(&store, Ipip, "n1", &LocalFacts::default(), now()).await.unwrap();
    assert_eq!(noted(&store, Ipip, "n1"), Some(address.to_string()));
    assert_eq!(allocated(&store, Ipip, "n1"), [address.to_string()]);
}

/// What a node with these addresses of its device and its containers says.
fn facts(tunnel: &[&str], containers: &[&str], is_holding: bool) -> LocalFacts {
    LocalFacts {
        tunnels: BTreeMap::from([(Ipip, tunnel.iter().map(|it| it.parse().unwrap()).collect())]),
        containers: containers.iter().map(|it| it.parse().unwrap()).collect(),
        is_holding,
        ..LocalFacts::default()
    }
}

#[tokio::test]
async fn the_address_of_the_device_is_taken_again_when_the_datastore_has_forgotten_it() {
    for is_holding in [true, false] {
        let store = tunnelling().await;
        // Of the node's own block, and of one that is not there either.
        for had in ["10.0.0.2", "10.0.0.13"] {
            let address = ensure_as(&store, "n1", &facts(&[had], &[], is_holding)).await;
            assert_eq!(address.unwrap().to_string(), had);
            release_tunnel_address(&store, Ipip, "n1", None).await.unwrap();
        }
        // What no pool has is none to keep.
        let foreign = ensure_as(&store, "n1", &facts(&["10.99.0.1"], &[], is_holding)).await;
        assert_eq!(foreign.is_ok(), !is_holding, "{foreign:?}");
    }
}

#[tokio::test]
async fn nothing_new_is_taken_of_what_a_restored_datastore_calls_free() {
    let store = tunnelling().await;
    let none = ensure_as(&store, "n1", &facts(&[], &[], true)).await.unwrap_err();
    assert!(
        matches!(none, Error::NothingNew { .. }) && none.to_string().contains("gone back in time"),
        "{none}"
    );
    assign(&store, &request("n2", "c", &[Family::V4])).await.unwrap();
    let (taken, _) = allocations(&store).into_iter().next().unwrap();
    let had = facts(&[&taken.to_string()], &[], true);
    let refused = ensure_as(&store, "n1", &had).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("{taken} is taken by")), "{refused}");
    assert_eq!((noted(&store, Ipip, "n1"), allocated(&store, Ipip, "n1").len()), (None, 0));
    // Once all is known again, another one does.
    ensure_as(&store, "n1", &LocalFacts { is_holding: false, ..had }).await.unwrap();
}

#[tokio::test]
async fn a_containers_address_is_never_the_tunnels() {
    let store = tunnelling().await;
    let first = ensure(&store, "n1").await.unwrap().to_string();
    release_tunnel_address(&store, Ipip, "n1", None).await.unwrap();
    let beside = facts(&[&first], &[&first], false);
    let second = ensure_as(&store, "n1", &beside).await.unwrap().to_string();
    assert_ne!(second, first);
    // It was given to the tunnel by mistake.
    let mistaken = facts(&[&second], &[&first, &second], false);
    let third = ensure_as(&store, "n1", &mistaken).await.unwrap().to_string();
    assert!(third != first && third != second, "{third}");
    let holding = facts(&[&third], &[&first, &second, &third], true);
    ensure_as(&store, "n1", &holding).await.unwrap_err();
    assert_eq!(
        (noted(&store, Ipip, "n1"), allocated(&store, Ipip, "n1").len()),
        (None, 0),
        "it is given back"
    );
}

#[derive(Clone, Debug)]
enum Operation {
    Ensure(TunnelKind, u8),
    Release(TunnelKind, u8),
    /// Somebody releases a node's tunnel address by its number.
    ReleaseNumber(TunnelKind, u8),
    /// A container on a node.
    Add(u8, u8),
    /// How the pools tunnel, and whether they allow tunnels.
    Change {
        ten: Option<TunnelKind>,
        other: Option<TunnelKind>,
        allowed: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = || prop::sample::select(vec![Ipip, Vxlan]);
    let mode = || prop::option::weighted(0.8, kind());
    prop_oneof![
        4 => (kind(), 0u8..3).prop_map(|(kind, node)| Operation::Ensure(kind, node)),
        2 => (kind(), 0u8..3).prop_map(|(kind, node)| Operation::Release(kind, node)),
        2 => (kind(), 0u8..3).prop_map(|(kind, node)| Operation::ReleaseNumber(kind, node)),
        2 => (0u8..3, 0u8..6).prop_map(|(node, container)| Operation::Add(node, container)),
        2 => (mode(), mode(), any::<bool>())
            .prop_map(|(ten, other, allowed)| Operation::Change { ten, other, allowed }),
    ]
}

fn fault() -> impl Strategy<Value = Option<(u64, CommitFault)>> {
    let fault = prop::sample::select(vec![
        CommitFault::Conflict,
        CommitFault::Unavailable,
        CommitFault::AnswerLost,
        CommitFault::CrashBefore,
        CommitFault::CrashAfter,
    ]);
    proptest::option::weighted(0.5, (1u64..4, fault))
}

/// As `weirctl ipam release` does it.
async fn release_number(store: &Memory, kind: TunnelKind, node: &str) {
    for address in allocated(store, kind, node) {
        if let Ok(Some(found)) = look_up(store, address.parse().unwrap()).await {
            drop(release_one::release(store, &SeenAddress::from(&found)).await);
        }
    }
}

async fn carry_out(store: &Memory, process: &Memory, operation: &Operation) {
    let name = |node: &u8| format!("n{node}");
    match operation {
        Operation::Ensure(kind, node) => {
            let facts = LocalFacts::default();
            drop(ensure_tunnel_address(process, *kind, &name(node), &facts, now()).await);
        }
        Operation::Release(kind, node) => {
            drop(release_tunnel_address(process, *kind, &name(node), None).await);
        }
        Operation::ReleaseNumber(kind, node) => release_number(process, *kind, &name(node)).await,
        Operation::Add(node, container) => {
            let request = request(&name(node), &container.to_string(), &[Family::V4]);
            drop(assign(process, &request).await);
        }
        Operation::Change { ten, other, allowed } => {
            let mode = |of_pool: &Option<TunnelKind>, kind| {
                if *of_pool == Some(kind) { "Always" } else { "Never" }
            };
            let of = |it| json!({"ipipMode": mode(it, Ipip), "vxlanMode": mode(it, Vxlan)});
            let uses = if *allowed { json!(["Workload", "Tunnel"]) } else { json!(["Workload"]) };
            let mut ten = of(ten);
            ten["allowedUses"] = uses;
            ipip(store, "ten", ten);
            ipip(store, "other", of(other));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever fails and wherever a process dies: a node names exactly the
    /// address that is allocated to its tunnel, and the next call puts right what
    /// is not as it should be.
    #[test]
    fn nodes_and_allocations_agree_after_every_crash(
        steps in prop::collection::vec((operation(), fault()), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Memory::new();
            for node in 0..3u8 {
                let addresses = v4(&format!("172.16.1.{}/24", node + 1));
                register(&store, &format!("n{node}"), addresses, Some(&birth()), None).await.unwrap();
            }
            for (operation, fault) in &steps {
                let process = store.another_process();
                if let Some((nth, fault)) = fault {
                    process.fail_commit(*nth, *fault);
                }
                carry_out(&store, &process, operation).await;
                assert_consistent(&store);
                for (kind, node) in [Ipip, Vxlan].into_iter().flat_map(|kind| {
                    ["n0", "n1", "n2"].map(|node| (kind, node))
                }) {
                    let noted: Vec<String> = noted(&store, kind, node).into_iter().collect();
                    assert_eq!(noted, allocated(&store, kind, node), "{operation:?} {fault:?}");
                }
            }
            ipip(&store, "ten", json!({}));
            ipip(&store, "other", json!({}));
            for node in ["n0", "n1", "n2"] {
                ensure(&store, node).await.unwrap();
            }
        });
    }
}
