//! `weirctl replace`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::report::{Report, Verb};
use crate::session::{CommandResult, Session};
use crate::store;

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
    let resources = arguments.files.read(session.surroundings)?;
    let mut report = Report::new(Verb { infinitive: "replace", participle: "replaced" });
    let total = resources.len();
    for (done, resource) in resources.into_iter().enumerate() {
        session.surroundings.progress(done, total);
        let result = match super::resolve(session, resource.clone()).await {
            Ok(resource) => store::replace(session.datastore, &resource).await,
            Err(error) => Err(error),
        };
        report.add(&resource, result);
    }
    report.finish()
}
