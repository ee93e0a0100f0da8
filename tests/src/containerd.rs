//! containerd, with its command line client ctr.

use std::io::pipe;
use std::process::{Child, Command, Stdio};

use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;
use crate::program_log::await_line;
use crate::runtimes::{IMAGE, OCI_RUNTIME, PLUGINS, SERVED, prepare, write_image};
use crate::until::until;

/// What containerd writes when it takes requests.
const READY: &str = "containerd successfully booted";

/// Where containerd listens, on its node.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";

/// A containerd on a node, with the image of busybox for ctr and for the CRI.
/// Everything it keeps and starts goes with the node.
pub struct Containerd {
    node: Node,
    child: Child,
}

impl Containerd {
    /// Starts containerd, which works with the lists in `/etc/cni/net.d`, and waits
    /// until it takes requests.
    pub fn start(node: &Node) -> Self {
        prepare(node);
        node.write("/run/containerd.toml", &configuration());
        let containerd = Self { node: node.clone(), child: spawn(node) };
        let image = write_image(node);
        for namespace in ["default", "k8s.io"] {
            let imported = containerd.ctr(&["--namespace", namespace, "images", "import", image]);
            assert!(imported.succeeded, "importing the image: {imported:?}");
        }
        containerd
    }

    /// Runs ctr.
    pub fn ctr(&self, arguments: &[&str]) -> Answer {
        Answer::of(&self.node.output(command().args(arguments), ""))
    }

    /// Runs `ctr run --cni`, and waits until the container's program runs. The
    /// network is removed by this ctr, when the container has ended.
    pub fn run(&self, name: &str) -> Child {
        let mut ctr = command();
        ctr.args(["run", "--cni", "--runc-binary", OCI_RUNTIME, "--cgroup", "", IMAGE, name]);
        let (output, writer) = pipe().expect("making a pipe");
        let errors = writer.try_clone().expect("sharing a pipe");
        ctr.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let child = self.node.spawn(&mut ctr);
        // The pipe ends with the last who can write.
        drop(ctr);
        await_line("ctr run", output, SERVED);
        child
    }

    /// Removes a container whose program was killed, as soon as it has ended.
    pub fn forget(&self, name: &str) {
        until(&format!("container {name} ends"), || {
            self.ctr(&["tasks", "delete", name]);
            let tasks = self.ctr(&["tasks", "list", "--quiet"]);
            tasks.succeeded && tasks.stdout.lines().all(|task| task != name)
        });
        let removed = self.ctr(&["containers", "delete", name]);
        assert!(removed.succeeded, "{removed:?}");
    }

    /// Kills containerd, with SIGKILL. What it started goes on.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing a child");
        self.child.wait().expect("waiting for a child");
    }

    /// Starts containerd once more, with what it kept.
    pub fn restart(&mut self) {
        self.child = spawn(&self.node);
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // It may have ended already; the node's end kills it in any case.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command() -> Command {
    let mut command = Command::new("ctr");
    command.args(["--address", SOCKET]);
    command
}

fn spawn(node: &Node) -> Child {
    let mut command = Command::new("containerd");
    command.args(["--config", "/run/containerd.toml"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = node.spawn(&mut command);
    await_line("containerd", child.stderr.take().expect("the standard error is a pipe"), READY);
    child
}

fn configuration() -> String {
    format!(
        r#"version = 2
root = "/run/containerd-root"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
disable_cgroup = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "{OCI_RUNTIME}"
"#
    )
}
