//! `weirctl version`

use weir_common::ipam::cluster_information;
use weir_common::printable;

use crate::session::{CommandResult, Failure, Session};

/// The version of this program and the cluster's, in calicoctl's words
/// (`calicoctl/calicoctl/commands/version.go`), with the cluster's id.
///
/// # Errors
/// [`Failure`] when the datastore fails.
pub async fn run(session: &Session<'_>) -> CommandResult {
    let information = cluster_information(session.datastore).await?.unwrap_or_default();
    let shown = |value: Option<String>| {
        value.map_or_else(|| "unknown".to_owned(), |value| printable(&value).into_owned())
    };
    Ok(format!(
        "{}Cluster Version:   {}\nCluster Type:      {}\nCluster GUID:      {}\n",
        client(),
        shown(information.calico_version),
        shown(information.cluster_type),
        shown(information.guid)
    ))
}

/// What is said where the datastore cannot be asked.
pub fn without_cluster(failure: &Failure) -> Failure {
    let message = format!("Unable to retrieve Cluster Version or Type: {}", failure.message);
    Failure { output: client(), message }
}

fn client() -> String {
    format!("Client Version:    {}\n", env!("CARGO_PKG_VERSION"))
}
