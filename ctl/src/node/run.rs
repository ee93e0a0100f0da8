//! `weirctl node run`

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use tokio::sync::mpsc::{self, Receiver};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use weir_common::datastore::Datastore;
use weir_common::ipam::{Family, MachineId};
use weir_common::network::NamedNode;
use weir_common::node::OwnAddress;
use weir_kernel::{Kernel, Monitor};
use weir_process::{
    AGENT_LOCK, AgentLock, CALLS_SOCKET, FoundName, HISTORY_FILE, NameSource, PrintableLog,
    keep_node_name, machine_id,
};

use super::agent::{Agent, BgpMode, Until};
use super::agent_node::AgentNode;
use super::bgp::LatestPlan;
use super::call_metrics::count_calls;
use super::history::Recorder;
use super::host_ends::Suspects;
use super::metrics::Metrics;
use super::own_ip::detection;
use super::own_networks::require_own_networks;
use super::registration::Registration;
use super::state_file::StateFile;
use super::{audit, bgp, calico_status, gc, host_ends, http, pulse};
use crate::agent_http::AGENT_ADDRESS;
use crate::commands::node_adopt::take_over;
use crate::follow::{WatchEvent, list_and_watch};
use crate::location::{Location, read_network_directory};
use crate::session::{Failure, runtime};

/// How many messages of the datastore may wait to be taken in.
const WAITING_EVENTS: usize = 64;

/// The shortest time between two looks for containers that are gone, or for damage.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `weirctl node run`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Ends on SIGTERM and SIGINT; routes, tunnel and NAT stay. With systemd, use \
                  conf/systemd/weir-node.service.\n\n\
                  Examples:\n  weirctl node run\n  \
                  weirctl node run --ip-autodetection-method can-reach=192.0.2.1\n  \
                  weirctl node run --once"
)]
pub struct RunArgs {
    /// This node's name; without it as in the network configuration, else as kept in
    /// /var/lib/weir/nodename, else as in /var/lib/calico/nodename, else the host's name
    #[arg(long, value_name = "NAME", env = "NODENAME", hide_env_values = true)]
    pub node: Option<String>,
    /// This node's IPv4 address, with or without its prefix length; "autodetect": found at
    /// every start; "none": left as it is. An address and "none" count more than the method
    #[arg(long, value_name = "ADDRESS", env = "IP", hide_env_values = true)]
    pub ip: Option<String>,
    /// Its IPv6 address, likewise; without it, by the method if there is one
    #[arg(long, value_name = "ADDRESS", env = "IP6", hide_env_values = true)]
    pub ip6: Option<String>,
    /// How this node's IPv4 address is found: first-found, can-reach=ADDRESS, interface=NAMES,
    /// skip-interface=NAMES, cidr=CIDRS, an address, or none; without it, the address that
    /// the node is registered with stays while the node has it, and else as first-found
    #[arg(long, value_name = "METHOD", env = "IP_AUTODETECTION_METHOD", hide_env_values = true)]
    pub ip_autodetection_method: Option<String>,
    /// How its IPv6 address is found, by the same methods; "none", as without it, leaves it as
    /// it is
    #[arg(long, value_name = "METHOD", env = "IP6_AUTODETECTION_METHOD", hide_env_values = true)]
    pub ip6_autodetection_method: Option<String>,
    /// Where metrics and health are served over HTTP; "none" for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = AGENT_ADDRESS)]
    pub metrics_address: String,
    /// Make the node what it should be, then end
    #[arg(long)]
    pub once: bool,
    /// Take over first what another machine has under this node's name, as `weirctl node adopt`
    /// does
    #[arg(long)]
    pub adopt: bool,
    /// How often addresses of this node's containers that are gone are given back, for example
    /// 5m; "none" for never. What is given back had no link twice, that far apart
    #[arg(long, value_name = "INTERVAL", default_value = "5m")]
    pub gc: String,
    /// How often damage in the datastore is looked for and counted in the metrics, for example
    /// 1h; "none" for never. Three agents look at all of it, each other one at its own node's
    #[arg(long, value_name = "INTERVAL", default_value = "1h")]
    pub audit: String,
    /// Whether BGP is spoken: "auto": where a session is wanted, by a BIRD that the agent starts;
    /// "external": the same by a BIRD in a container of its own (docs/bgp.md); "off": never, and
    /// a daemon that an agent started before is taken down
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub bgp: BgpMode,
    /// How often the kernel is compared although it told of no change, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, hide = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub drift_interval: u64,
}

/// The arguments, as validated.
struct AgentSettings {
    node: FoundName,
    machine: Option<MachineId>,
    adopt: bool,
    bgp_mode: BgpMode,
    addresses: Vec<OwnAddress>,
    metrics_address: Option<SocketAddr>,
    drift_interval: Duration,
    gc_interval: Option<Duration>,
    audit_interval: Option<Duration>,
}

/// Runs the agent until it is ended.
///
/// # Errors
/// [`Failure`] when it cannot start; once it runs it tries again for ever. With
/// `--once` also when something is wrong in the end.
pub fn run(
    arguments: &RunArgs,
    location: &Location,
    network_directory: &Path,
    node_name: impl FnOnce() -> Result<FoundName, Failure>,
) -> Result<ExitCode, Failure> {
    let settings = validate(arguments, node_name)?;
    let lock = AgentLock::take(Path::new(AGENT_LOCK)).map_err(|error| {
        Failure::new(format!("{AGENT_LOCK} cannot be locked: {error}; run this as root"))
    })?;
    let lock = lock.ok_or_else(|| {
        Failure::new(format!(
            "another agent runs on this node (it holds {AGENT_LOCK}); end it first"
        ))
    })?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.node.name,
        from = %settings.node.source,
        datastore = ?location.configuration,
        "started"
    );
    keep_node_name(&settings.node);
    let runtime = runtime()?;
    let until = if arguments.once { Until::Reconciled } else { Until::Ended };
    let served = runtime.block_on(serve(settings, (location, network_directory), lock, until));
    // An audit that is at work changes nothing, and nobody waits for it.
    runtime.shutdown_background();
    let unhealthy = served?;
    if arguments.once && !unhealthy.is_empty() {
        return Err(Failure::new(unhealthy.join("\n")));
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    mut settings: AgentSettings,
    (location, network_directory): (&Location, &Path),
    lock: AgentLock,
    until: Until,
) -> Result<Vec<String>, Failure> {
    let datastore = open_datastore(location, network_directory).await?;
    let kernel = Kernel::open()?;
    let metrics = Arc::new(Metrics::new());
    if let Some(address) = settings.metrics_address {
        tokio::spawn(http::serve(address, Arc::clone(&metrics)));
    }
    let (kernel_changed, suspects) = (Arc::<Notify>::default(), Arc::<Suspects>::default());
    let monitor = Monitor::open()?.ignoring(&kernel);
    tokio::spawn(watch_kernel(monitor, Arc::clone(&kernel_changed), Arc::clone(&suspects)));
    tokio::spawn(pulse::feel(Arc::clone(&datastore), Arc::clone(&metrics)));
    let events = watch_datastore(Arc::clone(&datastore)).await?;
    let (name, machine) = (settings.node.name.clone(), settings.machine.take());
    if settings.adopt {
        let told = take_over(datastore.as_ref(), &name, machine.as_ref()).await?;
        told.lines().for_each(|line| tracing::info!("{line}"));
    }
    let named = NamedNode { name: name.clone(), source: settings.node.source.to_string() };
    let state_file = StateFile::new(named, location.configuration.place());
    let sources = state_file.sources.subscribe();
    let addresses = std::mem::take(&mut settings.addresses);
    let mut agent = Agent::new(
        Registration::new(Arc::clone(&datastore), name.clone(), machine.clone(), addresses),
        kernel,
        Arc::clone(&metrics),
        lock,
        kernel_changed,
        settings.drift_interval,
        state_file,
    )
    .await;
    agent.bgp_mode = settings.bgp_mode;
    let bgp_plans = agent.bgp_plan.subscribe();
    let node = AgentNode {
        datastore,
        in_use: location.configuration.clone(),
        network_directory: network_directory.to_owned(),
        name,
        machine,
        borrowed_from: agent.borrowed_from.subscribe(),
        is_auditor: agent.is_auditor.subscribe(),
        sources,
    };
    // Each has a kernel of its own, so that none waits for another.
    let kernels = [Kernel::open()?, Kernel::open()?];
    let running = async { agent.run(events, until).await.map_err(Failure::from) };
    if until == Until::Reconciled {
        let unhealthy = running.await?;
        node.host_ends().repair(&kernels[0], &|_| false).await?.log();
        return Ok(unhealthy);
    }
    tokio::select! {
        ended = running => ended,
        () = run_beside(Arc::new(node), &settings, metrics, kernels, suspects, bgp_plans) => Ok(Vec::new()),
    }
}

/// Opens the datastore, if it is that of the node's networks.
async fn open_datastore(
    location: &Location,
    network_directory: &Path,
) -> Result<Arc<dyn Datastore>, Failure> {
    let datastore: Arc<dyn Datastore> = location.open().await?.into();
    let files = read_network_directory(network_directory);
    require_own_networks(&files, location, datastore.as_ref()).await?;
    Ok(datastore)
}

async fn watch_datastore(datastore: Arc<dyn Datastore>) -> Result<Receiver<WatchEvent>, Failure> {
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    // It may have much to read.
    let recorder = spawn_blocking(|| Recorder::open(Path::new(HISTORY_FILE))).await;
    tokio::spawn(list_and_watch(datastore, sender, recorder?));
    Ok(events)
}

/// Does what the agent's loop does not wait for, for ever.
async fn run_beside(
    node: Arc<AgentNode>,
    settings: &AgentSettings,
    metrics: Arc<Metrics>,
    [of_keeping, of_collecting]: [Kernel; 2],
    suspects: Arc<Suspects>,
    bgp_plans: watch::Receiver<LatestPlan>,
) {
    let shared = || Arc::clone(&metrics);
    let (ends, sources) = (node.host_ends(), node.sources.clone());
    let every = settings.drift_interval;
    let keeping = host_ends::keep(ends, of_keeping, suspects, sources, every, shared());
    let collecting = async {
        if let Some(every) = settings.gc_interval {
            gc::run(&node, of_collecting, every, &metrics).await;
        }
    };
    let auditing = async {
        if let Some(every) = settings.audit_interval {
            audit::run(Arc::clone(&node), every, &metrics.audit).await;
        }
    };
    let is_external = settings.bgp_mode == BgpMode::External;
    tokio::join!(
        keeping,
        collecting,
        auditing,
        bgp::keep(bgp_plans, shared(), is_external),
        calico_status::keep(Arc::clone(&node.datastore), node.name.clone(), shared()),
        count_calls(Path::new(CALLS_SOCKET), metrics.calls.clone()),
    );
}

async fn watch_kernel(mut monitor: Monitor, changed: Arc<Notify>, suspects: Arc<Suspects>) {
    loop {
        match monitor.changed().await {
            Ok(happened) => {
                if happened.cluster {
                    changed.notify_one();
                }
                suspects.add(happened.host_ends);
                if happened.any_host_end {
                    suspects.add_all();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel's changes are not seen any more, only polled");
                return;
            }
        }
    }
}

/// Starts the log of a service. What its libraries have to say below `info` (each frame of
/// HTTP/2) is left to the level `trace`.
pub fn start_log(level: LevelFilter) {
    let of_others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::INFO) };
    let targets = Targets::new().with_default(of_others).with_target("weir", level);
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .with_writer(|| PrintableLog::Text(std::io::stderr()))
        .finish()
        .with(targets)
        .init();
}

fn validate(
    arguments: &RunArgs,
    node_name: impl FnOnce() -> Result<FoundName, Failure>,
) -> Result<AgentSettings, Failure> {
    let metrics_address = match arguments.metrics_address.as_str() {
        "none" => None,
        text => Some(text.parse().map_err(|_| {
            Failure::new(format!(
                "--metrics-address {text} is not an address with a port; write 127.0.0.1:9098, or none"
            ))
        })?),
    };
    let node = match &arguments.node {
        Some(node) if weir_common::cni::is_identifier(node) => {
            FoundName { name: node.clone(), source: NameSource::Argument }
        }
        Some(node) => {
            return Err(Failure::new(format!(
                "--node {node:?} is not a valid node name; use letters, digits, '_', '.', '-'"
            )));
        }
        None => node_name()?,
    };
    let RunArgs { ip, ip6, ip_autodetection_method, ip6_autodetection_method, .. } = arguments;
    let ipv4 = detection(Family::V4, ip.as_deref(), ip_autodetection_method.as_deref())?;
    let ipv6 = detection(Family::V6, ip6.as_deref(), ip6_autodetection_method.as_deref())?;
    let both = [(Family::V4, ipv4), (Family::V6, ipv6)];
    // What is done once has no time to wait in.
    let address = |(family, detection): (_, Option<_>)| {
        Some(OwnAddress::new(family, detection?, !arguments.once))
    };
    Ok(AgentSettings {
        node,
        machine: machine_id(),
        adopt: arguments.adopt,
        bgp_mode: arguments.bgp,
        addresses: both.into_iter().filter_map(address).collect(),
        metrics_address,
        drift_interval: Duration::from_secs(arguments.drift_interval),
        gc_interval: interval("--gc", &arguments.gc)?,
        audit_interval: interval("--audit", &arguments.audit)?,
    })
}

/// How often something is done, as a flag says; `None` for never.
fn interval(flag: &str, text: &str) -> Result<Option<Duration>, Failure> {
    if text == "none" {
        return Ok(None);
    }
    let interval = text.parse::<SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    match interval.filter(|it| *it >= SHORTEST_INTERVAL) {
        Some(interval) => Ok(Some(interval)),
        None => Err(Failure::new(format!(
            "{flag} {text} is not an interval of at least {} s; write for example 5m, or none",
            SHORTEST_INTERVAL.as_secs()
        ))),
    }
}
