//! The commands, one file each, and what several of them share.

pub mod apply;
pub mod bgp_explain;
pub mod bgp_peers;
pub mod bgp_routes;
mod change;
pub mod completion;
pub mod config;
pub mod convert;
pub mod create;
pub mod dashboard;
pub mod datastore_backup;
pub mod datastore_lock;
pub mod datastore_restore;
pub mod delete;
pub mod doctor;
mod dry_run;
pub mod get;
pub mod init;
pub mod input;
pub mod install_cni;
pub mod ipam_check;
pub mod ipam_configure;
pub mod ipam_explain;
pub mod ipam_history;
pub mod ipam_reclaim;
pub mod ipam_release;
pub mod ipam_show;
pub mod label;
pub mod man;
pub mod node_adopt;
pub mod node_checksystem;
pub mod node_rename;
pub mod node_repair;
pub mod node_status;
pub mod not_supported;
pub mod patch;
mod range;
pub mod repair;
pub mod replace;
pub mod report;
pub mod support_bundle;
pub mod validate;
pub mod version;
mod write;

pub use dry_run::is_dry_run;

use clap::CommandFactory;
use weir_common::resources::{self, Kind, Resource, parse_cidr};

use crate::cli::{BgpCommand, Cli, CtlCommand, DatastoreCommand, IpamCommand, NodeCommand};
use datastore_lock::MigrateCommand;

use crate::location::Location;
use crate::output::line;
use crate::session::{CommandResult, Failure, HostEnvironment, Session};
use crate::store::{self, StoreError};
use crate::terminal;

/// Runs a command.
///
/// # Errors
/// [`Failure`] with what to print when the command did not do all that it was
/// asked to.
pub async fn run(command: CtlCommand, session: &Session<'_>) -> CommandResult {
    if is_dry_run(&command) {
        return dry_run::dry_run(command, session).await;
    }
    run_on(command, session).await
}

/// Runs a command that needs no datastore; `None` when it needs one.
pub async fn run_offline(
    command: &CtlCommand,
    environment: &dyn HostEnvironment,
) -> Option<CommandResult> {
    match command {
        CtlCommand::Validate(arguments) => Some(validate::run(arguments, environment).await),
        CtlCommand::Completion(arguments) => Some(Ok(completion::text(arguments, Cli::command()))),
        CtlCommand::Man(arguments) => Some(man::run(arguments, Cli::command())),
        CtlCommand::Convert(arguments) => Some(convert::run(arguments, environment)),
        CtlCommand::Ipam(IpamCommand::Split(_)) => Some(not_supported::ipam_split()),
        CtlCommand::Datastore(DatastoreCommand::Migrate(
            MigrateCommand::Export(_) | MigrateCommand::Import(_),
        )) => Some(not_supported::migrate()),
        CtlCommand::Node(NodeCommand::Checksystem(arguments)) => {
            Some(node_checksystem::run(arguments))
        }
        CtlCommand::Bgp(BgpCommand::Peers(arguments)) => {
            Some(bgp_peers::run(arguments, terminal::style()).await)
        }
        CtlCommand::Bgp(BgpCommand::Routes(arguments)) => {
            Some(bgp_routes::run(arguments, terminal::style()).await)
        }
        _ => None,
    }
}

/// Whether the command locks the datastore (false) or unlocks it.
pub fn ready(command: &DatastoreCommand) -> Option<bool> {
    match command {
        DatastoreCommand::Lock | DatastoreCommand::Migrate(MigrateCommand::Lock) => Some(false),
        DatastoreCommand::Unlock | DatastoreCommand::Migrate(MigrateCommand::Unlock) => Some(true),
        _ => None,
    }
}

/// Runs a command on the datastore as a whole.
///
/// # Errors
/// [`Failure`] as for [`run`].
pub async fn run_on_whole(
    command: &DatastoreCommand,
    location: &Location,
    environment: &dyn HostEnvironment,
) -> CommandResult {
    match command {
        DatastoreCommand::Backup(arguments) => datastore_backup::run(arguments, location).await,
        DatastoreCommand::Restore(arguments) => {
            datastore_restore::run(arguments, location, environment).await
        }
        // They work on a session.
        DatastoreCommand::Lock | DatastoreCommand::Unlock | DatastoreCommand::Migrate(_) => {
            Ok(String::new())
        }
    }
}

/// Runs a command on the datastore of the session.
async fn run_on(command: CtlCommand, session: &Session<'_>) -> CommandResult {
    match command {
        CtlCommand::Init(arguments) => init::run(arguments, session).await,
        CtlCommand::Create(arguments) => create::run(arguments, session).await,
        CtlCommand::Apply(arguments) => apply::run(arguments, session).await,
        CtlCommand::Replace(arguments) => replace::run(arguments, session).await,
        CtlCommand::Patch(arguments) => patch::run(arguments, session).await,
        CtlCommand::Label(arguments) => label::run(arguments, session).await,
        CtlCommand::Delete(arguments) => delete::run(arguments, session).await,
        CtlCommand::Get(arguments) => get::run(arguments, session).await,
        // Run before a datastore is opened: see `crate::run`.
        CtlCommand::Node(NodeCommand::Run(_) | NodeCommand::Checksystem(_))
        | CtlCommand::Bgp(BgpCommand::Peers(_) | BgpCommand::Routes(_))
        | CtlCommand::Docker(_)
        | CtlCommand::Dashboard(_)
        | CtlCommand::Doctor(_)
        | CtlCommand::SupportBundle(_)
        | CtlCommand::InstallCni(_)
        | CtlCommand::Man(_) => Ok(String::new()),
        CtlCommand::Datastore(command) => match ready(&command) {
            Some(ready) => datastore_lock::run(ready, session).await,
            None => Ok(String::new()),
        },
        CtlCommand::Config(command) => config::run(command, session).await,
        CtlCommand::Ipam(command) => run_ipam(command, session).await,
        CtlCommand::Bgp(BgpCommand::Explain(arguments)) => {
            bgp_explain::run(arguments, session).await
        }
        CtlCommand::Node(NodeCommand::Status(arguments)) => {
            node_status::run(arguments, session).await
        }
        CtlCommand::Node(NodeCommand::Rename(arguments)) => {
            node_rename::run(arguments, session).await
        }
        CtlCommand::Node(NodeCommand::Adopt(arguments)) => {
            node_adopt::run(arguments, session).await
        }
        CtlCommand::Node(NodeCommand::Repair(arguments)) => {
            node_repair::run(arguments, session).await
        }
        CtlCommand::Validate(arguments) => validate::run(&arguments, session.environment).await,
        CtlCommand::Completion(arguments) => Ok(completion::text(&arguments, Cli::command())),
        CtlCommand::Convert(arguments) => convert::run(&arguments, session.environment),
        CtlCommand::Version => version::run(session).await,
    }
}

async fn run_ipam(command: IpamCommand, session: &Session<'_>) -> CommandResult {
    match command {
        IpamCommand::Show(arguments) => ipam_show::run(arguments, session).await,
        IpamCommand::Check(arguments) => ipam_check::run(arguments, session).await,
        IpamCommand::Explain(arguments) => ipam_explain::run(arguments, session).await,
        IpamCommand::Release(arguments) => ipam_release::run(arguments, session).await,
        IpamCommand::Configure(arguments) => ipam_configure::run(arguments, session).await,
        IpamCommand::Reclaim(arguments) => ipam_reclaim::run(arguments, session).await,
        // Run before a datastore is opened.
        IpamCommand::History(_) | IpamCommand::Split(_) => not_supported::ipam_split(),
    }
}

/// The line about a node's name that nobody is registered with, while others are.
fn not_registered(name: &str) -> String {
    line(&format!("Note: no node {name} is registered; those that are: weirctl get nodes"))
}

/// The kind that an argument means.
///
/// # Errors
/// [`Failure`] naming the kinds there are.
fn parse_kind(alias: &str) -> Result<Kind, Failure> {
    Kind::from_alias(alias).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::alias).join(", ");
        Failure::new(format!(
            "resource type '{alias}' is not supported; write one of {known}, for example: \
             weirctl get {}",
            Kind::IpPool.alias()
        ))
    })
}

/// The name under which a resource written by people is stored. In the old form a pool is known
/// by its CIDR, and a peer by its nodes and address, whatever they are called here.
async fn resolve(session: &Session<'_>, resource: Resource) -> Result<Resource, StoreError> {
    if !resource.is_from_v1 {
        return Ok(resource);
    }
    let name = match resource.kind {
        Kind::BgpPeer => store::find_peer_like(session.datastore, &resource).await?,
        _ => {
            // By itself it may break a rule that it keeps with what the stored pool has.
            let cidr = resource.spec("cidr").and_then(|cidr| parse_cidr(cidr.as_str()?).ok());
            let Some(cidr) = cidr else {
                resource.check()?;
                return Ok(resource);
            };
            store::find_pool_by_cidr(session.datastore, cidr.trunc()).await?
        }
    };
    Ok(match name {
        Some(name) => resource.renamed(&name),
        None => resource,
    })
}

/// The name that an argument means: for a pool also its CIDR.
async fn resolve_name(
    session: &Session<'_>,
    kind: Kind,
    argument: &str,
) -> Result<String, StoreError> {
    // No name has a slash.
    if kind != Kind::IpPool || !argument.contains('/') {
        return Ok(argument.to_owned());
    }
    let cidr = parse_cidr(argument).map_err(|problem| resources::Error::Invalid(vec![problem]))?;
    let found = store::find_pool_by_cidr(session.datastore, cidr.trunc()).await?;
    Ok(found.unwrap_or_else(|| argument.to_owned()))
}
