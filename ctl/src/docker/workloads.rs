//! WorkloadEndpoints: Docker's endpoints as Calico's driver wrote them, for programs that read
//! them. Weir goes by none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};
use weir_common::datastore::{Datastore, Decision, Pages, Transaction, keys, transact};
use weir_common::ipam::Error;
use weir_common::link::MacAddress;
use weir_common::network::AttachmentIdentity;

use super::daemon::Daemon;
use super::driver::{Driver, Workloads};
use super::error::DriverError;
use crate::new_birth;
use crate::session::chain;

/// Calico's name for them: namespace, orchestrator and workload at once.
const LIBNETWORK: &str = "libnetwork";

/// What the names of labels begin with that go to endpoints.
const LABEL: &str = "org.projectcalico.label.";

/// How long dockerd may take to tell whose an endpoint is: it knows only after Join.
const LABEL_TIME: Duration = Duration::from_secs(5);

/// How long it is left alone between two questions.
const LABEL_PAUSE: Duration = Duration::from_millis(200);

/// An endpoint, as it is written.
#[derive(Clone, Debug)]
pub struct WorkloadFacts<'a> {
    /// The network's id.
    pub network_id: &'a str,
    /// Who it is: the endpoint's id, and the name of the host's link.
    pub identity: &'a AttachmentIdentity,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Its hardware address.
    pub mac: MacAddress,
}

/// The name of a node's endpoint. A dash within a part is doubled
/// (`libcalico-go/lib/names/workloadendpoint.go`).
fn name(node: &str, endpoint_id: &str) -> String {
    format!("{}-{LIBNETWORK}-{LIBNETWORK}-{endpoint_id}", node.replace('-', "--"))
}

fn key(node: &str, endpoint_id: &str) -> String {
    keys::workload_endpoint(LIBNETWORK, &name(node, endpoint_id))
}

/// The document of an endpoint, but for what it is born with.
fn document(node: &str, facts: &WorkloadFacts<'_>) -> Value {
    let networks = facts.addresses.iter().map(|it| ipnet::IpNet::from(*it).to_string());
    json!({
        "kind": "WorkloadEndpoint",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": name(node, facts.identity.container_id()),
            "namespace": LIBNETWORK,
        },
        "spec": {
            "orchestrator": LIBNETWORK,
            "workload": LIBNETWORK,
            "node": node,
            "endpoint": facts.identity.container_id(),
            "ipNetworks": networks.collect::<Vec<_>>(),
            "interfaceName": facts.identity.host_interface(),
            "mac": facts.mac.to_string(),
        },
    })
}

/// The labels of an endpoint, of those of its container.
fn labels_of(container: &BTreeMap<String, String>) -> Map<String, Value> {
    let own = container.iter().filter_map(|(key, value)| Some((key.strip_prefix(LABEL)?, value)));
    own.filter(|(key, _)| !key.is_empty()).map(|(key, value)| (key.into(), json!(value))).collect()
}

impl Driver {
    /// Writes an endpoint, where that is asked for; once more with the labels of its container as
    /// soon as dockerd tells them, which nobody waits for.
    ///
    /// # Errors
    /// The datastore refuses.
    pub(super) async fn record_workload(
        &self,
        facts: &WorkloadFacts<'_>,
    ) -> Result<(), DriverError> {
        if self.workloads == Workloads::Unwritten {
            return Ok(());
        }
        let endpoint_id = facts.identity.container_id();
        let key = key(&self.node, endpoint_id);
        let mut document = document(&self.node, facts);
        let birth = new_birth();
        document["metadata"]["uid"] = json!(birth.uid);
        document["metadata"]["creationTimestamp"] = json!(birth.timestamp);
        let value = document.to_string().into_bytes();
        // What a repeated call finds is what it would write.
        let decided = transact(self.datastore.as_ref(), async |_| {
            let found = self.datastore.get(&key).await?;
            if found.is_some() {
                return Ok::<_, Error>(Decision::Done(()));
            }
            let mut transaction = Transaction::default();
            transaction.create(key.clone(), value.clone());
            Ok(Decision::Commit(transaction, ()))
        });
        decided.await.map_err(|error| DriverError::caused_by(&error))?;
        if self.workloads == Workloads::Labelled {
            let (datastore, daemon) = (Arc::clone(&self.datastore), self.daemon.clone());
            let (network_id, endpoint_id) = (facts.network_id.to_owned(), endpoint_id.to_owned());
            tokio::task::spawn_local(async move {
                let ids = (network_id.as_str(), endpoint_id.as_str());
                let labelling = label(datastore.as_ref(), &daemon, ids, &key, LABEL_TIME);
                if let Err(reason) = labelling.await {
                    tracing::warn!(endpoint_id, reason, "an endpoint has no labels");
                }
            });
        }
        Ok(())
    }

    /// Deletes what was written of an endpoint; nothing there is success.
    ///
    /// # Errors
    /// The datastore refuses.
    pub(super) async fn forget_workload(&self, endpoint_id: &str) -> Result<(), DriverError> {
        match self.workloads {
            Workloads::Unwritten => Ok(()),
            _ => self.delete_workload(endpoint_id).await,
        }
    }

    /// As [`Driver::forget_workload`], whether endpoints are written now or not.
    ///
    /// # Errors
    /// The datastore refuses.
    pub(super) async fn delete_workload(&self, endpoint_id: &str) -> Result<(), DriverError> {
        let (datastore, key) = (self.datastore.as_ref(), key(&self.node, endpoint_id));
        let deleted = transact(datastore, async |_| {
            let Some(entry) = datastore.get(&key).await? else {
                return Ok::<_, Error>(Decision::Done(()));
            };
            let mut transaction = Transaction::default();
            transaction.delete(entry.key, entry.revision);
            Ok(Decision::Commit(transaction, ()))
        });
        deleted.await.map_err(|error| DriverError::caused_by(&error))
    }

    /// The ids of this node's endpoints that are written, also by a driver before this one.
    ///
    /// # Errors
    /// The datastore refuses.
    pub(super) async fn written_workloads(&self) -> Result<BTreeSet<String>, Error> {
        let prefix = key(&self.node, "");
        let mut pages = Pages::new(self.datastore.as_ref(), &prefix);
        let mut written = BTreeSet::new();
        while let Some(page) = pages.next().await? {
            let keys = page.entries.iter().filter_map(|entry| entry.key.strip_prefix(&prefix));
            written.extend(keys.map(str::to_owned));
        }
        Ok(written)
    }
}

/// Writes the labels of the endpoint's container, as soon as dockerd says which one that is.
async fn label(
    datastore: &dyn Datastore,
    daemon: &Daemon,
    (network_id, endpoint_id): (&str, &str),
    key: &str,
    limit: Duration,
) -> Result<(), String> {
    let until = Instant::now() + limit;
    let late = |_| "dockerd did not tell its container in time".to_owned();
    let asking = async {
        loop {
            sleep(LABEL_PAUSE).await;
            match daemon.labels(network_id, endpoint_id).await {
                Ok(Some(labels)) => return Ok(labels),
                Err(error) if Instant::now() + LABEL_PAUSE >= until => return Err(chain(&error)),
                _ => {}
            }
        }
    };
    let labels = labels_of(&timeout(limit, asking).await.map_err(late)??);
    if labels.is_empty() {
        return Ok(());
    }
    let written = transact(datastore, async |_| {
        // It may be gone by now.
        let Some(entry) = datastore.get(key).await? else {
            return Ok::<_, Error>(Decision::Done(()));
        };
        let Ok(mut document) = serde_json::from_slice::<Value>(&entry.value) else {
            return Ok(Decision::Done(()));
        };
        document["metadata"]["labels"] = Value::Object(labels.clone());
        let mut transaction = Transaction::default();
        transaction.update(entry.key, entry.revision, document.to_string().into_bytes());
        Ok(Decision::Commit(transaction, ()))
    });
    written.await.map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use weir_datastore::Memory;

    use super::*;

    const ENDPOINT: &str = "61d4349d70e63be097eaa5dfcad22b360312cc6d2b08fa032e0b75c6daf62a6f";

    fn driver(workloads: Workloads) -> Driver {
        Driver::for_tests(Arc::new(Memory::new()), workloads)
    }

    async fn record(driver: &Driver) {
        let identity = AttachmentIdentity::new("docker", ENDPOINT, "docker").unwrap();
        let addresses = ["10.9.0.2", "fd00:9::2"].map(|it| it.parse().unwrap());
        let facts = WorkloadFacts {
            network_id: "550a",
            identity: &identity,
            addresses: &addresses,
            mac: "02:42:0a:09:00:02".parse().unwrap(),
        };
        driver.record_workload(&facts).await.unwrap();
    }

    async fn stored(driver: &Driver) -> Option<Value> {
        let key = format!(
            "/calico/resources/v3/projectcalico.org/workloadendpoints/libnetwork/\
             edge--1-libnetwork-libnetwork-{ENDPOINT}"
        );
        let entry = driver.datastore.get(&key).await.unwrap();
        entry.map(|entry| serde_json::from_slice(&entry.value).unwrap())
    }

    #[tokio::test]
    async fn an_endpoint_is_written_once_and_deleted() {
        let driver = driver(Workloads::Written);
        record(&driver).await;
        let first = stored(&driver).await.unwrap();
        assert_eq!(first["spec"]["ipNetworks"], json!(["10.9.0.2/32", "fd00:9::2/128"]));
        assert_eq!(first["spec"]["node"], "edge-1");
        assert_eq!(first["spec"]["interfaceName"].as_str().unwrap().len(), 15);
        record(&driver).await;
        assert_eq!(stored(&driver).await.unwrap(), first, "a repeated call changes nothing");
        for _ in 0..2 {
            driver.forget_workload(ENDPOINT).await.unwrap();
            assert_eq!(stored(&driver).await, None);
        }
    }

    #[tokio::test]
    async fn nothing_is_written_unless_asked_for() {
        let driver = driver(Workloads::Unwritten);
        record(&driver).await;
        assert_eq!(stored(&driver).await, None);
    }

    #[tokio::test]
    async fn what_is_written_is_found_again_by_this_node_alone() {
        let driver = driver(Workloads::Written);
        record(&driver).await;
        assert_eq!(driver.written_workloads().await.unwrap(), [ENDPOINT.to_owned()].into());
        let datastore = Arc::clone(&driver.datastore);
        let other =
            Driver { node: "edge".to_owned(), ..Driver::for_tests(datastore, Workloads::Written) };
        assert!(other.written_workloads().await.unwrap().is_empty());
    }

    #[test]
    fn calicos_labels_are_taken_and_no_others() {
        let labels = [("org.projectcalico.label.role", "web"), ("other", "1"), (LABEL, "none")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(Value::Object(labels_of(&labels)), json!({"role": "web"}));
    }

    /// dockerd hangs: the call is answered, and the labels are given up.
    #[tokio::test]
    async fn a_silent_dockerd_holds_nothing_up() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let daemon = Daemon::at(Some(socket));
        let driver = driver(Workloads::Written);
        let limit = LABEL_PAUSE * 2;
        let labelling = label(driver.datastore.as_ref(), &daemon, ("550a", ENDPOINT), "/k", limit);
        assert!(labelling.await.unwrap_err().contains("in time"));
    }
}
