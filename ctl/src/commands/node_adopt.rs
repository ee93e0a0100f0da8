//! `weirctl node adopt`

use clap::Args;
use weir_common::datastore::Datastore;
use weir_common::ipam::MachineId;
use weir_common::ipam::adopt::{Adopted, adopt};
use weir_common::printable;

use super::change::ChangeArgs;
use super::repair::explain;
use crate::session::{CommandResult, Failure, Session, chain};

/// Arguments of `weirctl node adopt`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "For a host that was installed again, or takes the place of another. Run it on \
                  that host, and only when the other machine is gone: what is left of it is then \
                  given back by GC, or at once by \"weirctl ipam check --repair\". A takeover that \
                  was cut off goes on when it is run again.\n\n\
                  Examples:\n  weirctl node adopt n1 --dry-run\n  weirctl node adopt n1"
)]
pub struct AdoptArgs {
    /// The node's name
    pub name: String,
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Makes a node's name, and all that another machine has under it, this machine's.
///
/// # Errors
/// [`Failure`] when this machine has no identity or another name, something cannot be read,
/// or the datastore fails.
pub async fn run(arguments: AdoptArgs, session: &Session<'_>) -> CommandResult {
    let name = &arguments.name;
    let own_name = session.environment.own_name()?;
    if *name != own_name {
        let name = printable(name);
        return Err(Failure::new(format!(
            "this host runs under the node name {own_name}, not {name}; run this command on the \
             host that is to be {name}"
        )));
    }
    take_over(session.datastore, name, session.environment.machine().as_ref()).await
}

/// Takes over, and says what was done.
///
/// # Errors
/// As [`run`].
pub async fn take_over(
    datastore: &dyn Datastore,
    node: &str,
    machine: Option<&MachineId>,
) -> CommandResult {
    let machine = machine.ok_or_else(|| {
        Failure::new(format!(
            "this machine has no identity that lasts, so it cannot have node {node}; write one into \
             /var/lib/weir/machine, for example: uuidgen > /var/lib/weir/machine"
        ))
    })?;
    let Adopted { before, addresses, errors } =
        adopt(datastore, node, machine).await.map_err(explain)?;
    let output = match before.filter(|before| before != machine) {
        Some(before) => format!("Node {node} is machine {machine} now; it was {before}\n"),
        None => format!("Node {node} is machine {machine}\n"),
    };
    let output = format!("{output}Took over {addresses} addresses\n");
    match errors.as_slice() {
        [] => Ok(output),
        errors => {
            let lines: Vec<String> = errors.iter().map(|error| chain(error)).collect();
            Err(Failure { output, message: lines.join("\n") })
        }
    }
}
