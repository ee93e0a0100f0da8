//! How changes are made: what all commands that change something share.

use clap::Args;

use super::ipam_check::Output;
use crate::cli::{Command, IpamCommand, NodeCommand};
use crate::session::{CommandResult, Failure, Session};
use crate::store::DryRun;

/// What a dry run says besides.
const NOTHING_CHANGED: &str = "Dry run: nothing was changed\n";

/// Flags of commands that change something.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ChangeArgs {
    /// Check and report all as usual, but change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Whether this command is to be tried out only.
pub fn is_dry_run(command: &Command) -> bool {
    let change = match command {
        Command::Init(arguments) => arguments.change,
        Command::Create(arguments) => arguments.change,
        Command::Apply(arguments) => arguments.change,
        Command::Replace(arguments) => arguments.change,
        Command::Patch(arguments) => arguments.change,
        Command::Delete(arguments) => arguments.change,
        Command::Label(arguments) => arguments.change,
        Command::Ipam(IpamCommand::Release(arguments)) => arguments.change,
        Command::Ipam(IpamCommand::Configure(arguments)) => arguments.change,
        Command::Ipam(IpamCommand::Reclaim(arguments)) => arguments.change,
        Command::Ipam(IpamCommand::Check(arguments)) => ChangeArgs { dry_run: arguments.dry_run },
        Command::Node(NodeCommand::Rename(arguments)) => arguments.change,
        Command::Node(NodeCommand::Adopt(arguments)) => arguments.change,
        _ => ChangeArgs::default(),
    };
    change.dry_run
}

/// Runs a command as a dry run on the datastore.
///
/// # Errors
/// As the command.
pub async fn dry_run(command: Command, session: &Session<'_>) -> CommandResult {
    let dry_run = DryRun::new(session.datastore);
    let session = Session { datastore: &dry_run, ..*session };
    let note = if prints_json(&command) { "" } else { NOTHING_CHANGED };
    match super::run_on(command, &session).await {
        Ok(output) => Ok(output + note),
        Err(failure) => Err(Failure { output: failure.output + note, message: failure.message }),
    }
}

/// Whether the result is a document, which says itself that it was a dry run.
fn prints_json(command: &Command) -> bool {
    let json = Some(Output::Json);
    matches!(command, Command::Ipam(IpamCommand::Check(arguments)) if arguments.output == json)
}
