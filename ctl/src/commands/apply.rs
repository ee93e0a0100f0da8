//! `weirctl apply`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::write::{self, WriteMode};
use crate::session::{CommandResult, Session};

/// Arguments of `weirctl apply`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  weirctl apply -f pool.yaml")]
pub struct ApplyArgs {
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Creates or changes the resources, as many as can be.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the file is wrong or a resource
/// could not be applied.
pub async fn run(arguments: ApplyArgs, session: &Session<'_>) -> CommandResult {
    write::run(WriteMode::Apply, &arguments.files, session).await
}
