//! `weirctl label`

use clap::Args;
use weir_common::printable;
use weir_common::resources::{LabelChange, LabelOutcome};

use super::change::ChangeArgs;
use super::completion::Suggested;
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, StoreError};

/// Arguments of `weirctl label`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl label node n1 zone=edge\n  \
                  weirctl label node n1 zone=core --overwrite\n  \
                  weirctl label node n1 zone --remove")]
pub struct LabelArgs {
    /// Kind of the resource: node, ippool, ipreservation
    #[arg(value_parser = Suggested::kinds(), hide_possible_values = true)]
    pub kind: String,
    /// Name of the resource; for a pool also its CIDR
    pub name: String,
    /// KEY=VALUE to set a label; KEY with --remove
    pub label: String,
    /// Replace the value that the label has
    #[arg(long, conflicts_with = "remove")]
    pub overwrite: bool,
    /// Remove the label
    #[arg(long)]
    pub remove: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Sets or removes one label of one resource.
///
/// # Errors
/// [`Failure`] when the kind or the label is wrong, the resource is not there,
/// or the label has another value, or is not there to be removed.
pub async fn run(arguments: LabelArgs, session: &Session<'_>) -> CommandResult {
    let kind = super::parse_kind(&arguments.kind)?;
    let change = if arguments.remove {
        LabelChange::remove(&arguments.label)
    } else {
        LabelChange::set(&arguments.label, arguments.overwrite)
    };
    let change = change.map_err(|error| Failure::new(error.to_string()))?;
    let changed = async {
        let name = super::resolve_name(session, kind, &arguments.name).await?;
        store::modify(session.datastore, kind, &name, |resource| Ok(change.apply(resource)?)).await
    };
    let (key, what) = (change.key(), format!("{} {}", arguments.kind, printable(&arguments.name)));
    match changed.await {
        Ok(LabelOutcome::Set) => Ok(format!("Successfully set label {key} on {what}\n")),
        Ok(LabelOutcome::Updated) => Ok(format!("Successfully updated label {key} on {what}\n")),
        Ok(LabelOutcome::Removed) => Ok(format!("Successfully removed label {key} from {what}\n")),
        Err(error) => Err(Failure::new(explain(&error, arguments.remove, &what))),
    }
}

/// The error in calicoctl's words.
fn explain(error: &StoreError, remove: bool, what: &str) -> String {
    match error {
        StoreError::Label(error) if remove => format!("cannot remove label of {what}, {error}"),
        StoreError::Label(error) => format!("failed to update label of {what}, {error}"),
        StoreError::DoesNotExist { .. } => {
            format!("failed to get {what}, error {}", super::report::with_advice(error))
        }
        error => format!(
            "failed to update {what}, label not changed: {}",
            super::report::with_advice(error)
        ),
    }
}
