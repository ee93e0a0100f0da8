//! Plans of a node's part in the cluster, and what the kernel makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::network::{ClusterPlan, RouteKind, TunnelPlan, diff};
use weir_kernel::{Error, Kernel};

use super::{ip, run};

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn direct(next_hop: &str, source: &str) -> RouteKind {
    let link = "uplink".to_owned();
    RouteKind::Direct { next_hop: address(next_hop), link, source: address(source) }
}

pub fn direct_v4() -> RouteKind {
    direct("198.51.100.9", "198.51.100.1")
}

pub fn direct_v6() -> RouteKind {
    direct("fd00:198::9", "fd00:198::1")
}

/// A plan of nothing but routes.
pub fn plan(routes: &[(&str, RouteKind)]) -> ClusterPlan {
    ClusterPlan {
        tunnels: BTreeMap::new(),
        routes: routes.iter().map(|(range, way)| (net(range), way.clone())).collect(),
        bgp_need: None,
        keeps_announcing: false,
        announced: BTreeSet::new(),
        nat: None,
        pod_mtu: 1500,
        problems: BTreeSet::new(),
        with_problems: BTreeSet::new(),
        keeps_addresses: false,
        left_to_others: Default::default(),
        awaited: Default::default(),
        nodes: Default::default(),
    }
}

/// A tunnel of IPIP that a pool needs.
pub fn ipip(address: Option<&str>, senders: impl IntoIterator<Item = IpAddr>) -> TunnelPlan {
    TunnelPlan {
        port: None,
        is_needed: true,
        address: address.map(self::address),
        mtu: 1480,
        senders: senders.into_iter().map(IpNet::from).collect(),
        asymmetric: BTreeSet::new(),
        vxlan: None,
    }
}

/// Makes the kernel what `plan` says and returns what could not be done.
pub async fn converge(kernel: &Kernel, plan: &ClusterPlan) -> Vec<(String, Error)> {
    let present = kernel.actual_state().await.unwrap();
    kernel.change(&diff(plan, &present).changes).await
}

pub fn assert_none(failures: &[(String, Error)]) {
    let texts: Vec<String> = failures.iter().map(|(what, why)| format!("{what}: {why}")).collect();
    assert_eq!(texts, Vec::<String>::new());
}

/// The routes of the node that are not Weir's (none in another table than the
/// main one is), its links and addresses, and its nftables.
pub fn foreign() -> String {
    let is_foreign = |line: &&str| !line.contains("proto 77") || line.contains("table 99");
    let lines = ["-o -4 route show table all", "-o -6 route show table all"].map(ip).join("");
    let lines: Vec<&str> = lines.lines().filter(is_foreign).collect();
    lines.join("\n") + &ip("-details address") + &run("nft", &["list", "ruleset"])
}
