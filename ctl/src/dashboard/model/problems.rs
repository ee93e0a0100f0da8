//! What is wrong in the cluster, each with its cure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use weir_common::audit::Finding;
use weir_common::datastore::keys;
use weir_common::network::{Peer, PoolUsage, Problem};
use weir_common::resources::Kind;
use weir_common::shell_word;

use super::ClusterView;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProblemRow {
    severity: Severity,
    what: String,
    about: String,
    cure: String,
    #[serde(skip)]
    node: Option<String>,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Severity {
    /// Something does not work.
    Error,
    /// Something will not, or may not be meant.
    Warning,
}

impl ProblemRow {
    /// The node that it is about.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    fn new(severity: Severity, what: String, about: String, cure: String) -> Self {
        Self { severity, what, about, cure, node: None }
    }

    /// So many more that are not told.
    pub fn untold(count: usize) -> Self {
        let what = format!("{count} more problems are not shown");
        Self::new(Severity::Warning, what, String::new(), "weirctl ipam check".to_owned())
    }

    fn of_node(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }
}

const REPAIR: &str = "weirctl ipam check --repair";

/// All that is wrong: errors first.
pub fn problems(view: &ClusterView, damage: &[Finding]) -> Vec<ProblemRow> {
    let mut all: Vec<ProblemRow> = damage.iter().map(of_finding).collect();
    all.extend(unreadable(view, damage));
    all.extend(pools(view));
    all.extend(nodes(view));
    all.sort_by_key(|row| row.severity);
    all
}

fn of_finding(finding: &Finding) -> ProblemRow {
    let address = finding.addresses.first().map(|it| it.address.to_string());
    let block = || finding.block.map(|it| it.to_string());
    let about = address.or_else(block).or_else(|| finding.host.clone());
    let about = about.or_else(|| finding.handle.clone());
    let about = about.or_else(|| finding.keys.first().cloned()).unwrap_or_default();
    let (what, cure) = match &finding.obstacle {
        None => (finding.problem.clone(), REPAIR),
        Some(obstacle) => {
            (format!("{}; a repair leaves it: {obstacle}", finding.problem), "weirctl ipam check")
        }
    };
    let node = finding.host.clone();
    ProblemRow { node, ..ProblemRow::new(Severity::Error, what, about, cure.to_owned()) }
}

/// Values that cannot be read, wholly or in part, but for those that the audit tells of.
fn unreadable(view: &ClusterView, damage: &[Finding]) -> Vec<ProblemRow> {
    let is_told = |key: &String| damage.iter().any(|finding| finding.keys.contains(key));
    let untold = view.cluster.unreadable.iter().filter(|(key, _)| !is_told(key));
    let whole = untold.map(|(key, reason)| {
        let problem = Problem::Unreadable { key: key.clone(), reason: reason.clone() };
        of_value(Severity::Error, key, &problem)
    });
    let flawed = view.cluster.flawed.iter().map(|(key, reason)| {
        let problem = Problem::Flawed { key: key.clone(), reason: reason.clone() };
        of_value(Severity::Warning, key, &problem)
    });
    whole.chain(flawed).collect()
}

fn of_value(severity: Severity, key: &str, problem: &Problem) -> ProblemRow {
    let resource = key.strip_prefix(keys::RESOURCES).and_then(|rest| rest.split_once('/'));
    let known = resource.and_then(|(plural, name)| Some((Kind::from_alias(plural)?, name)));
    let (about, cure) = match known {
        Some((kind, name)) => {
            let alias = kind.alias();
            (format!("{alias} {name}"), format!("weirctl get {alias} {} -o yaml", shell_word(name)))
        }
        None => (key.to_owned(), REPAIR.to_owned()),
    };
    let row = ProblemRow::new(severity, problem.to_string(), about, cure);
    match key.strip_prefix(keys::NODES) {
        Some(node) => ProblemRow { about: node.to_owned(), ..row }.of_node(node),
        None => row,
    }
}

/// Pools that are nearly full, or full.
fn pools(view: &ClusterView) -> Vec<ProblemRow> {
    let usage = view.cluster.pool_usage();
    let of_pool = |(name, usage): (&&str, &PoolUsage)| {
        // Somebody has meant it so, and whatever it has left is nothing to anybody.
        if view.kept.pools.get(*name).is_some_and(|pool| pool.disabled) {
            return None;
        }
        let about = format!("pool {name}");
        let (free, size) = (usage.free(), usage.size);
        let taken = format!(
            "of its {size} addresses {} are used, {} cool down and {} are reserved",
            usage.used, usage.cooling, usage.reserved
        );
        let cure = "weirctl create -f pool.yaml".to_owned();
        match free {
            0 => {
                let what = format!("pool {name} has no free address: {taken}; add another pool");
                Some(ProblemRow::new(Severity::Error, what, about, cure))
            }
            _ if free <= size / 10 => {
                let what = format!(
                    "pool {name} has {free} free addresses left: {taken}; add a pool before it is full"
                );
                Some(ProblemRow::new(Severity::Warning, what, about, cure))
            }
            _ => None,
        }
    };
    usage.iter().filter_map(of_pool).collect()
}

/// Nodes that others cannot reach, because of what they are registered with.
fn nodes(view: &ClusterView) -> Vec<ProblemRow> {
    let cluster = &view.cluster;
    let mut all = Vec::new();
    if cluster.nodes.len() > 1 {
        let addressless = |(_, peer): &(&String, &Peer)| peer.addresses().next().is_none();
        for (node, _) in cluster.nodes.iter().filter(addressless) {
            let range = cluster.homes.iter().find(|(_, host)| *host == node).map(|(it, _)| *it);
            let (severity, what) = match range {
                Some(range) => {
                    (Severity::Error, Problem::NoNextHop { node: node.clone(), range }.to_string())
                }
                None => (
                    Severity::Warning,
                    format!("node {node} is registered without an address to reach it by"),
                ),
            };
            let cure = "weirctl node run".to_owned();
            all.push(ProblemRow::new(severity, what, node.clone(), cure).of_node(node));
        }
    }
    let mut owners: BTreeMap<IpAddr, &String> = BTreeMap::new();
    for (node, peer) in &cluster.nodes {
        for address in [peer.ipv4, peer.ipv6].into_iter().flatten() {
            let Some(other) = owners.insert(address.addr(), node) else { continue };
            let shared =
                Problem::AddressShared { node: node.clone(), address, other: other.clone() };
            let cure = "weirctl get nodes -o wide".to_owned();
            let row = ProblemRow::new(Severity::Error, shared.to_string(), node.clone(), cure)
                .of_node(node);
            all.push(row);
        }
    }
    all
}
