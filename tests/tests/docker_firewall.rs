//! The firewall that Docker makes with its defaults lets Weir's containers through while the
//! driver has a network: one jump, behind the rules of users. The node's own has the published
//! ports of containers that are there, and no others.

use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weir_tests::{
    Cluster, Container, DockerDriver, Families, Network, Place, PluginSocket, address, binaries,
    until,
};

/// As the driver keeps what dockerd said of a network.
const NETWORK: &str =
    "/var/lib/weir/docker/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.json";

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
        world.iptables("-I DOCKER-USER 2 -j WEIR-DOCKER");
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

/// A container on a bridge of this name, of which Docker has no rule yet.
fn on_bridge(world: &World, name: &str) -> Container {
    let node = &world.cluster.node;
    let container = node.container("bridged");
    let ip = |arguments: &str| {
        node.run(&[&["ip"], &arguments.split(' ').collect::<Vec<_>>()[..]].concat());
    };
    ip(&format!("link add {name} type bridge"));
    ip(&format!("address add 172.18.0.1/16 dev {name}"));
    ip(&format!("link set {name} up"));
    ip("link add bridged type veth peer name eth0 netns bridged");
    ip(&format!("link set bridged up master {name}"));
    container.run(&["ip", "address", "add", "172.18.0.2/16", "dev", "eth0"]);
    container.run(&["ip", "link", "set", "eth0", "up"]);
    container.run(&["ip", "route", "add", "default", "via", "172.18.0.1"]);
    container
}

fn world_with_docker() -> World {
    let world = World::new();
    for arguments in CHAINS {
        world.iptables(arguments);
    }
    world.cluster.node.write(NETWORK, "{}");
    world
}

/// What reaches whom: from Weir's container to the bridge's, and back.
fn ways(world: &World, bridged: &Container) -> [bool; 2] {
    [world.containers[1].reaches("172.18.0.2"), bridged.reaches(&world.address)]
}

#[test]
fn internal_networks_and_new_bridges_stay_closed() {
    let world = world_with_docker();
    let bridge = "br-0123456789ab";
    let bridged = on_bridge(&world, bridge);
    world.driven("one jump", || world.passes());
    assert_eq!(ways(&world, &bridged), [false; 2], "Docker has no rule for it");
    for rule in [
        format!("-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o {bridge} -j DROP"),
        format!("-A DOCKER-ISOLATION-STAGE-1 ! -d 172.18.0.0/16 -i {bridge} -j DROP"),
    ] {
        world.iptables(&rule);
    }
    world.driven("its rules", || world.iptables("-S WEIR-DOCKER").contains(bridge));
    assert_eq!(ways(&world, &bridged), [false; 2], "it is internal");
    // It is Docker that decides.
    world.iptables("-F DOCKER-ISOLATION-STAGE-1");
    world.iptables(&format!("-A FORWARD -o {bridge} -j ACCEPT"));
    world.iptables(&format!("-A FORWARD -i {bridge} -j ACCEPT"));
    assert_eq!(ways(&world, &bridged), [true; 2]);
}

#[test]
fn a_bridge_that_is_not_dockers_is_open() {
    let world = world_with_docker();
    let bridged = on_bridge(&world, "br-lan");
    world.driven("one jump", || world.passes());
    assert_eq!(ways(&world, &bridged), [true; 2]);
}

#[test]
fn rules_that_users_add_later_hold() {
    let world = world_with_docker();
    // As newer dockerds leave it.
    world.iptables("-D DOCKER-USER -j RETURN");
    world.driven("one jump", || world.passes());
    world.iptables(&format!("-A DOCKER-USER -d {} -j DROP", world.address));
    assert!(world.passes(), "it stands behind the jump");
    world.driven("the jump is behind it", || !world.passes());
    let users = world.users();
    assert_eq!(users.len(), 3, "{users:#?}");
    assert!(users[2].ends_with("-j WEIR-DOCKER"), "{users:#?}");
}

/// A driver without a dockerd, and an endpoint with a published port.
struct Publishing {
    driver: DockerDriver,
    cluster: Cluster,
    pool: Value,
    address: String,
}

impl Publishing {
    fn new() -> Self {
        let cluster = Cluster::embedded().with_pools(Families::V4);
        let environment = cluster.store.environment();
        let environment: Vec<_> =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let driver = DockerDriver::start(&cluster.node, &environment, &[]);
        let socket = driver.socket("weir");
        let answer = socket.succeeds("/IpamDriver.RequestPool", &json!({}));
        let pool = answer["PoolID"].clone();
        let range = json!([{
            "AddressSpace": "WeirLocal", "Pool": answer["Pool"], "Gateway": "0.0.0.0/0",
        }]);
        let network = json!({"NetworkID": id('a'), "Options": {}, "IPv4Data": range});
        socket.succeeds("/NetworkDriver.CreateNetwork", &network);
        let mac = "02:42:0a:07:00:98";
        let options = json!({"com.docker.network.endpoint.macaddress": mac});
        let call = json!({"PoolID": pool, "Address": "", "Options": options});
        let address = socket.succeeds("/IpamDriver.RequestAddress", &call)["Address"].clone();
        let interface = json!({"Address": address, "AddressIPv6": "", "MacAddress": mac});
        let call = json!({"NetworkID": id('a'), "EndpointID": id('b'), "Interface": interface});
        socket.succeeds("/NetworkDriver.CreateEndpoint", &call);
        let address = address.as_str().expect("an address").trim_end_matches("/32").to_owned();
        let world = Self { driver, cluster, pool, address };
        world.publish();
        assert!(world.is_published());
        world
    }

    fn socket(&self) -> PluginSocket {
        self.driver.socket("weir")
    }

    fn publish(&self) {
        let ports = json!([{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]);
        let options = json!({"com.docker.network.portmap": ports});
        let call = json!({"NetworkID": id('a'), "EndpointID": id('b'), "Options": options});
        self.socket().succeeds("/NetworkDriver.ProgramExternalConnectivity", &call);
    }

    fn rules(&self) -> String {
        self.cluster.node.run(&["nft", "list", "ruleset"])
    }

    fn is_published(&self) -> bool {
        let rules = self.rules();
        rules.contains("8080 comment") && rules.contains(&format!(": {}", self.address))
    }

    fn links(&self) -> Vec<String> {
        let listed = self.cluster.node.run(&["ls", "/proc/sys/net/ipv4/conf"]);
        listed.lines().filter(|name| name.starts_with("weir")).map(str::to_owned).collect()
    }

    /// Whether the node's loopback is open to the container.
    fn is_let_in(&self) -> bool {
        let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.links()[0]);
        self.cluster.node.read(&path).trim() == "1"
    }

    fn flush(&self) {
        self.cluster.node.run(&["nft", "flush", "ruleset"]);
        assert!(!self.is_published());
    }

    fn files(&self) -> String {
        self.cluster.node.run(&["ls", "/var/lib/weir/docker/ports"])
    }
}

/// An identifier as dockerd's are.
fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

#[test]
fn published_ports_outlive_a_flush_and_the_driver() {
    let mut world = Publishing::new();
    assert!(world.is_let_in());
    world.flush();
    until("the port is back", || world.is_published());
    assert!(world.is_let_in());
    world.driver.kill();
    world.flush();
    world.driver.restart();
    until("the port is back", || world.is_published());
    // A repeated call finds it.
    let before = world.rules();
    world.publish();
    assert_eq!(world.rules(), before);
    let call = json!({"NetworkID": id('a'), "EndpointID": id('b')});
    world.socket().succeeds("/NetworkDriver.RevokeExternalConnectivity", &call);
    assert!(!world.rules().contains("weir-ports"));
    assert!(!world.is_let_in());
    assert_eq!(world.files(), "");
}

#[test]
fn no_port_leads_to_an_address_that_is_released() {
    let world = Publishing::new();
    // As it is when the ports could not be taken back.
    world.cluster.node.run(&["ip", "link", "delete", &world.links()[0]]);
    let release = json!({"PoolID": world.pool, "Address": world.address});
    world.socket().succeeds("/IpamDriver.ReleaseAddress", &release);
    assert!(!world.rules().contains("weir-ports"), "{}", world.rules());
    assert_eq!(world.files(), "");
    world.cluster.assert_nothing_allocated();
}
