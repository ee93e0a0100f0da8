//! What dockerd has forgotten: addresses and links of containers that are gone, given back.
//!
//! Between two calls dockerd, the driver or the machine may end, and then nobody asks again. So
//! the driver looks at what dockerd and the kernel know, and looks again: what neither knew both
//! times goes.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};
use weir_common::ipam::collect::{
    AttachmentName, CollectScope, Collection, Evidence, Rule, collect,
};
use weir_common::ipam::docker::{DOCKER_INTERFACE, DOCKER_NETWORK, DockerKnowledge};
use weir_ipam::{Claims, forget_released, remove_unfinished};
use weir_kernel::Kernel;
use weir_process::{AttachmentLocks, boot_id};

use super::driver::Driver;
use super::protocol::EndpointCall;
use crate::session::chain;
use crate::this_node::require_node_namespace;

/// How many looks are one pause apart after the start. A driver that was killed while a container
/// was removed finds its endpoint still known at the first look: the third one judges it.
const FIRST_LOOKS: u32 = 3;

/// How many pauses later looks are apart: an hour with the pause as it is by default.
const LOOKS_APART: u32 = 6;

/// How long one look may take, and what follows from it.
const LONGEST: Duration = Duration::from_secs(60);

/// What one look saw.
#[derive(Debug)]
struct DockerLook {
    at: Timestamp,
    known: DockerKnowledge,
    /// The endpoints with a link.
    linked: BTreeSet<String>,
    /// The endpoints with a WorkloadEndpoint.
    written: BTreeSet<String>,
    /// The networks with a file.
    networks: BTreeSet<String>,
}

impl DockerLook {
    /// The endpoints whose links go, by this look and a `later` one: dockerd knew them in
    /// neither.
    fn lost_links(&self, later: &Self) -> BTreeSet<String> {
        let is_known = |id: &String| self.known.knows(id) || later.known.knows(id);
        let lost = self.linked.intersection(&later.linked).filter(|id| !is_known(id));
        lost.cloned().collect()
    }

    /// The endpoints whose WorkloadEndpoints go.
    fn lost_workloads(&self, later: &Self) -> BTreeSet<String> {
        let written = self.written.intersection(&later.written);
        written.filter(|endpoint| !self.spares(later, endpoint)).cloned().collect()
    }

    /// The networks whose files go.
    fn lost_networks(&self, later: &Self) -> BTreeSet<String> {
        let is_known = |id: &String| [self, later].iter().any(|it| it.known.networks.contains(id));
        let kept = self.networks.intersection(&later.networks);
        kept.filter(|id| !is_known(id)).cloned().collect()
    }

    /// Whether this look or a `later` one shows that what a handle names is in use.
    fn spares(&self, later: &Self, named: &str) -> bool {
        [self, later].iter().any(|look| look.known.knows(named))
            || [self, later].iter().any(|look| look.linked.contains(named))
                && !self.lost_links(later).contains(named)
    }
}

impl Driver {
    /// Gives back what dockerd has forgotten, for ever: three looks `pause` apart once dockerd
    /// answers, then one an hour.
    pub(super) async fn sweep(self: Rc<Self>, pause: Duration) {
        if let Err(error) = self.daemon.keep_socket(&self.directory) {
            tracing::warn!(error = chain(&error), "other commands may ask another dockerd");
        }
        let mut before: Option<DockerLook> = None;
        // The node may have borrowed addresses under an earlier boot: at first, all blocks are
        // looked into.
        let mut scope = CollectScope::AllBlocks;
        let mut looks = 0;
        loop {
            let looked = timeout(LONGEST, self.sweep_once(before.as_ref(), scope)).await;
            let late = || format!("it took longer than {} s", LONGEST.as_secs());
            let mut next = pause;
            match looked.unwrap_or_else(|_| Err(late())) {
                Ok(look) => {
                    looks += 1;
                    before = Some(look);
                    if looks >= FIRST_LOOKS {
                        (scope, next) = (CollectScope::OwnBlocks, pause * LOOKS_APART);
                    }
                }
                Err(reason) => tracing::warn!(reason, "what dockerd has forgotten is left for now"),
            }
            sleep(next).await;
        }
    }

    /// Looks, and gives back what was not there `before` either.
    async fn sweep_once(
        &self,
        before: Option<&DockerLook>,
        scope: CollectScope,
    ) -> Result<DockerLook, String> {
        let kernel = Kernel::open().map_err(|error| chain(&error))?;
        let now = self.look(&kernel).await?;
        if let Some(before) = before {
            for endpoint in before.lost_links(&now) {
                self.remove_lost(endpoint).await;
            }
            self.give_back(&kernel, before, &now, scope).await?;
            for endpoint in before.lost_workloads(&now) {
                match self.delete_workload(&endpoint).await {
                    Ok(()) => tracing::warn!(endpoint, "its WorkloadEndpoint is deleted"),
                    Err(error) => tracing::warn!(endpoint, %error, "a WorkloadEndpoint stays"),
                }
            }
            for network in before.lost_networks(&now) {
                self.forget_network(network).await;
            }
        }
        Ok(now)
    }

    /// Removes the file of a network as if dockerd asked for it.
    async fn forget_network(&self, network_id: String) {
        let call = EndpointCall { network_id: network_id.clone(), ..EndpointCall::default() };
        match self.delete_network(call).await {
            Ok(()) => tracing::warn!(network_id, "removed: dockerd does not know this network"),
            Err(error) => tracing::warn!(network_id, %error, "a network's file stays"),
        }
        self.ensure_forwarding();
    }

    /// What dockerd and the kernel have now; in words why that proves nothing.
    async fn look(&self, kernel: &Kernel) -> Result<DockerLook, String> {
        require_node_namespace()?;
        let at = Timestamp::now();
        let known = self.daemon.own_knowledge(&self.directory).await;
        let known = known.map_err(|error| chain(&error))?;
        let links = kernel.made_links().await.map_err(|error| chain(&error))?;
        let identities = links.into_iter().filter_map(|link| link.identity);
        let dockers = identities.filter(|identity| identity.network() == DOCKER_NETWORK);
        let linked = dockers.map(|identity| identity.container_id().to_owned()).collect();
        let written = self.written_workloads().await.map_err(|error| chain(&error))?;
        let networks = self.networks().map_err(|error| chain(&error))?.into_iter().collect();
        Ok(DockerLook { at, known, linked, written, networks })
    }

    /// Removes the link of an endpoint as if dockerd asked for it.
    async fn remove_lost(&self, endpoint_id: String) {
        let call = EndpointCall { endpoint_id: endpoint_id.clone(), ..EndpointCall::default() };
        match self.delete_endpoint(call).await {
            Ok(()) => tracing::warn!(endpoint_id, "removed: dockerd does not know this endpoint"),
            Err(error) => tracing::warn!(endpoint_id, %error, "an endpoint cannot be removed"),
        }
    }

    async fn give_back(
        &self,
        kernel: &Kernel,
        before: &DockerLook,
        now: &DockerLook,
        scope: CollectScope,
    ) -> Result<(), String> {
        let evidence = Evidence {
            boot_id: boot_id().map(str::to_owned),
            // What lives is spared by the claim, which knows more of it than its name.
            alive: BTreeSet::new(),
            all_linked_at: Some(now.at),
            made_before: Some(before.at),
        };
        let collection = Collection {
            host: self.node.clone(),
            machine: self.machine.clone(),
            network: DOCKER_NETWORK.to_owned(),
            rule: Rule::Proved(evidence),
        };
        let locks = AttachmentLocks::open().map_err(|error| error.to_string())?;
        let claims = Claims::new(DOCKER_NETWORK, locks);
        if let Err(error) = remove_unfinished(kernel, &claims).await {
            tracing::warn!(%error, "half-made links stay, with their addresses");
        }
        let claim = |attachment: &AttachmentName| {
            attachment.interface == DOCKER_INTERFACE
                && !before.spares(now, &attachment.container_id)
                && claims.claim(attachment)
        };
        let collected = collect(self.datastore.as_ref(), &collection, scope, &claim).await;
        for (address, handle) in &collected.released {
            tracing::warn!(%address, handle, "given back: dockerd does not know who has it");
        }
        for error in &collected.errors {
            tracing::warn!(error = chain(error), "an address cannot be given back");
        }
        let addresses = collected.released.into_iter().map(|(address, _)| address);
        forget_released(kernel, addresses.collect()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look that saw these endpoints: known to dockerd, and with a link.
    fn look(known: &[&str], linked: &[&str]) -> DockerLook {
        let names = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let known = DockerKnowledge { endpoints: names(known), ..DockerKnowledge::default() };
        DockerLook {
            at: Timestamp::UNIX_EPOCH,
            known,
            linked: names(linked),
            written: names(&["a"]),
            networks: names(&["n"]),
        }
    }

    #[test]
    fn a_link_goes_that_dockerd_knew_in_neither_look() {
        let lost = |before: DockerLook, now: DockerLook| before.lost_links(&now);
        assert_eq!(lost(look(&[], &["a"]), look(&[], &["a"])), ["a".to_owned()].into());
        for (known, linked, why) in [
            ((&["a"][..], &[][..]), (&["a"][..], &["a"][..]), "known before"),
            ((&[], &["a"]), (&["a"], &["a"]), "known now: it was being made before"),
            ((&[], &[]), (&[], &["a"]), "seen once"),
            ((&[], &[]), (&["a"], &[]), "gone by itself"),
        ] {
            let (before, now) = (look(known.0, linked.0), look(known.1, linked.1));
            assert!(lost(before, now).is_empty(), "{why}");
        }
    }

    #[test]
    fn a_network_goes_that_dockerd_knew_in_neither_look() {
        let known = || {
            let mut look = look(&[], &[]);
            look.known.networks.insert("n".to_owned());
            look
        };
        let unknown = || look(&[], &[]);
        let unseen = || DockerLook { networks: BTreeSet::new(), ..unknown() };
        assert_eq!(unknown().lost_networks(&unknown()), ["n".to_owned()].into());
        for (before, now) in [
            (known(), unknown()),
            (unknown(), known()),
            (unseen(), unknown()),
            (unknown(), unseen()),
        ] {
            assert!(before.lost_networks(&now).is_empty(), "{before:?} {now:?}");
        }
    }

    #[test]
    fn an_address_goes_that_neither_knew_in_neither_look() {
        let spares = |before: DockerLook, now: DockerLook| before.spares(&now, "a");
        assert!(!spares(look(&[], &[]), look(&[], &[])));
        let of_nobody = look(&[], &[]).lost_workloads(&look(&[], &[]));
        assert_eq!(of_nobody, ["a".to_owned()].into());
        let written_since = DockerLook { written: BTreeSet::new(), ..look(&[], &[]) };
        assert!(written_since.lost_workloads(&look(&[], &[])).is_empty());
        assert!(!spares(look(&[], &["a"]), look(&[], &["a"])), "with its lost link");
        assert!(spares(look(&["a"], &[]), look(&[], &[])));
        assert!(spares(look(&[], &[]), look(&["a"], &[])));
        assert!(spares(look(&[], &[]), look(&[], &["a"])), "a link that was seen once");
    }
}
