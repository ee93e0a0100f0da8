//! Plans made by hand, and what BIRD itself says of their configurations.

#![allow(dead_code, reason = "each test file uses some")]

pub mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;

use weir_common::network::{BgpPlan, BgpSession, BirdConfiguration, Origin};
use weir_common::resources::bgp::{LogSeverity, SecretReference};

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

pub fn secret(key: &str) -> SecretReference {
    SecretReference { name: "bgp".to_owned(), key: key.to_owned() }
}

/// A plan without sessions, of a node with this IPv4 address.
pub fn plan(router_id: &str) -> BgpPlan {
    BgpPlan {
        need: None,
        router_id: router_id.parse().unwrap(),
        as_number: 64512,
        listen_port: 179,
        listen_addresses: BTreeSet::new(),
        log_severity: LogSeverity::Info,
        ignored_interfaces: Vec::new(),
        sessions: BTreeMap::new(),
        filters: BTreeMap::new(),
        pools: BTreeSet::from([net("10.244.0.0/16"), net("fd00:244::/48")]),
        not_exported: BTreeSet::new(),
        of_agent: BTreeSet::new(),
        prefix_advertisements: Vec::new(),
        static_routes: BTreeSet::new(),
        problems: BTreeSet::new(),
    }
}

/// A session of the mesh.
pub fn session(local: &str, peer: &str) -> BgpSession {
    let (local, peer) = (address(local), address(peer));
    BgpSession {
        node: Some("n2".to_owned()),
        local_address: Some(local),
        is_passive: peer.to_string() > local.to_string(),
        ..BgpSession::plain(Origin::Mesh, (peer, 179), 64512, 64512)
    }
}

/// Adds a session under the name of its protocol.
pub fn with(mut plan: BgpPlan, kind: &str, session: BgpSession) -> BgpPlan {
    let address = session.address.to_string().replace(['.', ':'], "_");
    plan.sessions.insert(format!("{kind}_{address}"), session);
    plan
}

/// A router of another AS.
pub fn router(local: &str, peer: &str) -> BgpSession {
    let origin = Origin::Global("tor".to_owned());
    BgpSession { origin, node: None, as_number: 65000, is_passive: false, ..session(local, peer) }
}

pub fn configuration(plan: &BgpPlan) -> BirdConfiguration {
    BirdConfiguration::of(plan, &BTreeMap::new())
}

/// What `bird -p` finds wrong with a text; needs no privileges and starts nothing.
pub fn refusal(text: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bird.conf");
    std::fs::write(&path, text).unwrap();
    let checked = Command::new("bird").arg("-p").arg("-c").arg(&path).output();
    let checked = checked.expect("bird (package bird2) must be installed");
    (!checked.status.success()).then(|| String::from_utf8_lossy(&checked.stderr).into_owned())
}
