//! Whether the agent's datastore is that of the node's networks. On another one it would know no
//! pools and no nodes, and take the routes and NAT of running containers away.

use std::path::PathBuf;

use weir_common::datastore::{Datastore, DatastoreConfiguration};

use crate::location::Location;
use crate::network::{asks_weir_ipam, datastore_of, plugins};
use crate::same_cluster::{ComparedStores, SameCluster};
use crate::session::Failure;

/// Refuses to keep a node whose networks of `weir`, as these `files` of the CNI configuration
/// describe them, all have their addresses in other datastores.
///
/// # Errors
/// [`Failure`] naming the files and both datastores.
pub async fn require_own_networks(
    files: &[(PathBuf, String)],
    location: &Location,
    datastore: &dyn Datastore,
) -> Result<(), Failure> {
    let named = named_datastores(files);
    let configurations = named.iter().map(|(_, configuration)| configuration.clone());
    let stores = ComparedStores::by_guid(&location.configuration, datastore, configurations).await;
    judge(&named, location, &stores)
}

fn judge(
    named: &[(PathBuf, DatastoreConfiguration)],
    location: &Location,
    stores: &ComparedStores,
) -> Result<(), Failure> {
    let is_other = |configuration| stores.holds_cluster(configuration) == SameCluster::No;
    match named.first() {
        Some((file, configuration)) if named.iter().all(|(_, it)| is_other(it)) => {
            Err(Failure::new(format!(
                "{} has its addresses in another datastore ({}) than this agent's ({location}), \
                 which would take the routes and NAT of its containers away; give both one \
                 datastore, or move the file away if the network is gone",
                file.display(),
                configuration.place()
            )))
        }
        _ => Ok(()),
    }
}

/// The datastores that networks of `weir` name in these files, with the file.
fn named_datastores(files: &[(PathBuf, String)]) -> Vec<(PathBuf, DatastoreConfiguration)> {
    let of_file = |(path, text): &(PathBuf, String)| {
        let plugins = plugins(text).unwrap_or_default().into_iter();
        let weir = plugins.filter(|plugin| {
            plugin.get("type").is_some_and(|it| it == "weir") && asks_weir_ipam(plugin)
        });
        let stores = weir.filter_map(|plugin| datastore_of(&plugin).ok());
        stores.map(|store| (path.clone(), store)).collect::<Vec<_>>()
    };
    files.iter().flat_map(of_file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::Source;

    fn judged(files: &[&str], source: Source) -> Result<(), String> {
        let files: Vec<_> = files
            .iter()
            .map(|text| (PathBuf::from("/etc/cni/net.d/10-pods.conflist"), (*text).to_owned()))
            .collect();
        let configuration = DatastoreConfiguration::Embedded { path: "/srv/weir.db".into() };
        let stores = ComparedStores::by_text(&configuration);
        let location = Location { configuration, source };
        judge(&named_datastores(&files), &location, &stores).map_err(|it| it.message)
    }

    fn list(datastore: &str) -> String {
        format!(
            r#"{{"name": "pods", "cniVersion": "1.0.0", "plugins":
                [{{"type": "weir", {datastore}, "ipam": {{"type": "weir-ipam"}}}}]}}"#
        )
    }

    #[test]
    fn a_node_whose_networks_are_all_elsewhere_is_not_kept() {
        let own = list(r#""datastore_type": "embedded", "datastore_path": "/srv/weir.db""#);
        let etcd = list(r#""etcd_endpoints": "http://10.0.0.1:2379""#);
        let of = |files: &[&str]| judged(files, Source::CommandLine);
        assert_eq!(of(&[]), Ok(()), "a fresh node");
        assert_eq!(of(&[&own]), Ok(()));
        assert_eq!(of(&[&etcd, &own]), Ok(()), "one of its networks is here");
        let told = of(&[&etcd]).unwrap_err();
        for words in ["10-pods.conflist", "http://10.0.0.1:2379", "/srv/weir.db", "command line"] {
            assert!(told.contains(words), "{told}");
        }
        let bridge = r#"{"name": "other", "plugins": [{"type": "bridge"}]}"#;
        assert_eq!(of(&[bridge, "not JSON"]), Ok(()));
        let others = etcd.replace("weir-ipam", "host-local");
        assert_eq!(of(&[&others]), Ok(()), "its addresses are in no datastore of Weir's");
    }
}
