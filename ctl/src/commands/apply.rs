//! `weirctl apply`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::report::{Report, Verb};
use crate::session::{CommandResult, Session};
use crate::store;

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
    let resources = arguments.files.read(session.surroundings)?;
    let mut report = Report::new(Verb { infinitive: "apply", participle: "applied" });
    let total = resources.len();
    for (done, resource) in resources.into_iter().enumerate() {
        session.surroundings.progress(done, total);
        let birth = session.surroundings.birth();
        let result = match super::resolve(session, resource.clone()).await {
            Ok(resource) => store::apply(session.datastore, &resource, &birth).await,
            Err(error) => Err(error),
        };
        report.add(&resource, result);
    }
    report.finish()
}
