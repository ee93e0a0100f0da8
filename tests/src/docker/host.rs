//! Hosts with Docker and Weir in one network.

use serde_json::Value;

use super::daemon::{Docker, Firewall};
use super::driver::DockerDriver;
use crate::agent::Agent;
use crate::allocations::{allocations, assert_consistent, handles};
use crate::etcd::{Etcd, Options as EtcdOptions};
use crate::network::Network;
use crate::node::Node;
use crate::place::Place;
use crate::plugin::Answer;
use crate::store::Store;
use crate::until::until_reporting;
use crate::weirctl::{create_pool, weirctl};

/// How hosts are.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// What their dockerds do with their firewalls.
    pub firewall: Firewall,
    /// Further arguments of dockerd.
    pub dockerd: Vec<&'static str>,
    /// Whether the drivers also have Calico's names.
    pub calico_names: bool,
    /// Whether each has an agent.
    pub agents: bool,
    /// Further arguments of the drivers.
    pub driver: Vec<&'static str>,
    /// Further variables of the drivers.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            firewall: Firewall::Untouched,
            dockerd: Vec::new(),
            calico_names: false,
            agents: false,
            driver: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// Hosts `n1`, `n2`, … at 172.30.0.11, … with an etcd outside of them.
pub struct DockerHosts {
    /// The hosts.
    pub hosts: Vec<DockerHost>,
    /// Their etcd.
    pub store: Store,
    /// The network that connects them; its router is the world outside.
    pub network: Network,
}

/// A host: dockerd, and Weir's driver beside it.
pub struct DockerHost {
    /// dockerd.
    pub docker: Docker,
    /// The driver.
    pub driver: DockerDriver,
    /// The agent, if there is one.
    pub agent: Option<Agent>,
    /// The node that all are on.
    pub node: Node,
}

impl DockerHosts {
    /// So many hosts, with an empty datastore.
    pub fn new(number: u8, options: &DockerOptions) -> Self {
        let network = Network::new();
        let address = "172.30.0.1".parse().expect("an address");
        let etcd = EtcdOptions { address, ..EtcdOptions::default() };
        let store = Store::Etcd(Etcd::start_with(network.router(), etcd));
        let host = |number| DockerHost::new(network.node(number), &store, options);
        Self { hosts: (1..=number).map(host).collect(), store, network }
    }

    /// Creates a pool.
    pub fn create_pool(&self, name: &str, spec: Value) {
        create_pool(self.network.router(), &self.store, name, spec);
    }

    /// Runs weirctl at this place.
    pub fn weirctl(&self, place: &impl Place, arguments: &[&str]) -> Answer {
        weirctl(place, &self.store, arguments, "")
    }

    /// Requires that no address is taken, no handle is left and blocks and affinities agree,
    /// sooner or later: dockerd gives an address back a moment after it says that a container is
    /// gone.
    pub fn assert_nothing_allocated(&self) {
        let taken = || allocations(&self.store.entries());
        until_reporting(|| taken().is_empty(), || format!("all addresses are free: {:?}", taken()));
        let entries = self.store.entries();
        assert_consistent(&entries);
        assert!(handles(&entries).is_empty(), "{:?}", handles(&entries));
    }
}

impl DockerHost {
    fn new(node: Node, store: &Store, options: &DockerOptions) -> Self {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let own = store.environment().into_iter().map(|(name, value)| (name.to_owned(), value));
        let environment: Vec<_> = own.chain(options.environment.iter().map(text)).collect();
        let names = ["weir", "calico", "calico-ipam"];
        let names = if options.calico_names { &names[..] } else { &names[..1] };
        // As systemd orders them: the sockets, the driver, dockerd.
        let driver = DockerDriver::activated(&node, &environment, names, &options.driver);
        let agent = options.agents.then(|| {
            let arguments = ["--ip6-autodetection-method", "first-found"];
            Agent::start(&node, store, node.name(), &arguments)
        });
        let docker = Docker::start(&node, options.firewall, &options.dockerd);
        Self { docker, driver, agent, node }
    }

    /// The links of Weir's on this host.
    pub fn weir_links(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.node.run(&["ip", "-j", "link", "show"]))
            .expect("ip prints JSON");
        let names = links.as_array().into_iter().flatten().filter_map(|it| it["ifname"].as_str());
        let ours = names.filter(|name| name.starts_with("weir") || name.starts_with("temp"));
        ours.map(str::to_owned).collect()
    }
}
