//! `weirctl create`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::write::{self, WriteMode};
use crate::session::{CommandResult, Session};

/// Arguments of `weirctl create`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl create -f pool.yaml\n  cat pool.json | weirctl create -f -\n\n\
                  A pool:\n  apiVersion: projectcalico.org/v3\n  kind: IPPool\n  \
                  metadata: {name: blue}\n  \
                  spec: {cidr: 10.7.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}"
)]
pub struct CreateArgs {
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
    /// Count resources that are there already as created
    #[arg(long)]
    pub skip_exists: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Creates the resources, as many as can be.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the file is wrong or a resource
/// could not be created.
pub async fn run(arguments: CreateArgs, session: &Session<'_>) -> CommandResult {
    write::run(WriteMode::Create { skip_exists: arguments.skip_exists }, &arguments.files, session)
        .await
}
