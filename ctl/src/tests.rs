//! Whole commands over a datastore in memory.

mod bgp;
mod changing;
mod completing;
mod concurrency;
mod deletion;
mod documentation;
mod felix;
mod force;
pub(crate) mod golden;
mod init;
mod ipam;
mod ipam_repair;
mod manual;
mod node;
mod recorded;
mod rename;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use serde_json::Value;
use weir_common::audit::ThisNode;
use weir_common::cni::NodeName;
use weir_common::datastore::Datastore;
use weir_common::ipam::{LocalNetwork, MachineId};
use weir_common::network::{ActualState, ForwardFilters, PolicyRule, Underlay};
use weir_common::resources::Birth;
use weir_datastore::Memory;
use weir_ipam::HostEndRepair;

use crate::cli::Cli;
use crate::commands;
use crate::network::Network;
use crate::output::Style;
use crate::session::{Failure, HostEnvironment, OccupiedRange, Session, StillNode};
use crate::store::Observer;

/// Input given beforehand, and a clock and UIDs that count.
struct Prepared {
    input: String,
    births: AtomicU32,
    node: Option<ThisNode>,
    /// The node while nothing happens on it.
    still: Option<ThisNode>,
    /// What others do during a pause, of this number.
    meanwhile: Option<Meanwhile>,
    pauses: AtomicU32,
    network: Option<Network>,
    warnings: Mutex<Vec<String>>,
    cluster: (Underlay, ActualState),
    foreign_rules: (ForwardFilters, Vec<PolicyRule>),
    agent_runs: bool,
    /// What Weir's file says that the node is called.
    kept_name: Mutex<String>,
    machine: Option<MachineId>,
}

type Meanwhile = Box<dyn Fn(u32) + Send + Sync>;

impl Prepared {
    fn new(input: &str, node: Option<ThisNode>) -> Self {
        let (births, pauses, still) = (AtomicU32::new(0), AtomicU32::new(0), node.clone());
        let (input, warnings) = (input.to_owned(), Mutex::default());
        let (meanwhile, network, cluster) = (None, None, Default::default());
        let (agent_runs, kept_name) = (false, Mutex::new("n1".to_owned()));
        let machine = Some(MachineId::from_source("this machine"));
        Self {
            input,
            births,
            node,
            still,
            meanwhile,
            pauses,
            network,
            warnings,
            cluster,
            foreign_rules: Default::default(),
            agent_runs,
            kept_name,
            machine,
        }
    }
}

impl Observer for Prepared {
    fn progress(&self, done: usize, total: usize) {
        assert!(done <= total, "{done} steps of {total}");
    }

    fn reading(&self, _: usize) {}
}

#[async_trait]
impl HostEnvironment for Prepared {
    fn read_input(&self) -> std::io::Result<String> {
        Ok(self.input.clone())
    }

    async fn occupied(&self) -> Result<Vec<OccupiedRange>, Failure> {
        let range = "172.16.1.0/24".parse().unwrap();
        Ok(vec![OccupiedRange { range, what: "address 172.16.1.11/24 of eth0".into() }])
    }

    fn birth(&self) -> Birth {
        let count = self.births.fetch_add(1, Ordering::Relaxed);
        Birth { uid: format!("uid-{count}"), timestamp: "2026-01-02T03:04:05Z".into() }
    }

    fn now(&self) -> jiff::Timestamp {
        "2026-11-24T00:00:00Z".parse().unwrap()
    }

    async fn pause(&self, time: Duration) {
        assert!(time >= Duration::from_secs(2));
        let number = self.pauses.fetch_add(1, Ordering::Relaxed);
        if let Some(meanwhile) = &self.meanwhile {
            meanwhile(number);
        }
    }

    async fn this_node(&self) -> Result<Option<ThisNode>, Failure> {
        Ok(self.node.clone())
    }

    async fn still_node(&self) -> Result<StillNode, Failure> {
        Ok(StillNode { node: self.still.clone(), _locks: Vec::new() })
    }

    fn node_name(&self, configured: &NodeName) -> Result<String, Failure> {
        Ok(match configured {
            NodeName::Given(name) => name.clone(),
            NodeName::File(_) | NodeName::Search(_) => "n1".to_owned(),
        })
    }

    fn own_name(&self) -> Result<String, Failure> {
        Ok("n1".to_owned())
    }

    fn agent_runs(&self) -> bool {
        self.agent_runs
    }

    fn rename_kept_name(&self, old: &str, new: &str) -> std::io::Result<bool> {
        let mut kept = self.kept_name.lock().unwrap();
        let is_old = *kept == old;
        if is_old {
            *kept = new.to_owned();
        }
        Ok(is_old)
    }

    fn machine(&self) -> Option<MachineId> {
        self.machine.clone()
    }

    fn network(&self) -> Option<Network> {
        self.network.clone()
    }

    fn datastore(&self) -> String {
        "memory (named by the test)".to_owned()
    }

    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.to_owned());
    }

    fn width(&self) -> usize {
        80
    }

    fn read_file(&self, _: &Path) -> std::io::Result<String> {
        Ok(self.input.clone())
    }

    fn write_file(&self, _: &Path, _: &str) -> std::io::Result<()> {
        Ok(())
    }

    async fn local_network(&self) -> Result<LocalNetwork, Failure> {
        Ok(LocalNetwork::default())
    }

    async fn cluster(&self) -> Result<(Underlay, ActualState), Failure> {
        Ok(self.cluster.clone())
    }

    async fn repair_host_ends(&self, _: &dyn Datastore) -> Result<HostEndRepair, Failure> {
        Ok(HostEndRepair::default())
    }

    async fn foreign_rules(&self) -> Result<(ForwardFilters, Vec<PolicyRule>), Failure> {
        Ok(self.foreign_rules.clone())
    }
}

/// What one call gave back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    exit: i64,
    /// Standard output, then standard error.
    pub(crate) output: String,
}

async fn call_with_input(datastore: &dyn Datastore, arguments: &[&str], input: &str) -> Answer {
    call_on(datastore, arguments, input, None, Style::default()).await
}

async fn call_in_style(
    datastore: &dyn Datastore,
    arguments: &[&str],
    input: &str,
    style: Style,
) -> Answer {
    call_on(datastore, arguments, input, None, style).await
}

async fn call_on_node(
    datastore: &dyn Datastore,
    arguments: &[&str],
    input: &str,
    node: Option<ThisNode>,
) -> Answer {
    call_on(datastore, arguments, input, node, Style::default()).await
}

async fn call_on(
    datastore: &dyn Datastore,
    arguments: &[&str],
    input: &str,
    node: Option<ThisNode>,
    style: Style,
) -> Answer {
    let mut environment = Prepared::new(input, node);
    // The network's file, where one is named, is what stands on the standard input.
    let named = parse(arguments).ok().and_then(|cli| cli.command.network_file().map(PathBuf::from));
    environment.network = named.map(|path| Network::read(path, input).unwrap());
    call_in(datastore, arguments, &environment, style).await
}

fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("weirctl").chain(arguments.iter().copied()))
}

async fn call_in(
    datastore: &dyn Datastore,
    arguments: &[&str],
    environment: &Prepared,
    style: Style,
) -> Answer {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) => return Answer { exit: 1, output: error.to_string() },
    };
    let session = Session { datastore, environment, style };
    match commands::run(cli.command, &session).await {
        Ok(output) => Answer { exit: 0, output },
        Err(failure) => {
            Answer { exit: 1, output: format!("{}{}\n", failure.output, failure.message) }
        }
    }
}

pub(crate) async fn call(datastore: &dyn Datastore, line: &str) -> Answer {
    call_with_input(datastore, &line.split(' ').collect::<Vec<_>>(), "").await
}

async fn create(datastore: &dyn Datastore, text: &str) -> Answer {
    call_with_input(datastore, &["create", "-f", "-"], text).await
}

/// A document of a pool with this spec.
fn pool(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn path_in_tree(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read_in_tree(path: &str) -> String {
    let path = path_in_tree(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A recorded store in memory.
pub(crate) fn recorded_store(case: &str) -> Memory {
    let store = read_in_tree(&format!("tests/fixtures/calico-3.31/{case}/store.jsonl"));
    let memory = Memory::new();
    memory.seed(store.lines().map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| entry[field].as_str().unwrap().to_owned();
        (text("key"), text("value").into_bytes())
    }));
    memory
}

/// The text with what differs between clusters put out of sight: versions,
/// UIDs and times of creation.
fn masked(text: &str) -> String {
    text.lines()
        .map(|line| {
            let masked = ["resourceVersion", "uid", "creationTimestamp"].iter().find_map(|field| {
                let field = format!("{field}: ");
                let quoted = field.replace(": ", "\": ");
                let found = line.find(&field).map(|at| at + field.len());
                let end = found.or_else(|| line.find(&quoted).map(|at| at + quoted.len()))?;
                Some(format!("{}…{}", &line[..end], if line.ends_with(',') { "," } else { "" }))
            });
            masked.unwrap_or_else(|| line.to_owned()) + "\n"
        })
        .collect()
}
