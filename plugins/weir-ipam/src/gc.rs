//! GC: give back the addresses of attachments that are gone.

use jiff::Timestamp;
use serde_json::Value;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Error, cluster_answer};
use weir_common::datastore::Datastore;
use weir_common::ipam::collect::{Collection, Rule, Scope, collect};
use weir_process::{block_on, within_turn};

use crate::cluster::{self, Question};
use crate::{evidence, host, lock};

/// Gives back what the runtime does not list, or, when it gave no list, what is
/// proved dead: of this network and this host. Answers what there is in the cluster, if
/// `weir` asks for it.
///
/// # Errors
/// All that failed, as one, after everything has been tried.
pub fn gc(call: &Call) -> Result<Option<Value>, Error> {
    let ipam = call.configuration.require_ipam()?;
    let host = host(call)?;
    let configuration = call.configuration.datastore.clone()?;
    let question = Question::asked();
    let lock = lock(ipam);
    block_on(async {
        let datastore = within_turn("giving back what is not in use", async {
            let datastore = weir_datastore::open(&configuration).await?;
            give_back(call, &host, datastore.as_ref()).await?;
            Ok(datastore)
        })
        .await?;
        drop(lock);
        let datastore = datastore.as_ref();
        let cluster = cluster::answer(datastore, &host, question.is_due(datastore)).await;
        Ok(cluster.as_deref().map(cluster_answer))
    })
}

async fn give_back(call: &Call, host: &str, datastore: &dyn Datastore) -> Result<(), Error> {
    let rule = match &call.configuration.valid_attachments {
        Some(valid) => Rule::Listed(valid.clone()),
        None => Rule::Proved(evidence::gather(call, Timestamp::now()).await?),
    };
    let network = call.configuration.network.clone();
    let collection = Collection { host: host.to_owned(), network, rule };
    let collected = collect(datastore, &collection, Scope::AllBlocks).await;
    for (address, handle) in &collected.released {
        tracing::info!(%address, handle, "given back: its attachment is gone");
    }
    let errors = collected.errors.into_iter().map(Error::from);
    Error::joined(errors).map_or(Ok(()), Err)
}
