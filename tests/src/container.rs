//! A container: a network namespace on a node.

use std::fs::File;

use nix::sched::{CloneFlags, setns};

use crate::node::Node;
use crate::place::Place;

/// A network namespace on a node. Its files and processes are the node's.
pub struct Container {
    node: Node,
    name: String,
    path: String,
    network: File,
}

impl Container {
    pub(crate) fn new(node: &Node, name: &str) -> Self {
        node.run(&["ip", "netns", "add", name]);
        Self::at(node, name, &format!("/run/netns/{name}"))
    }

    /// The namespace with this path on a node.
    pub(crate) fn at(node: &Node, name: &str, path: &str) -> Self {
        let network = node.enter(|| File::open(path));
        let network =
            network.unwrap_or_else(|error| panic!("{}: opening {path}: {error}", node.name()));
        Self { node: node.clone(), name: name.to_owned(), path: path.to_owned(), network }
    }

    /// The path of the namespace on its node.
    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// The node that it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Takes the namespace away, with the interfaces in it.
    pub fn remove(self) {
        drop(self.network);
        self.node.run(&["ip", "netns", "delete", &self.name]);
    }
}

impl Place for Container {
    fn join(&self) {
        self.node.join();
        setns(&self.network, CloneFlags::CLONE_NEWNET).expect("joining a container's namespace");
    }

    fn join_processes(&self) {
        self.node.join_processes();
    }

    fn name(&self) -> &str {
        &self.name
    }
}
