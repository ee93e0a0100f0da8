//! Every kind of damage is found and mended, alone and with the others; what is
//! in use stays; and what is no damage is not called so.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;
use support::stores::*;
use support::*;
use weir_common::audit::{AuditContext, DamageKind, Finding, ThisNode, audit};
use weir_common::datastore::{Datastore, Outcome, keys};
use weir_common::ipam::{Family, IpamSnapshot};
use weir_common::node::{LocalFacts, ensure_tunnel_address};
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const V4: &[Family] = &[Family::V4];

/// Damage of one kind, planted in a healthy store.
struct Plant {
    kind: DamageKind,
    name: &'static str,
    /// Addresses that nobody uses, which a repair releases.
    dead: &'static [&'static str],
}

const fn plant(kind: DamageKind, name: &'static str) -> Plant {
    Plant { kind, name, dead: &[] }
}

const PLANTS: &[Plant] = &[
    Plant {
        dead: &["10.1.0.251"],
        ..plant(DamageKind::AddressWithoutAttachment, "gone container")
    },
    plant(DamageKind::AttachmentWithoutAddress, "container unknown to the store"),
    plant(DamageKind::HandleWithoutAddress, "handle of nothing"),
    plant(DamageKind::AddressWithoutHandle, "handle lost"),
    plant(DamageKind::HandleCount, "handle counts too many"),
    plant(DamageKind::HandleCount, "handle forgets a family"),
    plant(DamageKind::AffinityWithoutBlock, "affinity to nothing"),
    plant(DamageKind::BlockAffinity, "affinity lost"),
    plant(DamageKind::BlockAffinity, "affinity of another host"),
    plant(DamageKind::BlockAffinity, "affinity to nobody's block"),
    plant(DamageKind::AffinityUnsettled, "claim before its block"),
    plant(DamageKind::AffinityUnsettled, "claim of a block in use"),
    plant(DamageKind::AffinityUnsettled, "release of an empty block"),
    plant(DamageKind::AffinityUnsettled, "release of a block in use"),
    plant(DamageKind::BlockWithoutPool, "block without a pool"),
    plant(DamageKind::BlockMisfit, "block around another"),
    plant(DamageKind::BlockMisfit, "block of another size"),
    plant(DamageKind::BlockUnsound, "ordinal both"),
    plant(DamageKind::BlockUnsound, "ordinal neither"),
    plant(DamageKind::BlockUnsound, "ordinal free twice"),
    Plant {
        dead: &["10.1.0.241"],
        ..plant(DamageKind::HostGone, "host with a block and an address")
    },
];

async fn damage(name: &str, store: &Memory, here: &mut ThisNode) {
    match name {
        "gone container" => held_block(store, "10.1.0.248/29", "n1", "net.gone", "n1"),
        "container unknown to the store" => {
            here.attachments.push(attached("unknown", "eth0", &[ip("10.0.0.235")]));
        }
        "handle of nothing" => {
            put(store, keys::handle("net.nothing"), json!({"block": {"10.0.0.0/29": 1}}));
        }
        "handle lost" => delete(store, keys::handle("net.n1-a")).await,
        "handle counts too many" => edit(store, keys::handle("net.n2-a"), |handle| {
            let block = block_of_container(store, "n2-a").cidr.to_string();
            handle["block"][block] = json!(3);
        }),
        "handle forgets a family" => edit(store, keys::handle("net.n2-b"), |handle| {
            handle["block"] = json!({block_of_container(store, "n2-b").cidr.to_string(): 1});
        }),
        "ordinal both" => edit(store, block_key(store, "n1-a"), |block| {
            block["unallocated"].as_array_mut().unwrap().insert(0, json!(0));
        }),
        "ordinal neither" => edit(store, block_key(store, "n1-a"), |block| {
            block["unallocated"].as_array_mut().unwrap().pop();
        }),
        "ordinal free twice" => edit(store, block_key(store, "n2-a"), |block| {
            block["unallocated"].as_array_mut().unwrap().push(json!(7));
        }),
        "host with a block and an address" => {
            held_block(store, "10.1.0.240/29", "n9", "net.far", "n9");
            affinity(store, "n9", "10.1.0.224/29", "pending");
        }
        _ => damage_block(name, store).await,
    }
}

async fn damage_block(name: &str, store: &Memory) {
    let of_n1 = block_of_container(store, "n1-a").cidr.to_string();
    let of_n2 = block_of_container(store, "n2-a").cidr;
    match name {
        "affinity to nothing" => affinity(store, "n1", "10.1.0.224/29", "confirmed"),
        "affinity lost" => delete(store, keys::affinity("n2", of_n2)).await,
        "affinity of another host" => affinity(store, "n2", &of_n1, "confirmed"),
        "affinity to nobody's block" => affinity(store, "n2", "10.1.0.64/29", "confirmed"),
        "claim before its block" => affinity(store, "n2", "10.1.0.216/29", "pending"),
        "claim of a block in use" => affinity(store, "n1", &of_n1, "pending"),
        "release of an empty block" => {
            empty_block(store, "10.1.0.208/29", "n2");
            affinity(store, "n2", "10.1.0.208/29", "pendingDeletion");
        }
        "release of a block in use" => {
            affinity(store, "n1", "10.1.0.0/29", "pendingDeletion");
        }
        "block without a pool" => empty_block(store, "10.9.0.0/29", "n1"),
        "block around another" => empty_block(store, "10.1.0.0/28", "n2"),
        "block of another size" => empty_block(store, "10.1.0.128/30", "n2"),
        other => panic!("no damage is called {other:?}"),
    }
}

/// What was in use and lives is in use as before, and nothing else but what
/// `added` names.
fn assert_untouched(before: &Memory, after: &Memory, dead: &BTreeSet<IpAddr>) {
    let mut expected = in_use(before);
    expected.retain(|address, _| !dead.contains(address));
    let mut found = in_use(after);
    found.retain(|address, _| *address != ip("10.0.0.235"));
    assert_eq!(found, expected);
}

fn copy(store: &Memory) -> Memory {
    let copy = Memory::new();
    copy.seed(store.dump());
    copy
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_damaged() {
    let (store, here) = healthy().await;
    assert_eq!(check(&store, Some(&here)).await, []);
    assert_eq!(check(&store, None).await, []);
}

#[tokio::test]
async fn each_kind_is_found_and_mended() {
    for plant in PLANTS {
        let (store, mut here) = healthy().await;
        damage(plant.name, &store, &mut here).await;
        let before = copy(&store);
        assert_eq!(kinds(&check_in(&store, &at_n1(&here)).await), [plant.kind], "{}", plant.name);
        let left = repair_in(&store, &at_n1(&here)).await;
        assert_eq!(left, [], "{}", plant.name);
        assert_eq!(check_in(&store, &at_n1(&here)).await, [], "{}", plant.name);
        assert_untouched(&before, &store, &plant.dead.iter().map(|it| ip(it)).collect());
    }
}

#[tokio::test]
async fn all_kinds_together_are_found_and_mended() {
    let (store, mut here) = healthy().await;
    // Of the last two of a kind one undoes the other; each was tried alone.
    for plant in PLANTS {
        damage(plant.name, &store, &mut here).await;
    }
    let before = copy(&store);
    assert_eq!(kinds(&check_in(&store, &at_n1(&here)).await), DamageKind::ALL[..12]);
    assert_eq!(repair_in(&store, &at_n1(&here)).await, []);
    assert_eq!(check_in(&store, &at_n1(&here)).await, []);
    let dead = PLANTS.iter().flat_map(|plant| plant.dead).map(|it| ip(it)).collect();
    assert_untouched(&before, &store, &dead);
}

#[tokio::test]
async fn a_repair_that_is_interrupted_or_overtaken_harms_nothing() {
    for fault in [CommitFault::Conflict, CommitFault::CrashBefore, CommitFault::CrashAfter] {
        for nth in 1..24 {
            let (store, mut here) = healthy().await;
            for plant in PLANTS {
                damage(plant.name, &store, &mut here).await;
            }
            let before = copy(&store);
            let process = store.another_process();
            process.fail_commit(nth, fault);
            let _ = repair_once(&process, &at_n1(&here)).await;
            assert_eq!(repair_in(&store, &at_n1(&here)).await, [], "{fault:?} {nth}");
            let dead = PLANTS.iter().flat_map(|plant| plant.dead).map(|it| ip(it)).collect();
            assert_untouched(&before, &store, &dead);
        }
    }
}

#[tokio::test]
async fn an_add_in_progress_is_no_leak() {
    let (store, here) = healthy().await;
    assign(&store, &request("n1", "coming", V4)).await.unwrap();
    let snapshot = IpamSnapshot::list(&store).await.unwrap();
    let at = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    let found = |seconds| audit(&snapshot, &AuditContext::new(Some(&here), at(seconds)));
    assert_eq!(found(59), []);
    assert_eq!(kinds(&found(60)), [DamageKind::AddressWithoutAttachment]);
}

#[tokio::test]
async fn another_interface_of_a_container_is_another_attachment() {
    let (store, mut here) = healthy().await;
    here.attachments[0] = attached("n1-a", "eth1", &[]);
    assert_eq!(
        kinds(&check(&store, Some(&here)).await),
        [DamageKind::AddressWithoutAttachment, DamageKind::AttachmentWithoutAddress]
    );
}

#[tokio::test]
async fn networks_that_weir_does_not_wire_are_left_alone() {
    let (store, mut here) = healthy().await;
    here.networks.clear();
    here.attachments.clear();
    assert_eq!(check(&store, Some(&here)).await, []);
    here.attachments.push(attached("elsewhere", "eth0", &[ip("10.0.0.250")]));
    here.other_networks.insert("net".to_owned());
    assert_eq!(check(&store, Some(&here)).await, []);
}

#[tokio::test]
async fn nothing_is_mended_once_the_datastore_is_being_moved() {
    let (store, mut here) = healthy().await;
    for plant in PLANTS.iter().filter(|plant| plant.kind != DamageKind::AttachmentWithoutAddress) {
        damage(plant.name, &store, &mut here).await;
    }
    let transactions = plans(&store, &at_n1(&here)).await;
    let moved = json!({"spec": {"datastoreReady": false}});
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), moved);
    for transaction in transactions {
        assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
    }
}

#[tokio::test]
async fn what_is_in_use_is_reported_and_left_alone() {
    let (store, here) = healthy().await;
    held_block(&store, "10.9.0.0/29", "n2", "net.outside", "n2");
    held_block(&store, "10.1.0.192/28", "n2", "net.wide", "n2");
    edit(&store, keys::block(cidr("10.9.0.0/29")), |block| {
        let holder = json!({"handle_id": null, "secondary": {"node": "n2"}});
        block["attributes"].as_array_mut().unwrap().push(holder);
        block["allocations"][5] = json!(1);
        block["unallocated"] = json!([0, 1, 2, 4, 6, 7]);
    });
    store.seed([(keys::block(cidr("10.1.0.128/29")), b"{}".to_vec())]);
    affinity(&store, "n2", "10.1.0.128/29", "confirmed");
    let before = store.dump();
    let left = repair(&store, Some(&here)).await;
    let expected = [
        DamageKind::AddressWithoutHandle,
        DamageKind::BlockWithoutPool,
        DamageKind::BlockMisfit,
        DamageKind::Unreadable,
    ];
    assert_eq!(kinds(&left).into_iter().collect::<BTreeSet<_>>(), expected.into());
    assert!(left.iter().all(|finding| finding.obstacle.is_some()));
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn an_unreadable_pool_makes_no_block_homeless() {
    let (store, here) = healthy().await;
    store.seed([(keys::pool("blue"), b"{".to_vec())]);
    let found = check(&store, Some(&here)).await;
    assert_eq!(kinds(&found), [DamageKind::Unreadable]);
}

#[tokio::test]
async fn an_address_that_another_has_is_not_recorded_twice() {
    let (store, mut here) = healthy().await;
    let taken = *in_use(&store).keys().next().unwrap();
    here.attachments.push(attached("twin", "eth0", &[taken]));
    let before = store.dump();
    let left = repair(&store, Some(&here)).await;
    assert_eq!(kinds(&left), [DamageKind::AttachmentWithoutAddress]);
    assert_eq!(store.dump(), before);
}

/// As a restored datastore leaves it, which called the container's address free.
#[tokio::test]
async fn a_tunnel_gives_way_to_a_container_that_has_its_address() {
    let (store, mut here) = healthy().await;
    for tunnel_of in ["n1", "n2"] {
        let of_other = json!({"metadata": {"name": tunnel_of}, "spec": {"bgp": {}}});
        put(&store, keys::node(tunnel_of), of_other);
    }
    let ranges = ["10.77.0.0/28", "10.78.0.0/28", "fd77::/120"];
    let tunnels = TunnelKind::ALL.into_iter().zip(ranges);
    for (kind, tunnel_of) in tunnels.flat_map(|(kind, range)| {
        let size = if kind.row().is_ipv6 { 126 } else { 30 };
        let spec = json!({kind.row().mode_field: "Always", "blockSize": size});
        pool(&store, kind.row().id, range, spec);
        ["n1", "n2"].map(|node| (kind, node))
    }) {
        let facts = LocalFacts::default();
        let address = ensure_tunnel_address(&store, kind, tunnel_of, &facts, now()).await.unwrap();
        let container = format!("{}-on-{tunnel_of}", kind.row().id);
        here.attachments.push(attached(&container, "eth0", &[address]));
        assert_eq!(kinds(&repair(&store, Some(&here)).await), []);
        let (handle, _) = &in_use(&store)[&address];
        assert_eq!(handle.as_deref(), Some(format!("net.{container}").as_str()));
        assert!(!store.dump().contains_key(&keys::handle(&kind.handle_of(tunnel_of))));
        let node = &store.dump()[&keys::node(tunnel_of)];
        assert!(!String::from_utf8_lossy(node).contains(&address.to_string()));
    }
}

#[tokio::test]
async fn nothing_is_mended_while_the_datastore_is_moved() {
    let (store, here) = healthy().await;
    delete(&store, keys::handle("net.n1-a")).await;
    let information = json!({"spec": {"datastoreReady": false}});
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), information);
    let refused = repair_once(&store, &at_n1(&here)).await;
    assert!(matches!(refused, Err(weir_common::ipam::Error::NotReady)));
}

#[tokio::test]
async fn what_is_in_motion_is_no_damage() {
    let (store, _) = healthy().await;
    let local = tokio::task::LocalSet::new();
    for worker in 0..6 {
        let store = store.another_process();
        local.spawn_local(async move {
            for round in 0..20 {
                let request = request("n2", &format!("w{worker}-{}", round % 3), V4);
                assign(&store, &request).await.unwrap();
                let release = weir_common::ipam::engine::release;
                release(&store, &request.assignee, &Default::default()).await.unwrap();
            }
        });
    }
    let watched = store.another_process();
    let audits = async {
        for _ in 0..30 {
            let found: Vec<Finding> = check(&watched, None).await;
            assert_eq!(found, []);
        }
    };
    local.run_until(audits).await;
    local.await;
}

/// The wording of every finding, as `weirctl ipam check` prints it.
#[tokio::test]
async fn findings_say_what_is_wrong_and_what_a_repair_does() {
    let (store, mut here) = healthy().await;
    for plant in PLANTS {
        damage(plant.name, &store, &mut here).await;
    }
    let found = check_in(&store, &at_n1(&here)).await;
    let line = |it: &Finding| format!("{}: {}; repair: {}\n", it.kind, it.problem, it.remedy);
    let lines: String = found.iter().map(line).collect();
    assert_eq!(lines, include_str!("golden/findings.txt"));
}
