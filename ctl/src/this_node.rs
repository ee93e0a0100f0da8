//! This node, as its kernel and its CNI configuration have it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::timeout;
use weir_common::audit::{Attached, DamageKind, DockerAnswer, ThisNode, Unjudged};
use weir_common::cni::{self, Arguments, NetworkConfiguration, NodeName, SpecVersion};
use weir_common::datastore::{Datastore, DatastoreConfiguration};
use weir_common::ipam::docker::{DOCKER_NETWORK, DockerKnowledge};
use weir_kernel::{Kernel, is_node_namespace};
use weir_process::{DEFAULT_LOCK_FILE, FoundName, Limit, Lock, machine_id};

use crate::docker::daemon::{Daemon, DaemonError};
use crate::docker::is_driver_installed;
use crate::docker::run::NETWORK_DIRECTORY;
use crate::location::read_network_directory;
use crate::network::{datastore_of, plugins};
use crate::same_cluster::{ComparedStores, SameCluster};
use crate::session::{Failure, chain};

/// The networks of a node's CNI configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Those that `weir` wires with addresses of `weir-ipam` from the datastore
    /// in use.
    pub own: BTreeSet<String>,
    /// The others.
    pub others: BTreeSet<String>,
    /// The files of the locks that `weir-ipam` takes for our own.
    pub lock_files: BTreeSet<PathBuf>,
    /// How the first of our own says that the node's name is found.
    pub node_name: Option<NodeName>,
    /// The networks of Weir's that are not among our own, and why.
    pub unjudged: Vec<Unjudged>,
    /// Where the configuration was looked for.
    pub directory: PathBuf,
}

impl Networks {
    /// Reads the networks out of the files of the CNI configuration. A file that
    /// is not a network is passed over.
    pub fn of(directory: &Path, files: &[(PathBuf, String)], stores: &ComparedStores) -> Self {
        let mut networks = Self { directory: directory.to_owned(), ..Self::default() };
        for (path, text) in files {
            let Some((name, plugin)) = main_plugin(text) else { continue };
            let Some(own) = own(&name, &plugin) else {
                networks.others.insert(name);
                continue;
            };
            let own = own.map_err(|error| format!("it cannot be used: {}", chain(&error)));
            match own.and_then(|own| belonging_here(own, stores)) {
                Ok(own) => {
                    networks.node_name = networks.node_name.take().or(own.node_name.ok());
                    networks.lock_files.extend(own.ipam.and_then(|ipam| ipam.lock_file));
                    networks.own.insert(name);
                }
                Err(reason) => {
                    let file = Some(path.display().to_string());
                    let kinds = FROM_KERNEL.map(|kind| kind.name().to_owned()).to_vec();
                    networks.unjudged.push(Unjudged { network: name.clone(), file, kinds, reason });
                    networks.others.insert(name);
                }
            }
        }
        // Of two networks with one name nothing can be said.
        networks.own = &networks.own - &networks.others;
        networks
    }

    /// Reads a directory of CNI configuration, and which networks are in the datastore in use.
    pub async fn read(
        directory: &Path,
        in_use: &DatastoreConfiguration,
        datastore: &dyn Datastore,
    ) -> Self {
        let files = read_network_directory(directory);
        let stores = ComparedStores::by_guid(in_use, datastore, Self::datastores(&files)).await;
        Self::of(directory, &files, &stores)
    }

    /// The datastores that networks of `weir` name in these files.
    pub fn datastores(files: &[(PathBuf, String)]) -> Vec<DatastoreConfiguration> {
        let plugins = files.iter().filter_map(|(_, text)| plugins(text).ok()).flatten();
        plugins.filter_map(|plugin| datastore_of(&plugin).ok()).collect()
    }

    /// Which networks are not, or not fully, judged, given the attachments that there are:
    /// also those that no file names.
    fn unjudged(&self, attached: &[Attached]) -> Vec<Unjudged> {
        let is_named = |name: &str| {
            self.own.contains(name) || self.others.contains(name) || name == DOCKER_NETWORK
        };
        let mut unnamed: BTreeMap<&str, usize> = BTreeMap::new();
        for name in attached.iter().map(|it| it.identity.network()).filter(|it| !is_named(it)) {
            *unnamed.entry(name).or_default() += 1;
        }
        let directory = self.directory.display();
        let tell = |(network, interfaces): (&str, usize)| Unjudged {
            network: network.to_owned(),
            file: None,
            kinds: vec![DamageKind::AttachmentWithoutAddress.name().to_owned()],
            reason: format!(
                "{interfaces} containers' interfaces on this node belong to it, but no file in \
                 {directory} describes it; name the runtime's directory with --cni-directory"
            ),
        };
        self.unjudged.iter().cloned().chain(unnamed.into_iter().map(tell)).collect()
    }
}

/// How long a repair waits for calls that change allocations, and they for what dockerd says.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kinds of damage that show only beside the kernel.
const FROM_KERNEL: [DamageKind; 2] =
    [DamageKind::AddressWithoutAttachment, DamageKind::AttachmentWithoutAddress];

/// A network whose addresses are in the datastore in use, or why that is not known.
fn belonging_here(
    own: NetworkConfiguration,
    stores: &ComparedStores,
) -> Result<NetworkConfiguration, String> {
    // What was validated has a datastore.
    let Ok(datastore) = &own.datastore else { return Ok(own) };
    let place = datastore.place();
    match stores.holds_cluster(datastore) {
        SameCluster::Yes => Ok(own),
        SameCluster::No => Err(format!("it names another datastore ({place})")),
        SameCluster::Unknown(why) => Err(format!(
            "whether its datastore ({place}) holds the cluster in use cannot be judged: {why}"
        )),
    }
}

/// The name of a network and its first plugin, which makes the interfaces.
fn main_plugin(text: &str) -> Option<(String, Map<String, Value>)> {
    let plugin = plugins(text).ok()?.into_iter().next()?;
    Some((plugin.get("name")?.as_str()?.to_owned(), plugin))
}

/// The configuration of a network that `weir` wires with addresses of
/// `weir-ipam`, or what is wrong with it.
fn own(
    name: &str,
    plugin: &Map<String, Value>,
) -> Option<Result<NetworkConfiguration, cni::Error>> {
    let is_ours = plugin.get("type")? == "weir" && plugin.get("ipam")?.get("type")? == "weir-ipam";
    let validate = || {
        NetworkConfiguration::validate(
            name.to_owned(),
            SpecVersion::V1_0_0,
            plugin,
            &Arguments::default(),
        )
    };
    is_ours.then(validate)
}

/// The node's name, as the networks or else Weir's defaults say.
///
/// # Errors
/// [`Failure`] when there is none that can be used.
pub fn name(networks: &Networks) -> Result<FoundName, Failure> {
    let configured = networks.node_name.clone().unwrap_or(NodeName::Search(None));
    Ok(weir_process::node_name(&configured)?)
}

/// Makes calls on this host that change allocations wait until the locks are dropped.
///
/// # Errors
/// [`Failure`] when a lock cannot be had.
pub async fn hold_still(networks: &Networks) -> Result<Vec<Lock>, Failure> {
    let mut files = networks.lock_files.clone();
    // Also of networks whose configuration is gone, but not their containers.
    files.insert(DEFAULT_LOCK_FILE.into());
    let mut locks = Vec::new();
    for file in &files {
        locks.push(Lock::wait(file, Limit::of(PATIENCE)).await.map_err(|error| {
            Failure::new(format!(
                "containers could come and go during the repair: {error}; try again as root, \
                 when fewer containers come and go"
            ))
        })?);
    }
    Ok(locks)
}

/// Requires that this network namespace is the node's, so that what it has no link of is gone.
///
/// # Errors
/// It is another, or that cannot be told; in words, and what to do.
pub fn require_node_namespace() -> Result<(), String> {
    proves_absence(is_node_namespace())
}

fn proves_absence(is_node: Option<bool>) -> Result<(), String> {
    match is_node {
        Some(true) => Ok(()),
        Some(false) => Err("this network namespace is not the node's".to_owned()),
        None => Err("whether this network namespace is the node's cannot be told, since \
             /proc/1/ns/net cannot be looked at; add CAP_SYS_PTRACE to the unit's \
             CapabilityBoundingSet"
            .to_owned()),
    }
}

/// Reads the kernel, and what dockerd says; `None` on a machine without a network of Weir's, also
/// of Docker's, and without attachments.
///
/// # Errors
/// [`Failure`] when the kernel, or the node's name, cannot be read, or when this
/// is the network namespace of something else: there every container of the node
/// would look gone.
pub async fn read(networks: &Networks) -> Result<Option<ThisNode>, Failure> {
    let docker = ask_dockerd(Daemon::of_driver(Path::new(NETWORK_DIRECTORY)), PATIENCE).await;
    let knows =
        matches!(&docker, DockerAnswer::Knows(known) if *known != DockerKnowledge::default());
    let has_networks = !networks.own.is_empty() || knows || is_driver_installed();
    if has_networks && is_node_namespace() == Some(false) {
        return Err(Failure::new(
            "this network namespace is not the node's, so its containers cannot be seen; run the \
             same command on the node: nsenter --target 1 --net weirctl …",
        ));
    }
    let kernel = Kernel::open()?;
    let attached = kernel.attachment_states().await?;
    if attached.is_empty() && !has_networks && networks.unjudged.is_empty() {
        return Ok(None);
    }
    let routed = kernel.routed_addresses().await?;
    let attachments: Vec<Attached> = attached
        .into_iter()
        .map(|it| Attached { identity: it.identity, addresses: it.addresses })
        .collect();
    let unjudged = networks.unjudged(&attachments);
    Ok(Some(ThisNode {
        host: name(networks)?.name,
        machine: machine_id(),
        attachments,
        routed,
        networks: networks.own.clone(),
        other_networks: networks.others.clone(),
        unjudged,
        docker,
    }))
}

/// What dockerd knows. A repair asks while calls that change allocations wait: no longer than
/// `limit`, however many networks there are.
async fn ask_dockerd(daemon: Result<Daemon, DaemonError>, limit: Duration) -> DockerAnswer {
    let asked = timeout(limit, async { daemon?.knowledge().await });
    match asked.await {
        Ok(Ok(known)) => DockerAnswer::Knows(known),
        Ok(Err(error)) => DockerAnswer::Silent(error.to_string()),
        Err(_) => {
            let seconds = limit.as_secs();
            DockerAnswer::Silent(format!("dockerd did not tell of its networks within {seconds} s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::network::AttachmentIdentity;

    use super::*;

    #[test]
    fn a_namespace_that_cannot_be_told_is_not_called_another_one() {
        assert_eq!(proves_absence(Some(true)), Ok(()));
        assert!(proves_absence(Some(false)).unwrap_err().contains("is not the node's"));
        let told = proves_absence(None).unwrap_err();
        assert!(told.contains("CAP_SYS_PTRACE") && !told.contains("is not the node's"), "{told}");
    }

    /// Each question has a limit, and a hundred of them the same one together.
    #[tokio::test]
    async fn calls_do_not_wait_for_each_network_of_dockers() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let network = r#"{"Id":"n","Driver":"weir","IPAM":{"Driver":"weir"},"Containers":{}}"#;
        let list = format!("[{}]", vec![network; 100].join(","));
        let serving = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                let is_list = request[..length].starts_with(b"GET /networks ");
                let body = if is_list { &list } else { network };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        };
        let answer = tokio::select! {
            answer = ask_dockerd(Ok(Daemon::at(Some(socket))), Duration::from_secs(1)) => answer,
            () = serving => unreachable!("it serves for ever"),
        };
        let DockerAnswer::Silent(why) = answer else { panic!("{answer:?}") };
        assert!(why.contains("within 1 s"), "{why}");
    }

    /// Otherwise an ADD could go on beside a repair.
    #[tokio::test]
    async fn without_the_lock_nothing_is_still() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let networks =
            Networks { lock_files: [file.join("ipam.lock")].into(), ..Networks::default() };
        let failure = hold_still(&networks).await.unwrap_err();
        assert!(failure.message.contains("cannot be had"), "{}", failure.message);
    }

    fn file(text: &str) -> (PathBuf, String) {
        (PathBuf::from("/etc/cni/net.d/10.conflist"), text.to_owned())
    }

    #[test]
    fn networks_are_told_apart_by_plugins_and_datastore() {
        let files = [
            file(
                r#"{"name": "ours", "plugins": [{"type": "weir", "nodename": "n7", "ipam_lock_file": "/run/ours.lock", "ipam": {"type": "weir-ipam"}}, {"type": "portmap"}]}"#,
            ),
            file(
                r#"{"name": "elsewhere", "plugins": [{"type": "weir", "etcd_endpoints": "http://10.0.0.1:2379", "ipam": {"type": "weir-ipam"}}]}"#,
            ),
            file(
                r#"{"name": "local", "plugins": [{"type": "weir", "ipam": {"type": "host-local"}}]}"#,
            ),
            file(r#"{"name": "single", "type": "ptp", "ipam": {"type": "weir-ipam"}}"#),
            file("no network"),
            file(r#"{"plugins": []}"#),
        ];
        let networks_in = |store: &DatastoreConfiguration| {
            Networks::of(Path::new("/etc/cni/net.d"), &files, &ComparedStores::by_text(store))
        };
        let networks = networks_in(&DatastoreConfiguration::default());
        assert_eq!(networks.own, ["ours".to_owned()].into());
        let others = ["elsewhere", "local", "single"].map(str::to_owned);
        assert_eq!(networks.others, others.into());
        assert_eq!(name(&networks).unwrap().name, "n7");
        assert_eq!(networks.lock_files, [PathBuf::from("/run/ours.lock")].into());
        let etcd = weir_common::datastore::EtcdConfiguration::new(vec![
            "http://10.0.0.9:2379".to_owned(),
            "http://10.0.0.1:2379".to_owned(),
        ]);
        let networks = networks_in(&DatastoreConfiguration::Etcd(etcd));
        assert_eq!(networks.own, ["elsewhere".to_owned()].into());
        let [unjudged] = &networks.unjudged[..] else { panic!("{:?}", networks.unjudged) };
        assert_eq!(unjudged.network, "ours");
        assert_eq!(unjudged.reason, "it names another datastore (/var/lib/weir/weir.db)");
        let attached = |network: &str| Attached {
            identity: AttachmentIdentity::new(network, "c1", "eth0").unwrap(),
            addresses: Vec::new(),
        };
        let unjudged = networks.unjudged(&["elsewhere", "ours", "lost"].map(attached));
        assert_eq!(unjudged.iter().map(|it| &*it.network).collect::<Vec<_>>(), ["ours", "lost"]);
        assert!(unjudged[1].reason.contains("no file in /etc/cni/net.d describes it"));
    }
}
