//! The networks of a node's CNI configuration.

use std::path::PathBuf;

use serde_json::{Map, Value};
use weir_common::{cni, datastore};

use crate::same_cluster::{ComparedStores, SameCluster};

/// A network whose containers get their addresses from `weir-ipam`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The file it stands in.
    pub path: PathBuf,
    /// The configuration of its plugin that asks `weir-ipam`.
    pub plugin: Map<String, Value>,
}

/// Why a file is not such a network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Not JSON of this form.
    #[error("{path} is not a CNI network configuration", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        #[source]
        cause: serde_json::Error,
    },
    /// Another program's network.
    #[error(
        "no plugin in {path} has an ipam section of type weir-ipam; \
         name a file of the CNI configuration that has one",
        path = path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
}

impl Network {
    /// Reads a network out of a file's text.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn read(path: PathBuf, text: &str) -> Result<Self, NetworkError> {
        let plugins = match plugins(text) {
            Ok(plugins) => plugins,
            Err(cause) => return Err(NetworkError::Malformed { path, cause }),
        };
        match plugins.into_iter().find(asks_weir_ipam) {
            Some(plugin) => Ok(Self { path, plugin }),
            None => Err(NetworkError::Other { path }),
        }
    }

    /// The first network among these files that keeps its addresses in the
    /// datastore in use. A file that is not a network is passed over.
    pub fn first_of(files: &[(PathBuf, String)], stores: &ComparedStores) -> Option<Self> {
        let mut networks =
            files.iter().filter_map(|(path, text)| Self::read(path.clone(), text).ok());
        networks.find(|network| {
            datastore_of(&network.plugin)
                .is_ok_and(|datastore| stores.holds_cluster(&datastore) == SameCluster::Yes)
        })
    }
}

/// The plugins of a network, each as a runtime calls it: with the network's
/// name and version (libcni, buildOneConfig). A file with a single plugin is
/// that one.
///
/// # Errors
/// When the text is not JSON, or not of this form.
pub fn plugins(text: &str) -> Result<Vec<Map<String, Value>>, serde_json::Error> {
    let network: Map<String, Value> = serde_json::from_str(text)?;
    let Some(plugins) = network.get("plugins") else {
        return Ok(vec![network]);
    };
    let mut plugins: Vec<Map<String, Value>> = serde_json::from_value(plugins.clone())?;
    for plugin in &mut plugins {
        for key in ["name", "cniVersion"] {
            plugin.extend(network.get(key).map(|value| (key.to_owned(), value.clone())));
        }
    }
    Ok(plugins)
}

/// The datastore that a plugin with this configuration uses.
///
/// # Errors
/// When the plugin itself would refuse what it says about that.
pub fn datastore_of(
    plugin: &Map<String, Value>,
) -> Result<datastore::DatastoreConfiguration, cni::Error> {
    let name = plugin.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    cni::NetworkConfiguration::for_removal(name, cni::SpecVersion::V1_0_0, plugin)?.datastore
}

/// Whether its addresses come from `weir-ipam`.
pub fn asks_weir_ipam(plugin: &Map<String, Value>) -> bool {
    plugin.get("ipam").is_some_and(|ipam| ipam["type"] == "weir-ipam")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_the_name_and_version_of_its_list() {
        let text = r#"{"name": "pods", "cniVersion": "1.0.0", "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local"}},
            {"type": "ptp", "name": "x", "ipam": {"type": "weir-ipam", "subnet": "10.0.0.0/8"}}]}"#;
        let network = Network::read("f".into(), text).unwrap();
        assert_eq!(network.plugin["type"], "ptp");
        assert_eq!(
            (&network.plugin["name"], &network.plugin["cniVersion"]),
            (&"pods".into(), &"1.0.0".into())
        );
    }

    #[test]
    fn what_is_no_network_of_ours_is_said() {
        let error = |text: &str| Network::read("f".into(), text).unwrap_err().to_string();
        for text in ["", "[]", r#"{"plugins": 3}"#, r#"{"plugins": [3]}"#] {
            assert_eq!(error(text), "f is not a CNI network configuration");
        }
        for text in ["{}", r#"{"plugins": [{"type": "weir", "ipam": {"type": "static"}}]}"#] {
            assert!(error(text).starts_with("no plugin in f has an ipam section"), "{text}");
        }
    }

    #[test]
    fn the_first_network_of_the_datastore_counts() {
        let file = |name: &str, path: &str| {
            let text = format!(
                r#"{{"name": "x", "type": "weir", "datastore_path": "{path}", "mtu": "wrong",
                "ipam": {{"type": "weir-ipam", "assign_ipv4": "maybe"}}}}"#
            );
            (PathBuf::from(name), text)
        };
        let files = [("a".into(), "{".into()), file("b", "/1"), file("c", "/2"), file("d", "/2")];
        let store = |path: &str| datastore::DatastoreConfiguration::Embedded { path: path.into() };
        let first = |path: &str| {
            Network::first_of(&files, &ComparedStores::by_text(&store(path))).map(|it| it.path)
        };
        assert_eq!(first("/2"), Some("c".into()));
        assert_eq!(first("/3"), None);
    }
}
