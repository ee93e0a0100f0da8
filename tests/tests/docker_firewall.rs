//! The firewall that Docker makes with its defaults lets Weir's containers through while the
//! driver has a network: one jump, behind the rules of users.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir_tests::{Cluster, Container, Families, Network, Place, address, binaries, until};

/// As the driver keeps what dockerd said of a network.
const NETWORK: &str = "/var/lib/weir/docker/0123.json";

/// As dockerd 20.10 makes them.
const CHAINS: [&str; 10] = [
    "-P FORWARD DROP",
    "-N DOCKER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-N DOCKER-USER",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A DOCKER-USER -j RETURN",
];

struct World {
    _network: Network,
    cluster: Cluster,
    containers: [Container; 2],
    address: String,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1)).with_pools(Families::V4);
        let containers = ["one", "two"].map(|name| cluster.node.container(name));
        let results =
            containers.each_ref().map(|it| cluster.weir(Families::V4, it).add(&cluster.node));
        let address = address(&results[1], 0).to_owned();
        Self { _network: network, cluster, containers, address }
    }

    fn iptables(&self, arguments: &str) -> String {
        self.cluster
            .node
            .run(&[&["iptables"], &arguments.split(' ').collect::<Vec<_>>()[..]].concat())
    }

    fn passes(&self) -> bool {
        self.containers[0].reaches(&self.address)
    }

    fn users(&self) -> Vec<String> {
        self.iptables("-S DOCKER-USER").lines().map(str::to_owned).collect()
    }

    fn has_chain(&self) -> bool {
        self.iptables("-S").contains("WEIR-DOCKER")
    }

    /// Starts the driver, waits until it is as `holds` says, and ends it.
    fn driven(&self, what: &str, holds: impl Fn() -> bool) {
        let mut driver = self.start();
        until(what, holds);
        stop(&mut driver);
    }

    fn start(&self) -> Child {
        let mut command = Command::new(binaries().join("weirctl"));
        command.args(["docker", "run"]).envs(self.cluster.store.environment());
        self.cluster.node.spawn(&mut command)
    }
}

fn stop(driver: &mut Child) {
    let process = Pid::from_raw(i32::try_from(driver.id()).expect("a process id"));
    kill(process, Signal::SIGTERM).expect("ending the driver");
    assert!(driver.wait().expect("waiting for the driver").success());
}

#[test]
fn one_jump_lets_containers_through_while_there_is_a_network() {
    let world = World::new();
    for arguments in CHAINS {
        world.iptables(arguments);
    }
    // A rule of the user's, and the other IP version without Docker.
    world.iptables("-I DOCKER-USER -s 203.0.113.0/24 -j DROP");
    let before = (world.iptables("-S"), world.cluster.node.run(&["ip6tables", "-S"]));
    assert!(!world.passes());
    world.cluster.node.write(NETWORK, "{}");
    for _ in 0..3 {
        // Also where there are two already.
        world.driven("one jump", || world.passes() && world.users().len() == 4);
        let users = world.users();
        assert!(users[1].ends_with("203.0.113.0/24 -j DROP"), "{users:#?}");
        assert!(users[2].ends_with("-j WEIR-DOCKER"), "{users:#?}");
        assert_eq!(users[3], "-A DOCKER-USER -j RETURN");
        world.iptables("-I DOCKER-USER 3 -j WEIR-DOCKER");
    }
    let shown = world.iptables("-L DOCKER-USER -v");
    assert!(shown.contains("Weir's networks"), "{shown}");
    // What users forbid stays forbidden.
    world.iptables(&format!("-I DOCKER-USER -d {} -j DROP", world.address));
    assert!(!world.passes());
    world.iptables("-D DOCKER-USER 1");
    assert!(world.passes());
    world.cluster.node.run(&["rm", NETWORK]);
    world.driven("Weir's chain is gone", || !world.has_chain());
    assert_eq!((world.iptables("-S"), world.cluster.node.run(&["ip6tables", "-S"])), before);
}

#[test]
fn where_docker_has_no_chains_nothing_is_made() {
    let world = World::new();
    world.iptables("-P FORWARD DROP");
    let before = world.iptables("-S");
    world.cluster.node.write(NETWORK, "{}");
    // The other IP version, which is looked at afterwards.
    world.cluster.node.run(&["ip6tables", "-N", "DOCKER-USER"]);
    let has_jump = || {
        let users = world.cluster.node.run(&["ip6tables", "-S", "DOCKER-USER"]);
        users.contains("-j WEIR-DOCKER")
    };
    world.driven("a jump for IPv6", has_jump);
    assert_eq!(world.iptables("-S"), before);
}
