//! Several nodes of one cluster: an underlay, an etcd, and an agent on each node.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::binaries::binaries;
use crate::cluster::merge;
use crate::container::Container;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::{Answer, Call};
use crate::results::address;
use crate::store::Store;
use crate::underlay::{Host, Subnet, Underlay};

/// How long a cluster may take to become what it should be. Under an emulated
/// kernel everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the agent's log is on its node.
const LOG: &str = "/run/agent.log";

/// A cluster.
pub struct Fleet {
    /// The network beneath it.
    pub underlay: Underlay,
    /// Its etcd.
    pub store: Store,
    /// The nodes, `n1` first.
    pub members: Vec<Member>,
}

/// A node of it.
pub struct Member {
    /// The node and its address.
    pub host: Host,
    /// Its name.
    pub name: String,
    agent: Option<Child>,
}

/// A container with its address.
pub struct Pod {
    /// Its namespace.
    pub container: Container,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Member {
    /// The node itself.
    pub fn node(&self) -> &Node {
        &self.host.node
    }

    /// The agent's process; the agent must run.
    pub fn agent_process(&self) -> Pid {
        let agent = self.agent.as_ref().expect("an agent runs");
        Pid::from_raw(i32::try_from(agent.id()).expect("a process id"))
    }

    /// What the agent answers to a GET of this path.
    pub fn agent_answer(&self, path: &str) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], 9098));
        let mut stream = self.node().enter(|| TcpStream::connect(address)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// What the agent has logged.
    pub fn agent_log(&self) -> String {
        self.node().read(LOG)
    }

    /// The value of one of the agent's metrics.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.agent_answer("/metrics")?;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The routes of Weir's that are no container's, as `ip` prints them.
    pub fn routes(&self) -> Vec<String> {
        let routes = self.node().run(&["ip", "route", "show", "proto", "77"]);
        let of_cluster = |line: &&str| line.contains(" via ") || line.starts_with("blackhole");
        routes.lines().filter(of_cluster).map(|line| line.trim_end().to_owned()).collect()
    }

    /// Whether the tunnel device is in service: up, and with an address.
    pub fn has_tunnel(&self) -> bool {
        let line = ["ip", "-4", "-o", "address", "show", "dev", "tunl0", "up"];
        let output = self.node().output(Command::new(line[0]).args(&line[1..]), "");
        output.status.success() && !output.stdout.is_empty()
    }
}

impl Fleet {
    /// Nodes in these subnets, with an empty etcd and without agents.
    pub fn new(subnets: &[Subnet]) -> Self {
        let underlay = Underlay::new();
        let store = Store::Etcd(underlay.etcd());
        let mut fleet = Self { underlay, store, members: Vec::new() };
        for subnet in subnets {
            fleet.join(*subnet);
        }
        fleet
    }

    /// Adds a node.
    pub fn join(&mut self, subnet: Subnet) {
        let number = u8::try_from(self.members.len() + 1).expect("few nodes");
        let host = self.underlay.node(subnet, number);
        self.members.push(Member { host, name: format!("n{number}"), agent: None });
    }

    /// Runs weirctl on a node.
    pub fn weirctl(&self, member: usize, arguments: &[&str]) -> Answer {
        let mut command = Command::new(binaries().join("weirctl"));
        command.args(arguments).envs(self.store.environment()).current_dir("/run");
        Answer::of(&self.members[member].node().output(&mut command, ""))
    }

    /// Creates a pool, or changes it.
    pub fn apply_pool(&self, name: &str, spec: Value) {
        let pool = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.members[0].node().write("/run/pool.yaml", &pool.to_string());
        let answer = self.weirctl(0, &["apply", "-f", "/run/pool.yaml"]);
        assert!(answer.succeeded, "pool {name}: {answer:?}");
    }

    /// Registers a node with its address, as its agent would.
    pub fn register(&self, member: usize) {
        let member = &self.members[member];
        let node = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "Node",
            "metadata": {"name": member.name},
            "spec": {"bgp": {"ipv4Address": format!("{}/24", member.host.address)}},
        });
        self.members[0].node().write("/run/node.yaml", &node.to_string());
        let answer = self.weirctl(0, &["apply", "-f", "/run/node.yaml"]);
        assert!(answer.succeeded, "{answer:?}");
    }

    /// Starts the agent of a node.
    pub fn start_agent(&mut self, member: usize) {
        let environment = self.store.environment();
        let member = &mut self.members[member];
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec \"$@\" 2>>{LOG}"), "sh"])
            .arg(binaries().join("weirctl"))
            .args(["node", "run", "--node", &member.name, "--log-level", "debug"])
            .envs(environment);
        member.agent = Some(member.host.node.spawn(&mut command));
    }

    /// Starts the agents of all nodes that have none, and waits until each is
    /// well.
    pub fn start_agents(&mut self) {
        for member in 0..self.members.len() {
            if self.members[member].agent.is_none() {
                self.start_agent(member);
            }
        }
        for member in &self.members {
            self.until(&format!("{} is well", member.name), || {
                member.agent_answer("/health").is_some_and(|answer| answer.ends_with("ok\n"))
            });
        }
    }

    /// Ends the agent of a node by SIGTERM, which must succeed.
    pub fn stop_agent(&mut self, member: usize) {
        let member = &mut self.members[member];
        kill(member.agent_process(), Signal::SIGTERM).expect("ending the agent");
        let mut agent = member.agent.take().expect("an agent runs");
        let status = agent.wait().expect("waiting for the agent");
        assert!(status.success(), "the agent of {} ended with {status}", member.name);
    }

    /// A call of `weir` on a node, for an address out of this pool.
    pub fn call(&self, member: usize, pool: &str, container: &Container) -> Call {
        self.call_of_none(member, pool).container(container)
    }

    /// STATUS on a node, as libcni asks it: without container, namespace and interface.
    pub fn status(&self, member: usize, pool: &str) -> Answer {
        let call = self.call_of_none(member, pool).without("CNI_IFNAME");
        let call = call.configure("/cniVersion", "1.1.0".into());
        call.run(self.members[member].node(), "STATUS")
    }

    fn call_of_none(&self, member: usize, pool: &str) -> Call {
        let mut configuration = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "type": "weir",
            "log_level": "info",
            "nodename": self.members[member].name,
            "ipam": {"type": "weir-ipam", "ipv4_pools": [pool]},
        });
        merge(&mut configuration, self.store.configuration());
        Call::new("weir", configuration)
    }

    /// A container on a node with an address out of this pool.
    pub fn pod(&self, member: usize, pool: &str) -> Pod {
        self.named_pod(member, pool, &format!("{}-{pool}", self.members[member].name))
    }

    /// As [`Fleet::pod`], with a name of its own.
    pub fn named_pod(&self, member: usize, pool: &str, name: &str) -> Pod {
        let node = self.members[member].node();
        let container = node.container(name);
        let result = self.call(member, pool, &container).add(node);
        let address = address(&result, 0).parse().expect("an IPv4 address");
        Pod { container, address }
    }

    /// Waits until something holds, and fails with the agents' logs if it never
    /// does.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() >= deadline {
                panic!("never: {what}\n{}", self.report());
            }
            thread::sleep(PAUSE);
        }
    }

    /// What the agents say and what their nodes have.
    fn report(&self) -> String {
        let running = self.members.iter().filter(|member| member.agent.is_some());
        let of = |member: &Member| {
            let (name, routes) = (&member.name, member.routes().join("\n"));
            let health = member.agent_answer("/health").unwrap_or_default();
            format!("== {name}\n{routes}\n{health}\n{}", member.agent_log())
        };
        running.map(of).collect::<Vec<_>>().join("\n")
    }
}
