//! What an audit could not judge: the addresses of which it can say neither that they are in use
//! nor that they are leaked, and what to do about each kind of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::finding::listed;
use super::node::ThisNode;
use super::scope::{AuditContext, Scope};
use super::unjudged_reason::{Unjudgeable, UnjudgedReason};
use crate::ipam::{Allocation, IpamSnapshot};
use crate::printable::shell_word;

/// Addresses that were not judged, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnjudgedAddresses {
    /// Why not.
    pub reason: UnjudgedReason,
    /// How many.
    pub addresses: usize,
    /// The nodes or networks that have them, where they name some.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub of: BTreeSet<String>,
    /// What to do, in words.
    pub advice: String,
}

/// The addresses that an audit of this snapshot does not judge, by reason. Those of tunnels, of
/// hosts that are gone (a finding), that Calico keeps from Windows or that cool down need no
/// kernel to be judged.
pub fn unjudged_addresses(
    snapshot: &IpamSnapshot,
    context: &AuditContext<'_>,
) -> Vec<UnjudgedAddresses> {
    let scope = Scope { snapshot, context };
    let mut by_reason: BTreeMap<UnjudgedReason, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for (reason, of) in snapshot.allocations().filter_map(|it| why(&scope, it)) {
        let (addresses, names) = by_reason.entry(reason).or_default();
        *addresses += 1;
        names.extend(of);
    }
    let entry = |(reason, (addresses, of)): (UnjudgedReason, (usize, BTreeSet<&str>))| {
        let advice = reason.advice(context.node, &of);
        let of = of.into_iter().map(str::to_owned).collect();
        UnjudgedAddresses { reason, addresses, of, advice }
    };
    by_reason.into_iter().map(entry).collect()
}

fn why<'a>(scope: &Scope<'a>, allocation: &'a Allocation) -> Option<Unjudgeable<'a>> {
    if !allocation.needs_kernel() {
        return None;
    }
    if allocation.is_of_other_use() {
        return Some((UnjudgedReason::OtherUse, allocation.node()));
    }
    let Some(node) = scope.context.node else {
        let host = allocation.node().filter(|host| !scope.is_gone(host));
        return match allocation.node() {
            None => Some((UnjudgedReason::Incomplete, None)),
            Some(_) => host.map(|host| (UnjudgedReason::OtherNode, Some(host))),
        };
    };
    if allocation.node().is_some_and(|host| scope.is_gone(host)) {
        return None;
    }
    let is_here = scope.node().is_some();
    match node.judge(allocation, scope.snapshot) {
        Ok(()) if is_here => None,
        Ok(()) => Some((UnjudgedReason::OtherNamespace, None)),
        Err(why) => Some(why),
    }
}

impl UnjudgedAddresses {
    /// The line of a report.
    pub fn in_words(&self, node: Option<&ThisNode>) -> String {
        format!("Not judged: {} addresses {}; {}", self.addresses, self.whose(node), self.advice)
    }

    /// Which addresses they are.
    pub fn whose(&self, node: Option<&ThisNode>) -> String {
        let Self { reason, of, .. } = self;
        let here = node.map_or("this node", |node| node.host.as_str());
        match reason {
            UnjudgedReason::OtherNode => format!("of other nodes ({})", listed(of)),
            UnjudgedReason::FormerName => {
                format!("of this machine under another node name ({})", listed(of))
            }
            UnjudgedReason::OtherMachine => {
                format!("of node {here}, which belong to another machine of that name")
            }
            UnjudgedReason::OtherNamespace => {
                format!("of node {here}, whose registered address is not in this network namespace")
            }
            UnjudgedReason::Incomplete => {
                "whose entries name no node or no handle (Calico 2 named no node)".to_owned()
            }
            UnjudgedReason::Calicos => {
                format!("that Calico assigned on node {here}, which has no route to them")
            }
            UnjudgedReason::OtherNetwork => {
                format!("of networks that are not judged here ({})", listed(of))
            }
            UnjudgedReason::UnknownNetwork => {
                format!("of networks that no file describes ({})", listed(of))
            }
            UnjudgedReason::OtherUse => "that are neither containers' nor tunnels'".to_owned(),
            UnjudgedReason::DockerSilent => {
                format!("of Docker's containers on this node ({})", listed(of))
            }
        }
    }
}

impl UnjudgedReason {
    fn advice(self, node: Option<&ThisNode>, of: &BTreeSet<&str>) -> String {
        const RELEASE: &str = "list them with weirctl ipam show --show-addresses, and release those \
                               of containers that are gone with weirctl ipam release --ip=ADDRESS";
        let new = node.map_or("NEW", |node| node.host.as_str());
        match self {
            Self::OtherNode => "run weirctl ipam check on each of them".to_owned(),
            Self::FormerName => {
                let old = of.first().copied().unwrap_or("OLD");
                let (old, new) = (shell_word(old), shell_word(new));
                format!("move them to the new name: weirctl node rename {old} {new}")
            }
            Self::OtherMachine => "see: weirctl node status".to_owned(),
            Self::OtherNamespace => {
                "run the same command on the node itself: nsenter --target 1 --all weirctl …"
                    .to_owned()
            }
            Self::Incomplete | Self::Calicos => {
                format!("a DEL of their containers releases them; {RELEASE}")
            }
            Self::OtherNetwork => format!("another plugin or datastore has them: {RELEASE}"),
            Self::UnknownNetwork => format!(
                "name the runtime's directory with --cni-directory; if a network was renamed or \
                 removed: {RELEASE}"
            ),
            Self::OtherUse => "the program that assigned them gives them back".to_owned(),
            Self::DockerSilent => {
                "start dockerd, or name its socket: DOCKER_HOST=unix:///run/docker.sock".to_owned()
            }
        }
    }
}
