//! After a reboot: give back the addresses of attachments that ended with it.
//!
//! The first ADD of a network under a boot does it, unasked; a reminder in the
//! host's lock file keeps later ones from doing it again.

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::datastore::Datastore;
use weir_common::ipam::Memo;
use weir_common::ipam::collect::{Collection, Evidence, Rule, Scope, collect};
use weir_process::{Lock, SWEEP, Timing};

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
    let Ok(collected) = tokio::time::timeout(SWEEP, collect(datastore, &collection, scope)).await
    else {
        return tracing::warn!("what a reboot left could not be given back in time");
    };
    for (address, handle) in &collected.released {
        tracing::info!(%address, handle, "given back: its attachment ended with the last boot");
    }
    for error in &collected.errors {
        tracing::warn!(%error, "an address that a reboot left could not be given back");
    }
    if collected.errors.is_empty() {
        memo.note_swept(network, scope);
        lock.leave(&memo.to_string());
    }
}

/// The attachment that is being made lives, also under an id from before the
/// reboot. A link that is missing proves nothing here.
fn living(mut evidence: Evidence, call: &Call) -> Evidence {
    evidence.alive.insert(evidence::name_of(call));
    Evidence { linked_if_made_before: None, ..evidence }
}
