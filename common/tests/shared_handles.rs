//! Several assignees under one handle: the same container id on two hosts, and names
//! with dots that read alike. Each has its own address and gives back its own.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::json;
use support::stores::{later, node};
use support::*;
use weir_common::audit::{Attached, AuditContext, DamageKind, Finding, ThisNode, audit};
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::collect::{CollectScope, Collection, Evidence, Rule, collect};
use weir_common::ipam::{
    ATTRIBUTE_BOOT, ATTRIBUTE_NODE, Assignee, Attribute, Block, Error, Family, Handle, MachineId,
    engine,
};
use weir_common::network::AttachmentIdentity;
use weir_datastore::Memory;

const V4: &[Family] = &[Family::V4];

fn cluster() -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/24", json!({"blockSize": 29}));
    store
}

fn of(assignee: Assignee) -> Request {
    Request { assignee, ..request("", "", V4) }
}

fn eth0(host: &str, network: &str, container: &str) -> Assignee {
    Assignee::interface(host, network, container, "eth0")
}

async fn has(store: &Memory, assignee: &Assignee) -> Vec<IpAddr> {
    addresses(&engine::lookup(store, assignee).await.unwrap())
}

fn handle(store: &Memory, id: &str) -> Option<Handle> {
    store.dump().get(&keys::handle(id)).map(|value| Handle::from_json(value).unwrap())
}

/// The same name twice, however the two are told apart.
async fn live_apart(first: Assignee, second: Assignee) {
    assert_eq!(first.handle_id, second.handle_id);
    let store = cluster();
    let of_first = assign(&store, &of(first.clone())).await.unwrap();
    assert_eq!(has(&store, &second).await, [] as [IpAddr; 0], "CHECK of the second");
    assert_eq!(
        engine::release(&store, &second, &Default::default()).await.unwrap(),
        [],
        "DEL before ADD"
    );
    let of_second = assign(&store, &of(second.clone())).await.unwrap();
    assert_ne!(of_first, of_second);
    // Each ADD again is its own.
    assert_eq!(assign(&store, &of(first.clone())).await.unwrap(), of_first);
    assert_eq!(assign(&store, &of(second.clone())).await.unwrap(), of_second);
    assert_consistent(&store);
    // Nobody takes the other's by asking for it.
    let exactly = Request { wants: vec![Want::Exactly(of_first[0])], ..of(second.clone()) };
    let refused = assign(&store, &exactly).await.unwrap_err();
    assert!(matches!(refused, Error::HoldsOther { .. }), "{refused}");
    engine::release(&store, &second, &Default::default()).await.unwrap();
    let refused = assign(&store, &exactly).await.unwrap_err();
    assert!(matches!(refused, Error::Taken { .. }), "{refused}");
    assert_consistent(&store);
    assert_eq!(has(&store, &first).await, of_first);
    engine::release(&store, &first, &Default::default()).await.unwrap();
    assert_eq!(handle(&store, &first.handle_id), None);
    assert_consistent(&store);
}

#[tokio::test]
async fn the_same_container_id_on_two_hosts() {
    live_apart(eth0("n1", "pods", "web"), eth0("n2", "pods", "web")).await;
}

/// A cloned disk, or two hosts that are called alike by mistake.
#[tokio::test]
async fn the_same_container_id_on_two_machines_of_one_name() {
    let on = |machine| eth0("n1", "pods", "web").on(Some(MachineId::from_source(machine)));
    live_apart(on("first"), on("second")).await;
}

#[tokio::test]
async fn a_handle_of_two_networks() {
    live_apart(eth0("n1", "a", "b.c"), eth0("n1", "a.b", "c")).await;
    live_apart(eth0("n1", "a.b", "c"), eth0("n1", "a", "b.c")).await;
}

/// In one block, whose count is of both.
#[tokio::test]
async fn two_hosts_in_one_block_share_its_count() {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/29", json!({"blockSize": 29}));
    let (first, second) = (eth0("n1", "pods", "web"), eth0("n2", "pods", "web"));
    assign(&store, &of(first.clone())).await.unwrap();
    assign(&store, &of(second.clone())).await.unwrap();
    let counts = |store: &Memory| handle(store, "pods.web").map(|handle| handle.block);
    let count = |number| Some(BTreeMap::from([("10.0.0.0/29".to_owned(), number)]));
    assert_eq!(counts(&store), count(2));
    engine::release(&store, &first, &Default::default()).await.unwrap();
    assert_eq!(counts(&store), count(1));
    engine::release(&store, &second, &Default::default()).await.unwrap();
    assert_eq!(counts(&store), None);
}

/// What a host's ADD stamps is its own, so that the other host's reboot does not end
/// what lives here.
#[tokio::test]
async fn a_reboot_of_one_host_leaves_the_others() {
    let store = cluster();
    let request = |host: &str, boot: &str| Request {
        facts: BTreeMap::from([(ATTRIBUTE_BOOT.to_owned(), boot.to_owned())]),
        ..of(eth0(host, "pods", "web"))
    };
    let dead = assign(&store, &request("n1", "before")).await.unwrap();
    let alive = assign(&store, &request("n2", "other")).await.unwrap();
    assert_eq!(assign(&store, &request("n2", "other")).await.unwrap(), alive);
    let evidence = Evidence { boot_id: Some("now".to_owned()), ..Evidence::default() };
    let (host, network) = ("n1".to_owned(), "pods".to_owned());
    let collection = Collection { host, machine: None, network, rule: Rule::Proved(evidence) };
    let collected = collect(&store, &collection, CollectScope::AllBlocks, &|_| true).await;
    let released: Vec<IpAddr> =
        collected.released.into_iter().map(|(address, _)| address).collect();
    assert_eq!(released, dead);
    assert_eq!(has(&store, &eth0("n2", "pods", "web")).await, alive);
    assert_consistent(&store);
    // The runtime of n2 knows of no container any more.
    let (host, network) = ("n2".to_owned(), "pods".to_owned());
    let collection =
        Collection { host, machine: None, network, rule: Rule::Listed(BTreeSet::new()) };
    collect(&store, &collection, CollectScope::AllBlocks, &|_| true).await;
    assert_eq!(handle(&store, "pods.web"), None);
    assert_consistent(&store);
}

/// Calico always names the node. What does not is whoever's names the handle, so that it
/// could never be given back; but nobody gives it back unasked.
#[tokio::test]
async fn an_allocation_without_a_node_is_of_who_names_its_handle() {
    let store = cluster();
    let assignee = eth0("n1", "pods", "web");
    let given = assign(&store, &of(assignee.clone())).await.unwrap();
    change(&store, "pods.web", |holder| {
        holder.secondary.as_mut().unwrap().remove(ATTRIBUTE_NODE);
    });
    let (host, network) = ("n1".to_owned(), "pods".to_owned());
    let collection =
        Collection { host, machine: None, network, rule: Rule::Listed(BTreeSet::new()) };
    assert!(
        collect(&store, &collection, CollectScope::AllBlocks, &|_| true).await.released.is_empty()
    );
    assert_eq!(assign(&store, &of(assignee.clone())).await.unwrap(), given);
    assert_eq!(
        addresses(&engine::release(&store, &assignee, &Default::default()).await.unwrap()),
        given
    );
}

/// Changes the holders under a handle.
fn change(store: &Memory, handle: &str, how: impl Fn(&mut Attribute)) {
    for mut block in blocks(store) {
        let own = |holder: &&mut Attribute| holder.handle_id.as_deref() == Some(handle);
        block.attributes.iter_mut().filter(own).for_each(&how);
        store.seed([(keys::block(block.cidr), Block::to_json(&block))]);
    }
}

/// The node `host`, with these attachments of network and container in its kernel.
fn this_node(host: &str, attachments: &[(&str, &str, &[IpAddr])]) -> ThisNode {
    let attached = |(network, container, addresses): &(&str, &str, &[IpAddr])| Attached {
        identity: AttachmentIdentity::new(*network, *container, "eth0").unwrap(),
        addresses: addresses.to_vec(),
    };
    ThisNode {
        host: host.to_owned(),
        attachments: attachments.iter().map(attached).collect(),
        networks: ["pods", "a", "a.b"].map(str::to_owned).into(),
        ..ThisNode::default()
    }
}

const LEAK: DamageKind = DamageKind::AddressWithoutAttachment;

async fn findings(store: &Memory, here: &ThisNode) -> Vec<Finding> {
    let snapshot = weir_common::ipam::IpamSnapshot::list(store).await.unwrap();
    let context = AuditContext::new(Some(here), later());
    let found = audit(&snapshot, &context);
    weir_common::audit::engine::confirm(store, &snapshot, found, &context).await.unwrap()
}

#[tokio::test]
async fn an_audit_tells_two_hosts_apart() {
    let store = cluster();
    ["n1", "n2"].iter().for_each(|host| node(&store, host));
    let first = assign(&store, &of(eth0("n1", "pods", "web"))).await.unwrap();
    let second = assign(&store, &of(eth0("n2", "pods", "web"))).await.unwrap();
    assert_eq!(findings(&store, &this_node("n1", &[("pods", "web", &first)])).await, []);
    assert_eq!(findings(&store, &this_node("n2", &[("pods", "web", &second)])).await, []);
    // n2's container has the address of n1's: an address of its own is not in use, and
    // the one in use is not its own.
    let found = findings(&store, &this_node("n2", &[("pods", "web", &first)])).await;
    assert!(
        matches!(&found[..], [it] if it.attachment.as_ref().is_some_and(|it| it.addresses == first)),
        "{found:?}"
    );
    // Its container is gone: the one on n1 does not hide that.
    let found = findings(&store, &this_node("n2", &[])).await;
    assert!(
        matches!(&found[..], [it] if it.kind == LEAK && it.addresses[0].address == second[0]),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_audit_tells_two_networks_apart() {
    let store = cluster();
    let first = assign(&store, &of(eth0("n1", "a", "b.c"))).await.unwrap();
    let second = assign(&store, &of(eth0("n1", "a.b", "c"))).await.unwrap();
    let both = this_node("n1", &[("a", "b.c", &first), ("a.b", "c", &second)]);
    assert_eq!(findings(&store, &both).await, []);
    for (alive, gone) in [(("a", "b.c", &first[..]), &second), (("a.b", "c", &second), &first)] {
        let found = findings(&store, &this_node("n1", &[alive])).await;
        assert!(
            matches!(&found[..], [it] if it.kind == LEAK && it.addresses[0].address == gone[0]),
            "{found:?}"
        );
    }
}
