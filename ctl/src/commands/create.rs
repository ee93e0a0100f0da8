//! `weirctl create`

use clap::Args;

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::report::{Report, Verb};
use crate::session::{CommandResult, Session};
use crate::store::{self, StoreError};

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
    let resources = arguments.files.read(session.surroundings)?;
    let mut report = Report::new(Verb { infinitive: "create", participle: "created" });
    let total = resources.len();
    for (done, resource) in resources.into_iter().enumerate() {
        session.surroundings.progress(done, total);
        let birth = session.surroundings.birth();
        let result = match store::create(session.datastore, &resource, &birth).await {
            Err(StoreError::AlreadyExists { .. }) if arguments.skip_exists => Ok(()),
            result => result,
        };
        report.add(&resource, result);
    }
    report.finish()
}
