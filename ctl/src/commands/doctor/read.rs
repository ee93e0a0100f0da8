//! Reading the facts: each within a time limit, and what fails is a fact too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value};
use weir_common::audit::{AuditContext, Report};
use weir_common::cni::{Arguments, NetworkConfiguration, NodeName, SpecVersion, skeleton};
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::Ownership;
use weir_common::ipam::assign::Request;
use weir_common::ipam::explain::{explain, newcomer};
use weir_common::network::{
    ClusterSnapshot, ClusterState, HostEnd, NamedNode, Writer, addresses_of_nodes,
};
use weir_datastore::etcd::server_date;
use weir_kernel::{Kernel, is_node_namespace};
use weir_process::{
    AGENT_LOCK, FoundName, NameSource, STATE_FILE, agent_runs, machine_id, node_name, read_state,
};

use super::DoctorArgs;
use super::facts::{
    AgentFacts, ExaminedNode, Fact, KernelFacts, NameFacts, NetworkFacts, NextAddress, StoreFacts,
};
use super::limit::within;
use super::probe;
use crate::LocalHost;
use crate::agent_http::get;
use crate::commands::repair::Scan;
use crate::docker::is_driver_installed;
use crate::kernel_modules::{KERNEL_MODULES, KernelModule, ModuleFacts, ModuleState};
use crate::location::{self, Location};
use crate::network::{Network, datastore_of, plugins};
use crate::output::Style;
use crate::same_cluster::{ComparedStores, SameCluster};
use crate::session::{Session, chain};
use crate::this_node::Networks;

/// How long a DEL may take from the routes' removal to the link's: what looks like trouble is
/// looked at again after that.
const DEL_IN_PROGRESS: Duration = Duration::from_millis(300);

/// Reads all of them.
pub async fn facts(
    arguments: &DoctorArgs,
    location: Fact<Location>,
    directory: &Path,
) -> ExaminedNode {
    let networks = networks(directory);
    let mut names = names(&networks);
    let (mut stored, kernel, programs, nft, agent, clocks) = tokio::join!(
        stored(&location, &networks),
        within("the kernel", kernel()),
        probe::programs(&networks, &arguments.cni_path),
        probe::nft(),
        agent(&arguments.metrics_address),
        clocks(&location),
    );
    stored.store.clocks = clocks;
    if let (Ok(cluster), Some(own)) = (&stored.cluster, names.own()) {
        let (machine, recorded) = (machine_id(), cluster.machines.get(&own));
        let clash = Ownership::new(machine.as_ref(), recorded).clash(&own);
        names.clash = clash.map(|clash| clash.to_string());
    }
    let StoredFacts { store, cluster, next, audit } = stored;
    ExaminedNode { networks, programs, store, names, kernel, nft, cluster, next, audit, agent }
}

fn networks(directory: &Path) -> NetworkFacts {
    let files = location::read_network_directory(directory);
    let is_network = |path: &PathBuf| {
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        ["conflist", "conf", "json"].contains(&extension)
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut unreadable: Vec<PathBuf> = entries.map(|it| it.path()).filter(is_network).collect();
    unreadable.retain(|path| files.iter().all(|(read, _)| read != path));
    unreadable.sort();
    let has_docker = is_driver_installed();
    NetworkFacts { directory: directory.to_owned(), files, unreadable, has_docker }
}

/// The plugins of type `weir`, each with its file.
fn weirs(networks: &NetworkFacts) -> impl Iterator<Item = (&PathBuf, Map<String, Value>)> {
    let all = networks.files.iter().flat_map(|(path, text)| {
        plugins(text).unwrap_or_default().into_iter().map(move |plugin| (path, plugin))
    });
    all.filter(|(_, plugin)| plugin.get("type").is_some_and(|it| it == "weir"))
}

fn names(networks: &NetworkFacts) -> NameFacts {
    let found = |configured: &NodeName| node_name(configured).map_err(|error| chain(&error));
    let named = |found: FoundName| NamedNode { name: found.name, source: found.source.to_string() };
    let of_plugin = |plugin: &Map<String, Value>| {
        let configuration =
            NetworkConfiguration::for_removal(String::new(), SpecVersion::V1_0_0, plugin);
        let configured = configuration.and_then(|it| it.node_name).map_err(|it| chain(&it))?;
        found(&configured).map(named)
    };
    let default = found(&NodeName::Search(None));
    let kept = match &default {
        Ok(FoundName { name, source: NameSource::File(file) }) => {
            BTreeMap::from([(file.clone(), name.clone())])
        }
        _ => BTreeMap::new(),
    };
    NameFacts {
        networks: weirs(networks).map(|(file, it)| (file.clone(), of_plugin(&it))).collect(),
        default: default.map(named),
        kept,
        clash: None,
    }
}

async fn kernel() -> Fact<KernelFacts> {
    let parameter = |path: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{path}")).unwrap_or_default();
        text.trim().to_owned()
    };
    let release = parameter("kernel/osrelease");
    let rp_filter = parameter("net/ipv4/conf/all/rp_filter");
    // Reading the kernel's symbols takes longer than all else together.
    let is_short = |path: &&str| *path != "/proc/kallsyms";
    let read = |path: &str| std::fs::read_to_string(Some(path).filter(is_short)?).ok();
    let modules = ModuleFacts::read(&release, None, read);
    let is_missing = |module: &&KernelModule| modules.state(module) == ModuleState::Missing;
    let missing_modules = KERNEL_MODULES.iter().filter(is_missing).collect();
    let reading = async {
        let kernel = Kernel::open()?;
        let state = read_state(Path::new(STATE_FILE));
        let sources = state.map(|state| state.sources).unwrap_or_default();
        let mut host_ends = kernel.host_ends(sources).await?;
        if !host_ends.iter().all(HostEnd::looks_whole) {
            tokio::time::sleep(DEL_IN_PROGRESS).await;
            host_ends = kernel.host_ends(sources).await?;
        }
        Ok(KernelFacts {
            release,
            missing_modules,
            is_node: is_node_namespace(),
            state: kernel.node_state(true)?,
            rp_filter,
            attachments: host_ends.iter().map(|end| end.state.clone()).collect(),
            host_ends,
            has_nat: kernel.has_nat().map_err(|error| chain(&error)),
            has_source_filter: kernel.has_source_filter().map_err(|error| chain(&error)),
            filters: kernel.forward_filters(),
            rules: kernel.policy_rules().await?,
            occupied: kernel.occupied().await?,
            underlay: kernel.underlay().await?,
            actual: kernel.actual_state().await?,
            uplink_mtu: kernel.uplink_mtu().await?,
        })
    };
    reading.await.map_err(|error: weir_kernel::Error| chain(&error))
}

async fn agent(address: &str) -> AgentFacts {
    let address = address.to_owned();
    if !agent_runs(Path::new(AGENT_LOCK)) {
        return AgentFacts { address, ..AgentFacts::default() };
    }
    let state = read_state(Path::new(STATE_FILE)).filter(|it| it.writer == Writer::Agent);
    let keeps = state.map(|state| (state.node, state.datastore));
    let health = within("its health", get(&address, "/health")).await;
    let health = health.map(|answer| (answer.is_ok, answer.body));
    AgentFacts { runs: true, keeps, address, health: Some(health) }
}

/// By endpoint of etcd, how far its clock is ahead of this node's in seconds; nothing of one that
/// does not tell.
async fn clocks(location: &Fact<Location>) -> Vec<(String, Fact<i64>)> {
    let Ok(Location { configuration: DatastoreConfiguration::Etcd(etcd), .. }) = location else {
        return Vec::new();
    };
    let mut clocks = Vec::new();
    for endpoint in &etcd.endpoints {
        let asked = async { server_date(endpoint, etcd).await.map_err(|error| error.to_string()) };
        let ahead = within("GET /version", asked).await.map(|date| {
            let time = jiff::fmt::rfc2822::parse(&date?).ok()?.timestamp();
            Some(time.as_second() - Timestamp::now().as_second())
        });
        clocks.extend(ahead.transpose().map(|ahead| (endpoint.clone(), ahead)));
    }
    clocks
}

/// What was read of the datastore, and with its help.
struct StoredFacts {
    store: StoreFacts,
    cluster: Fact<ClusterState>,
    next: Fact<Vec<NextAddress>>,
    audit: Fact<Report>,
}

async fn stored(location: &Fact<Location>, networks: &NetworkFacts) -> StoredFacts {
    let unread = || "the datastore cannot be read".to_owned();
    let missing = location.as_ref().ok().and_then(|it| crate::missing_file(&it.configuration));
    let begin = Instant::now();
    let opened = match location {
        Ok(location) => {
            within("the datastore", async {
                let opened = crate::open(location, missing.is_some()).await;
                opened.map_err(|failure| failure.message)
            })
            .await
        }
        Err(_) => Err(unread()),
    };
    let store = StoreFacts {
        location: location.clone(),
        missing: missing.map(Path::to_owned),
        answer: opened.as_ref().map(|_| begin.elapsed()).map_err(String::clone),
        writable: Ok(()),
        elsewhere: Vec::new(),
        clocks: Vec::new(),
    };
    match (location, opened) {
        (Ok(location), Ok(datastore)) => {
            let reading = Reading { location, datastore: datastore.as_ref(), networks };
            reading.of(store).await
        }
        _ => {
            StoredFacts { store, cluster: Err(unread()), next: Err(unread()), audit: Err(unread()) }
        }
    }
}

/// A datastore that answers.
struct Reading<'a> {
    location: &'a Location,
    datastore: &'a dyn Datastore,
    networks: &'a NetworkFacts,
}

impl Reading<'_> {
    async fn of(&self, store: StoreFacts) -> StoredFacts {
        let failed = |error: weir_common::datastore::Error| chain(&error);
        let (in_use, files) = (&self.location.configuration, &self.networks.files);
        let comparison = async {
            let named = Networks::datastores(files);
            Ok(ComparedStores::by_guid(in_use, self.datastore, named).await)
        };
        let stores = within("other datastores", comparison).await;
        let stores = stores.unwrap_or_else(|_| ComparedStores::by_text(in_use));
        let writable = async { self.datastore.check_writable().await.map_err(failed) };
        let cluster = async {
            let listed = ClusterSnapshot::read_whole(self.datastore).await;
            listed.map(|it| it.state).map_err(|error| chain(&error))
        };
        let cluster = within("the cluster", cluster).await;
        StoredFacts {
            store: StoreFacts {
                writable: within("writing", writable).await,
                elsewhere: self.elsewhere(&stores),
                ..store
            },
            next: match &cluster {
                Ok(cluster) => within("the next address", self.next(cluster, &stores)).await,
                Err(why) => Err(why.clone()),
            },
            audit: within("the audit", self.audit(&stores)).await,
            cluster,
        }
    }

    /// The networks whose addresses are not, or perhaps not, in this datastore.
    fn elsewhere(&self, stores: &ComparedStores) -> Vec<(PathBuf, String, SameCluster)> {
        let named = weirs(self.networks).filter_map(|(file, plugin)| {
            let configuration = datastore_of(&plugin).ok()?;
            let answer = stores.holds_cluster(&configuration);
            Some((file.clone(), configuration.place(), answer))
        });
        named.filter(|(_, _, answer)| *answer != SameCluster::Yes).collect()
    }

    async fn next(
        &self,
        cluster: &ClusterState,
        stores: &ComparedStores,
    ) -> Fact<Vec<NextAddress>> {
        let kernel = Kernel::open().map_err(|error| chain(&error))?;
        let local = kernel.local_network().await.map_err(|error| chain(&error))?;
        let mut next = Vec::new();
        for (file, text) in &self.networks.files {
            let Ok(network) = Network::read(file.clone(), text) else { continue };
            let checked = skeleton::check_add(&network.plugin, &Arguments::default());
            let Ok(configuration) = checked else { continue };
            let is_here = datastore_of(&network.plugin)
                .is_ok_and(|it| stores.holds_cluster(&it) == SameCluster::Yes);
            let (true, Some(ipam), Ok(configured)) =
                (is_here, configuration.ipam, configuration.node_name)
            else {
                continue;
            };
            let Ok(FoundName { name, .. }) = node_name(&configured) else { continue };
            let reserved = local.reserved(&addresses_of_nodes(&name, cluster));
            let request = Request { gateways: ipam.gateways, ..newcomer(&name, ipam.wants) };
            let explained = explain(self.datastore, &request, reserved, Timestamp::now()).await;
            let outcome = explained.map_err(|error| chain(&error))?.outcome;
            let outcome = outcome.map_err(|error| chain(&error));
            let outcome = outcome.map(|next| next.iter().map(|it| it.address).collect());
            next.push(NextAddress { file: file.clone(), outcome });
        }
        Ok(next)
    }

    async fn audit(&self, stores: &ComparedStores) -> Fact<Report> {
        let mut environment = LocalHost::default();
        environment.learn(&self.networks.directory, &self.networks.files, stores);
        let session = Session {
            datastore: self.datastore,
            environment: &environment,
            style: Style::default(),
        };
        let gone = BTreeSet::new();
        let scan = Scan::run(&session, &gone).await.map_err(|it| it.message)?;
        let context =
            AuditContext { node: scan.node.as_ref(), gone: &gone, now: session.environment.now() };
        Ok(Report::new(&scan.snapshot, &scan.findings, &context))
    }
}
