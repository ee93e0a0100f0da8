//! What a datastore holds, whatever kind it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use weir_common::datastore::{Datastore, Selection, Transaction, Write};
use weir_datastore::{Embedded, OPERATIONS_LIMIT};

use crate::etcd::Etcd;
use crate::node::Node;
use crate::place::Place;

/// Where the embedded datastore is by default.
const EMBEDDED: &str = "/var/lib/weir/weir.db";

/// All keys and values of a datastore.
pub type Entries = BTreeMap<String, String>;

/// A node's datastore: its embedded one, or an etcd.
pub enum Store {
    /// The file at its usual place on this node.
    Embedded(Node),
    /// An etcd on the node itself.
    Etcd(Etcd),
}

impl Store {
    /// The keys of a plugin's configuration that lead to this store.
    pub fn configuration(&self) -> Value {
        match self {
            Self::Embedded(_) => json!({"datastore_type": "embedded"}),
            Self::Etcd(etcd) => {
                json!({"datastore_type": "etcdv3", "etcd_endpoints": etcd.endpoint()})
            }
        }
    }

    /// The variables that lead weirctl to this store.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Embedded(_) => vec![("DATASTORE_TYPE", "embedded".to_owned())],
            Self::Etcd(etcd) => {
                let mut variables = vec![
                    ("DATASTORE_TYPE", "etcdv3".to_owned()),
                    ("ETCD_ENDPOINTS", etcd.endpoint()),
                ];
                if let Some(certificates) = etcd.certificates() {
                    variables.extend([
                        ("ETCD_CA_CERT_FILE", certificates.file("ca.pem")),
                        ("ETCD_CERT_FILE", certificates.file("client.pem")),
                        ("ETCD_KEY_FILE", certificates.file("client.key")),
                    ]);
                }
                if let Some(password) = etcd.password() {
                    variables.extend([
                        ("ETCD_USERNAME", "root".to_owned()),
                        ("ETCD_PASSWORD", password.to_owned()),
                    ]);
                }
                variables
            }
        }
    }

    /// Everything in the store. An etcd is read by its own tool, so that what
    /// Weir wrote is seen as others see it.
    pub fn entries(&self) -> Entries {
        match self {
            Self::Etcd(etcd) => etcd.entries(),
            Self::Embedded(node) => with_embedded(node, async |datastore| {
                let all = [Selection::Prefix("/".to_owned())];
                let snapshot = datastore.read(&all).await.expect("reading the store");
                let entries = snapshot.selected.into_iter().flatten();
                entries.map(|entry| (entry.key, text(entry.value))).collect()
            }),
        }
    }

    /// Writes keys.
    pub fn load(&self, entries: &Entries) {
        match self {
            Self::Etcd(etcd) => etcd.load(entries),
            Self::Embedded(node) => with_embedded(node, async |datastore| {
                let writes: Vec<Write> = entries.iter().map(put).collect();
                for batch in writes.chunks(OPERATIONS_LIMIT) {
                    let transaction = Transaction { compares: Vec::new(), writes: batch.to_vec() };
                    datastore.commit(transaction).await.expect("writing to the store");
                }
            }),
        }
    }

    /// Removes everything.
    pub fn clear(&self) {
        match self {
            Self::Etcd(etcd) => drop(etcd.control(&["del", "--prefix", "/calico"], "")),
            Self::Embedded(node) => node.enter(|| {
                // The log and the index of its transactions, if they are there.
                for suffix in ["", "-wal", "-shm"] {
                    fs::remove_file(format!("{EMBEDDED}{suffix}")).ok();
                }
            }),
        }
    }

    /// Removes one key.
    pub fn remove(&self, key: &str) {
        match self {
            Self::Etcd(etcd) => drop(etcd.control(&["del", key], "")),
            Self::Embedded(node) => with_embedded(node, async |datastore| {
                let writes = vec![Write::Delete { key: key.to_owned() }];
                let transaction = Transaction { compares: Vec::new(), writes };
                datastore.commit(transaction).await.expect("writing to the store");
            }),
        }
    }

    /// Makes every allocation older than any call may take.
    pub fn age_allocations(&self) {
        for (key, value) in self.entries() {
            if key.contains("/assignment/") {
                let mut block: Value = serde_json::from_str(&value).expect("a block is JSON");
                for holder in block["attributes"].as_array_mut().into_iter().flatten() {
                    holder["secondary"]["timestamp"] = "2026-01-02 03:04:05 +0000 UTC".into();
                }
                self.put(&key, &block);
            }
        }
    }

    /// Writes one key.
    pub fn put(&self, key: &str, value: &Value) {
        self.load(&Entries::from([(key.to_owned(), value.to_string())]));
    }
}

/// Runs `work` on a node's embedded datastore.
fn with_embedded<T: Send>(node: &Node, work: impl AsyncFnOnce(Embedded) -> T + Send) -> T {
    node.enter(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("starting a runtime");
        runtime.block_on(async {
            let datastore = Embedded::open(Path::new(EMBEDDED)).await;
            work(datastore.expect("opening the embedded datastore")).await
        })
    })
}

/// The entries of a recorded store, `tests/fixtures/calico-3.31/<case>`.
pub fn recorded_store(case: &str) -> Entries {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/calico-3.31");
    let path = fixtures.join(case).join("store.jsonl");
    let lines = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    let entry = |line: &str| {
        let entry: Value = serde_json::from_str(line).expect("each line is a JSON object");
        let member = |name: &str| entry[name].as_str().expect("key and value are texts").to_owned();
        (member("key"), member("value"))
    };
    lines.lines().map(entry).collect()
}

fn put((key, value): (&String, &String)) -> Write {
    Write::Put { key: key.clone(), value: value.clone().into_bytes() }
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).expect("values are JSON")
}
