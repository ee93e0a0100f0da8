//! `weirctl delete`

use clap::Args;
use serde_json::Map;
use weir_common::resources::{Kind, Resource};

use super::change::ChangeArgs;
use super::input::FileArgs;
use super::report::{Report, Verb};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, Preconditions, StoreError};

/// Arguments of `weirctl delete`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl delete -f pool.yaml\n  weirctl delete ippool blue\n  \
                  weirctl delete ippool 10.254.0.0/24"
)]
pub struct DeleteArgs {
    /// Kind of the resources
    #[arg(conflicts_with = "filename", required_unless_present = "filename")]
    pub kind: Option<String>,
    /// Names of the resources; for pools also their CIDRs
    #[arg(required_unless_present = "filename")]
    pub names: Vec<String>,
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
    /// Count resources that are not there as deleted
    #[arg(short, long)]
    pub skip_not_exists: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Deletes the resources, as many as can be.
///
/// # Errors
/// [`Failure`] when the file or the kind is wrong, or a resource could not be
/// deleted.
pub async fn run(arguments: DeleteArgs, session: &Session<'_>) -> CommandResult {
    let targets = match &arguments.kind {
        Some(kind) => named(super::parse_kind(kind)?, &arguments.names)?,
        None => arguments.files.read(session.surroundings)?,
    };
    let mut report = Report::new(Verb { infinitive: "delete", participle: "deleted" });
    for target in targets {
        let result = match delete(session, &target).await {
            Err(StoreError::DoesNotExist { .. }) if arguments.skip_not_exists => Ok(()),
            result => result,
        };
        report.add(&target, result);
    }
    report.finish_deletion()
}

/// The resources of these names, with nothing in them.
fn named(kind: Kind, names: &[String]) -> Result<Vec<Resource>, Failure> {
    if names.iter().any(String::is_empty) {
        return Err(Failure::new("resource name may not be empty"));
    }
    let empty = || Resource::new(kind, Map::new());
    Ok(names.iter().map(|name| empty().renamed(name)).collect())
}

async fn delete(session: &Session<'_>, target: &Resource) -> Result<(), StoreError> {
    let resource = super::resolve(session, target.clone()).await?;
    let name = super::resolve_name(session, resource.kind, resource.name()).await?;
    let preconditions =
        Preconditions { resource_version: resource.resource_version().map(str::to_owned) };
    store::delete(session.datastore, resource.kind, &name, &preconditions).await
}
