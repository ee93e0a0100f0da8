//! This node, as its kernel and its CNI configuration have it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use weir_common::cni::{Arguments, Configuration, NodeName, SpecVersion};
use weir_common::datastore;
use weir_common::ipam::audit::{Attached, ThisNode};
use weir_kernel::{Kernel, is_node_namespace};
use weir_process::{DEFAULT_LOCK_FILE, Lock};

use crate::network::{is_same_store, plugins};
use crate::session::Failure;

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
}

impl Networks {
    /// Reads the networks out of the files of the CNI configuration. A file that
    /// is no network is somebody else's concern.
    pub fn of(files: &[(PathBuf, String)], store: &datastore::Configuration) -> Self {
        let mut networks = Self::default();
        for (_, text) in files {
            let Some((name, plugin)) = main_plugin(text) else { continue };
            let here = |own: &Configuration| {
                own.datastore.as_ref().is_ok_and(|datastore| is_same_store(datastore, store))
            };
            match own(&name, &plugin).filter(here) {
                Some(own) => {
                    networks.node_name = networks.node_name.take().or(own.node_name.ok());
                    networks.lock_files.extend(own.ipam.and_then(|ipam| ipam.lock_file));
                    networks.own.insert(name);
                }
                None => {
                    networks.others.insert(name);
                }
            }
        }
        // Of two networks with one name nothing can be said.
        networks.own = &networks.own - &networks.others;
        networks
    }
}

/// The name of a network and its first plugin, which makes the interfaces.
fn main_plugin(text: &str) -> Option<(String, Map<String, Value>)> {
    let plugin = plugins(text).ok()?.into_iter().next()?;
    Some((plugin.get("name")?.as_str()?.to_owned(), plugin))
}

/// The configuration of a network that `weir` wires with addresses of
/// `weir-ipam`.
fn own(name: &str, plugin: &Map<String, Value>) -> Option<Configuration> {
    let is_ours = plugin.get("type")? == "weir" && plugin.get("ipam")?.get("type")? == "weir-ipam";
    let validate = || {
        Configuration::validate(name.to_owned(), SpecVersion::V1_0_0, plugin, &Arguments::default())
    };
    is_ours.then(validate)?.ok()
}

/// The node's name, as the networks or else Weir's defaults say.
///
/// # Errors
/// [`Failure`] when there is none that can be used.
pub fn name(networks: &Networks) -> Result<String, Failure> {
    let default = || NodeName::FileOrHost(weir_common::cni::DEFAULT_NODE_NAME_FILE.into());
    let configured = networks.node_name.clone().unwrap_or_else(default);
    weir_process::node_name(&configured).map_err(|error| Failure::caused_by(&error))
}

/// Makes calls of `weir-ipam` on this host wait until the locks are dropped.
///
/// # Errors
/// [`Failure`] when a lock cannot be had.
pub fn hold_still(networks: &Networks) -> Result<Vec<Lock>, Failure> {
    let mut files = networks.lock_files.clone();
    // Also of networks whose configuration is gone, but not their containers.
    files.insert(DEFAULT_LOCK_FILE.into());
    let lock = |file: &PathBuf| {
        Lock::require(file).map_err(|error| {
            let file = file.display();
            Failure::new(format!(
                "the host's lock {file} cannot be had, so that containers could come and go during \
                 the repair: {error}; try again as root, when fewer containers come and go"
            ))
        })
    };
    files.iter().map(lock).collect()
}

/// Reads the kernel; `None` on a machine without a network of Weir's and
/// without attachments.
///
/// # Errors
/// [`Failure`] when the kernel, or the node's name, cannot be read, or when this
/// is the network namespace of something else: there every container of the node
/// would look gone.
pub async fn read(networks: &Networks) -> Result<Option<ThisNode>, Failure> {
    if !networks.own.is_empty() && is_node_namespace() == Some(false) {
        return Err(Failure::new(
            "this network namespace is not the node's, so its containers cannot be seen; run the \
             same command on the node: nsenter --target 1 --net weirctl …",
        ));
    }
    let kernel = Kernel::open().map_err(|error| Failure::caused_by(&error))?;
    let attached = kernel.attachment_states().await.map_err(|error| Failure::caused_by(&error))?;
    if attached.is_empty() && networks.own.is_empty() {
        return Ok(None);
    }
    let routed = kernel.routed_addresses().await.map_err(|error| Failure::caused_by(&error))?;
    let attachments = attached
        .into_iter()
        .map(|it| Attached { identity: it.identity, addresses: it.addresses })
        .collect();
    Ok(Some(ThisNode {
        host: name(networks)?,
        attachments,
        routed,
        networks: networks.own.clone(),
        other_networks: networks.others.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise an ADD could go on beside a repair.
    #[test]
    fn without_the_lock_nothing_is_still() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let networks =
            Networks { lock_files: [file.join("ipam.lock")].into(), ..Networks::default() };
        let failure = hold_still(&networks).unwrap_err();
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
        let networks = Networks::of(&files, &datastore::Configuration::default());
        assert_eq!(networks.own, ["ours".to_owned()].into());
        let others = ["elsewhere", "local", "single"].map(str::to_owned);
        assert_eq!(networks.others, others.into());
        assert_eq!(name(&networks).unwrap(), "n7");
        assert_eq!(networks.lock_files, [PathBuf::from("/run/ours.lock")].into());
        let etcd = datastore::EtcdConfiguration::new(vec![
            "http://10.0.0.9:2379".to_owned(),
            "http://10.0.0.1:2379".to_owned(),
        ]);
        let networks = Networks::of(&files, &datastore::Configuration::Etcd(etcd));
        assert_eq!(networks.own, ["elsewhere".to_owned()].into());
    }
}
