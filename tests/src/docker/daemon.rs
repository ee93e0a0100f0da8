//! dockerd, with its command line client.

use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::Container;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;
use crate::runtimes::{IMAGE, OCI_RUNTIME, prepare, write_image};
use crate::until::until_reporting;

/// Where dockerd listens, on its node.
const SOCKET: &str = "/run/docker.sock";

/// Where its log is, on its node.
const LOG: &str = "/run/dockerd.log";

/// The client of dockerd's own package. Another one may be newer, and then refuses some options.
const CLIENT: &str = "/usr/bin/docker";

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What dockerd does with the node's firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// Nothing: `--iptables=false`, and no bridge of its own.
    Untouched,
    /// Its defaults: it makes its bridge and its rules, and forwards nothing else.
    Dockers,
}

impl Firewall {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Untouched => &["--iptables=false", "--ip6tables=false", "--bridge=none"],
            Self::Dockers => &[],
        }
    }
}

/// A dockerd on a node, with the image of busybox ([`Docker::image`]). Everything it keeps and
/// starts goes with the node.
pub struct Docker {
    node: Node,
    child: Child,
    arguments: Vec<String>,
}

impl Docker {
    /// Starts dockerd, with these arguments too, and waits until it takes requests.
    pub fn start(node: &Node, firewall: Firewall, arguments: &[&str]) -> Self {
        prepare(node);
        protect_cgroups(node);
        let arguments = firewall.arguments().iter().chain(arguments);
        let arguments: Vec<String> = arguments.map(|&it| it.to_owned()).collect();
        let child = spawn(node, &arguments);
        let docker = Self { node: node.clone(), child, arguments };
        docker.await_ready();
        docker.succeeds(&["load", "--quiet", "--input", write_image(node)]);
        docker
    }

    /// The image, whose containers answer [`crate::SERVED`] at port 80.
    pub fn image() -> &'static str {
        IMAGE
    }

    /// Runs docker.
    pub fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(&self.node.output(command().args(arguments), ""))
    }

    /// Runs docker, which must succeed, and returns what it printed, trimmed.
    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        let log = || self.log_end();
        assert!(answer.succeeded, "docker {}: {answer:?}\n{}", arguments.join(" "), log());
        answer.stdout.trim().to_owned()
    }

    /// Runs docker, which must fail, and returns what it said.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let answer = self.run(arguments);
        assert!(!answer.succeeded, "docker {}: {answer:?}", arguments.join(" "));
        answer.stderr.trim().to_owned()
    }

    /// Starts docker, to be waited for; what it says of failures is in a pipe.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = command();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.node.spawn(&mut command)
    }

    /// Starts a container of the image in a network, with more `options`.
    pub fn start_container(&self, name: &str, network: &str, options: &[&str]) -> Container {
        // The first process of a container passes over SIGTERM, and dockerd waits for its end.
        let line =
            ["run", "--detach", "--stop-signal", "KILL", "--name", name, "--network", network];
        self.succeeds(&[&line[..], options, &[IMAGE]].concat());
        self.container(name)
    }

    /// The network namespace of a running container.
    pub fn container(&self, name: &str) -> Container {
        let path = self.inspect(name, ".NetworkSettings.SandboxKey");
        Container::at(&self.node, name, &path)
    }

    /// A part of what docker knows of a container, as a Go template names it.
    pub fn inspect(&self, name: &str, part: &str) -> String {
        self.succeeds(&["inspect", "--format", &format!("{{{{{part}}}}}"), name])
    }

    /// The IPv4 address of a container in a network.
    pub fn address(&self, name: &str, network: &str) -> String {
        self.inspect(name, &format!("(index .NetworkSettings.Networks \"{network}\").IPAddress"))
    }

    /// The IPv6 address of a container in a network.
    pub fn address_v6(&self, name: &str, network: &str) -> String {
        let part = format!("(index .NetworkSettings.Networks \"{network}\").GlobalIPv6Address");
        self.inspect(name, &part)
    }

    /// Removes containers, running or not.
    pub fn remove(&self, names: &[&str]) {
        self.succeeds(&[&["rm", "--force"][..], names].concat());
    }

    /// Its process.
    pub fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Kills dockerd, with SIGKILL. What it started goes on.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing a child");
        self.child.wait().expect("waiting for a child");
    }

    /// Ends dockerd by SIGTERM and waits for its end.
    pub fn stop(&mut self) {
        kill(self.process(), Signal::SIGTERM).expect("ending dockerd");
        self.child.wait().expect("waiting for a child");
    }

    /// Starts dockerd once more, with what it kept.
    pub fn restart(&mut self) {
        self.begin_restart();
        self.await_ready();
    }

    /// As [`Docker::restart`], without waiting for it.
    pub fn begin_restart(&mut self) {
        self.child = spawn(&self.node, &self.arguments);
    }

    /// Waits until it takes requests.
    pub fn await_ready(&self) {
        let ready = || self.run(&["version"]).succeeded;
        until_reporting(ready, || format!("dockerd starts:\n{}", self.log_end()));
    }

    /// What the dockerds of its node have logged.
    pub fn log(&self) -> String {
        self.node.read(LOG)
    }

    /// The node it is on.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The end of it, without chatter.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let chatter = ["[core]", "loading plugin"];
        let tells = |line: &&str| chatter.iter().all(|it| !line.contains(it));
        let lines: Vec<&str> = log.lines().filter(tells).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It may have ended already; the node's end kills it in any case.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn url() -> String {
    format!("unix://{SOCKET}")
}

fn command() -> Command {
    let mut command = Command::new(CLIENT);
    command.args(["--host", &url()]).env_remove("DOCKER_API_VERSION");
    // Nothing of the user's who runs the tests.
    command.env("DOCKER_CONFIG", "/run/docker-client").env_remove("DOCKER_CONTEXT");
    command
}

fn spawn(node: &Node, arguments: &[String]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec dockerd \"$@\" 2>>{LOG}"), "sh", "--host", &url()]);
    command.args(["--storage-driver", "vfs", "--pidfile", "/run/dockerd.pid"]);
    command.args(["--add-runtime", &format!("bare={OCI_RUNTIME}"), "--default-runtime", "bare"]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    node.spawn(&mut command)
}

/// Makes the control groups read only on a node: dockerd would leave some on the machine.
fn protect_cgroups(node: &Node) {
    // Asked of a process there: to this one, that /proc is of others.
    let mounts = node.run(&["cat", "/proc/self/mounts"]);
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| point.starts_with(CGROUPS)) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        node.enter(|| mount(None::<&str>, point, None::<&str>, flags, None::<&str>))
            .unwrap_or_else(|error| panic!("making {point} read only: {error}"));
    }
}
