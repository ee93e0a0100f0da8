//! What an audit found, in the form that scripts read.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::release_one::Seen;
use super::allocation::Allocation;
use super::finding::Finding;
use super::kind::Kind;
use super::listing::Listing;
use super::node::{ThisNode, Unjudged};

/// A report, as `weirctl ipam check -o json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The hosts that somebody named as gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone_hosts: BTreeSet<String>,
    /// The networks of this node whose attachments were not, or not fully, compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_judged: Vec<Unjudged>,
    /// How many addresses of this node's name belong to another machine, and were not
    /// judged.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub of_other_machines: usize,
    /// What is damaged.
    pub findings: Vec<Record>,
}

/// One finding in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The kind's name ([`Kind::name`]).
    pub kind: String,
    /// The damaged keys.
    pub keys: Vec<String>,
    /// The addresses concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<RecordedAddress>,
    /// The handle concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The host concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The block concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What a repair does.
    pub remedy: String,
    /// Whether a repair mends it.
    pub safe: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// An address in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedAddress {
    /// The address.
    pub address: IpAddr,
    /// The handle that has it.
    #[serde(default)]
    pub handle: Option<String>,
    /// The sequence number under which it was handed out, as text: it exceeds
    /// what many JSON readers keep of a number.
    #[serde(default)]
    pub sequence: Option<String>,
}

impl Report {
    /// The report on a listing and what was found in it, these hosts being gone.
    pub fn new(listing: &Listing, findings: &[Finding], gone: &BTreeSet<String>) -> Self {
        Self {
            pools: listing.pools.len(),
            blocks: listing.blocks.len(),
            affinities: listing.affinities.values().map(Vec::len).sum(),
            handles: listing.handles.len(),
            addresses: listing.allocations().count(),
            gone_hosts: gone.clone(),
            not_judged: Vec::new(),
            of_other_machines: 0,
            findings: findings.iter().map(Record::from).collect(),
        }
    }

    /// The report with what of this node was not compared.
    #[must_use]
    pub fn on(self, node: Option<&ThisNode>, listing: &Listing) -> Self {
        let not_judged = node.map(|node| node.unjudged.clone()).unwrap_or_default();
        let of_other_machines = node.map_or(0, |node| node.of_other_machines(listing));
        Self { not_judged, of_other_machines, ..self }
    }

    /// The addresses that `weirctl ipam release --from-report` gives back:
    /// those that nobody uses, as they were seen. Of an address without a
    /// handle that cannot be told, so that it is none of them.
    pub fn releasable(&self) -> Vec<Seen> {
        let unused = [Kind::AddressWithoutAttachment.name(), Kind::HostGone.name()];
        let unused = self
            .findings
            .iter()
            .filter(|record| record.safe && unused.contains(&record.kind.as_str()));
        unused.flat_map(|record| &record.addresses).map(Seen::from).collect()
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl From<&Finding> for Record {
    fn from(finding: &Finding) -> Self {
        let obstacle = finding.obstacle();
        Self {
            kind: finding.kind().name().to_owned(),
            keys: finding.keys(),
            addresses: finding.allocations().iter().map(RecordedAddress::from).collect(),
            handle: finding.handle(),
            host: finding.host().map(str::to_owned),
            block: finding.block().map(|block| block.to_string()),
            problem: finding.problem(),
            remedy: finding.remedy(),
            safe: obstacle.is_none(),
            obstacle,
        }
    }
}

impl From<&Allocation> for RecordedAddress {
    fn from(allocation: &Allocation) -> Self {
        Self {
            address: allocation.address,
            handle: allocation.handle.as_deref().map(str::to_owned),
            sequence: allocation.sequence.map(|number| number.to_string()),
        }
    }
}

impl From<&RecordedAddress> for Seen {
    fn from(recorded: &RecordedAddress) -> Self {
        Self {
            address: recorded.address,
            handle: recorded.handle.clone(),
            sequence: recorded.sequence.as_deref().and_then(|number| number.parse().ok()),
        }
    }
}
