//! The node agent as a process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binaries::binaries;
use crate::node::Node;
use crate::place::Place;
use crate::store::Store;
use crate::unit::confinement;

/// Where the agent's log is on its node.
const LOG: &str = "/run/agent.log";

/// A running `weirctl node run`, with the capabilities that its unit gives it. It ends with its node at the latest.
pub struct Agent {
    node: Node,
    child: Child,
}

impl Agent {
    /// Starts the agent of the node `name`, with these arguments too.
    pub fn start(node: &Node, store: &Store, name: &str, arguments: &[&str]) -> Self {
        Self::start_from(&binaries(), node, store, name, arguments)
    }

    /// As [`Agent::start`], with the `weirctl` of this directory.
    pub fn start_from(
        programs: &Path,
        node: &Node,
        store: &Store,
        name: &str,
        arguments: &[&str],
    ) -> Self {
        Self::start_with(programs, node, store.environment(), name, arguments)
    }

    /// As [`Agent::start_from`], with the datastore that these variables name.
    pub fn start_with(
        programs: &Path,
        node: &Node,
        datastore: Vec<(&'static str, String)>,
        name: &str,
        arguments: &[&str],
    ) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec \"$@\" 2>>{LOG}"), "sh"])
            .args(confinement("weir-node.service"))
            .arg(programs.join("weirctl"))
            .args(["node", "run", "--node", name])
            .args(arguments)
            .envs(datastore);
        Self { node: node.clone(), child: node.spawn(&mut command) }
    }

    /// Its process.
    pub fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Ends it by SIGTERM, which must succeed.
    pub fn stop(mut self) {
        kill(self.process(), Signal::SIGTERM).expect("ending the agent");
        let status = self.child.wait().expect("waiting for the agent");
        let name = self.node.name();
        assert!(status.success(), "the agent of {name} ended with {status}");
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().expect("killing the agent");
        self.child.wait().expect("waiting for the agent");
    }

    /// What it answers to a GET of this path; `None` when it does not listen yet.
    pub fn answer(&self, path: &str) -> Option<String> {
        self.request("GET", path)
    }

    /// The same for another method.
    pub fn request(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = self.connect().ok()?;
        write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// A connection to where it serves metrics and health.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9098));
        self.node.enter(|| TcpStream::connect(address))
    }

    /// Whether it says that nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.health_is("200")
    }

    /// Whether it says that something is wrong. An agent that does not answer yet is neither.
    pub fn is_unwell(&self) -> bool {
        self.health_is("503")
    }

    fn health_is(&self, status: &str) -> bool {
        let line = format!("HTTP/1.0 {status} ");
        self.answer("/health").is_some_and(|answer| answer.starts_with(&line))
    }

    /// The value of one of its metrics.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.answer("/metrics")?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// What the agents of its node have logged.
    pub fn log(&self) -> String {
        self.node.read(LOG)
    }
}

/// The routes of Weir's on a node that are no container's, as `ip` prints those of
/// one family (`-4`, `-6`).
pub fn cluster_routes(node: &Node, family: &str) -> Vec<String> {
    let routes = node.run(&["ip", family, "route", "show", "proto", "77"]);
    let of_cluster = |line: &&str| line.contains(" via ") || line.starts_with("blackhole");
    routes.lines().filter(of_cluster).map(|line| line.trim_end().to_owned()).collect()
}

/// What a node announces by BGP: the routing table for that as `ip` prints it, IPv4 first.
pub fn announced(node: &Node) -> Vec<String> {
    // Asked for a table without routes, `ip` fails.
    let of = |family: &str| node.run(&["ip", family, "route", "show", "table", "all"]);
    let all = of("-4") + &of("-6");
    let lines = all.lines().filter(|line| line.contains(" table 1465207154 "));
    lines.map(|line| line.trim_end().replace(" table 1465207154", "")).collect()
}
