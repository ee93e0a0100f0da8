//! A container: a network namespace on a node.

use std::fs::File;

use nix::sched::{CloneFlags, setns};

use crate::node::Node;
use crate::place::Place;

/// A network namespace on a node. Its files and processes are the node's.
pub struct Container {
    node: Node,
    name: String,
    network: File,
}

impl Container {
    pub(crate) fn new(node: &Node, name: &str) -> Self {
        node.run(&["ip", "netns", "add", name]);
        let path = path_of(name);
        let network = node.enter(|| File::open(path)).expect("the namespace was just made");
        Self { node: node.clone(), name: name.to_owned(), network }
    }

    /// The path of the namespace on its node.
    pub fn path(&self) -> String {
        path_of(&self.name)
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

fn path_of(name: &str) -> String {
    format!("/run/netns/{name}")
}
