//! The command line.

use std::path::{Path, PathBuf};

use clap::builder::{NonEmptyStringValueParser, Resettable, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use weir_common::resources::Kind;

use crate::commands::completion::Suggested;
use crate::commands::config::ConfigCommand;
use crate::commands::datastore_lock::MigrateCommand;
use crate::commands::not_supported::OtherArgs;
use crate::location::{
    CALICOCTL_CONFIG_FILE, DEFAULT_CONFIG_FILE, DEFAULT_NETWORK_DIRECTORY, Settings, Sources,
};
use crate::session::Failure;
use crate::{commands, docker, node};

/// Pools, addresses and nodes of Weir.
///
/// The datastore is the one named by flags, else by the environment, else by
/// /etc/weir/weirctl.yaml, else by the first file in /etc/cni/net.d with a
/// plugin of type weir; else it is /var/lib/weir/weir.db.
#[derive(Debug, Parser)]
#[command(
    name = "weirctl",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  weirctl get ippool -o wide\n\n\
                  Exit status: 0 when everything asked for was done, else 1."
)]
pub struct Cli {
    /// Where the datastore is.
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// What calicoctl's command lines have besides.
    #[command(flatten)]
    pub calicoctl: CalicoctlArgs,
    /// What the agent logs: error, warn, info or debug
    #[arg(short, long, global = true, value_name = "LEVEL", default_value = "info",
          value_parser = Suggested(vec!["error", "warn", "info", "debug"]).try_map(log_level),
          hide_possible_values = true)]
    pub log_level: LevelFilter,
    /// What to do.
    #[command(subcommand)]
    pub command: CtlCommand,
}

/// Reads the command line, completed from the environment.
///
/// # Errors
/// What clap says of it; asking for help is one, too.
pub fn parse(arguments: &[String]) -> Result<Cli, clap::Error> {
    let mut command = without_empty_variables(Cli::command());
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The command line to which a variable that is set and empty counts as one that is not
/// set, as in an EnvironmentFile of systemd's that names them all. (Those of the
/// datastore are read by [`Settings::from_pairs`], which does the same.)
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |argument: &clap::Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let command = command.mut_args(|argument| match is_empty(&argument) {
        true => argument.env(Resettable::Reset),
        false => argument,
    });
    command.mut_subcommands(without_empty_variables)
}

/// Flags of calicoctl that mean nothing here, so that its command lines can be
/// typed as they stand.
#[derive(Args, Debug)]
pub struct CalicoctlArgs {
    /// No program of another version is asked for anything.
    #[arg(long, global = true, hide = true)]
    allow_version_mismatch: bool,
    /// There is no kubeconfig.
    #[arg(long, global = true, hide = true, value_name = "CONTEXT")]
    context: Option<String>,
    #[arg(short, long, global = true, hide = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[arg(short = 'A', long, global = true, hide = true)]
    all_namespaces: bool,
}

/// A level of the log, as the agent, Calico's plugins or calicoctl name it.
fn log_level(text: String) -> Result<LevelFilter, String> {
    Ok(match text.to_lowercase().as_str() {
        "panic" | "fatal" | "error" => LevelFilter::ERROR,
        "warning" | "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" | "trace" => LevelFilter::DEBUG,
        _ => return Err("write error, warn, info or debug".to_owned()),
    })
}

impl CalicoctlArgs {
    /// Refuses namespaces, as calicoctl does for these kinds
    /// (`calicoctl/calicoctl/commands/common/resources.go`, handleNamespace).
    ///
    /// # Errors
    /// What to leave out.
    pub fn check(&self) -> Result<(), Failure> {
        let flag = match self {
            Self { namespace: Some(_), .. } => "--namespace",
            Self { all_namespaces: true, .. } => "--all-namespaces",
            _ => return Ok(()),
        };
        let kinds = Kind::ALL.map(Kind::name).join(", ");
        Err(Failure::new(format!("{kinds} are not namespaced; leave {flag} out")))
    }
}

/// The help that belongs to a wrong command line: that of the last command
/// that is named in it.
pub fn help_line(arguments: &[String]) -> String {
    let (mut command, mut line) = (Cli::command(), String::from("weirctl"));
    for argument in arguments.iter().skip(1) {
        if let Some(found) = command.find_subcommand(argument).cloned() {
            line = format!("{line} {argument}");
            command = found;
        }
    }
    format!("{line} --help")
}

/// Flags about the datastore, for every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Datastore")]
pub struct DatastoreArgs {
    /// etcdv3 or embedded [env: DATASTORE_TYPE]
    #[arg(long, global = true, value_name = "TYPE", hide_possible_values = true,
          value_parser = Suggested(vec!["etcdv3", "embedded"]))]
    datastore_type: Option<String>,
    /// The file of the embedded datastore [env: DATASTORE_PATH]
    #[arg(long, global = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    datastore_path: Option<String>,
    /// etcd's URLs, separated by commas [env: ETCD_ENDPOINTS]
    #[arg(long, global = true, value_name = "URLS", value_parser = NonEmptyStringValueParser::new())]
    etcd_endpoints: Option<String>,
    /// PEM file with the authorities of etcd's certificates [env: ETCD_CA_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    etcd_ca_cert_file: Option<String>,
    /// PEM file with this client's certificate [env: ETCD_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    etcd_cert_file: Option<String>,
    /// PEM file with the key of this client's certificate [env: ETCD_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    etcd_key_file: Option<String>,
    /// User name; the password is taken from ETCD_PASSWORD [env: ETCD_USERNAME]
    #[arg(long, global = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    etcd_username: Option<String>,
    /// Configuration file to use instead of /etc/weir/weirctl.yaml
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the CNI configuration
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_NETWORK_DIRECTORY)]
    cni_directory: PathBuf,
    /// Say which datastore is used, and who named it
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

impl DatastoreArgs {
    /// The names and values of the settings.
    fn pairs(&self) -> impl Iterator<Item = (&'static str, String)> {
        let pairs = [
            ("datastore_type", &self.datastore_type),
            ("datastore_path", &self.datastore_path),
            ("etcd_endpoints", &self.etcd_endpoints),
            ("etcd_ca_cert_file", &self.etcd_ca_cert_file),
            ("etcd_cert_file", &self.etcd_cert_file),
            ("etcd_key_file", &self.etcd_key_file),
            ("etcd_username", &self.etcd_username),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)))
    }

    /// The settings among the flags.
    pub fn settings(&self) -> Settings {
        Settings::from_pairs(self.pairs())
    }

    /// The flags, for another call of weirctl.
    pub fn to_flags(&self) -> Vec<String> {
        let config = self.config.iter().map(|it| ("config", it.display().to_string()));
        let directory = ("cni_directory", self.cni_directory.display().to_string());
        let all = self.pairs().chain(config).chain([directory]);
        all.map(|(name, value)| format!("--{}={value}", name.replace('_', "-"))).collect()
    }

    /// The places to look where the flags say nothing.
    pub fn sources(&self) -> Sources {
        Sources {
            config_file: self.config.clone().unwrap_or_else(|| DEFAULT_CONFIG_FILE.into()),
            config_file_required: self.config.is_some(),
            calicoctl_config_file: CALICOCTL_CONFIG_FILE.into(),
            network_directory: self.cni_directory.clone(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Make what a new cluster starts with: the default pools
    Init(commands::init::InitArgs),
    /// Create resources that are not there yet
    Create(commands::create::CreateArgs),
    /// Create resources, or change those that are there
    Apply(commands::apply::ApplyArgs),
    /// Change resources that are there
    Replace(commands::replace::ReplaceArgs),
    /// Change a part of one resource
    Patch(commands::patch::PatchArgs),
    /// Set or remove a label of one resource
    Label(commands::label::LabelArgs),
    /// Delete resources
    Delete(commands::delete::DeleteArgs),
    /// Show resources
    Get(commands::get::GetArgs),
    /// Check files of resources, without a datastore
    Validate(commands::validate::ValidateArgs),
    /// Print resources of the old form (v1) in the present one, without a datastore
    Convert(commands::convert::ConvertArgs),
    /// Show or change settings of the cluster's BGP
    #[command(subcommand)]
    Config(ConfigCommand),
    /// See how addresses are used, repair and change it
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// See whom a node peers with, and what it tells them
    #[command(subcommand)]
    Bgp(BgpCommand),
    /// Back the datastore up, restore it from a backup, or lock it
    #[command(subcommand)]
    Datastore(DatastoreCommand),
    /// Run this node's agent, see what it does, or give a node another name
    #[command(subcommand)]
    Node(NodeCommand),
    /// Give Docker's containers addresses out of the pools, and networks
    #[command(subcommand)]
    Docker(DockerCommand),
    /// Serve a page that shows the cluster: pools, blocks, nodes, ways, problems
    Dashboard(commands::dashboard::DashboardArgs),
    /// Look at everything that containers on this node depend on, and say what to do
    Doctor(commands::doctor::DoctorArgs),
    /// Write what a maintainer needs to see of this node into one file, without secrets
    SupportBundle(commands::support_bundle::SupportBundleArgs),
    /// Put the plugins and the network's file in their places, as a container image does
    InstallCni(commands::install_cni::InstallArgs),
    /// Print completions for a shell
    Completion(commands::completion::CompletionArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(commands::man::ManArgs),
    /// Print the versions of weirctl and of the cluster
    #[command(after_help = "Example:\n  weirctl version")]
    Version,
}

impl CtlCommand {
    /// Whether the command makes an embedded datastore that is not there.
    pub fn creates(&self) -> bool {
        matches!(
            self,
            Self::Init(_)
                | Self::Create(_)
                | Self::Apply(_)
                | Self::Config(ConfigCommand::Set(_))
                | Self::Ipam(IpamCommand::Configure(_))
        )
    }

    /// Whether the command goes by this node's networks.
    pub fn asks_the_node(&self) -> bool {
        match self {
            Self::Ipam(command) => {
                !matches!(command, IpamCommand::Show(_) | IpamCommand::Configure(_))
            }
            Self::Bgp(_) => true,
            Self::Node(command) => {
                !matches!(command, NodeCommand::Run(_) | NodeCommand::Checksystem(_))
            }
            _ => false,
        }
    }

    /// The file of the network that the command is about, if it names one.
    pub fn network_file(&self) -> Option<&Path> {
        match self {
            Self::Ipam(IpamCommand::Explain(arguments)) => arguments.conflist.as_deref(),
            _ => None,
        }
    }
}

/// The commands about addresses.
#[derive(Debug, Subcommand)]
pub enum IpamCommand {
    /// Show how many addresses are in use, and where
    Show(commands::ipam_show::ShowArgs),
    /// Compare blocks, handles, affinities, pools and this node's kernel
    Check(commands::ipam_check::CheckArgs),
    /// Say which address the next container of a node gets, and why
    Explain(commands::ipam_explain::ExplainArgs),
    /// Say who had an address when, or which addresses a container had
    History(commands::ipam_history::HistoryArgs),
    /// Give addresses back that nobody uses
    Release(commands::ipam_release::ReleaseArgs),
    /// Change how addresses are assigned
    Configure(commands::ipam_configure::ConfigureArgs),
    /// Take back empty blocks, and what belongs to hosts that are gone
    Reclaim(commands::ipam_reclaim::ReclaimArgs),
    /// Not supported
    #[command(hide = true)]
    Split(OtherArgs),
}

/// The commands about BGP.
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    /// Say why a node has its sessions, and what they tell of a prefix
    Explain(commands::bgp_explain::BgpExplainArgs),
    /// Show this node's sessions, and why one is not up
    Peers(commands::bgp_peers::PeersArgs),
    /// Show what this node announces, and what it has learned
    Routes(commands::bgp_routes::RoutesArgs),
}

/// The commands about the datastore as a whole.
#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// Write a backup of the embedded datastore, while it is in use
    Backup(commands::datastore_backup::BackupArgs),
    /// Replace what is in the embedded datastore with a backup
    Restore(commands::datastore_restore::RestoreArgs),
    /// Lock the datastore: until it is unlocked, nothing is assigned, released or changed
    #[command(after_help = "Example:\n  weirctl datastore lock")]
    Lock,
    /// Unlock the datastore
    #[command(after_help = "Example:\n  weirctl datastore unlock")]
    Unlock,
    /// calicoctl's names of the same
    #[command(hide = true, subcommand)]
    Migrate(MigrateCommand),
}

/// The commands about this node.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Keep this node's routes, tunnel and NAT as the pools and nodes ask
    Run(node::run::RunArgs),
    /// Show this node, its peers, the way to each block, and whether the kernel has it
    Status(commands::node_status::StatusArgs),
    /// Check that this machine's kernel has what Weir needs
    Checksystem(commands::node_checksystem::ChecksystemArgs),
    /// Give a node another name, together with its blocks and addresses
    Rename(commands::node_rename::RenameArgs),
    /// Take over what another machine has under this node's name
    Adopt(commands::node_adopt::AdoptArgs),
    /// Bring back what the node's side of its containers has lost
    Repair(commands::node_repair::RepairArgs),
}

/// The commands about Docker.
#[derive(Debug, Subcommand)]
pub enum DockerCommand {
    /// Run the driver that dockerd asks for addresses and interfaces
    Run(docker::run::DriverArgs),
}

/// Says how to spell an output format that was written without its flag
/// (`weirctl get ipp -yaml`).
pub fn find_slip(arguments: &[String]) -> Option<String> {
    if !arguments.iter().any(|argument| argument == "get") {
        return None;
    }
    let slip = |argument: &str| {
        let format = argument.strip_prefix('-')?.trim_start_matches('-').to_owned();
        ["yaml", "yml", "json", "wide"].contains(&format.as_str()).then_some(format)
    };
    let format = arguments.iter().find_map(|argument| slip(argument))?;
    let others = arguments.iter().skip(1).filter(|argument| slip(argument).is_none());
    let others: Vec<&str> = others.map(String::as_str).collect();
    Some(format!("Invalid option: '-{format}'. Write: weirctl {} -o {format}", others.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                if command.is_hide_set() {
                    return;
                }
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("weirctl"), "{} has no example", command.get_name());
            }
            command.get_subcommands().filter(|it| !it.is_hide_set()).for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn a_format_without_its_flag_is_understood() {
        let slip = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            find_slip(&arguments)
        };
        assert_eq!(
            slip("weirctl get ipp -yaml").as_deref(),
            Some("Invalid option: '-yaml'. Write: weirctl get ipp -o yaml")
        );
        assert_eq!(
            slip("weirctl get -yaml ipp my.yaml").as_deref(),
            Some("Invalid option: '-yaml'. Write: weirctl get ipp my.yaml -o yaml")
        );
        assert_eq!(slip("weirctl get ipp -o yaml"), None);
        assert_eq!(slip("weirctl delete -f x"), None);
    }
}
