//! `weirctl docker run`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;
use tokio::time::timeout;
use weir_process::{FoundName, keep_node_name, machine_id};

use super::daemon::Daemon;
use super::driver::{Driver, Workloads};
use super::forward;
use super::front::Front;
use super::server;
use super::sockets::{self, MadeSocket, PLUGIN_DIRECTORY};
use crate::location::Location;
use crate::service::Service;
use crate::session::{Failure, runtime};
use crate::signals::EndSignals;

/// Where what dockerd said of its networks is kept.
pub const NETWORK_DIRECTORY: &str = "/var/lib/weir/docker";

/// How long calls that are at work may go on once the driver is to end; less than the unit's
/// `TimeoutStopSec`.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Arguments of `weirctl docker run`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Ends on SIGTERM and SIGINT; containers keep their network. With systemd, use \
                  conf/systemd/weir-docker.socket and weir-docker.service.\n\n\
                  Examples:\n  weirctl docker run\n  weirctl docker run --calico-names"
)]
pub struct DriverArgs {
    /// Also be there as "calico" and "calico-ipam", for command lines that were written for
    /// Calico's driver
    #[arg(long)]
    pub calico_names: bool,
    /// Where dockerd looks for sockets of plugins
    #[arg(long, value_name = "DIR", default_value = PLUGIN_DIRECTORY)]
    pub plugin_directory: PathBuf,
    /// The socket of the dockerd that is answered; without it as DOCKER_HOST says, else
    /// /run/docker.sock. It is asked which containers there are, off the calls
    #[arg(long, value_name = "FILE")]
    pub docker_socket: Option<PathBuf>,
    /// Write a WorkloadEndpoint for each container, as Calico's driver does, for programs that
    /// read them
    #[arg(long)]
    pub workload_endpoints: bool,
    /// Write them with the containers' labels: org.projectcalico.label.X=Y as X=Y
    #[arg(long, env = "CALICO_LIBNETWORK_LABEL_ENDPOINTS", hide_env_values = true,
          value_parser = FalseyValueParser::new())]
    pub label_endpoints: bool,
    /// How interfaces in containers are called, before their number; without it eth, and cali on
    /// networks of the driver calico
    #[arg(long, value_name = "NAME", env = "CALICO_LIBNETWORK_IFPREFIX", hide_env_values = true,
          value_parser = interface_prefix)]
    pub interface_prefix: Option<String>,
    /// The MTU of containers, in bytes, where their network says none
    /// (--opt com.docker.network.driver.mtu); without it the node's
    #[arg(long, value_name = "BYTES", env = "CALICO_LIBNETWORK_VETH_MTU", hide_env_values = true,
          value_parser = clap::value_parser!(u32).range(68..=65535))]
    pub mtu: Option<u32>,
    /// How far the two looks are apart that what dockerd has forgotten must be missing in, in
    /// seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, hide = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_pause: u64,
}

/// A prefix to which dockerd can add a number within the 15 bytes of an interface's name.
fn interface_prefix(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match text.bytes().all(is_plain) && (1..=12).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err("write 1 to 12 letters, digits, '_' or '-'".to_owned()),
    }
}

/// Runs the driver until it is ended.
///
/// # Errors
/// [`Failure`] when it cannot start.
pub fn run(
    arguments: &DriverArgs,
    location: &Location,
    node_name: impl FnOnce() -> Result<FoundName, Failure>,
) -> Result<ExitCode, Failure> {
    let node = node_name()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = node.name,
        datastore = ?location.configuration,
        "started"
    );
    keep_node_name(&node);
    LocalSet::new().block_on(&runtime()?, serve(arguments, location, node.name))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(arguments: &DriverArgs, location: &Location, node: String) -> Result<(), Failure> {
    let driver = Rc::new(Driver {
        datastore: Arc::from(location.open().await?),
        place: location.configuration.place(),
        node,
        machine: machine_id(),
        directory: Path::new(NETWORK_DIRECTORY).to_owned(),
        forwarding: Notify::new(),
        daemon: Daemon::at(arguments.docker_socket.clone()),
        workloads: match (arguments.workload_endpoints, arguments.label_endpoints) {
            (_, true) => Workloads::Labelled,
            (true, false) => Workloads::Written,
            (false, false) => Workloads::Unwritten,
        },
        interface_prefix: arguments.interface_prefix.clone(),
        mtu: arguments.mtu,
    });
    let calicos = [Front::Calico, Front::CalicoIpam].into_iter().filter(|_| arguments.calico_names);
    let fronts: Vec<Front> = std::iter::once(Front::Weir).chain(calicos).collect();
    let mut ends = EndSignals::new()?;
    let (end, ending) = watch::channel(false);
    let mut made = Vec::new();
    for socket in sockets::open(&fronts, &arguments.plugin_directory).await? {
        made.extend(socket.made);
        let (driver, ending) = (Rc::clone(&driver), ending.clone());
        tokio::task::spawn_local(server::serve(socket.listener, socket.front, driver, ending));
    }
    drop(ending);
    tokio::task::spawn_local(forward::keep(Rc::clone(&driver)));
    let pause = Duration::from_secs(arguments.sweep_pause);
    tokio::task::spawn_local(Rc::clone(&driver).sweep(pause));
    let mut service = Service::default();
    service.is_ready("answers dockerd");
    ends.wait().await;
    service.is_stopping();
    made.into_iter().for_each(MadeSocket::remove);
    let _ = end.send(true);
    // What is cut off dockerd asks again.
    if timeout(LAST_CALLS, end.closed()).await.is_err() {
        tracing::warn!(seconds = LAST_CALLS.as_secs(), "calls are cut off that took longer");
    }
    Ok(())
}
