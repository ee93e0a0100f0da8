//! `weirctl delete`

use clap::Args;
use serde_json::Map;
use weir_common::printable;
use weir_common::resources::{Kind, Resource};

use super::change::ChangeArgs;
use super::completion::Suggested;
use super::input::FileArgs;
use super::report::{ChangeReport, Verb};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{Deleted, Deletion, StoreError};

/// Arguments of `weirctl delete`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl delete -f pool.yaml\n  weirctl delete ippool blue\n  \
                  weirctl delete ippool 10.254.0.0/24\n  weirctl delete ippool blue --force"
)]
pub struct DeleteArgs {
    /// Kind of the resources
    #[arg(
        conflicts_with = "filename", required_unless_present = "filename",
        value_parser = Suggested::kinds(), hide_possible_values = true
    )]
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
    /// Disable a pool in use, release its addresses, and delete it
    #[arg(long)]
    pub force: bool,
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
        None => arguments.files.read(session.environment)?,
    };
    let mut report = ChangeReport::new(Verb { infinitive: "delete", participle: "deleted" });
    for target in targets {
        let result = match delete(session, &target, arguments.force).await {
            Ok(deleted) => {
                report.note(notes(&target, deleted, arguments.force));
                Ok(())
            }
            Err(StoreError::DoesNotExist { .. }) if arguments.skip_not_exists => Ok(()),
            Err(error) => Err(error),
        };
        report.add(&target, result);
    }
    report.finish_deletion()
}

/// The resources of these names, with nothing in them.
fn named(kind: Kind, names: &[String]) -> Result<Vec<Resource>, Failure> {
    if names.iter().any(String::is_empty) {
        return Err(Failure::new(format!(
            "resource name may not be empty; list the names with: weirctl get {} -o name",
            kind.alias()
        )));
    }
    let empty = || Resource::new(kind, Map::new());
    Ok(names.iter().map(|name| empty().renamed(name)).collect())
}

async fn delete(
    session: &Session<'_>,
    target: &Resource,
    force: bool,
) -> Result<Deleted, StoreError> {
    let resource = super::resolve(session, target.clone()).await?;
    let name = super::resolve_name(session, resource.kind, resource.name()).await?;
    let deletion = Deletion {
        datastore: session.datastore,
        kind: resource.kind,
        name: &name,
        resource_version: resource.resource_version(),
        force,
        observer: session.environment,
    };
    deletion.run().await
}

/// What to say about what went with a resource: of a pool only what force did,
/// and tunnels' addresses.
fn notes(target: &Resource, deleted: Deleted, force: bool) -> Option<String> {
    let Deleted { addresses, blocks, blocks_without_host: left, .. } = deleted;
    let (kind, name) = (target.kind, printable(target.name()));
    match kind {
        Kind::IpPool if force => Some(format!(
            "{kind}({name}): released {addresses} address(es), deleted {blocks} block(s)\n"
        )),
        Kind::IpPool if addresses > 0 => {
            Some(format!("{kind}({name}): released {addresses} tunnel address(es)\n"))
        }
        Kind::Node if deleted != Deleted::default() => Some(format!(
            "{kind}({name}): released {addresses} tunnel address(es), deleted {blocks} empty \
             block(s), left {left} block(s) with {} address(es) in use without a node\n",
            deleted.addresses_without_host
        )),
        _ => None,
    }
}
