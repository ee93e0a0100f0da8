//! GC: give back the addresses of attachments that are gone.

use jiff::Timestamp;
use weir_common::cni::Error;
use weir_common::cni::skeleton::Call;
use weir_common::ipam::collect::{Collection, Rule, Scope, collect};
use weir_process::{block_on, within_turn};

use crate::{evidence, host, lock};

/// Gives back what the runtime does not list, or, when it gave no list, what is
/// proved dead: of this network and this host.
///
/// # Errors
/// All that failed, as one, after everything has been tried.
pub fn gc(call: &Call) -> Result<(), Error> {
    let ipam = call.configuration.require_ipam()?;
    let host = host(call)?;
    let datastore = call.configuration.datastore.clone()?;
    let _lock = lock(ipam);
    block_on(within_turn("giving back what is not in use", async {
        let rule = match &call.configuration.valid_attachments {
            Some(valid) => Rule::Listed(valid.clone()),
            None => Rule::Proved(evidence::gather(call, Timestamp::now()).await?),
        };
        let network = call.configuration.network.clone();
        let collection = Collection { host, network, rule };
        let datastore = weir_datastore::open(&datastore).await?;
        let collected = collect(datastore.as_ref(), &collection, Scope::AllBlocks).await;
        for (address, handle) in &collected.released {
            tracing::info!(%address, handle, "given back: its attachment is gone");
        }
        let errors = collected.errors.into_iter().map(Error::from);
        Error::joined(errors).map_or(Ok(()), Err)
    }))
}
