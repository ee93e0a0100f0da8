//! The CNI project's own command line runtime, cnitool.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::binaries::{cni_path, find_program};
use crate::container::Container;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;

/// cnitool on a node, for one network.
#[derive(Clone)]
pub struct CniTool {
    node: Node,
    network: String,
    environment: BTreeMap<String, String>,
}

impl CniTool {
    /// For a network whose configuration list is written to the node's
    /// `/etc/cni/net.d`. Plugins are Weir's and the reference ones.
    pub fn new(node: &Node, list: &Value) -> Self {
        Self::with_path(node, list, &cni_path())
    }

    /// As [`CniTool::new`], with plugins from these directories.
    pub fn with_path(node: &Node, list: &Value, path: &str) -> Self {
        let network = list["name"].as_str().expect("a network has a name").to_owned();
        node.write(&format!("/etc/cni/net.d/10-{network}.conflist"), &list.to_string());
        let environment = BTreeMap::from([("CNI_PATH".to_owned(), path.to_owned())]);
        Self { node: node.clone(), network, environment }
    }

    /// Sets a variable of the environment: `CNI_IFNAME`, `CNI_ARGS`,
    /// `CAP_ARGS`.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// Runs `cnitool <verb>` (`add`, `check`, `del`, `gc`, `status`) for a
    /// container's namespace.
    pub fn run(&self, verb: &str, container: &Container) -> Answer {
        self.run_at(verb, &container.path())
    }

    /// As [`CniTool::run`], for the path of a namespace that need not exist.
    pub fn run_at(&self, verb: &str, path: &str) -> Answer {
        let mut command = Command::new(find_program("cnitool"));
        command.args([verb, &self.network, path]).env("NETCONFPATH", "/etc/cni/net.d");
        command.envs(&self.environment);
        Answer::of(&self.node.output(&mut command, ""))
    }

    /// Adds the container, which must succeed: the result.
    pub fn add(&self, container: &Container) -> Value {
        self.run("add", container).result()
    }

    /// Checks the container, which must succeed.
    pub fn check(&self, container: &Container) {
        self.run("check", container).silence();
    }

    /// Checks the container, which must fail: what cnitool wrote about it.
    pub fn check_fails(&self, container: &Container) -> String {
        let answer = self.run("check", container);
        assert!(!answer.succeeded, "check should have failed");
        answer.stderr
    }

    /// Removes the container from the network, which must succeed.
    pub fn delete(&self, container: &Container) {
        self.run("del", container).silence();
    }
}
