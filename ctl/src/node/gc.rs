//! The addresses of this node's containers that are gone, given back: not every runtime calls
//! GC.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, interval_at, timeout};
use weir_common::ipam::collect::{AttachmentName, Collection, Evidence, Rule, collect_own_and};
use weir_ipam::{Claims, forget_released, remove_unfinished};
use weir_kernel::{Kernel, is_first_process_namespace};
use weir_process::{AttachmentLocks, boot_id};

use super::agent_node::AgentNode;
use super::metrics::Metrics;
use crate::session::chain;
use crate::this_node::{hold_still, require_node_namespace};

/// How long the addresses may be looked through.
const LONGEST: Duration = Duration::from_secs(30);

/// What one look saw.
struct Look {
    at: Timestamp,
    /// The attachments with a link, by their networks.
    attached: BTreeMap<String, BTreeSet<AttachmentName>>,
}

impl Look {
    /// What the kernel has now; in words why that proves nothing.
    async fn now(kernel: &Kernel) -> Result<Self, String> {
        require_node_namespace()?;
        let at = Timestamp::now();
        let links = kernel.made_links().await.map_err(|error| chain(&error))?;
        let mut attached: BTreeMap<String, BTreeSet<AttachmentName>> = BTreeMap::new();
        for identity in links.into_iter().filter_map(|link| link.identity) {
            attached.entry(identity.network().to_owned()).or_default().insert(identity.name());
        }
        Ok(Self { at, attached })
    }

    /// What this look and a `later` one prove together about a network: an attachment that
    /// had a link in one of them lives, and one that was made since this look may. If there was no
    /// link at all, this may be another network than the node's, unless that `is_sure`.
    fn evidence(&self, later: &Self, network: &str, is_sure: bool) -> Evidence {
        let has_links = [self, later].iter().any(|look| !look.attached.is_empty());
        let looks = [self, later].into_iter();
        let alive = looks.filter_map(|look| look.attached.get(network)).flatten().cloned();
        Evidence {
            boot_id: boot_id().map(str::to_owned),
            alive: alive.collect(),
            all_linked_at: (is_sure || has_links).then_some(self.at),
            made_before: None,
        }
    }
}

/// Gives back, `every` so often, the addresses of attachments that have no link now and
/// had none the time before.
pub async fn run(node: &AgentNode, kernel: Kernel, every: Duration, metrics: &Metrics) {
    let mut due = interval_at(Instant::now() + every, every);
    let mut before: Option<Look> = None;
    let late = || format!("looking for them took longer than {} s", LONGEST.as_secs());
    loop {
        due.tick().await;
        let collected = async {
            let now = Look::now(&kernel).await?;
            let released = match &before {
                Some(before) => {
                    let collecting = timeout(LONGEST, collect(node, &kernel, before, &now));
                    collecting.await.map_err(|_| late())??
                }
                None => 0,
            };
            before = Some(now);
            Ok::<_, String>(released)
        };
        match collected.await {
            Ok(released) => _ = metrics.collected.inc_by(released),
            Err(error) => tracing::warn!(error, "addresses of lost containers stay assigned"),
        }
    }
}

/// Returns how many addresses were given back. Calls that change addresses wait meanwhile.
async fn collect(
    node: &AgentNode,
    kernel: &Kernel,
    before: &Look,
    now: &Look,
) -> Result<u64, String> {
    let networks = node.networks().await;
    let _locks = hold_still(&networks).await.map_err(|failure| failure.message)?;
    let is_sure = is_first_process_namespace();
    let mut released = 0;
    for network in &networks.own {
        let locks = AttachmentLocks::open().map_err(|error| error.to_string())?;
        let claims = Claims::new(network, locks);
        if let Err(error) = remove_unfinished(kernel, &claims).await {
            tracing::warn!(%error, "half-made links stay, with their addresses");
        }
        let claim = |attachment: &AttachmentName| claims.claim(attachment);
        let collection = Collection {
            host: node.name.clone(),
            machine: node.machine.clone(),
            network: network.clone(),
            rule: Rule::Proved(before.evidence(now, network, is_sure)),
        };
        let others = node.borrowed_from.borrow().clone();
        let collected =
            collect_own_and(node.datastore.as_ref(), &collection, &others, &claim).await;
        for (address, handle) in &collected.released {
            tracing::warn!(%address, handle, "given back: its container is gone, and no DEL came");
        }
        for error in &collected.errors {
            tracing::warn!(error = chain(error), "an address cannot be given back");
        }
        released += collected.released.len() as u64;
        let addresses = collected.released.into_iter().map(|(address, _)| address);
        forget_released(kernel, addresses.collect()).await;
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: i64, containers: &[&str]) -> Look {
        let name = |id: &&str| AttachmentName {
            container_id: (*id).to_owned(),
            interface: "eth0".to_owned(),
        };
        let names = containers.iter().map(name).collect();
        let attached = [("pods".to_owned(), names)].into();
        Look { at: Timestamp::from_second(at).unwrap(), attached }
    }

    #[test]
    fn a_link_in_either_look_keeps_an_attachment() {
        let (first, second) = (look(100, &["a"]), look(400, &["b"]));
        let evidence = first.evidence(&second, "pods", false);
        let ids: Vec<&str> = evidence.alive.iter().map(|it| it.container_id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(evidence.all_linked_at, Some(first.at), "what came since may be at work");
        assert!(first.evidence(&second, "other", false).alive.is_empty());
    }

    #[test]
    fn looks_without_any_link_prove_nothing_where_this_may_be_another_network() {
        let (first, second) = (look(100, &[]), look(400, &[]));
        let nothing = |at| Look { at, attached: BTreeMap::new() };
        let proved = |is_sure| {
            let (first, second) = (nothing(first.at), nothing(second.at));
            first.evidence(&second, "pods", is_sure).all_linked_at
        };
        assert_eq!(proved(false), None);
        assert_eq!(proved(true), Some(first.at));
        let linked = look(400, &["b"]);
        assert_eq!(
            nothing(first.at).evidence(&linked, "pods", false).all_linked_at,
            Some(first.at)
        );
    }
}
