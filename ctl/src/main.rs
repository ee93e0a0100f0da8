//! `weirctl`: pools, addresses and nodes of Weir from the command line.

mod agent_http;
mod bgp_status;
mod cli;
mod commands;
mod dashboard;
mod docker;
mod follow;
mod http;
mod kernel_modules;
mod location;
mod network;
mod node;
mod output;
mod recorded;
mod same_cluster;
mod service;
mod session;
mod signals;
mod store;
mod terminal;
mod this_node;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use clap::error::ErrorKind;
use weir_common::audit::ThisNode;
use weir_common::cni::NodeName;
use weir_common::datastore::{Datastore, keys};
use weir_common::ipam::{LocalNetwork, MachineId};
use weir_common::network::{ActualState, ForwardFilters, PolicyRule, Underlay};
use weir_common::printable_lines;
use weir_common::resources::Birth;
use weir_datastore::missing_file;
use weir_ipam::{HostEndRepair, HostEnds};
use weir_kernel::Kernel;

use cli::{Cli, CtlCommand, DatastoreArgs, DockerCommand, IpamCommand, NodeCommand};
use commands::doctor::{self, DoctorArgs};
use commands::install_cni::{self, InstallArgs};
use commands::support_bundle::{self, SupportBundleArgs};
use location::Location;
use network::Network;
use same_cluster::ComparedStores;
use session::{Failure, HostEnvironment, OccupiedRange, Session, StillNode, runtime};
use store::Observer;
use terminal::Progress;
use this_node::Networks;

/// Used where standard output is not a terminal and nobody says how wide it is.
const DEFAULT_WIDTH: usize = 80;

/// This process's own input, clock, randomness, node and terminal.
#[derive(Default)]
struct LocalHost {
    /// The node's CNI configuration.
    networks: Networks,
    /// The network that the call is about.
    network: Option<Network>,
    /// The datastore in use, and who named it.
    datastore: String,
    progress: Progress,
}

impl LocalHost {
    /// Takes in the node's CNI configuration, as far as it is about the datastore in use.
    fn learn(&mut self, directory: &Path, files: &[(PathBuf, String)], stores: &ComparedStores) {
        self.networks = Networks::of(directory, files, stores);
        if self.network.is_none() {
            self.network = Network::first_of(files, stores);
        }
    }
}

impl Observer for LocalHost {
    fn progress(&self, done: usize, total: usize) {
        self.progress.progress(done, total);
    }

    fn reading(&self, entries: usize) {
        self.progress.reading(entries);
    }
}

#[async_trait]
impl HostEnvironment for LocalHost {
    fn read_input(&self) -> std::io::Result<String> {
        commands::input::read_text(std::io::stdin())
    }

    fn birth(&self) -> Birth {
        new_birth()
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    async fn pause(&self, time: Duration) {
        self.progress.waiting(time);
        tokio::time::sleep(time).await;
    }

    async fn this_node(&self) -> Result<Option<ThisNode>, Failure> {
        this_node::read(&self.networks).await
    }

    async fn still_node(&self) -> Result<StillNode, Failure> {
        let _locks = this_node::hold_still(&self.networks).await?;
        let node = this_node::read(&self.networks).await?;
        Ok(StillNode { node, _locks })
    }

    fn node_name(&self, configured: &NodeName) -> Result<String, Failure> {
        Ok(weir_process::node_name(configured)?.name)
    }

    fn own_name(&self) -> Result<String, Failure> {
        Ok(this_node::name(&self.networks)?.name)
    }

    fn agent_runs(&self) -> bool {
        weir_process::agent_runs(Path::new(weir_process::AGENT_LOCK))
    }

    fn rename_kept_name(&self, old: &str, new: &str) -> std::io::Result<bool> {
        weir_process::rename_kept_name(old, new)
    }

    fn machine(&self) -> Option<MachineId> {
        weir_process::machine_id()
    }

    fn network(&self) -> Option<Network> {
        self.network.clone()
    }

    fn datastore(&self) -> String {
        self.datastore.clone()
    }

    fn warn(&self, message: &str) {
        // There is nobody left to tell when this cannot be written.
        let _ = writeln!(std::io::stderr(), "{}", printable_lines(message));
    }

    fn width(&self) -> usize {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        columns.unwrap_or(DEFAULT_WIDTH)
    }

    fn read_file(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn write_file(&self, path: &Path, text: &str) -> std::io::Result<()> {
        std::fs::write(path, text)
    }

    async fn occupied(&self) -> Result<Vec<OccupiedRange>, Failure> {
        let failed = |error: weir_kernel::Error| {
            let message = session::chain(&error);
            Failure::new(format!("this node's addresses and routes cannot be read: {message}"))
        };
        let occupied = Kernel::open().map_err(failed)?.occupied().await.map_err(failed)?;
        let occupied = occupied.into_iter();
        Ok(occupied.map(|it| OccupiedRange { range: it.range, what: it.what }).collect())
    }

    async fn local_network(&self) -> Result<LocalNetwork, Failure> {
        Ok(Kernel::open()?.local_network().await?)
    }

    async fn cluster(&self) -> Result<(Underlay, ActualState), Failure> {
        let failed = |error: weir_kernel::Error| {
            let message = session::chain(&error);
            Failure::new(format!("this node's links and routes cannot be read: {message}"))
        };
        let kernel = Kernel::open().map_err(failed)?;
        let underlay = kernel.underlay().await.map_err(failed)?;
        Ok((underlay, kernel.actual_state().await.map_err(failed)?))
    }

    async fn repair_host_ends(&self, datastore: &dyn Datastore) -> Result<HostEndRepair, Failure> {
        let kernel = Kernel::open()?;
        let (node, machine) = (self.own_name()?, self.machine());
        let ends = HostEnds { datastore, node: &node, machine: machine.as_ref() };
        Ok(ends.repair(&kernel, &|_| true).await?)
    }

    async fn foreign_rules(&self) -> Result<(ForwardFilters, Vec<PolicyRule>), Failure> {
        let failed = |error: weir_kernel::Error| {
            let message = session::chain(&error);
            Failure::new(format!(
                "this node's firewalls and policy rules cannot be read: {message}"
            ))
        };
        let kernel = Kernel::open().map_err(failed)?;
        Ok((kernel.forward_filters(), kernel.policy_rules().await.map_err(failed)?))
    }
}

/// What a resource is born with: a random UID, and the present time.
fn new_birth() -> Birth {
    let now = jiff::Timestamp::now();
    Birth {
        uid: uuid::Uuid::new_v4().to_string(),
        timestamp: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some(message) = cli::find_slip(&arguments) {
        return fail(&Failure::new(message));
    }
    match cli::parse(&arguments) {
        Ok(cli) => {
            let outcome = match &cli.command {
                CtlCommand::Doctor(arguments) => examine(&cli, arguments),
                CtlCommand::SupportBundle(arguments) => bundle(&cli, arguments),
                CtlCommand::InstallCni(arguments) => install(&cli, arguments),
                _ => run(cli).map(|output| succeed(&output)),
            };
            outcome.unwrap_or_else(|failure| fail(&failure))
        }
        Err(error) => explain(&error, &arguments),
    }
}

/// Prints help or what is wrong with the command line. Asking for help is a
/// success; anything else is exit status 1, as with calicoctl.
fn explain(error: &clap::Error, arguments: &[String]) -> ExitCode {
    const ANY_HELP: &str = "For more information, try '--help'.";
    let message = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever does not read what is printed still gets the exit status.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ if message.contains(ANY_HELP) => {
            let help = format!("For more, with examples: {}", cli::help_line(arguments));
            fail(&Failure::new(message.replace(ANY_HELP, &help).trim_end()))
        }
        _ => {
            let _ = error.print();
            ExitCode::FAILURE
        }
    }
}

/// Runs `weirctl doctor`, to which a datastore that cannot be had is a finding like others.
fn examine(cli: &Cli, arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    cli.calicoctl.check()?;
    let location = locate(&cli.datastore, None).map_err(|failure| failure.message);
    let directory = cli.datastore.sources().network_directory;
    let examination = doctor::run(arguments, location, &directory, terminal::style());
    let (text, status) = runtime()?.block_on(examination);
    succeed(&text);
    Ok(ExitCode::from(status))
}

/// Runs `weirctl support-bundle`, which runs weirctl itself for what needs a datastore.
fn bundle(cli: &Cli, arguments: &SupportBundleArgs) -> Result<ExitCode, Failure> {
    cli.calicoctl.check()?;
    let (flags, sources) = (cli.datastore.to_flags(), cli.datastore.sources());
    let written = runtime()?.block_on(support_bundle::run(arguments, &flags, sources));
    written.map(|output| succeed(&output))
}

/// Runs `weirctl install-cni`, which works with files alone.
fn install(cli: &Cli, arguments: &InstallArgs) -> Result<ExitCode, Failure> {
    cli.calicoctl.check()?;
    let networks = cli.datastore.sources().network_directory;
    let installed = install_cni::run(arguments, &networks, &environment());
    installed.map(|output| succeed(&output))
}

fn run(cli: Cli) -> Result<String, Failure> {
    let is_version = matches!(cli.command, CtlCommand::Version);
    let result = run_command(cli);
    if is_version { result.map_err(|it| commands::version::without_cluster(&it)) } else { result }
}

fn run_command(cli: Cli) -> Result<String, Failure> {
    cli.calicoctl.check()?;
    let mut process = LocalHost::default();
    let runtime = runtime()?;
    if let Some(result) = runtime.block_on(commands::run_offline(&cli.command, &process)) {
        return result;
    }
    process.network = cli.command.network_file().map(read_network).transpose()?;
    let location = locate(&cli.datastore, process.network.clone())?;
    process.datastore = location.to_string();
    if cli.datastore.verbose {
        let _ = writeln!(std::io::stderr(), "datastore: {location}");
    }
    let directory = cli.datastore.sources().network_directory;
    let files = location::read_network_directory(&directory);
    if let CtlCommand::Node(NodeCommand::Run(arguments)) = &cli.command {
        process.learn(&directory, &files, &ComparedStores::by_text(&location.configuration));
        // The agent has its own.
        drop(runtime);
        let name = || this_node::name(&process.networks);
        node::run::start_log(cli.log_level);
        node::run::run(arguments, &location, &directory, name)?;
        return Ok(String::new());
    }
    if let CtlCommand::Docker(DockerCommand::Run(arguments)) = &cli.command {
        process.learn(&directory, &files, &ComparedStores::by_text(&location.configuration));
        // The driver has its own.
        drop(runtime);
        node::run::start_log(cli.log_level);
        docker::run::run(arguments, &location, || this_node::name(&process.networks))?;
        return Ok(String::new());
    }
    if let CtlCommand::Dashboard(arguments) = &cli.command {
        process.learn(&directory, &files, &ComparedStores::by_text(&location.configuration));
        let own_name = this_node::name(&process.networks).ok().map(|found| found.name);
        runtime.block_on(commands::dashboard::run(arguments, &location, own_name))?;
        return Ok(String::new());
    }
    if let CtlCommand::Ipam(IpamCommand::History(arguments)) = &cli.command {
        let history =
            commands::ipam_history::run(arguments, &location, process.now(), terminal::style());
        return runtime.block_on(history);
    }
    let locks = match &cli.command {
        CtlCommand::Datastore(command) => commands::ready(command).is_some(),
        _ => false,
    };
    if let CtlCommand::Datastore(command) = &cli.command
        && !locks
    {
        return runtime.block_on(commands::run_on_whole(command, &location, &process));
    }
    let missing = missing_file(&location.configuration);
    if let Some(path) = missing.filter(|_| locks) {
        let (path, source) = (path.display(), &location.source);
        return Err(Failure::new(format!(
            "there is no datastore at {path} (named by {source}); check the path"
        )));
    }
    let creates = cli.command.creates();
    if missing.is_some() && creates {
        location.require_asked_for()?;
    }
    let is_empty = missing.is_some() && (!creates || commands::is_dry_run(&cli.command));
    let result = runtime.block_on(async {
        let datastore = open(&location, is_empty).await?;
        let datastore = datastore.as_ref();
        let in_use = &location.configuration;
        let stores = match cli.command.asks_the_node() {
            true => ComparedStores::by_guid(in_use, datastore, Networks::datastores(&files)).await,
            false => ComparedStores::by_text(in_use),
        };
        process.learn(&directory, &files, &stores);
        let session = Session { datastore, environment: &process, style: terminal::style() };
        let result = commands::run(cli.command, &session).await;
        process.progress.end();
        result
    });
    if let (Ok(_), Some(path)) = (&result, missing.filter(|_| !creates)) {
        process.warn(&format!(
            "warning: there is no datastore at {} (named by {}), so nothing is in it; check the \
             path, or make one: weirctl init --datastore-type=embedded",
            path.display(),
            location.source
        ));
    }
    result
}

/// Reads the network that the command line names.
fn read_network(path: &Path) -> Result<Network, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{} cannot be read: {error}; check the path", path.display()))
    })?;
    Ok(Network::read(path.to_owned(), &text)?)
}

/// The variables that are text.
fn environment<T: FromIterator<(String, String)>>() -> T {
    let variables = std::env::vars_os();
    let text = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.collect()
}

fn locate(arguments: &DatastoreArgs, named: Option<Network>) -> Result<Location, Failure> {
    let mut candidates =
        arguments.sources().gather(arguments.settings(), &environment::<Vec<_>>())?;
    candidates.named = named;
    Ok(location::choose(&candidates)?)
}

/// Opens the datastore and asks it for something small, so that one that
/// cannot be reached is reported together with who named it. A file is made only by
/// what creates something; to everything else one that is not there `is_empty`.
async fn open(location: &Location, is_empty: bool) -> Result<Box<dyn Datastore>, Failure> {
    if is_empty {
        return Ok(Box::new(store::DryRun::default()));
    }
    let opened = async {
        let memory = Box::new(weir_process::EndpointFile::of(&location.configuration));
        let datastore = weir_datastore::open_with(&location.configuration, memory).await?;
        datastore.get(keys::CLUSTER_INFORMATION).await?;
        Ok(datastore)
    };
    opened.await.map_err(|error: weir_common::datastore::Error| {
        let message = session::chain(&error);
        Failure::new(format!("{message} (named by {})", location.source))
    })
}

fn succeed(output: &str) -> ExitCode {
    match terminal::write(output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(failure: &Failure) -> ExitCode {
    // There is nobody left to tell when these cannot be written.
    let _ = std::io::stdout().write_all(failure.output.as_bytes());
    terminal::write_error(&failure.message);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
