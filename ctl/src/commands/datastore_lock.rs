//! `weirctl datastore lock`, `weirctl datastore unlock`

use clap::Subcommand;
use weir_common::ipam::set_ready;

use super::not_supported::OtherArgs;
use crate::session::{CommandResult, Session};

/// calicoctl's names of the same.
#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// As `weirctl datastore lock`
    Lock,
    /// As `weirctl datastore unlock`
    Unlock,
    /// Not supported
    Export(OtherArgs),
    /// Not supported
    Import(OtherArgs),
}

/// Locks the datastore, or unlocks it.
///
/// # Errors
/// The datastore fails.
pub async fn run(ready: bool, session: &Session<'_>) -> CommandResult {
    let (birth, guid) = (session.environment.birth(), session.environment.birth().uid);
    set_ready(session.datastore, ready, &birth, &guid).await?;
    Ok(format!("Datastore {}.\n", if ready { "unlocked" } else { "locked" }))
}
