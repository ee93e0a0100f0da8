//! What an audit found, in the form that scripts read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::kind::DamageKind;
use super::node::Unjudged;
use super::release_one::SeenAddress;
use super::scope::AuditContext;
use super::unjudged::{UnjudgedAddresses, unjudged_addresses};
use crate::ipam::IpamSnapshot;

/// A report, as `weirctl ipam check -o json` prints it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How many pools were looked at.
    pub pools: usize,
    /// How many blocks.
    pub blocks: usize,
    /// How many affinities.
    pub affinities: usize,
    /// How many handles.
    pub handles: usize,
    /// How many addresses are in use.
    pub addresses: usize,
    /// How many of these were released and cool down.
    pub cooling_down: usize,
    /// The hosts that were named as gone.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub gone_hosts: BTreeSet<String>,
    /// The networks of this node whose attachments were not, or not fully, compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<Unjudged>,
    /// The addresses that were not judged, by reason.
    pub not_judged_addresses: Vec<UnjudgedAddresses>,
    /// What is damaged.
    pub findings: Vec<Finding>,
}

/// What `weirctl ipam release --from-report` reads of a report.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportToRelease {
    /// The hosts that were named as gone.
    #[serde(default)]
    pub gone_hosts: BTreeSet<String>,
    findings: Vec<FindingToRelease>,
}

#[derive(Clone, Debug, Deserialize)]
struct FindingToRelease {
    kind: String,
    safe: bool,
    #[serde(default)]
    addresses: Vec<SeenAddress>,
}

impl Report {
    /// The report on a snapshot and what was found in it.
    pub fn new(snapshot: &IpamSnapshot, findings: &[Finding], context: &AuditContext<'_>) -> Self {
        Self {
            pools: snapshot.pools.len(),
            blocks: snapshot.blocks.len(),
            affinities: snapshot.affinities.values().map(Vec::len).sum(),
            handles: snapshot.handle_count,
            addresses: snapshot.allocations().count(),
            cooling_down: snapshot.allocations().filter(|it| it.cooling_down).count(),
            gone_hosts: context.gone.clone(),
            not_judged: context.node.map(|node| node.unjudged.clone()).unwrap_or_default(),
            not_judged_addresses: unjudged_addresses(snapshot, context),
            findings: findings.to_vec(),
        }
    }
}

impl ReportToRelease {
    /// The addresses that are not in use, as they were seen. Of an address without a
    /// handle that cannot be told, so that it is none of them.
    pub fn addresses(&self) -> Vec<SeenAddress> {
        let unused = [DamageKind::AddressWithoutAttachment.name(), DamageKind::HostGone.name()];
        let is_unused = |it: &&FindingToRelease| it.safe && unused.contains(&it.kind.as_str());
        let findings = self.findings.iter().filter(is_unused);
        findings.flat_map(|it| it.addresses.clone()).collect()
    }
}
