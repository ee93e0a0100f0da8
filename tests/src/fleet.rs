//! Several nodes of one cluster: an underlay, an etcd, and an agent on each node.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::agent::{Agent, announced, cluster_routes};
use crate::binaries::binaries;
use crate::capture::{Capture, Header};
use crate::cluster::merge;
use crate::container::Container;
use crate::etcd::Etcd;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::{Answer, Call};
use crate::pod::Pod;
use crate::results::address;
use crate::store::Store;
use crate::underlay::{Host, Subnet, Underlay};
use crate::until::until_reporting;

/// A cluster.
pub struct Fleet {
    /// The network beneath it.
    pub underlay: Underlay,
    /// Its etcd.
    pub store: Store,
    /// The nodes, `n1` first.
    pub members: Vec<Member>,
    /// What agents are started with.
    pub agent_arguments: Vec<&'static str>,
}

/// A node of it.
pub struct Member {
    /// The node and its address.
    pub host: Host,
    /// Its name.
    pub name: String,
    agent: Option<Agent>,
}

impl Member {
    /// The node itself.
    pub fn node(&self) -> &Node {
        &self.host.node
    }

    /// Its agent, which must run.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("an agent runs")
    }

    /// The routes of Weir's that are no container's, as `ip` prints them.
    pub fn routes(&self) -> Vec<String> {
        cluster_routes(self.node(), "-4")
    }

    /// What it announces by BGP: the routing table for that, as `ip` prints it.
    pub fn announced(&self) -> Vec<String> {
        announced(self.node())
    }

    /// What its agent tells of its BGP; null while it does not answer.
    pub fn bgp(&self) -> Value {
        let answer = self.agent().answer("/bgp").unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Its BGP sessions, as its agent tells of them.
    pub fn sessions(&self) -> Vec<Value> {
        self.bgp()["sessions"].as_array().cloned().unwrap_or_default()
    }

    /// The peers with which it has an established BGP session.
    pub fn established(&self) -> BTreeSet<String> {
        let mut sessions = self.sessions();
        sessions.retain(|session| session["bgpState"] == "Established");
        sessions.iter().map(|it| it["peer"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The process of its BGP daemon, if there is one or has been until it was killed.
    pub fn bird(&self) -> Option<String> {
        let mut command = Command::new("cat");
        let output = self.node().output(command.arg("/run/weir/bird/bird.pid"), "");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// What its BGP daemon answers to a command.
    pub fn birdc(&self, command: &str) -> String {
        let line = ["birdc", "-s", "/run/weir/bird/bird.ctl"].into_iter();
        self.node().run(&line.chain(command.split(' ')).collect::<Vec<_>>())
    }

    /// Whether the tunnel device is in service: up, and with an address.
    pub fn has_tunnel(&self) -> bool {
        self.tunnel().is_some_and(|(up, addresses)| up && addresses > 0)
    }

    /// Whether no tunnel device is there, or one that is down and has no address.
    /// Not the contrary of [`Member::has_tunnel`]: what is half in service is neither.
    pub fn has_no_tunnel(&self) -> bool {
        self.tunnel().is_none_or(|state| state == (false, 0))
    }

    /// Whether this tunnel device is in service: up, and with an address.
    pub fn has_device(&self, device: &str) -> bool {
        self.device(device).is_some_and(|(up, addresses)| up && addresses > 0)
    }

    /// Whether IPIP's device is up, and how many addresses it has.
    fn tunnel(&self) -> Option<(bool, usize)> {
        self.device("tunl0")
    }

    /// Whether a device is up, and how many addresses it has, without the link-local ones.
    fn device(&self, device: &str) -> Option<(bool, usize)> {
        let links = self.node().run(&["ip", "-j", "address", "show"]);
        let links: Vec<Value> = serde_json::from_str(&links).expect("ip prints JSON");
        let link = links.iter().find(|link| link["ifname"] == device)?;
        let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|it| it == "UP"));
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        Some((up, addresses.filter(|address| address["scope"] != "link").count()))
    }
}

impl Fleet {
    /// Nodes in these subnets, with an empty etcd and without agents.
    pub fn new(subnets: &[Subnet]) -> Self {
        Self::on(Underlay::new(), subnets)
    }

    /// As [`Fleet::new`], on an underlay of this MTU in bytes.
    pub fn with_mtu(subnets: &[Subnet], mtu: u32) -> Self {
        Self::on(Underlay::with_mtu(mtu), subnets)
    }

    /// As [`Fleet::new`], on an underlay of IPv4 and IPv6.
    pub fn dual(subnets: &[Subnet]) -> Self {
        Self::on(Underlay::dual(), subnets)
    }

    fn on(underlay: Underlay, subnets: &[Subnet]) -> Self {
        let store = Store::Etcd(underlay.etcd());
        let agent_arguments = vec!["--log-level", "debug"];
        let mut fleet = Self { underlay, store, members: Vec::new(), agent_arguments };
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

    /// Its etcd.
    pub fn etcd(&self) -> &Etcd {
        match &self.store {
            Store::Etcd(etcd) => etcd,
            Store::Embedded(_) => unreachable!("a fleet has an etcd"),
        }
    }

    /// As [`Fleet::etcd`], to stop and restore it.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        match &mut self.store {
            Store::Etcd(etcd) => etcd,
            Store::Embedded(_) => unreachable!("a fleet has an etcd"),
        }
    }

    /// Runs weirctl on a node.
    pub fn weirctl(&self, member: usize, arguments: &[&str]) -> Answer {
        let mut command = Command::new(binaries().join("weirctl"));
        command.args(arguments).envs(self.store.environment()).current_dir("/run");
        Answer::of(&self.members[member].node().output(&mut command, ""))
    }

    /// Creates a resource of this kind, or changes it.
    pub fn apply(&self, kind: &str, name: &str, spec: Value) {
        let resource = json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        });
        self.members[0].node().write("/run/resource.yaml", &resource.to_string());
        let answer = self.weirctl(0, &["apply", "-f", "/run/resource.yaml"]);
        assert!(answer.succeeded, "{kind} {name}: {answer:?}");
    }

    /// Creates a pool, or changes it.
    pub fn apply_pool(&self, name: &str, spec: Value) {
        self.apply("IPPool", name, spec);
    }

    /// Registers a node with its address, as its agent would.
    pub fn register(&self, member: usize) {
        self.register_with(member, 24);
    }

    /// As [`Fleet::register`], with this length of its subnet's prefix.
    pub fn register_with(&self, member: usize, prefix: u8) {
        let member = &self.members[member];
        let address = format!("{}/{prefix}", member.host.address);
        self.apply("Node", &member.name, json!({"bgp": {"ipv4Address": address}}));
    }

    /// Starts the agent of a node.
    pub fn start_agent(&mut self, member: usize) {
        self.start_agent_from(&binaries(), member);
    }

    /// As [`Fleet::start_agent`], with the `weirctl` of this directory.
    pub fn start_agent_from(&mut self, programs: &Path, member: usize) {
        let Member { host, name, agent } = &mut self.members[member];
        let arguments = &self.agent_arguments;
        *agent = Some(Agent::start_from(programs, &host.node, &self.store, name, arguments));
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
            let what = format!("{} is well", member.name);
            self.until(&what, || member.agent().is_well());
        }
    }

    /// Ends the agent of a node by SIGTERM, which must succeed.
    pub fn stop_agent(&mut self, member: usize) {
        self.members[member].agent.take().expect("an agent runs").stop();
    }

    /// Kills the agent of a node.
    pub fn kill_agent(&mut self, member: usize) {
        self.members[member].agent.take().expect("an agent runs").kill();
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

    /// A container on a node with an address out of each of two pools, of IPv4 and of IPv6; and
    /// its second address.
    pub fn dual_pod(&self, member: usize, pools: [&str; 2]) -> (Pod, Ipv6Addr) {
        let node = self.members[member].node();
        let container = node.container(&format!("{}-{}", self.members[member].name, pools[0]));
        let call = self.call(member, pools[0], &container);
        let call = call.configure("/ipam/assign_ipv6", "true".into());
        let result = call.configure("/ipam/ipv6_pools", json!([pools[1]])).add(node);
        let v6 = address(&result, 1).parse().expect("an IPv6 address");
        (Pod { container, address: address(&result, 0).parse().expect("an IPv4 address") }, v6)
    }

    /// A container on each of the first two nodes, which reach each other.
    pub fn connected_pods(&self, pool: &str) -> [Pod; 2] {
        let pods = [0, 1].map(|member| self.pod(member, pool));
        self.until_connected(&pods[0], &pods[1]);
        pods
    }

    /// Waits until each node has this many routes that are no container's.
    pub fn until_routed(&self, routes: usize) {
        let routed = || self.members.iter().all(|member| member.routes().len() == routes);
        self.until(&format!("each node has {routes} routes"), routed);
    }

    /// Waits until a pod gets an answer from another one.
    pub fn until_reached(&self, from: &Pod, to: &Pod) {
        let address = to.address.to_string();
        let what = format!("{} reaches {address}", from.address);
        self.until(&what, || from.container.reaches(&address));
    }

    /// Waits until two pods get answers from each other.
    pub fn until_connected(&self, one: &Pod, other: &Pod) {
        self.until_reached(one, other);
        self.until_reached(other, one);
    }

    /// Every node with every other one.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.members.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    /// Lets the router know the way to a container of a node's by this address, as by BGP.
    pub fn announce_to_router(&self, member: usize, address: IpAddr) {
        let host = &self.members[member].host;
        let by = match address {
            IpAddr::V4(_) => host.address.to_string(),
            IpAddr::V6(_) => host.address_v6.expect("the underlay has IPv6").to_string(),
        };
        self.underlay.router().run(&["ip", "route", "add", &address.to_string(), "via", &by]);
    }

    /// Lets the router know the way to each node's pod, and each node in another subnet the way to
    /// its block of 28 bits, as by BGP.
    pub fn announce(&self, pods: &[Pod]) {
        for (to, pod) in pods.iter().enumerate() {
            self.announce_to_router(to, pod.address.into());
            let block: ipnet::Ipv4Net = format!("{}/28", pod.address).parse().expect("a block");
            let block = block.trunc().to_string();
            let subnet = |member: &Member| member.host.address.octets()[2];
            let far = self.members.iter().filter(|it| subnet(it) != subnet(&self.members[to]));
            for member in far {
                let router = format!("172.31.{}.1", subnet(member));
                let line = ["ip", "route", "add", &block, "via", &router, "metric", "1024"];
                member.node().run(&line);
            }
        }
    }

    /// Requires that what a container of `own` address sends to another one leaves its node with
    /// this header, where it is captured, and that packets of up to `largest` bytes pass there, and
    /// no larger ones.
    pub fn assert_way(
        &self,
        capture: &Capture,
        (container, own): (&Container, IpAddr),
        target: IpAddr,
        header: Header,
        largest: u16,
    ) {
        let (what, to) = (format!("{own} to {target}"), target.to_string());
        self.until(&what, || container.reaches(&to));
        capture.packets();
        assert!(container.reaches(&to), "{what}");
        let seen = capture.headers_of(own, target);
        // Other packets on the link are read past by the same look.
        assert!(seen == BTreeSet::from([header]), "{what}: {seen:?}");
        // Those of IP and ICMP.
        let headers = if target.is_ipv4() { 28 } else { 48 };
        assert!(container.reaches_with(&to, largest - headers), "{what}");
        assert!(!container.reaches_with(&to, largest - headers + 1), "{what}");
    }

    /// Waits until something holds, and fails with the agents' logs if it never
    /// does.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        until_reporting(holds, || format!("{what}\n{}", self.report()));
    }

    /// What the agents say and what their nodes have.
    pub fn report(&self) -> String {
        let running = self.members.iter().filter(|member| member.agent.is_some());
        let of = |member: &Member| {
            let (name, routes) = (&member.name, member.routes().join("\n"));
            let health = member.agent().answer("/health").unwrap_or_default();
            format!("== {name}\n{routes}\n{health}\n{}", member.agent().log())
        };
        running.map(of).collect::<Vec<_>>().join("\n")
    }
}
