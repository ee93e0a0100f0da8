//! Calls of dockerd's over the store in memory.

mod addresses;
mod endpoints;
mod pools;

use serde_json::{Value, json};
use weir_common::datastore::keys;
use weir_datastore::Memory;

/// Puts a pool; `spec` is laid over what a plain one has.
fn put_pool(store: &Memory, name: &str, cidr: &str, spec: Value) {
    let mut full = json!({ "cidr": cidr, "nodeSelector": "all()" });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let pool = json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": full,
    });
    store.seed([(keys::pool(name), pool.to_string().into_bytes())]);
}

/// Pools of both families that serve every node, and some that do not.
fn cluster() -> Memory {
    let store = Memory::new();
    put_pool(&store, "blue", "10.9.0.0/16", json!({}));
    put_pool(&store, "green", "10.10.0.0/24", json!({"assignmentMode": "Manual"}));
    put_pool(&store, "six", "fd00:9::/64", json!({}));
    put_pool(&store, "off", "10.11.0.0/24", json!({"disabled": true}));
    put_pool(&store, "tunnels", "10.12.0.0/24", json!({"allowedUses": ["Tunnel"]}));
    put_pool(&store, "flawed", "10.13.0.0/24", json!({"blockSize": 99}));
    store
}
