//! The driver as a process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::PluginSocket;
use crate::binaries::binaries;
use crate::node::Node;
use crate::place::Place;
use crate::unit::confinement;
use crate::until::until_reporting;

/// Where dockerd looks for sockets of plugins.
const PLUGINS: &str = "/run/docker/plugins";

/// Where the driver's log is on its node.
const LOG: &str = "/run/docker-driver.log";

/// Starts a program with the sockets that are its standard streams as systemd hands them over
/// (sd_listen_fds(3)): from descriptor 3 on.
const ACTIVATION: &str = "exec 3<&0 4<&1 5<&2\n\
     export LISTEN_PID=$$\n\
     exec \"$@\" </dev/null >/dev/null";

/// A `weirctl docker run` on a node, with the capabilities that its unit gives it. It ends with its node at the latest.
pub struct DockerDriver {
    node: Node,
    /// The variables of its datastore and others.
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    /// The sockets that it is handed over, as systemd does it.
    sockets: Vec<UnixListener>,
    child: Child,
}

impl DockerDriver {
    /// Starts the driver, which makes its sockets itself, and waits until it answers.
    pub fn start(node: &Node, environment: &[(String, String)], arguments: &[&str]) -> Self {
        Self::start_on(node, environment, arguments, Vec::new())
    }

    /// Starts the driver by socket activation under these names: the sockets stay while it is
    /// dead, and calls wait for its return.
    pub fn activated(
        node: &Node,
        environment: &[(String, String)],
        names: &[&str],
        arguments: &[&str],
    ) -> Self {
        assert!(names.len() <= 3, "a program has three standard streams");
        let sockets = names.iter().map(|name| node.enter(|| open(name))).collect();
        Self::start_on(node, environment, arguments, sockets)
    }

    fn start_on(
        node: &Node,
        environment: &[(String, String)],
        arguments: &[&str],
        sockets: Vec<UnixListener>,
    ) -> Self {
        let (environment, node) = (environment.to_vec(), node.clone());
        let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        let child = spawn(&node, &environment, &arguments, &sockets);
        let driver = Self { node, environment, arguments, sockets, child };
        driver.await_ready();
        driver
    }

    /// Its socket of this name (`weir`), for calls of a test's own.
    pub fn socket(&self, name: &str) -> PluginSocket {
        PluginSocket::new(&self.node, &path_of(name))
    }

    /// Waits until it answers.
    pub fn await_ready(&self) {
        let answers = || self.socket("weir").exchange("/Plugin.Activate", b"").is_ok();
        until_reporting(answers, || format!("the driver answers:\n{}", self.log()));
    }

    /// Kills it, with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing the driver");
        self.child.wait().expect("waiting for the driver");
    }

    /// Ends it by SIGTERM, which must succeed.
    pub fn stop(&mut self) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("ending the driver");
        let status = self.child.wait().expect("waiting for the driver");
        assert!(status.success(), "the driver ended with {status}:\n{}", self.log());
    }

    /// Kills it, and starts it with other arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        self.kill();
        self.arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        self.restart();
        self.await_ready();
    }

    /// Starts it once more, without waiting for it.
    pub fn restart(&mut self) {
        self.child = spawn(&self.node, &self.environment, &self.arguments, &self.sockets);
    }

    /// What the drivers of its node have logged.
    pub fn log(&self) -> String {
        self.node.read(LOG)
    }
}

impl Drop for DockerDriver {
    fn drop(&mut self) {
        // It may have ended already; the node's end kills it in any case.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn path_of(name: &str) -> String {
    format!("{PLUGINS}/{name}.sock")
}

/// Opens a socket as systemd does it for `SocketMode=0600`.
fn open(name: &str) -> UnixListener {
    fs::create_dir_all(PLUGINS).expect("making the directory of plugins");
    let listener = UnixListener::bind(path_of(name)).expect("making a socket");
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(Path::new(&path_of(name)), mode).expect("setting the socket's rights");
    listener
}

fn spawn(
    node: &Node,
    environment: &[(String, String)],
    arguments: &[String],
    sockets: &[UnixListener],
) -> Child {
    let mut command = Command::new("sh");
    let activation =
        if sockets.is_empty() { "exec \"$@\" </dev/null >/dev/null" } else { ACTIVATION };
    command.args(["-c", &format!("{activation} 2>>{LOG}"), "sh"]);
    command.args(confinement("weir-docker.service"));
    command.arg(binaries().join("weirctl")).args(["docker", "run"]).args(arguments);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    if !sockets.is_empty() {
        command.env("LISTEN_FDS", sockets.len().to_string());
    }
    let stream = |index: usize| {
        let shared = sockets.get(index).map(|it| it.try_clone().expect("sharing a socket"));
        shared.map_or_else(Stdio::null, |it| Stdio::from(std::os::fd::OwnedFd::from(it)))
    };
    command.stdin(stream(0)).stdout(stream(1)).stderr(stream(2));
    node.spawn(&mut command)
}
