//! podman, with its CNI backend.

use std::process::Command;

use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;
use crate::runtimes::{IMAGE, OCI_RUNTIME, PLUGINS, prepare, write_image};

const CONTAINERS_CONF: &str = "/run/podman/containers.conf";
const STORAGE_CONF: &str = "/run/podman/storage.conf";

/// podman on a node, with the image of busybox. Everything it keeps and starts
/// goes with the node.
pub struct Podman {
    node: Node,
}

impl Podman {
    /// Makes podman work with the lists in `/etc/cni/net.d`.
    pub fn new(node: &Node) -> Self {
        prepare(node);
        node.write(CONTAINERS_CONF, &containers_conf());
        node.write(STORAGE_CONF, STORAGE);
        let podman = Self { node: node.clone() };
        podman.succeeds(&["load", "--input", write_image(node)]);
        podman
    }

    /// Runs podman, which must succeed, and returns what it printed, trimmed.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert!(answer.succeeded, "podman {}: {answer:?}", arguments.join(" "));
        answer.stdout.trim().to_owned()
    }

    /// Runs podman.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        let mut command = Command::new("podman");
        command.args(arguments);
        command.env("CONTAINERS_CONF", CONTAINERS_CONF);
        command.env("CONTAINERS_STORAGE_CONF", STORAGE_CONF);
        Answer::of(&self.node.output(&mut command, ""))
    }

    /// Starts a container of the image in a network, with more `options`.
    pub fn start(&self, name: &str, network: &str, options: &[&str]) {
        let line = ["run", "--detach", "--name", name, "--network", network];
        self.succeeds(&[&line[..], options, &[IMAGE]].concat());
    }

    /// A part of what podman knows of a container, as a Go template names it.
    pub fn inspect(&self, name: &str, part: &str) -> String {
        self.succeeds(&["inspect", "--format", &format!("{{{{{part}}}}}"), name])
    }
}

fn containers_conf() -> String {
    format!(
        r#"[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "crun"
[engine.runtimes]
crun = ["{OCI_RUNTIME}"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{PLUGINS}"]
network_config_dir = "/etc/cni/net.d"
"#
    )
}

const STORAGE: &str = r#"[storage]
driver = "vfs"
runroot = "/run/podman/run"
graphroot = "/run/podman/storage"
"#;
