//! `weirctl datastore restore`

use std::path::PathBuf;

use clap::Args;
use weir_common::datastore::DatastoreConfiguration;
use weir_common::shell_word;
use weir_datastore::Embedded;

use super::datastore_backup::of_etcd;
use crate::location::Location;
use crate::session::{CommandResult, Failure, HostEnvironment};

/// Arguments of `weirctl datastore restore`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "What was committed after the backup is lost: afterwards run \
                        weirctl ipam check --repair. For etcd, the command to run is printed, \
                        and nothing is done.\n\n\
                        Example:\n  weirctl datastore restore /var/backups/weir.db")]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Restore although the agent runs, the datastore is not empty, or the log of FILE is missing
    #[arg(long)]
    pub force: bool,
}

/// Replaces what is in an embedded datastore with a backup; says how etcd is restored.
///
/// # Errors
/// [`Failure`] when that is not safe or not possible; for etcd always.
pub async fn run(
    arguments: &RestoreArgs,
    location: &Location,
    environment: &dyn HostEnvironment,
) -> CommandResult {
    let file = &arguments.file;
    let DatastoreConfiguration::Embedded { path } = &location.configuration else {
        let file = file.display().to_string();
        let file = shell_word(&file);
        return Err(of_etcd(&format!(
            "etcdutl snapshot restore {file} --data-dir NEW_DIRECTORY \
             --initial-cluster-token NEW_TOKEN --bump-revision 1000000000 --mark-compacted"
        )));
    };
    if environment.agent_runs() && !arguments.force {
        return Err(Failure::new(
            "this node's agent runs; stop it first (systemctl stop weir-node), or add --force: it \
             then notices that the datastore went back in time",
        ));
    }
    let datastore = Embedded::open(path).await?;
    let restored = datastore.restore(file, arguments.force).await?;
    Ok(format!(
        "Restored {} from {}: {} key(s), as revision {}. Now record what containers have since: \
         weirctl ipam check --repair\n",
        path.display(),
        file.display(),
        restored.keys,
        restored.revision
    ))
}
