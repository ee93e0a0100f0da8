//! Running weirctl.

use std::process::Command;

use serde_json::{Value, json};

use crate::binaries::binaries;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;
use crate::store::Store;

/// Runs weirctl at a place on a store, in the directory `/run`, with `input` on the standard input.
pub fn weirctl(place: &impl Place, store: &Store, arguments: &[&str], input: &str) -> Answer {
    let mut command = Command::new(binaries().join("weirctl"));
    command.args(arguments).envs(store.environment()).current_dir("/run");
    Answer::of(&place.output(&mut command, input))
}

/// Creates one pool with weirctl.
pub fn create_pool(node: &Node, store: &Store, name: &str, spec: Value) {
    let pool = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": spec,
    });
    // JSON is YAML.
    node.write("/run/pool.yaml", &pool.to_string());
    let answer = weirctl(node, store, &["create", "-f", "/run/pool.yaml"], "");
    assert!(answer.succeeded, "creating pool {name}: {answer:?}");
}
