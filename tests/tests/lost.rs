//! What the node's side of a container has lost comes back, and what a container leaves behind
//! goes.

use serde_json::{Value, json};
use weir_tests::{
    Agent, Call, Cluster, Families, Network, Place, Store, allocations, host_interface, until,
    until_reporting,
};

/// A container of both IP versions, in a network that the node's CNI configuration describes.
struct Attached {
    cluster: Cluster,
    call: Call,
    result: Value,
}

impl Attached {
    fn new(cluster: Cluster) -> Self {
        let cluster = cluster.with_pools(Families::Dual);
        let list = cluster.list(cluster.plugin(Families::Dual)).to_string();
        cluster.node.write("/etc/cni/net.d/10-pods.conflist", &list);
        let container = cluster.node.container("web");
        let call = cluster.weir(Families::Dual, &container);
        let result = call.add(&cluster.node);
        Self { cluster, call, result }
    }

    fn host_end(&self) -> &str {
        host_interface(&self.result)
    }

    /// Runs a command on the node, in which `LINK`, `IPV4` and `IPV6` stand for what is this
    /// container's.
    fn lose(&self, command: &str) {
        let address = |index: usize| {
            let text = self.result["ips"][index]["address"].as_str().expect("an address");
            text.split('/').next().expect("an address")
        };
        let command = command.replace("LINK", self.host_end());
        let command = command.replace("IPV4", address(0)).replace("IPV6", address(1));
        self.cluster.node.run(&command.split(' ').collect::<Vec<_>>());
    }

    fn is_whole(&self) -> bool {
        let check = self.call.check(&self.cluster.node, &self.result);
        check.succeeded
            && self.parameter("rp_filter") == "1"
            && self.parameter("arp_announce") == "2"
    }

    fn parameter(&self, name: &str) -> String {
        let path = format!("/proc/sys/net/ipv4/conf/{}/{name}", self.host_end());
        self.cluster.node.run(&["cat", &path]).trim().to_owned()
    }

    fn until_whole(&self, lost: &str) {
        let check = || self.call.check(&self.cluster.node, &self.result);
        until_reporting(|| self.is_whole(), || format!("{lost}: {:?}", check()));
    }
}

/// Each is one that the kernel tells of.
const LOSSES: [&str; 12] = [
    "ip link set LINK down",
    "ip route flush IPV4",
    "ip -6 route delete IPV6",
    "ip -6 address flush dev LINK",
    "ip -4 address flush dev LINK",
    "ip link set LINK address 02:00:00:00:00:07",
    "sysctl -qw net.ipv4.conf.LINK.proxy_arp=0",
    "sysctl -qw net.ipv4.conf.LINK.forwarding=0",
    "sysctl -qw net.ipv4.conf.LINK.rp_filter=2",
    "sysctl -qw net.ipv6.conf.LINK.forwarding=0",
    "sysctl -qw net.ipv6.conf.LINK.proxy_ndp=0",
    "sysctl -qw net.ipv4.ip_forward=0",
];

#[test]
fn the_agent_brings_it_back() {
    let network = Network::new();
    let attached = Attached::new(Cluster::embedded_on(network.node(1)));
    let cluster = &attached.cluster;
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &[]);
    until("the agent is well", || agent.is_well());
    assert!(attached.is_whole());
    for loss in LOSSES {
        attached.lose(loss);
        attached.until_whole(loss);
    }
    // The kernel tells of the link alone, not of the routes that go with it.
    attached.lose("ip link set LINK down");
    attached.lose("ip link set LINK up");
    attached.until_whole("ip link set LINK down; up");
    let repairs = || agent.metric("weir_node_host_end_repairs_total");
    until("they are counted", || repairs().is_some_and(|repairs| repairs >= 11.0));
    let log = agent.log();
    assert!(log.contains("repaired what container web had lost: ip route add "), "{log}");
}

/// What the kernel does not tell of is found when everything is compared.
#[test]
fn the_agent_finds_what_nothing_tells_of() {
    let network = Network::new();
    let attached = Attached::new(Cluster::embedded_on(network.node(1)));
    let cluster = &attached.cluster;
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &["--drift-interval", "1"]);
    until("the agent is well", || agent.is_well());
    for loss in [
        "sysctl -qw net.ipv6.conf.LINK.accept_ra=2",
        "sysctl -qw net.ipv4.neigh.LINK.proxy_delay=80",
        "sysctl -qw net.ipv4.conf.LINK.arp_announce=0",
        "sysctl -qw net.ipv6.conf.LINK.disable_ipv6=1",
    ] {
        attached.lose(loss);
        attached.until_whole(loss);
    }
}

/// One of several addresses of a family: the kernel alone does not tell that it is missing.
#[test]
fn the_agent_brings_the_route_to_one_of_several_addresses_back() {
    let network = Network::new();
    let cluster = Cluster::embedded_on(network.node(1)).with_pools(Families::V4);
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &[]);
    until("the agent is well", || agent.is_well());
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container).with("CNI_ARGS", "");
    let two = json!(["10.7.0.10", "10.7.0.11"]);
    let call = call.configure("/args", json!({ "cni": { "ips": two } }));
    call.add(&cluster.node);
    let routed = || cluster.node.run(&["ip", "route", "show", "10.7.0.11"]);
    assert!(!routed().is_empty());
    cluster.node.run(&["ip", "route", "delete", "10.7.0.11"]);
    until("its route is back", || !routed().is_empty());
}

#[test]
fn without_an_agent_the_command_the_next_add_and_gc_bring_it_back() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let attached = Attached::new(cluster);
        let cluster = &attached.cluster;
        let nothing = cluster.weirctl(&["node", "repair"]);
        assert_eq!((nothing.succeeded, nothing.stdout.as_str()), (true, "Nothing is missing\n"));
        // Forwarding of the whole node is not its containers' alone.
        for loss in LOSSES.iter().filter(|loss| !loss.contains("ip_forward")) {
            attached.lose(loss);
            assert!(!attached.is_whole(), "{loss}");
            let repaired = cluster.weirctl(&["node", "repair"]);
            assert!(
                repaired.succeeded && repaired.stdout.contains(" container web"),
                "{repaired:?}"
            );
            assert!(attached.is_whole(), "{loss}: {repaired:?}");
        }
        attached.lose("ip link set LINK down");
        attached.lose("ip link set LINK up");
        let other = cluster.node.container("other");
        cluster.weir(Families::Dual, &other).add(&cluster.node);
        assert!(attached.is_whole(), "the next ADD");
        attached.lose("sysctl -qw net.ipv4.conf.LINK.proxy_arp=0");
        let gc = attached.call.clone().configure("/cniVersion", "1.1.0".into());
        gc.run(&cluster.node, "GC").silence();
        assert!(attached.is_whole(), "GC");
    }
}

/// The link of an attachment at which a call is at work is not touched, nor is one whose
/// address another has by now.
#[test]
fn what_another_has_by_now_is_left_alone_and_told() {
    let attached = Attached::new(Cluster::embedded());
    let cluster = &attached.cluster;
    attached.lose("ip route flush IPV4");
    attached.lose("ip route add unreachable IPV4 proto static");
    let answer = cluster.weirctl(&["node", "repair"]);
    assert!(!answer.succeeded, "{answer:?}");
    for word in ["container web", "is not whole", "unreachable"] {
        assert!(answer.stderr.contains(word), "{answer:?}");
    }
}

/// The addresses that the store has assigned.
fn assigned(store: &Store) -> usize {
    allocations(&store.entries()).len()
}

#[test]
fn the_agent_gives_back_what_lost_containers_had() {
    let network = Network::new();
    let attached = Attached::new(Cluster::embedded_on(network.node(1)));
    let cluster = &attached.cluster;
    let lost = cluster.node.container("lost");
    cluster.weir(Families::Dual, &lost).add(&cluster.node);
    // Under another main plugin Weir knows nothing of links.
    let bridged = cluster.ipam(Families::V4, "bridged").configure("/type", "bridge".into());
    bridged.configure("/name", "bridged".into()).add(&cluster.node);
    lost.remove();
    // As an ADD leaves it that was killed after its first request.
    let half = cluster.node.container("half");
    let result = cluster.weir(Families::V4, &half).add(&cluster.node);
    let link = host_interface(&result);
    cluster.node.run(&["ip", "link", "set", link, "alias", ""]);
    cluster.node.run(&["ip", "route", "flush", "dev", link]);
    assert_eq!(assigned(&cluster.store), 6);
    cluster.age_allocations();
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &["--gc", "1s"]);
    until_reporting(|| assigned(&cluster.store) == 3, || agent.log());
    assert!(attached.is_whole());
    let told = || agent.log().matches("given back: its container is gone").count();
    until("it is told", || told() == 3);
    let collected = || agent.metric("weir_node_collected_addresses_total");
    until("and counted", || collected() == Some(3.0));
    assert!(!cluster.interfaces().contains(&link.to_owned()));
}
