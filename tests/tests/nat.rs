//! NAT: packets that leave the node carry its address when their pool asks for
//! it, and only then.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;
use weir_tests::{Cluster, Container, Families, Network, Place, Snapshot, address};

/// A node with a network around it and pools without NAT.
struct World {
    network: Network,
    cluster: Cluster,
}

impl World {
    fn new() -> Self {
        let network = Network::new();
        let cluster = Cluster::embedded_on(network.node(1));
        for line in [
            // The way back to containers whose address is not hidden.
            "ip route add 10.7.0.0/24 via 172.30.0.11",
            "ip route add 10.8.0.0/24 via 172.30.0.11",
            "ip route add fd00:7::/112 via fd00:30::11",
            "ip address add 10.9.0.1/32 dev br0",
        ] {
            network.router().run(&line.split(' ').collect::<Vec<_>>());
        }
        Self { network, cluster }
    }

    fn pool(&self, name: &str, cidr: &str, nat: bool) {
        self.cluster.create_pool(name, json!({"cidr": cidr, "natOutgoing": nat}));
    }

    /// A container with one address out of this pool, and that address.
    fn container(&self, pool: &str, families: Families) -> (Container, IpAddr) {
        let container = self.cluster.node.container(pool);
        let key = if families == Families::V6 { "/ipam/ipv6_pools" } else { "/ipam/ipv4_pools" };
        let call = self.cluster.weir(families, &container).configure(key, json!([pool]));
        let result = call.add(&self.cluster.node);
        (container, address(&result, 0).parse().expect("an address"))
    }

    /// The source address that a server on the router at `address` sees when
    /// the container connects to it.
    fn source_seen(&self, container: &Container, address: &str) -> IpAddr {
        let address: IpAddr = address.parse().expect("an address");
        let server = self.network.router().enter(|| TcpListener::bind((address, 0)));
        let server = server.expect("listening");
        let server_address: SocketAddr = server.local_addr().expect("a bound socket");
        let client =
            container.enter(|| TcpStream::connect_timeout(&server_address, Duration::from_secs(3)));
        let _client = client.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        server.accept().expect("the client is connected").1.ip()
    }
}

#[test]
fn a_pool_hides_its_addresses_when_it_asks_for_nat() {
    let world = World::new();
    world.pool("hidden", "10.7.0.0/24", true);
    world.pool("open", "10.8.0.0/24", false);
    let (hidden, _) = world.container("hidden", Families::V4);
    let (open, address) = world.container("open", Families::V4);
    assert_eq!(world.source_seen(&hidden, "172.30.0.1").to_string(), "172.30.0.11");
    assert_eq!(world.source_seen(&open, "172.30.0.1"), address);
}

#[test]
fn traffic_between_pools_is_not_hidden() {
    let world = World::new();
    world.pool("hidden", "10.7.0.0/24", true);
    world.pool("beyond", "10.9.0.0/24", false);
    let (hidden, address) = world.container("hidden", Families::V4);
    assert_eq!(world.source_seen(&hidden, "10.9.0.1"), address);
}

#[test]
fn a_disabled_pool_exempts_its_range() {
    let world = World::new();
    world.pool("hidden", "10.7.0.0/24", true);
    world.cluster.create_pool("exempt", json!({"cidr": "172.30.0.0/24", "disabled": true}));
    let (hidden, address) = world.container("hidden", Families::V4);
    assert_eq!(world.source_seen(&hidden, "172.30.0.1"), address);
}

#[test]
fn ipv6_pools_are_hidden_too() {
    for nat in [true, false] {
        let world = World::new();
        world.pool("six", "fd00:7::/112", nat);
        let (container, address) = world.container("six", Families::V6);
        let seen = world.source_seen(&container, "fd00:30::1");
        let expected = if nat { "fd00:30::11".parse().expect("an address") } else { address };
        assert_eq!(seen, expected, "natOutgoing {nat}");
    }
}

#[test]
fn rules_of_others_are_left_alone_and_do_not_pile_up() {
    let world = World::new();
    let node = &world.cluster.node;
    let foreign = "table ip foreign { chain post { type nat hook postrouting priority 100; }; }";
    node.run_with(&["nft", "-f", "-"], foreign);
    world.pool("hidden", "10.7.0.0/24", true);
    let (first, _) = world.container("hidden", Families::V4);
    let after_first = node.run(&["nft", "list", "ruleset"]);
    for number in 0..3 {
        let container = node.container(&format!("c{number}"));
        world.cluster.weir(Families::V4, &container).add(node);
    }
    assert_eq!(after_first, node.run(&["nft", "list", "ruleset"]), "no rule for a container");
    assert!(Snapshot::of(node).mentions(&["nft", "foreign", "postrouting"]));
    drop(first);
}
