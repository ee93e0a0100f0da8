//! What an audit can say nothing about is counted, by reason, and nothing is counted that it
//! judges.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::net::IpAddr;

use serde_json::{Value, json};
use support::stores::{check, check_in, healthy, later};
use support::*;
use weir_common::audit::{
    Attached, AuditContext, DamageKind, DockerAnswer, Finding, Report, ThisNode, UnjudgedReason,
    unjudged_addresses,
};
use weir_common::datastore::keys;
use weir_common::ipam::docker::DockerKnowledge;
use weir_common::ipam::{Block, Family, IpamSnapshot, MachineId};
use weir_common::network::AttachmentIdentity;
use weir_datastore::Memory;

/// A block of `n1` with these holders.
fn hold(store: &Memory, holders: &[Value]) {
    let mut block = Block::new("10.2.0.0/28".parse().unwrap(), "n1", 100);
    for (ordinal, holder) in holders.iter().enumerate() {
        block.assign(ordinal, serde_json::from_value(holder.clone()).unwrap());
        if let Some(handle) = holder["handle_id"].as_str() {
            put(store, keys::handle(handle), json!({"block": {"10.2.0.0/28": 1}}));
        }
    }
    store.seed([(keys::block(block.cidr), block.to_json())]);
    put(store, keys::affinity("n1", block.cidr), json!({"state": "confirmed"}));
}

async fn unjudged(store: &Memory, here: Option<&ThisNode>) -> Vec<(UnjudgedReason, usize)> {
    let snapshot = IpamSnapshot::list(store).await.unwrap();
    let all = unjudged_addresses(&snapshot, &AuditContext::new(here, later()));
    for it in &all {
        assert!(it.in_words(here).starts_with(&format!("Not judged: {} addresses", it.addresses)));
        assert!(!it.advice.is_empty());
    }
    all.into_iter().map(|it| (it.reason, it.addresses)).collect()
}

#[tokio::test]
async fn every_reason_is_told_apart() {
    let store = Memory::new();
    let own = MachineId::from_source("own");
    let fact = |facts: Value| json!({"handle_id": "net.c", "secondary": facts});
    let mut here = ThisNode {
        host: "n1".to_owned(),
        machine: Some(own.clone()),
        networks: ["net".to_owned()].into(),
        other_networks: ["ptp".to_owned()].into(),
        ..ThisNode::default()
    };
    let weirs = json!({"node": "n1", "interface": "eth0", "machine": own.as_str()});
    let of = |handle: &str| json!({"handle_id": handle, "secondary": weirs});
    hold(
        &store,
        &[
            fact(json!({"node": "n2", "interface": "eth0"})),
            fact(json!({"node": "old", "interface": "eth0", "machine": own.as_str()})),
            fact(json!({"node": "n1", "interface": "eth0", "machine": "0123456789abcdef"})),
            json!({"handle_id": "c0ffee", "secondary": null}),
            json!({"handle_id": "shop.cart", "secondary": {}}),
            fact(json!({"node": "n1", "pod": "cart", "namespace": "shop"})),
            of("ptp.c"),
            of("renamed.c"),
            json!({"handle_id": "lb-0", "secondary": {"type": "loadBalancer"}}),
            // Judged: a leaked one, a tunnel's, one that cools down.
            of("net.c"),
            json!({"handle_id": "ipip-tunnel-addr-n1",
                "secondary": {"node": "n1", "type": "ipipTunnelAddress"}}),
            json!({"handle_id": null, "secondary": {}, "releasedAt": "2026-11-23T03:36:01Z"}),
        ],
    );
    use UnjudgedReason as Reason;
    let all = [
        (Reason::OtherNode, 1),
        (Reason::FormerName, 1),
        (Reason::OtherMachine, 1),
        (Reason::Incomplete, 2),
        (Reason::Calicos, 1),
        (Reason::OtherNetwork, 1),
        (Reason::UnknownNetwork, 1),
        (Reason::OtherUse, 1),
    ];
    assert_eq!(unjudged(&store, Some(&here)).await, all);
    let leaked = check(&store, Some(&here)).await;
    let is_leak = |kind| kind == DamageKind::AddressWithoutAttachment;
    assert_eq!(leaked.iter().filter(|it| is_leak(it.kind)).count(), 1, "{leaked:?}");
    // A route of this node tells that Calico's container is there.
    here.routed.extend(["10.2.0.3", "10.2.0.5"].map(|it| it.parse::<IpAddr>().unwrap()));
    let judged = unjudged(&store, Some(&here)).await;
    assert!(judged.contains(&(Reason::Incomplete, 1)) && judged.len() == all.len() - 1);
    // Without a kernel nothing is judged but what needs none.
    let alone = [(Reason::OtherNode, 7), (Reason::Incomplete, 2), (Reason::OtherUse, 1)];
    assert_eq!(unjudged(&store, None).await, alone);
}

/// Addresses of Docker's containers: what dockerd knows is in use, with a link or without; and
/// where it does not answer, nothing is said.
#[tokio::test]
async fn dockers_addresses_are_judged_by_dockerd() {
    let store = Memory::new();
    let own = MachineId::from_source("own");
    let mut here =
        ThisNode { host: "n1".to_owned(), machine: Some(own.clone()), ..ThisNode::default() };
    let of = |handle: &str, interface: &str| {
        json!({"handle_id": handle, "secondary": {"node": "n1", "interface": interface,
            "network": "docker", "machine": own.as_str()}})
    };
    let endpoint = "61d4".repeat(16);
    hold(
        &store,
        &[
            of(&format!("docker.{endpoint}"), "docker"),
            of("docker.02420a090002", "docker"),
            of("docker.10.9.0.1", "docker"),
            // Of a network of CNI that has the name.
            of("docker.c1", "eth0"),
        ],
    );
    let leaked = async |here: &ThisNode| {
        let found = check(&store, Some(here)).await;
        let is_leak = |it: &Finding| it.kind == DamageKind::AddressWithoutAttachment;
        found.into_iter().filter(is_leak).map(|it| it.problem).collect::<Vec<String>>()
    };
    let unknown = (UnjudgedReason::UnknownNetwork, 1);
    here.docker = DockerAnswer::Silent("/run/docker.sock: no such file".to_owned());
    assert_eq!(unjudged(&store, Some(&here)).await, [unknown, (UnjudgedReason::DockerSilent, 3)]);
    assert!(leaked(&here).await.is_empty(), "silence proves nothing");
    let known = DockerKnowledge {
        endpoints: [endpoint.clone()].into(),
        macs: ["02:42:0a:09:00:02".parse().unwrap()].into(),
        subnets: ["10.9.0.0/24".parse().unwrap()].into(),
        ..DockerKnowledge::default()
    };
    here.docker = DockerAnswer::Knows(known);
    assert_eq!(unjudged(&store, Some(&here)).await, [unknown]);
    assert!(leaked(&here).await.is_empty(), "all are in use, without a link");
    here.docker = DockerAnswer::Knows(DockerKnowledge::default());
    let told = leaked(&here).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|it| it.contains("neither dockerd")), "{told:?}");
    // A link that dockerd does not know of has its address still.
    here.attachments = vec![Attached {
        identity: AttachmentIdentity::new("docker", endpoint, "docker").unwrap(),
        addresses: Vec::new(),
    }];
    assert_eq!(leaked(&here).await.len(), 2);
}

/// Where the node's registered address is missing, its containers are elsewhere, not gone.
#[tokio::test]
async fn another_network_namespace_than_the_nodes_shows_no_leak() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/24", json!({"blockSize": 29}));
    assign(&store, &request("n1", "a", &[Family::V4])).await.unwrap();
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "n1"},
        "spec": {"bgp": {"ipv4Address": "172.30.0.1/24"}},
    });
    put(&store, keys::node("n1"), node);
    let mut here = ThisNode {
        host: "n1".to_owned(),
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    };
    assert_eq!(unjudged(&store, Some(&here)).await, [(UnjudgedReason::OtherNamespace, 1)]);
    assert!(check(&store, Some(&here)).await.is_empty());
    here.routed.insert("172.30.0.1".parse().unwrap());
    assert!(unjudged(&store, Some(&here)).await.is_empty());
    assert_eq!(check(&store, Some(&here)).await.len(), 1);
}

/// Each address of a store is judged, counted as not judged, or needs no kernel.
#[tokio::test]
async fn calicos_stores_are_counted_to_the_last_address() {
    for (name, nodes) in [("small", 2), ("seed", 4), ("busy", 6)] {
        let store = recorded(name);
        let snapshot = IpamSnapshot::list(&store).await.unwrap();
        let context = AuditContext::new(None, later());
        assert!(check_in(&store, &context).await.is_empty());
        let report = Report::new(&snapshot, &[], &context);
        let [others] = &report.not_judged_addresses[..] else { panic!("{report:?}") };
        assert_eq!((others.reason, others.of.len()), (UnjudgedReason::OtherNode, nodes), "{name}");
        let tunnels = snapshot_tunnels(&store);
        assert_eq!(others.addresses + tunnels, report.addresses, "{name}");
    }
    let (store, here) = healthy().await;
    let all = unjudged(&store, Some(&here)).await;
    // `n2`'s six and two more; Calico's container on `n1`; the network of another plugin.
    use UnjudgedReason as Reason;
    assert_eq!(all, [(Reason::OtherNode, 8), (Reason::Calicos, 1), (Reason::OtherNetwork, 1)]);
}

fn snapshot_tunnels(store: &Memory) -> usize {
    let is_tunnel = |block: &Block| {
        let is_it = |holder: &weir_common::ipam::Attribute| {
            holder.fact("type").is_some_and(|it| it.ends_with("TunnelAddress"))
        };
        block.held_by(is_it).len()
    };
    blocks(store).iter().map(is_tunnel).sum()
}
