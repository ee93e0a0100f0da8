//! Operations on a store, one after another and two at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::SignedDuration;
use weir_common::audit::engine as audit_engine;
use weir_common::audit::engine::{RepairOutcome, RepairRun};
use weir_common::audit::release_one::{SeenAddress, look_up, release};
use weir_common::audit::{AuditContext, DamageKind, Finding, Report, audit, hosts_gone};
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::collect::{CollectScope, Collection, Rule, collect};
use weir_common::ipam::explain::{explain, newcomer};
use weir_common::ipam::{Assigned, Assignee, Error, IpamSnapshot, Purpose, engine, map, reclaim};
use weir_common::node::{
    LocalFacts, NodeAddresses, ensure_tunnel_address, register, release_tunnel_address,
};
use weir_common::resources::Birth;
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;

use super::facts::{Facts, Holder};
use super::input::Input;
use crate::call::NOW;

/// How often a repair may find something to mend.
const MOST_ROUNDS: usize = 20;

/// Whose addresses an operation may give back.
type MayLose<'a> = &'a dyn Fn(&IpAddr, &Holder) -> bool;

pub async fn run(input: &Input) {
    add_and_delete(input).await;
    two_at_once(input).await;
    refuse_damaged_blocks(input).await;
    delete_what_is_there(input).await;
    collect_garbage(input).await;
    release_single_addresses(input).await;
    own_node(input).await;
    check_and_repair(input).await;
}

fn request(input: &Input, number: u8, wants: &[Want]) -> Request {
    Request {
        assignee: Assignee::interface(&input.host, "net", &format!("fuzz-{number}"), "eth0"),
        facts: BTreeMap::new(),
        wants: wants.to_vec(),
        gateways: vec![],
        within: None,
    }
}

/// What an operation did is what it may have done.
fn compare(before: &Facts, after: &Facts, succeeded: bool, may_lose: MayLose<'_>) {
    if !succeeded {
        assert!(before.dump == after.dump, "an operation that failed changed the store");
    }
    for key in &before.unreadable {
        let shown = |facts: &Facts| {
            facts.dump.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(shown(before), shown(after), "{key} was overwritten");
    }
    for (address, holder) in &before.taken {
        let kept = after.taken.get(address) == Some(holder) || after.overlaps(holder.block);
        assert!(kept || may_lose(address, holder), "{address} of {holder:?} is lost");
    }
}

/// An error is one that has a reason.
fn assert_explained(error: &Error, before: &Facts) {
    assert!(!error.to_string().is_empty());
    match error {
        Error::Malformed { key, .. } => {
            let wrong = before.unreadable.contains(key) || key.starts_with(keys::NODES);
            assert!(wrong, "{key} can be read: {error}");
            assert!(error.to_string().contains(key.as_str()), "{error}");
        }
        Error::Contended { .. } | Error::Datastore(_) => panic!("nobody was in the way: {error}"),
        _ => {}
    }
}

async fn add_and_delete(input: &Input) {
    let store = input.store();
    for number in 0..3 {
        let request = request(input, number, &input.wants);
        add(&store, &request).await;
    }
    for number in 0..3 {
        delete(&store, &request(input, number, &[]).assignee).await;
    }
}

/// One ADD, repeated, and foretold by an explanation.
async fn add(store: &Memory, request: &Request) {
    let before = Facts::of(store.dump());
    let handle_id = &request.assignee.handle_id;
    let known = before.taken.values().any(|it| it.handle == *handle_id || it.handle.is_empty());
    let has_handle = before.dump.contains_key(&keys::handle(handle_id));
    let explained =
        explain(store, &newcomer(&request.assignee.host, request.wants.clone()), vec![], NOW).await;
    let explained = explained.expect("the store is there").outcome;
    let assigned = engine::assign(store, request, &[], NOW).await.map(|it| it.addresses);
    let after = Facts::of(store.dump());
    compare(&before, &after, assigned.is_ok(), &|_, holder| is_of(holder, &request.assignee));
    if !known && !has_handle {
        let foretold = explained.map(|next| next.iter().map(|it| it.address).collect());
        let addresses = |all: &Vec<Assigned>| all.iter().map(|it| it.address).collect::<Vec<_>>();
        let got = assigned.as_ref().map(addresses).map_err(ToString::to_string);
        assert_eq!(foretold.map_err(|error| error.to_string()), got, "explained otherwise");
    }
    match assigned {
        Ok(assigned) => {
            assert_new(&assigned, request, &before, &after);
            repeat(store, request, &assigned).await;
        }
        Err(error) => assert_explained(&error, &before),
    }
}

fn assert_new(assigned: &[Assigned], request: &Request, before: &Facts, after: &Facts) {
    let mut seen = BTreeSet::new();
    for Assigned { address, block } in assigned {
        assert!(seen.insert(address), "{address} twice");
        assert!(block.contains(address), "{address} is not in {block}");
        if after.overlaps(*block) {
            continue;
        }
        match before.taken.get(address) {
            Some(holder) => assert!(is_of(holder, &request.assignee), "{address} was taken"),
            None if request.wants.contains(&Want::Exactly(*address)) => {}
            None => assert!(!before.is_reserved(*address), "{address} is reserved"),
        }
        for (key, damaged) in before.damaged_blocks() {
            assert!(!damaged.contains(address), "{address} is in the damaged {key}");
        }
        let holder = after.taken.get(address).map(|holder| holder.handle.as_str());
        assert_eq!(holder, Some(request.assignee.handle_id.as_str()), "{address} is not recorded");
    }
}

async fn repeat(store: &Memory, request: &Request, assigned: &[Assigned]) {
    let again = engine::assign(store, request, &[], NOW).await.map(|it| it.addresses);
    let sorted = |all: &[Assigned]| all.iter().map(|it| it.address).collect::<BTreeSet<_>>();
    match again {
        Ok(again) => assert_eq!(sorted(&again), sorted(assigned), "repeated"),
        Err(error) => panic!("repeated: {error}"),
    }
    let held = engine::lookup(store, &request.assignee).await;
    let held = held.map(|held| sorted(&held)).expect("what was assigned can be looked up");
    assert!(sorted(assigned).is_subset(&held), "{assigned:?} of {held:?}");
}

/// Whether an assignee may have what this holder has.
fn is_of(holder: &Holder, assignee: &Assignee) -> bool {
    holder.handle == assignee.handle_id && (holder.node.is_empty() || holder.node == assignee.host)
}

async fn delete(store: &Memory, assignee: &Assignee) {
    let before = Facts::of(store.dump());
    let released = engine::release(store, assignee, &Default::default()).await;
    let after = Facts::of(store.dump());
    compare(&before, &after, released.is_ok(), &|_, holder| is_of(holder, assignee));
    match released {
        Ok(released) => {
            for Assigned { address, block } in released {
                let free = !after.taken.contains_key(&address) || after.overlaps(block);
                assert!(free, "{address} was released and is taken");
            }
            let again = engine::release(store, assignee, &Default::default()).await;
            assert!(again.is_ok_and(|all| all.is_empty()), "there was more to release");
        }
        Err(error) => assert_explained(&error, &before),
    }
}

/// Of two ADDs at the same moment none gets what the other one gets.
async fn two_at_once(input: &Input) {
    let store = input.store();
    let before = Facts::of(store.dump());
    let requests = [request(input, 1, &input.wants), request(input, 2, &input.wants)];
    let (one, other) = (store.another_process(), store.another_process());
    let (one, other) = tokio::join!(
        engine::assign(&one, &requests[0], &[], NOW),
        engine::assign(&other, &requests[1], &[], NOW),
    );
    let after = Facts::of(store.dump());
    compare(&before, &after, true, &|_, holder| {
        requests.iter().any(|it| is_of(holder, &it.assignee))
    });
    let (Ok(one), Ok(other)) = (one, other) else { return };
    for assigned in &one.addresses {
        let twice = other.addresses.iter().any(|it| it.address == assigned.address);
        assert!(!twice || after.overlaps(assigned.block), "{assigned:?} twice");
    }
}

/// Who asks for an address in a block that cannot be read is told its key.
async fn refuse_damaged_blocks(input: &Input) {
    let facts = Facts::of(input.entries.clone());
    for (key, block) in facts.damaged_blocks().take(4) {
        let store = input.store();
        let want = Want::Exactly(block.network());
        let request = request(input, 7, &[want]);
        match engine::assign(&store, &request, &[], NOW).await {
            Ok(assignment) => {
                let own =
                    assignment.addresses.iter().any(|assigned| assigned.block == block.trunc());
                assert!(!own, "{key} is damaged: {:?}", assignment.addresses);
            }
            Err(error) => assert_explained(&error, &facts),
        }
        compare(&facts, &Facts::of(store.dump()), true, &|_, _| false);
    }
}

async fn delete_what_is_there(input: &Input) {
    let store = input.store();
    let handles = input.entries.keys().filter_map(|key| keys::parse_handle(key));
    for handle in handles.take(4) {
        let (host, handle_id) = (input.host.clone(), handle.to_owned());
        let purpose = Purpose::Interface("eth0".to_owned());
        delete(&store, &Assignee { host, machine: None, network: None, handle_id, purpose }).await;
    }
    add(&store, &request(input, 3, &input.wants)).await;
}

async fn collect_garbage(input: &Input) {
    for scope in [CollectScope::OwnBlocks, CollectScope::AllBlocks] {
        let store = input.store();
        let before = Facts::of(store.dump());
        let collection = Collection {
            host: input.host.clone(),
            machine: None,
            network: "net".to_owned(),
            rule: Rule::Listed(BTreeSet::new()),
        };
        let collected = collect(&store, &collection, scope, &|_| true).await;
        collected.errors.iter().for_each(|error| assert_explained(error, &before));
        let after = Facts::of(store.dump());
        let own = |_: &IpAddr, holder: &Holder| {
            holder.node == input.host && holder.handle.starts_with("net.")
        };
        let nothing = collected.released.is_empty();
        compare(&before, &after, !nothing, &own);
    }
}

async fn release_single_addresses(input: &Input) {
    let store = input.store();
    let addresses: Vec<IpAddr> = Facts::of(store.dump()).taken.keys().copied().take(3).collect();
    for address in addresses {
        let before = Facts::of(store.dump());
        let allocation = match look_up(&store, address).await {
            Ok(Some(allocation)) => allocation,
            Ok(None) => continue,
            Err(error) => {
                assert_explained(&error, &before);
                continue;
            }
        };
        let released = release(&store, &SeenAddress::from(&allocation)).await;
        let after = Facts::of(store.dump());
        compare(&before, &after, released.is_ok(), &|lost, _| *lost == address);
        if let Err(error) = released {
            assert_explained(&error, &before);
        }
    }
}

/// What a node writes about itself.
async fn own_node(input: &Input) {
    let store = input.store();
    let before = Facts::of(store.dump());
    let birth = Birth { uid: "0".to_owned(), timestamp: "2026-11-23T03:36:01Z".to_owned() };
    let addresses = NodeAddresses { ipv4: "172.31.1.1/24".parse().ok(), ipv6: None };
    if let Err(error) = register(&store, &input.host, addresses, Some(&birth), None).await {
        assert!(!error.to_string().is_empty());
        assert!(before.dump == store.dump(), "a registration that failed changed the store");
    }
    let facts = LocalFacts::default();
    // With those of the other kinds beside it.
    for kind in TunnelKind::ALL {
        let ensure = || ensure_tunnel_address(&store, kind, &input.host, &facts, NOW);
        if let Ok(address) = ensure().await {
            assert!(kind.carries(address), "{kind} {address}");
            assert_eq!(ensure().await.ok(), Some(address), "another address of {kind}");
        }
    }
    for kind in TunnelKind::ALL {
        let _ = release_tunnel_address(&store, kind, &input.host, None).await;
    }
    let own = TunnelKind::ALL.map(|kind| kind.handle_of(&input.host));
    let is_own = |holder: &Holder| own.contains(&holder.handle);
    compare(&before, &Facts::of(store.dump()), true, &|_, holder| is_own(holder));
}

async fn check_and_repair(input: &Input) {
    let store = input.store();
    let before = Facts::of(store.dump());
    let context = AuditContext::new(None, NOW + SignedDuration::from_hours(1));
    let snapshot = IpamSnapshot::list(&store).await.expect("the store is there");
    let findings = audit(&snapshot, &context);
    for (key, _) in before.damaged_blocks() {
        let named =
            |it: &Finding| it.kind == DamageKind::Unreadable && it.keys.iter().any(|it| it == key);
        assert!(findings.iter().any(named), "{key} is damaged and not reported");
    }
    for finding in &findings {
        assert!(!finding.problem.is_empty() && !finding.remedy.is_empty());
    }
    let report = Report::new(&snapshot, &findings, &context);
    assert!(serde_json::to_string(&report).is_ok());
    for width in [24, 80] {
        map::draw(&snapshot, width, |_, text| text.to_owned());
    }
    repair(&store, &context, &before).await;
    let repaired = Facts::of(store.dump());
    compare(&before, &repaired, true, &|_, _| false);
    let snapshot = IpamSnapshot::list(&store).await.expect("the store is there");
    for empty in reclaim::plan(&snapshot, &hosts_gone(&snapshot, &context)) {
        if let Err(error) = reclaim::reclaim(&store, &empty).await {
            assert_explained(&error, &repaired);
        }
    }
    compare(&before, &Facts::of(store.dump()), true, &|_, _| false);
    add(&store, &request(input, 5, &input.wants)).await;
}

/// Repairs until nothing is mended any more.
async fn repair(store: &Memory, context: &AuditContext<'_>, before: &Facts) {
    for _ in 0..MOST_ROUNDS {
        let snapshot = IpamSnapshot::list(store).await.expect("the store is there");
        let findings = audit(&snapshot, context);
        let mut repair = RepairRun::new(store, &snapshot, snapshot.revision);
        let mut mended = false;
        for finding in audit_engine::in_turn(findings) {
            match repair.repair(&finding, context).await {
                Ok(done) => mended |= done == RepairOutcome::Repaired,
                Err(error) => assert_explained(&error, before),
            }
        }
        if !mended {
            return;
        }
    }
    panic!("the repair does not come to an end");
}
