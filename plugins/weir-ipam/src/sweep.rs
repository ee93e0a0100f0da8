//! After a reboot: give back the addresses of attachments that ended with it.
//!
//! The first ADD of a network under a boot does it, unasked; a reminder in the
//! host's lock file keeps later ones from doing it again.

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::datastore::Datastore;
use weir_common::ipam::Memo;
use weir_common::ipam::collect::{
    Collected, Collection, Evidence, Rule, Scope, collect, collect_few,
};
use weir_process::{Lock, SWEEP, SWEEP_OF_OTHERS, Timing};

use crate::evidence;

/// Gives back what was assigned under earlier boots of this host, unless that was
/// done under this one, or nobody would remember that it was. A failure is logged:
/// the ADD goes on, and the next one tries again.
pub async fn sweep(
    call: &Call,
    host: &str,
    datastore: &dyn Datastore,
    scope: Scope,
    (lock, memo): (&Lock, &mut Memo),
) {
    let network = call.configuration.network.as_str();
    if !lock.is_held() || memo.is_swept(network, scope) {
        return;
    }
    let _timing = Timing::of("sweep after a reboot");
    let evidence = match evidence::gather(call, Timestamp::now()).await {
        Ok(evidence) if evidence.boot_id.is_none() => return,
        Ok(evidence) => living(evidence, call),
        Err(error) => return tracing::warn!(%error, "what a reboot left is not looked for"),
    };
    let rule = Rule::Proved(evidence);
    let collection = Collection { host: host.to_owned(), network: network.to_owned(), rule };
    let collecting = collect(datastore, &collection, scope);
    let Ok(collected) = tokio::time::timeout(SWEEP, collecting).await else {
        return tracing::warn!("what a reboot left could not be given back in time");
    };
    let (collected, done) = and_in_others(datastore, &collection, collected, scope).await;
    for (address, handle) in &collected.released {
        tracing::info!(%address, handle, "given back: its attachment ended with the last boot");
    }
    for error in &collected.errors {
        tracing::warn!(%error, "an address that a reboot left could not be given back");
    }
    if let Some(scope) = done {
        memo.note_swept(network, scope);
        lock.leave(&memo.to_string());
    }
}

/// After the host's own blocks looks into the others too, where these are few, and
/// answers also in which that was done without an error.
async fn and_in_others(
    datastore: &dyn Datastore,
    collection: &Collection,
    mut collected: Collected,
    scope: Scope,
) -> (Collected, Option<Scope>) {
    if !collected.errors.is_empty() || scope == Scope::AllBlocks {
        let done = collected.errors.is_empty().then_some(scope);
        return (collected, done);
    }
    let collecting = collect_few(datastore, collection);
    let Ok((others, all)) = tokio::time::timeout(SWEEP_OF_OTHERS, collecting).await else {
        return (collected, Some(scope));
    };
    collected.released.extend(others.released);
    // What could not be done there is left to the sweep of all blocks.
    collected.errors.extend(others.errors);
    let done = if all && collected.errors.is_empty() { Scope::AllBlocks } else { scope };
    (collected, Some(done))
}

/// The attachment that is being made lives, also under an id from before the
/// reboot. A link that is missing proves nothing here.
fn living(mut evidence: Evidence, call: &Call) -> Evidence {
    evidence.alive.insert(evidence::name_of(call));
    Evidence { linked_if_made_before: None, ..evidence }
}
