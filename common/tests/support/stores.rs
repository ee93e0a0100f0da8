//! Stores to audit: a healthy one with everything that looks like damage and
//! is none, and tools to damage it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_common::audit::engine::{self, RepairOutcome, RepairRun};
use weir_common::audit::{
    Attached, AuditContext, CurrentValues, DamageKind, Finding, RepairPlan, ThisNode, audit,
    plan_repair,
};
use weir_common::datastore::{Datastore, Transaction, Write, keys};
use weir_common::ipam::{Block, Error, Family, IpamSnapshot};
use weir_common::network::AttachmentIdentity;
use weir_datastore::Memory;

use super::{assign, now, pool, put, request};

/// When audits happen: long after what [`now`] stamps.
pub fn later() -> Timestamp {
    now() + SignedDuration::from_hours(1)
}

/// Registers a node.
pub fn node(store: &Memory, name: &str) {
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": {},
    });
    put(store, keys::node(name), node);
}

/// An attachment in the kernel.
pub fn attached(container: &str, interface: &str, addresses: &[std::net::IpAddr]) -> Attached {
    let identity = AttachmentIdentity::new("net", container, interface).unwrap();
    Attached { identity, addresses: addresses.to_vec() }
}

/// A healthy store of two registered nodes, and the first one's kernel.
///
/// Besides containers of one and of two families it has what Calico leaves: a
/// tunnel's address, an allocation without an interface, addresses kept from
/// Windows, one cooling down, a borrowed one, and a block that is nobody's.
pub async fn healthy() -> (Memory, ThisNode) {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({"blockSize": 29}));
    pool(&store, "six", "fd00::/112", json!({"blockSize": 124}));
    pool(&store, "green", "10.1.0.0/24", json!({"blockSize": 29, "disabled": true}));
    node(&store, "n1");
    node(&store, "n2");
    let mut here = ThisNode {
        host: "n1".to_owned(),
        networks: ["net".to_owned()].into(),
        other_networks: ["net.ptp".to_owned()].into(),
        unjudged: Vec::new(),
        ..ThisNode::default()
    };
    for host in ["n1", "n2"] {
        for container in ["a", "b", "c"] {
            let container = format!("{host}-{container}");
            let both = request(host, &container, &[Family::V4, Family::V6]);
            let addresses = assign(&store, &both).await.unwrap();
            if host == "n1" {
                here.attachments.push(attached(&container, "eth0", &addresses));
            }
        }
    }
    calicos(&store);
    (store, here)
}

/// What Calico leaves and what is no damage.
fn calicos(store: &Memory) {
    let stamp = "2026-11-23 03:36:01.859779804 +0000 UTC";
    let mut tunnels = Block::new(cidr("10.1.0.0/29"), "n1", 100);
    let holders = [
        json!({"handle_id": "windows-reserved-ipam-handle", "secondary": {"note": "windows"}}),
        json!({"handle_id": "ipip-tunnel-addr-n1", "secondary": {"node": "n1", "timestamp": stamp,
            "type": "ipipTunnelAddress"}}),
        json!({"handle_id": "net.calico", "secondary": {"node": "n1", "timestamp": stamp}}),
        json!({"handle_id": "net.borrowed", "secondary": {"node": "n2", "timestamp": stamp,
            "interface": "eth0"}}),
        json!({"handle_id": "net.cooling", "secondary": {"node": "n1", "interface": "eth0"},
            "releasedAt": "2026-11-23T03:36:01Z"}),
        json!({"handle_id": "net.ptp.foreign", "secondary": {"node": "n1", "interface": "eth0",
            "timestamp": stamp}}),
    ];
    for (ordinal, holder) in holders.into_iter().enumerate() {
        tunnels.assign(ordinal, serde_json::from_value(holder).unwrap());
    }
    let mut nobodys = Block { affinity: None, ..Block::new(cidr("10.1.0.64/29"), "", 100) };
    let holder = json!({"handle_id": "net.left", "secondary": {"node": "n2", "timestamp": stamp}});
    nobodys.assign(3, serde_json::from_value(holder).unwrap());
    for block in [&tunnels, &nobodys] {
        store.seed([(keys::block(block.cidr), block.to_json())]);
    }
    put(store, keys::affinity("n1", tunnels.cidr), json!({"state": "confirmed"}));
    let in_tunnels =
        ["ipip-tunnel-addr-n1", "net.calico", "net.borrowed", "net.ptp.foreign"].iter();
    for handle in in_tunnels {
        put(store, keys::handle(handle), json!({"block": {"10.1.0.0/29": 1}}));
    }
    put(store, keys::handle("net.left"), json!({"block": {"10.1.0.64/29": 1}}));
}

/// A CIDR.
pub fn cidr(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// What an audit finds, after a second look.
pub async fn check(store: &Memory, here: Option<&ThisNode>) -> Vec<Finding> {
    check_in(store, &AuditContext::new(here, later())).await
}

/// As [`check`], in these context.
pub async fn check_in(store: &Memory, context: &AuditContext<'_>) -> Vec<Finding> {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let findings = audit(&snapshot, context);
    engine::confirm(store, &snapshot, findings, context).await.unwrap()
}

/// Repairs until nothing is repaired any more, and returns what is left.
pub async fn repair(store: &Memory, here: Option<&ThisNode>) -> Vec<Finding> {
    repair_in(store, &AuditContext::new(here, later())).await
}

/// As [`repair`], in these context.
pub async fn repair_in(store: &Memory, context: &AuditContext<'_>) -> Vec<Finding> {
    for _ in 0..6 {
        let done = repair_once(store, context).await.unwrap();
        if !done.iter().any(|(_, done)| *done == RepairOutcome::Repaired) {
            return done.into_iter().map(|(finding, _)| finding).collect();
        }
    }
    panic!("repair does not come to an end");
}

/// Repairs what one look finds, as far as it goes.
pub async fn repair_once(
    store: &Memory,
    context: &AuditContext<'_>,
) -> Result<Vec<(Finding, RepairOutcome)>, Error> {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let mut repair = RepairRun::new(store, &snapshot, snapshot.revision);
    let mut done = Vec::new();
    for finding in engine::in_turn(audit(&snapshot, context)) {
        let repaired = repair.repair(&finding, context).await?;
        done.push((finding, repaired));
    }
    Ok(done)
}

/// The kinds among the findings.
pub fn kinds(findings: &[Finding]) -> Vec<DamageKind> {
    let mut kinds: Vec<DamageKind> = findings.iter().map(|it| it.kind).collect();
    kinds.dedup();
    kinds
}

/// Deletes a key that must be there.
pub async fn delete(store: &Memory, key: String) {
    assert!(store.dump().contains_key(&key), "{key}");
    let writes = vec![Write::Delete { key }];
    store.commit(Transaction { compares: vec![], writes }).await.unwrap();
}

/// Changes a stored value.
pub fn edit(store: &Memory, key: String, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&store.dump()[&key]).unwrap();
    change(&mut value);
    put(store, key, value);
}

/// The block of a host that holds this container's first address.
pub fn block_of_container(store: &Memory, container: &str) -> Block {
    let handle = format!("net.{container}");
    let holds = |block: &Block| {
        !block.held_by(|holder| holder.handle_id.as_deref() == Some(&handle)).is_empty()
    };
    super::blocks(store).into_iter().find(holds).unwrap()
}

/// Everything in use: address, handle and sequence number.
pub fn in_use(store: &Memory) -> BTreeMap<std::net::IpAddr, (Option<String>, Option<u64>)> {
    let mut found = BTreeMap::new();
    for block in super::blocks(store) {
        for ordinal in block.held_by(|_| true) {
            let handle = block.holder(ordinal).unwrap().handle_id.clone();
            let numbers = &block.sequence_number_for_allocation;
            let sequence = numbers.get(&ordinal.to_string()).copied();
            found.insert(block.address(ordinal), (handle, sequence));
        }
    }
    found
}

/// The host that damage leaves behind.
pub static GONE: LazyLock<BTreeSet<String>> = LazyLock::new(|| ["n9".to_owned()].into());

/// On the first node, where it is known that the host is gone.
pub fn at_n1(here: &ThisNode) -> AuditContext<'_> {
    AuditContext { gone: &GONE, ..AuditContext::new(Some(here), later()) }
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The key of the block of [`block_of_container`].
pub fn block_key(store: &Memory, container: &str) -> String {
    keys::block(block_of_container(store, container).cidr)
}

/// Puts an affinity.
pub fn affinity(store: &Memory, host: &str, block: &str, state: &str) {
    put(store, keys::affinity(host, cidr(block)), json!({"state": state, "deleted": false}));
}

/// Puts a block without addresses in use, and its affinity.
pub fn empty_block(store: &Memory, block: &str, host: &str) {
    let block = Block::new(cidr(block), host, 1);
    store.seed([(keys::block(block.cidr), block.to_json())]);
    affinity(store, host, &block.cidr.to_string(), "confirmed");
}

/// A block of `owner` whose last but few addresses one handle of `node` has.
pub fn held_block(store: &Memory, block: &str, owner: &str, handle: &str, node: &str) {
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

/// The transactions that repair what is found.
pub async fn plans(store: &Memory, context: &AuditContext<'_>) -> Vec<Transaction> {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let mut transactions = Vec::new();
    for finding in audit(&snapshot, context) {
        let values = CurrentValues::read(store, &finding, &snapshot).await.unwrap();
        match plan_repair(&finding, &values, context) {
            RepairPlan::Commit(transaction) => transactions.push(transaction),
            other => panic!("{finding:?}: {other:?}"),
        }
    }
    transactions
}
