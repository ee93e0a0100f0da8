//! Dry runs: a command runs as usual on a datastore that takes no change.

use super::change::ChangeArgs;
use super::ipam_check::Output;
use crate::cli::{CtlCommand, IpamCommand, NodeCommand};
use crate::session::{CommandResult, Failure, Session};
use crate::store::DryRun;

/// What a dry run says besides.
const NOTHING_CHANGED: &str = "Dry run: nothing was changed\n";

/// Whether this command is to be tried out only.
pub fn is_dry_run(command: &CtlCommand) -> bool {
    let change = match command {
        CtlCommand::Init(arguments) => arguments.change,
        CtlCommand::Create(arguments) => arguments.change,
        CtlCommand::Apply(arguments) => arguments.change,
        CtlCommand::Replace(arguments) => arguments.change,
        CtlCommand::Patch(arguments) => arguments.change,
        CtlCommand::Delete(arguments) => arguments.change,
        CtlCommand::Label(arguments) => arguments.change,
        CtlCommand::Config(command) => command.change(),
        CtlCommand::Ipam(IpamCommand::Release(arguments)) => arguments.change,
        CtlCommand::Ipam(IpamCommand::Configure(arguments)) => arguments.change,
        CtlCommand::Ipam(IpamCommand::Reclaim(arguments)) => arguments.change,
        CtlCommand::Ipam(IpamCommand::Check(arguments)) => {
            ChangeArgs { dry_run: arguments.dry_run }
        }
        CtlCommand::Node(NodeCommand::Rename(arguments)) => arguments.change,
        CtlCommand::Node(NodeCommand::Adopt(arguments)) => arguments.change,
        _ => ChangeArgs::default(),
    };
    change.dry_run
}

/// Runs a command as a dry run on the datastore.
///
/// # Errors
/// As the command.
pub async fn dry_run(command: CtlCommand, session: &Session<'_>) -> CommandResult {
    let dry_run = DryRun::new(session.datastore);
    let session = Session { datastore: &dry_run, ..*session };
    let note = if prints_json(&command) { "" } else { NOTHING_CHANGED };
    match super::run_on(command, &session).await {
        Ok(output) => Ok(output + note),
        Err(failure) => Err(Failure { output: failure.output + note, message: failure.message }),
    }
}

/// Whether the result is a document, which says itself that it was a dry run.
fn prints_json(command: &CtlCommand) -> bool {
    let json = Some(Output::Json);
    matches!(command, CtlCommand::Ipam(IpamCommand::Check(arguments)) if arguments.output == json)
}
