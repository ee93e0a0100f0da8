//! Every kind of damage is found and mended, alone and with the others; what is
//! in use stays; and what is no damage is not called so.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use serde_json::json;
use support::stores::*;
use support::*;
use weir_common::datastore::{Datastore, Outcome, Transaction, keys};
use weir_common::ipam::audit::engine::{self, Repair, Repaired};
use weir_common::ipam::audit::{
    Circumstances, Evidence, Finding, Kind, Mend, ThisNode, audit, mend,
};
use weir_common::ipam::{Block, Family};
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const V4: &[Family] = &[Family::V4];

/// Damage of one kind, planted in a healthy store.
struct Plant {
    kind: Kind,
    name: &'static str,
    /// Addresses that nobody uses, which a repair releases.
    dead: &'static [&'static str],
}

const fn plant(kind: Kind, name: &'static str) -> Plant {
    Plant { kind, name, dead: &[] }
}

const PLANTS: &[Plant] = &[
    Plant { dead: &["10.1.0.251"], ..plant(Kind::AddressWithoutAttachment, "gone container") },
    plant(Kind::AttachmentWithoutAddress, "container unknown to the store"),
    plant(Kind::HandleWithoutAddress, "handle of nothing"),
    plant(Kind::AddressWithoutHandle, "handle lost"),
    plant(Kind::HandleCount, "handle counts too many"),
    plant(Kind::HandleCount, "handle forgets a family"),
    plant(Kind::AffinityWithoutBlock, "affinity to nothing"),
    plant(Kind::BlockAffinity, "affinity lost"),
    plant(Kind::BlockAffinity, "affinity of another host"),
    plant(Kind::BlockAffinity, "affinity to nobody's block"),
    plant(Kind::AffinityUnsettled, "claim before its block"),
    plant(Kind::AffinityUnsettled, "claim of a block in use"),
    plant(Kind::AffinityUnsettled, "release of an empty block"),
    plant(Kind::AffinityUnsettled, "release of a block in use"),
    plant(Kind::BlockWithoutPool, "block without a pool"),
    plant(Kind::BlockMisfit, "block around another"),
    plant(Kind::BlockMisfit, "block of another size"),
    plant(Kind::BlockUnsound, "ordinal both"),
    plant(Kind::BlockUnsound, "ordinal neither"),
    plant(Kind::BlockUnsound, "ordinal free twice"),
    Plant { dead: &["10.1.0.241"], ..plant(Kind::HostGone, "host with a block and an address") },
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

/// The host that damage leaves behind.
static GONE: LazyLock<BTreeSet<String>> = LazyLock::new(|| ["n9".to_owned()].into());

/// On the first node, where it is known that the host is gone.
fn at_n1(here: &ThisNode) -> Circumstances<'_> {
    Circumstances { gone: &GONE, ..Circumstances::new(Some(here), later()) }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn block_key(store: &Memory, container: &str) -> String {
    keys::block(block_of_container(store, container).cidr)
}

fn affinity(store: &Memory, host: &str, block: &str, state: &str) {
    put(store, keys::affinity(host, cidr(block)), json!({"state": state, "deleted": false}));
}

fn empty_block(store: &Memory, block: &str, host: &str) {
    let block = Block::new(cidr(block), host, 1);
    store.seed([(keys::block(block.cidr), block.to_json())]);
    affinity(store, host, &block.cidr.to_string(), "confirmed");
}

/// A block of `owner` whose last but few addresses one handle of `node` has.
fn held_block(store: &Memory, block: &str, owner: &str, handle: &str, node: &str) {
    empty_block(store, block, owner);
    let key = keys::block(cidr(block));
    let mut content = Block::from_json(&store.dump()[&key]).unwrap();
    let holder = json!({"handle_id": handle, "secondary": {"node": node, "interface": "eth0",
        "timestamp": "2026-11-23 03:36:01.859779804 +0000 UTC"}});
    let ordinal = if owner == "n9" { 1 } else { 3 };
    content.assign(ordinal, serde_json::from_value(holder).unwrap());
    store.seed([(key, content.to_json())]);
    put(store, keys::handle(handle), json!({"block": {block: 1}}));
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
    assert_eq!(kinds(&check_in(&store, &at_n1(&here)).await), Kind::ALL[..12]);
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
    let listing = engine::list(&store).await.unwrap().listing;
    let at = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    let found = |seconds| audit(&listing, &Circumstances::new(Some(&here), at(seconds)));
    assert_eq!(found(59), []);
    assert_eq!(kinds(&found(60)), [Kind::AddressWithoutAttachment]);
}

#[tokio::test]
async fn another_interface_of_a_container_is_another_attachment() {
    let (store, mut here) = healthy().await;
    here.attachments[0] = attached("n1-a", "eth1", &[]);
    assert_eq!(
        kinds(&check(&store, Some(&here)).await),
        [Kind::AddressWithoutAttachment, Kind::AttachmentWithoutAddress]
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
async fn without_registered_nodes_no_host_is_gone_unless_it_is_named() {
    let (store, here) = healthy().await;
    held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
    for node in ["n1", "n2"] {
        delete(&store, keys::node(node)).await;
    }
    assert_eq!(check(&store, Some(&here)).await, []);
    assert_eq!(kinds(&check_in(&store, &at_n1(&here)).await), [Kind::HostGone]);
    assert_eq!(repair_in(&store, &at_n1(&here)).await, []);
}

#[tokio::test]
async fn a_host_that_is_only_not_registered_keeps_what_it_has() {
    for registered in [true, false] {
        let (store, here) = healthy().await;
        held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
        if !registered {
            delete(&store, keys::node("n1")).await;
        }
        let before = store.dump();
        let left = repair(&store, Some(&here)).await;
        assert_eq!(kinds(&left), [Kind::HostGone]);
        assert!(left.iter().all(|it| it.obstacle().unwrap().contains("--gone-host n9")));
        assert_eq!(store.dump(), before);
    }
}

#[tokio::test]
async fn a_host_that_is_there_is_not_gone_whoever_says_so() {
    let (store, mut here) = healthy().await;
    held_block(&store, "10.1.0.240/29", "n9", "net.far", "n9");
    // Of the host that the audit runs on, its address's container is another finding.
    here.host = "n9".to_owned();
    here.networks.clear();
    here.attachments.clear();
    assert_eq!(check_in(&store, &at_n1(&here)).await, []);
    here.host = "n1".to_owned();
    let circumstances = at_n1(&here);
    let transactions = mends(&store, &circumstances).await;
    assert_eq!(transactions.len(), 2, "of the address and of the block");
    node(&store, "n9");
    let before = store.dump();
    for transaction in transactions {
        assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
    }
    assert_eq!(check_in(&store, &circumstances).await, []);
    assert_eq!(store.dump(), before);
}

/// The transactions that mend what is found.
async fn mends(store: &Memory, circumstances: &Circumstances<'_>) -> Vec<Transaction> {
    let listing = engine::list(store).await.unwrap().listing;
    let mut transactions = Vec::new();
    for finding in audit(&listing, circumstances) {
        let snapshot = store.read(&Evidence::selections(&finding)).await.unwrap();
        let evidence = Evidence::parse(&finding, &snapshot, &listing).unwrap();
        match mend(&finding, &evidence, circumstances) {
            Mend::Commit(transaction) => transactions.push(transaction),
            other => panic!("{finding:?}: {other:?}"),
        }
    }
    transactions
}

#[tokio::test]
async fn nothing_is_mended_once_the_datastore_is_being_moved() {
    let (store, mut here) = healthy().await;
    for plant in PLANTS.iter().filter(|plant| plant.kind != Kind::AttachmentWithoutAddress) {
        damage(plant.name, &store, &mut here).await;
    }
    let transactions = mends(&store, &at_n1(&here)).await;
    let moved = json!({"spec": {"datastoreReady": false}});
    put(&store, keys::CLUSTER_INFORMATION.to_owned(), moved);
    for transaction in transactions {
        assert_eq!(store.commit(transaction).await.unwrap(), Outcome::Conflict);
    }
}

/// What `here` finds, and its repair.
async fn look(store: &Memory, here: &ThisNode) -> (engine::Listed, Vec<Finding>) {
    let listed = engine::list(store).await.unwrap();
    let findings = audit(&listed.listing, &at_n1(here));
    (listed, findings)
}

#[tokio::test]
async fn a_container_that_is_restarted_with_its_id_keeps_its_address() {
    let (store, mut here) = healthy().await;
    let was_there = here.clone();
    let gone = here.attachments.remove(0);
    let (listed, findings) = look(&store, &here).await;
    assert_eq!(kinds(&findings), [Kind::AddressWithoutAttachment]);
    let mut repair = Repair::new(&store, &listed.listing, listed.revision);
    let before = store.dump();
    // Its ADD is over: the kernel has it again.
    for finding in &findings {
        let done = repair.mend(finding, &at_n1(&was_there)).await.unwrap();
        assert_eq!(done, Repaired::Gone);
    }
    assert_eq!(store.dump(), before);
    // Its ADD goes on: it has its addresses, but no link yet.
    let container = gone.identity.container_id();
    let request = request("n1", container, &[Family::V4, Family::V6]);
    let again = weir_common::ipam::engine::assign(&store, &request, &[], later()).await.unwrap();
    assert_eq!(addresses(&again.addresses), gone.addresses);
    for finding in &findings {
        assert_eq!(repair.mend(finding, &at_n1(&here)).await.unwrap(), Repaired::Gone);
    }
    assert_eq!(check(&store, Some(&here)).await, [], "it is on its way");
    assert_eq!(in_use(&store).len(), in_use(&copy_of(before)).len());
}

fn copy_of(entries: std::collections::BTreeMap<String, Vec<u8>>) -> Memory {
    let copy = Memory::new();
    copy.seed(entries);
    copy
}

#[tokio::test]
async fn an_attachment_that_is_gone_by_now_is_not_recorded() {
    let (store, mut here) = healthy().await;
    damage("container unknown to the store", &store, &mut here).await;
    let (listed, findings) = look(&store, &here).await;
    let mut repair = Repair::new(&store, &listed.listing, listed.revision);
    here.attachments.pop();
    let before = store.dump();
    assert_eq!(repair.mend(&findings[0], &at_n1(&here)).await.unwrap(), Repaired::Gone);
    assert_eq!(store.dump(), before);
}

/// An ordinal that is neither free nor taken may be a container's that the store
/// has forgotten.
#[tokio::test]
async fn an_ordinal_becomes_free_only_where_nobody_can_use_it() {
    let (store, mut here) = healthy().await;
    let forget = |store: &Memory, container: &str, count: usize| {
        edit(store, block_key(store, container), |block| {
            block["unallocated"].as_array_mut().unwrap().drain(..count);
        });
    };
    let block = block_of_container(&store, "n1-a");
    let free: Vec<IpAddr> = block.free().map(|ordinal| block.address(ordinal)).collect();
    forget(&store, "n1-a", 3);
    forget(&store, "n2-a", 1);
    here.routed.insert(free[0]);
    here.attachments.push(attached("forgotten", "eth0", &[free[1]]));
    here.routed.insert(free[1]);
    let done = repair_once(&store, &at_n1(&here)).await.unwrap();
    let outcomes: Vec<_> = done.iter().map(|(it, done)| (it.kind(), it.host(), done)).collect();
    assert_eq!(
        outcomes[..2],
        [
            (Kind::AttachmentWithoutAddress, Some("n1"), &Repaired::Mended),
            (Kind::BlockUnsound, Some("n1"), &Repaired::Mended),
        ]
    );
    assert!(matches!(outcomes[2], (Kind::BlockUnsound, Some("n2"), Repaired::Left(_))));
    let left = repair(&store, Some(&here)).await;
    assert_eq!(kinds(&left), [Kind::BlockUnsound]);
    let obstacle =
        |host| left.iter().find(|it| it.host() == Some(host)).and_then(Finding::obstacle).unwrap();
    assert!(obstacle("n1").starts_with(&format!("{} may be in use", free[0])));
    assert!(obstacle("n2").contains("on node n2"), "{}", obstacle("n2"));
    assert_eq!(in_use(&store)[&free[1]].0.as_deref(), Some("net.forgotten"));
    let block = block_of_container(&store, "n1-a");
    let still_free: Vec<IpAddr> = block.free().map(|ordinal| block.address(ordinal)).collect();
    assert!(still_free.contains(&free[2]) && !still_free.contains(&free[0]));
}

#[tokio::test]
async fn what_others_are_changing_is_left_alone() {
    let (store, here) = healthy().await;
    let key = keys::handle("net.nothing");
    let nothing = json!({"block": {"10.0.0.0/29": 1}});
    put(&store, key.clone(), nothing.clone());
    let (listed, findings) = look(&store, &here).await;
    let mut repair = Repair::new(&store, &listed.listing, listed.revision);
    put(&store, key, nothing);
    let done = repair.mend(&findings[0], &at_n1(&here)).await.unwrap();
    assert_eq!(done, Repaired::Left("others are changing it".to_owned()));
    let (listed, findings) = look(&store, &here).await;
    let mut repair = Repair::new(&store, &listed.listing, listed.revision);
    assert_eq!(repair.mend(&findings[0], &at_n1(&here)).await.unwrap(), Repaired::Mended);
}

#[tokio::test]
async fn only_what_two_looks_saw_alike_counts() {
    let (store, here) = healthy().await;
    let wrong = |count| json!({"block": {"10.0.0.0/29": count}});
    put(&store, keys::handle("net.first"), wrong(1));
    put(&store, keys::handle("net.n2-a"), wrong(3));
    let (_, earlier) = look(&store, &here).await;
    put(&store, keys::handle("net.n2-a"), wrong(4));
    put(&store, keys::handle("net.second"), wrong(1));
    let (_, later) = look(&store, &here).await;
    assert_eq!((earlier.len(), later.len()), (2, 3));
    let twice: Vec<_> = engine::seen_twice(&earlier, &later).map(Finding::handle).collect();
    assert_eq!(twice, [Some("net.first".to_owned())]);
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
    let expected =
        [Kind::AddressWithoutHandle, Kind::BlockWithoutPool, Kind::BlockMisfit, Kind::Unreadable];
    assert_eq!(kinds(&left).into_iter().collect::<BTreeSet<_>>(), expected.into());
    assert!(left.iter().all(|finding| finding.obstacle().is_some()));
    assert_eq!(store.dump(), before);
}

#[tokio::test]
async fn an_unreadable_pool_makes_no_block_homeless() {
    let (store, here) = healthy().await;
    store.seed([(keys::pool("blue"), b"{".to_vec())]);
    let found = check(&store, Some(&here)).await;
    assert_eq!(kinds(&found), [Kind::Unreadable]);
}

#[tokio::test]
async fn an_address_that_another_has_is_not_recorded_twice() {
    let (store, mut here) = healthy().await;
    let taken = *in_use(&store).keys().next().unwrap();
    here.attachments.push(attached("twin", "eth0", &[taken]));
    let before = store.dump();
    let left = repair(&store, Some(&here)).await;
    assert_eq!(kinds(&left), [Kind::AttachmentWithoutAddress]);
    assert_eq!(store.dump(), before);
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
                release(&store, &request.handle_id, "eth0").await.unwrap();
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
    let line = |it: &Finding| format!("{}: {}; repair: {}\n", it.kind(), it.problem(), it.remedy());
    let lines: String = found.iter().map(line).collect();
    assert_eq!(lines, include_str!("golden/findings.txt"));
}
