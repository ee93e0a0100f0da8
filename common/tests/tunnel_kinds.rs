//! The tunnel addresses of a node, of each kind and of several at once, against a store in memory.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};
use support::*;
use weir_common::audit::release_one::{self, SeenAddress, look_up};
use weir_common::datastore::keys;
use weir_common::ipam::{Attribute, Error as IpamError, Family};
use weir_common::network::{has_settled_tunnel, needs_tunnel};
use weir_common::node::{
    Error, LocalFacts, TUNNEL_HANDLES, TunnelOutcome, ensure_tunnel_address, is_tunnel_address,
    reconcile_tunnel_address, release_tunnel_address,
};
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;

use TunnelKind::{Ipip, Vxlan, VxlanV6};

/// Two nodes with addresses of both families, and a pool of each kind, which it is named after.
fn cluster() -> Memory {
    let store = Memory::new();
    for (number, zone) in [(1, "a"), (2, "b")] {
        let node = json!({
            "kind": "Node", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": format!("n{number}"), "labels": {"zone": zone}},
            "spec": {"bgp": {"ipv4Address": format!("172.16.{number}.1/24"),
                "ipv6Address": format!("fd01:{number}::1/64")},
                "vxlanTunnelMACAddr": "02:00:00:00:00:07", "newer": {"x": 1}},
        });
        put(&store, keys::node(&format!("n{number}")), node);
    }
    TunnelKind::ALL.into_iter().for_each(|kind| pool_of(&store, kind, json!({})));
    store
}

fn range_of(kind: TunnelKind) -> &'static str {
    match kind {
        Ipip => "10.0.0.0/28",
        Vxlan => "10.1.0.0/28",
        VxlanV6 => "fd00::/120",
    }
}

fn pool_of(store: &Memory, kind: TunnelKind, spec: Value) {
    let size = if kind.row().is_ipv6 { 126 } else { 30 };
    let mut full = json!({kind.row().mode_field: "Always", "blockSize": size});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pool(store, kind.row().id, range_of(kind), full);
}

async fn ensure(store: &Memory, kind: TunnelKind, node: &str) -> Result<IpAddr, Error> {
    ensure_tunnel_address(store, kind, node, &LocalFacts::default(), now()).await
}

async fn reconcile(store: &Memory, kind: TunnelKind, is_still_used: bool) -> TunnelOutcome {
    let (inventory, facts) = (inventory(store), LocalFacts::default());
    let outcome =
        reconcile_tunnel_address(store, kind, "n1", is_still_used, &inventory, &facts, now());
    let outcome = outcome.await.unwrap();
    assert_consistent(store);
    outcome
}

#[tokio::test]
async fn an_address_of_each_kind_is_stored_as_calico_does() {
    let expected = [
        (Ipip, "ipip-tunnel-addr-n1", "ipipTunnelAddress", "/bgp/ipv4IPIPTunnelAddr"),
        (Vxlan, "vxlan-tunnel-addr-n1", "vxlanTunnelAddress", "/ipv4VXLANTunnelAddr"),
        (VxlanV6, "vxlan-v6-tunnel-addr-n1", "vxlanV6TunnelAddress", "/ipv6VXLANTunnelAddr"),
    ];
    for (kind, handle, its_type, field) in expected {
        let store = cluster();
        let before = spec(&store, "n1");
        let address = ensure(&store, kind, "n1").await.unwrap();
        assert!(range_of(kind).parse::<ipnet::IpNet>().unwrap().contains(&address), "{address}");
        let block = blocks(&store).remove(0);
        let holder = block.holder(block.ordinal(address).unwrap()).unwrap();
        assert_eq!(holder.handle_id.as_deref(), Some(handle));
        assert_eq!((holder.fact("node"), holder.fact("type")), (Some("n1"), Some(its_type)));
        assert!(is_tunnel_address(holder) && holder.fact("timestamp").is_some());
        assert_eq!(holder.secondary.as_ref().unwrap().len(), 3);
        assert!(store.dump().contains_key(&keys::handle(handle)));
        // The Node has that field more, and all else as before.
        let with = spec(&store, "n1");
        assert_eq!(with.pointer(field), Some(&json!(address.to_string())), "{with}");
        assert_eq!(inventory(&store).nodes["n1"].tunnels, BTreeMap::from([(kind, address)]));
        assert_eq!(ensure(&store, kind, "n1").await.unwrap(), address, "a second time");
        let released = release_tunnel_address(&store, kind, "n1", None).await.unwrap();
        assert_eq!(released, Some(address));
        assert_eq!(spec(&store, "n1"), before);
        assert_consistent(&store);
        let (parent, name) = field.rsplit_once('/').unwrap();
        let mut without = with.clone();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
        assert_eq!(without, before, "nothing else is written");
    }
}

#[tokio::test]
async fn a_node_may_have_addresses_of_all_kinds_and_loses_one_alone() {
    let store = cluster();
    let mut addresses = BTreeMap::new();
    for kind in TunnelKind::ALL {
        addresses.insert(kind, ensure(&store, kind, "n1").await.unwrap());
        assert_eq!(inventory(&store).nodes["n1"].tunnels, addresses);
    }
    let all = addresses.values().copied().collect::<BTreeSet<_>>();
    assert_eq!(allocations(&store).into_keys().collect::<BTreeSet<_>>(), all);
    for kind in [Vxlan, VxlanV6, Ipip] {
        let released = release_tunnel_address(&store, kind, "n1", None).await.unwrap();
        assert_eq!(released, addresses.remove(&kind));
        assert_eq!(inventory(&store).nodes["n1"].tunnels, addresses, "{kind}");
        assert_consistent(&store);
    }
    assert_eq!(allocations(&store), BTreeMap::new());
}

/// While other nodes cannot be reached as the pools ask now, it goes on by the old tunnel, and
/// keeps its address.
#[tokio::test]
async fn an_address_is_given_back_once_nothing_goes_by_the_tunnel() {
    for kind in TunnelKind::ALL {
        let store = cluster();
        let TunnelOutcome::Taken(address) = reconcile(&store, kind, false).await else {
            panic!("{kind}");
        };
        assert!(matches!(reconcile(&store, kind, false).await, TunnelOutcome::Unchanged));
        assert!(has_settled_tunnel(kind, "n1", &inventory(&store)));
        pool_of(&store, kind, json!({kind.row().mode_field: "Never"}));
        let state = inventory(&store);
        assert!(!needs_tunnel(kind, "n1", &state) && !has_settled_tunnel(kind, "n1", &state));
        let before = store.dump();
        assert!(matches!(reconcile(&store, kind, true).await, TunnelOutcome::Unchanged));
        assert_eq!(store.dump(), before);
        assert!(matches!(reconcile(&store, kind, false).await, TunnelOutcome::Released));
        assert!(!allocations(&store).contains_key(&address));
        assert!(has_settled_tunnel(kind, "n1", &inventory(&store)));
        assert!(matches!(reconcile(&store, kind, false).await, TunnelOutcome::Unchanged));
    }
}

/// A pool's mode goes from one to the other: its node has both addresses for a while.
#[tokio::test]
async fn a_switch_takes_the_new_address_before_the_old_one_goes() {
    let store = cluster();
    ensure(&store, Ipip, "n1").await.unwrap();
    pool_of(&store, Ipip, json!({"ipipMode": "Never", "vxlanMode": "Always"}));
    pool_of(&store, Vxlan, json!({"vxlanMode": "Never"}));
    assert!(matches!(reconcile(&store, Vxlan, false).await, TunnelOutcome::Taken(_)));
    assert!(matches!(reconcile(&store, Ipip, true).await, TunnelOutcome::Unchanged));
    let both = inventory(&store).nodes["n1"].tunnels.clone();
    assert_eq!(both.keys().copied().collect::<Vec<_>>(), [Ipip, Vxlan]);
    assert_ne!(both[&Ipip], both[&Vxlan]);
    assert!(matches!(reconcile(&store, Ipip, false).await, TunnelOutcome::Released));
    assert_eq!(inventory(&store).nodes["n1"].tunnels, [(Vxlan, both[&Vxlan])].into());
}

#[tokio::test]
async fn a_pool_without_the_use_tunnel_gives_none_and_nothing_flaps() {
    for kind in [Vxlan, VxlanV6] {
        let store = cluster();
        pool_of(&store, kind, json!({"allowedUses": ["Workload"]}));
        let before = store.dump();
        for _ in 0..2 {
            let TunnelOutcome::Unavailable(error) = reconcile(&store, kind, false).await else {
                panic!("{kind}");
            };
            let text = error.to_string();
            let kind_of_tunnel = format!("for its {kind} tunnel and no pool with vxlanMode");
            assert!(text.contains(&kind_of_tunnel), "{text}");
            let why = format!("pool {} is not allowed for tunnels (allowedUses)", kind.row().id);
            assert!(text.contains(&why), "{text}");
            assert_eq!(store.dump(), before);
        }
        // A pool of another kind gives it none, either.
        assert!(ensure(&store, Ipip, "n1").await.is_ok());
    }
}

/// As `weirctl ipam release` does it.
#[tokio::test]
async fn who_releases_a_tunnels_address_takes_it_out_of_its_field_alone() {
    for released in TunnelKind::ALL {
        let store = cluster();
        for kind in TunnelKind::ALL {
            ensure(&store, kind, "n1").await.unwrap();
            ensure(&store, kind, "n2").await.unwrap();
        }
        let mut before = inventory(&store);
        let address = before.nodes["n1"].tunnels[&released];
        let found = look_up(&store, address).await.unwrap().unwrap();
        release_one::release(&store, &SeenAddress::from(&found)).await.unwrap();
        before.nodes.get_mut("n1").unwrap().tunnels.remove(&released);
        assert_eq!(inventory(&store).nodes, before.nodes, "{released}");
        assert!(!allocations(&store).contains_key(&address));
        assert_consistent(&store);
    }
}

#[tokio::test]
async fn the_devices_address_is_taken_again_when_the_datastore_has_forgotten_it() {
    for (kind, had) in [(Ipip, "10.0.0.9"), (Vxlan, "10.1.0.9"), (VxlanV6, "fd00::9")] {
        let store = cluster();
        let had: IpAddr = had.parse().unwrap();
        let facts = LocalFacts {
            tunnels: TunnelKind::ALL.into_iter().map(|it| (it, [had].into())).collect(),
            is_holding: true,
            ..LocalFacts::default()
        };
        let mut state = inventory(&store);
        facts.keep_tunnel_addresses("n1", &mut state);
        assert_eq!(state.nodes["n1"].tunnels, [(kind, had)].into(), "of no pool of other kinds");
        let ensured = ensure_tunnel_address(&store, kind, "n1", &facts, now()).await.unwrap();
        assert_eq!(ensured, had);
        // A container has it by now.
        let facts = LocalFacts { containers: [had].into(), ..facts };
        let mut state = inventory(&cluster());
        facts.keep_tunnel_addresses("n1", &mut state);
        assert_eq!(state.nodes["n1"].tunnels, BTreeMap::new());
        let refused = ensure_tunnel_address(&store, kind, "n1", &facts, now()).await.unwrap_err();
        assert!(matches!(refused, Error::NothingNew { .. }), "{refused}");
    }
}

/// Handles of one kind begin with those of no other, and a container's may begin alike.
#[test]
fn handle_and_type_together_tell_a_tunnels_address() {
    let holder = |handle: &str, its_type: Option<&str>| Attribute {
        handle_id: Some(handle.to_owned()),
        secondary: its_type.map(|it| BTreeMap::from([("type".to_owned(), it.to_owned())])),
        ..Attribute::default()
    };
    for kind in TunnelKind::ALL {
        let handle = kind.handle_of("v6-tunnel-addr-n1");
        assert_eq!(TunnelKind::of_handle(&handle), Some((kind, "v6-tunnel-addr-n1")));
        assert!(TUNNEL_HANDLES.iter().any(|it| handle.starts_with(it)));
        for other in TunnelKind::ALL {
            let its_type = other.row().attribute_type;
            let holder = holder(&handle, Some(its_type));
            assert_eq!(is_tunnel_address(&holder), kind == other, "{handle} {its_type}");
        }
        assert!(!is_tunnel_address(&holder(&handle, None)), "a container's");
        let container = holder("net.c1", Some(kind.row().attribute_type));
        assert!(!is_tunnel_address(&container));
    }
    let prefixes = TUNNEL_HANDLES.iter().collect::<BTreeSet<_>>();
    assert_eq!(prefixes.len(), TUNNEL_HANDLES.len());
}

/// A tunnel for IPv6 takes no address of an IPv4 pool, and is told what there is.
#[tokio::test]
async fn the_pools_of_the_kind_alone_count() {
    let store = cluster();
    pool_of(&store, VxlanV6, json!({"vxlanMode": "Never"}));
    let error = ensure(&store, VxlanV6, "n1").await.unwrap_err();
    assert!(matches!(&error, Error::NoTunnelPool { passed_over, .. } if passed_over.is_empty()));
    // Full ones are named as such.
    let other = request("n2", "c", &[Family::V4]);
    pool_of(&store, Ipip, json!({"disabled": true}));
    for number in 0..16 {
        let mut one = other.clone();
        one.assignee.handle_id = format!("net.c{number}");
        assign(&store, &one).await.unwrap();
    }
    let error = ensure(&store, Vxlan, "n1").await.unwrap_err();
    assert!(matches!(error, Error::Ipam(IpamError::Exhausted { .. })), "{error}");
}
