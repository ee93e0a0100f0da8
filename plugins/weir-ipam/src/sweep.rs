//! After a reboot: give back the addresses of attachments that ended with it.
//!
//! The first ADD of a network under a boot does it, unasked; a reminder among the hints
//! keeps later ones from doing it again.

use jiff::Timestamp;
use weir_common::ipam::Hints;
use weir_common::ipam::collect::{
    AttachmentName, CollectScope, Collected, Collection, Evidence, Rule, collect, collect_few,
};
use weir_process::{SWEEP, SWEEP_OF_OTHERS, Timing};

use crate::gc::Claims;
use crate::{Ipam, evidence};

impl Ipam<'_> {
    /// Gives back what was assigned under earlier boots of this host, unless that was
    /// done under this one. A failure is logged: the ADD goes on, and the next one tries
    /// again. The host's lock must be held.
    pub(crate) async fn sweep(&self, scope: CollectScope, hints: &mut Hints) {
        let network = self.call.configuration.network.as_str();
        if self.boot_id.is_none() || hints.is_swept(network, scope) {
            return;
        }
        let _timing = Timing::of("sweep after a reboot");
        let prepared = async { Ok((self.living().await?, self.claims()?)) };
        let (evidence, claims) = match prepared.await {
            Ok(prepared) => prepared,
            Err::<_, weir_common::cni::Error>(error) => {
                return tracing::warn!(%error, "what a reboot left is not looked for");
            }
        };
        let collection = self.collection(Rule::Proved(evidence));
        let Some((collected, done)) = self.collect_left(&collection, &claims, scope).await else {
            return tracing::warn!("what a reboot left could not be given back in time");
        };
        self.log_collected(&collected, "its attachment ended with the last boot");
        for error in &collected.errors {
            tracing::warn!(%error, "an address that a reboot left could not be given back");
        }
        if let Some(scope) = done {
            hints.note_swept(network, scope);
        }
    }

    /// Gives back in these blocks, and after the host's own in the others too, where these
    /// are few. Answers also in which that was done without an error; `None` when time was
    /// up.
    async fn collect_left(
        &self,
        collection: &Collection,
        claims: &Claims,
        scope: CollectScope,
    ) -> Option<(Collected, Option<CollectScope>)> {
        let datastore = self.datastore.as_ref();
        let claim = |attachment: &AttachmentName| claims.claim(attachment);
        let collecting = collect(datastore, collection, scope, &claim);
        let mut collected = tokio::time::timeout(SWEEP, collecting).await.ok()?;
        if !collected.errors.is_empty() || scope == CollectScope::AllBlocks {
            let done = collected.errors.is_empty().then_some(scope);
            return Some((collected, done));
        }
        let collecting = collect_few(datastore, collection, &claim);
        let Ok((others, all)) = tokio::time::timeout(SWEEP_OF_OTHERS, collecting).await else {
            return Some((collected, Some(scope)));
        };
        collected.released.extend(others.released);
        collected.of_other_machines = collected.of_other_machines.max(others.of_other_machines);
        collected.of_calico = collected.of_calico.max(others.of_calico);
        // What could not be done there is left to the sweep of all blocks.
        collected.errors.extend(others.errors);
        let done = if all && collected.errors.is_empty() { CollectScope::AllBlocks } else { scope };
        Some((collected, Some(done)))
    }

    /// What is known of the attachments. The one that is being made lives, also under an id
    /// from before the reboot. A link that is missing proves nothing here.
    async fn living(&self) -> Result<Evidence, weir_common::cni::Error> {
        let mut evidence = evidence::gather(self.call, Timestamp::now()).await?;
        evidence.alive.insert(evidence::name_of(self.call));
        Ok(Evidence { all_linked_at: None, ..evidence })
    }
}
