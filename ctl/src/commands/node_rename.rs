//! `weirctl node rename`

use clap::Args;
use weir_common::cni::is_identifier;
use weir_common::ipam::find_clash;

use super::change::ChangeArgs;
use super::repair::explain;
use super::report;
use crate::session::{CommandResult, Failure, Session};
use crate::store::{Moved, Rename, StoreError};

/// Arguments of `weirctl node rename`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The node's agent must not run meanwhile: systemctl stop weir-node. A rename that \
                  was cut off is finished by the same command.\n\n\
                  Examples:\n  weirctl node rename n1 n1.example.org --dry-run\n  \
                  weirctl node rename n1 n1.example.org"
)]
pub struct RenameArgs {
    /// The node's name
    pub old: String,
    /// The name that it gets
    pub new: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Gives a node another name. On the node itself no container comes or goes meanwhile, and
/// the file that keeps its name is written again.
///
/// # Errors
/// [`Failure`] when the node cannot have the name, its agent runs, or the datastore fails.
pub async fn run(arguments: RenameArgs, session: &Session<'_>) -> CommandResult {
    let RenameArgs { old, new, change } = &arguments;
    let environment = session.environment;
    check(old, new)?;
    // Of a rename that was cut off, this node may have the new name already. A machine
    // without a name is not the node.
    let is_here = environment.own_name().is_ok_and(|own| own == *old || own == *new);
    if is_here && environment.agent_runs() {
        return Err(Failure::new(format!(
            "the agent of this node runs, and would register {old} again; stop it first: \
             systemctl stop weir-node; start it when the node is renamed"
        )));
    }
    let machine = environment.machine();
    if is_here
        && let Some(clash) =
            find_clash(session.datastore, old, machine.as_ref()).await.map_err(explain)?
    {
        return Err(Failure::new(format!(
            "{clash}; this command would rename the other machine's node: to give this host \
             another name, write it into {}",
            weir_process::NODE_NAME_FILE
        )));
    }
    let _still = if is_here { Some(environment.still_node().await?) } else { None };
    let rename = Rename { datastore: session.datastore, old, new };
    let failed = |error: StoreError| Failure::new(report::with_advice(&error));
    let rest = if rename.begin().await.map_err(failed)? { "what was left of it: " } else { "" };
    let file = weir_process::NODE_NAME_FILE;
    // While the marker is there, so that the same command makes up for it.
    let is_kept = !change.dry_run
        && environment.rename_kept_name(old, new).map_err(|error| {
            Failure::new(format!(
                "{file} cannot be written: {error}; see to that, then run the same command again"
            ))
        })?;
    let Moved { blocks, addresses } = rename.finish().await.map_err(failed)?;
    let kept = if is_kept { format!("{file} says {new} now\n") } else { String::new() };
    Ok(format!(
        "Renamed node {old} to {new}: {rest}{blocks} block(s) and {addresses} address(es) in use\n\
         {kept}Where nodename in a network configuration, NODENAME or --node says {old}, write \
         {new}; then start the node's agent again\n"
    ))
}

fn check(old: &str, new: &str) -> Result<(), Failure> {
    if !is_identifier(new) {
        let advice = "use letters, digits, '_', '.', '-'";
        return Err(Failure::new(format!("{new:?} is not a valid node name; {advice}")));
    }
    if old == new {
        return Err(Failure::new(format!("the node is called {old} already; give another name")));
    }
    Ok(())
}
