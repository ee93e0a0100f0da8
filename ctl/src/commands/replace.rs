//! `weirctl replace`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::write::{self, WriteMode};
use crate::session::{CommandResult, Session};

/// Arguments of `weirctl replace`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  weirctl replace -f pool.yaml")]
pub struct ReplaceArgs {
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Changes the resources, as many as can be.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the file is wrong or a resource
/// could not be replaced.
pub async fn run(arguments: ReplaceArgs, session: &Session<'_>) -> CommandResult {
    write::run(WriteMode::Replace, &arguments.files, session).await
}
