//! Published ports.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use weir_tests::{Docker, DockerHosts, Firewall, Place, SERVED, until, until_reporting};

use crate::{assert_serves, create_network, fetch, hosts, one_host, with_and_without_rules};

const NODE: &str = "172.30.0.11";

/// Requires that a datagram to a port of the node is answered by a server in `place`.
fn assert_datagrams_pass(world: &DockerHosts, place: &impl Place, inside: u16, outside: u16) {
    let patience = Some(Duration::from_secs(5));
    let server = place.enter(|| UdpSocket::bind(("0.0.0.0", inside))).expect("a server");
    let client = world.network.router().enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a client");
    for socket in [&server, &client] {
        socket.set_read_timeout(patience).expect("a time limit");
    }
    client.send_to(b"asked", (NODE, outside)).expect("sending");
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).expect("the datagram arrives");
    assert_eq!(&buffer[..length], b"asked");
    assert_eq!(from.ip().to_string(), "172.30.0.1", "the client is seen as it is");
    server.send_to(b"answered", from).expect("answering");
    let (length, from) = client.recv_from(&mut buffer).expect("the answer arrives");
    assert_eq!(&buffer[..length], b"answered");
    let expected: IpAddr = NODE.parse().expect("an address");
    assert_eq!(from, SocketAddr::new(expected, outside));
}

fn published_ports_are_reached(firewall: Firewall) {
    let world = hosts(1, firewall);
    let (host, router) = (&world.hosts[0], world.network.router());
    let docker = &host.docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    let ports = ["--publish", "8080:80", "--publish", "5353:53/udp"];
    let web = docker.start_container("web", "blue", &ports);
    assert_serves(router, NODE, 8080, "from outside");
    assert_serves(&host.node, NODE, 8080, "from the node itself");
    assert_serves(&host.node, "127.0.0.1", 8080, "from the node's loopback");
    assert_datagrams_pass(&world, &web, 53, 5353);
    let db = docker.start_container("db", "blue", &[]);
    assert_serves(&db, NODE, 8080, "from another container");
    assert_serves(&web, NODE, 8080, "from the container itself");
    assert!(fetch(router, NODE, 80).is_err(), "only what is published");
    docker.succeeds(&["restart", "web"]);
    assert_serves(router, NODE, 8080, "after a restart");
    docker.remove(&["web"]);
    assert!(fetch(router, NODE, 8080).is_err(), "it goes with the container");
    // And can be published again.
    docker.start_container("again", "blue", &["--publish", "8080:80"]);
    assert_serves(router, NODE, 8080, "from outside");
    docker.remove(&["again", "db"]);
    docker.succeeds(&["network", "rm", "blue"]);
    world.assert_nothing_allocated();
    let rules = host.node.run(&["nft", "list", "ruleset"]);
    assert!(!rules.contains("8080"), "{rules}");
}
with_and_without_rules!(published_ports_are_reached);

#[test]
fn a_port_that_is_taken_is_refused_by_name() {
    let world = one_host();
    let host = &world.hosts[0];
    let docker = &host.docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("web", "blue", &["--publish", "8080:80"]);
    let line =
        |port| ["run", "--rm", "--network", "blue", "--publish", port, Docker::image(), "echo"];
    let said = docker.fails(&line("8080:81"));
    assert!(said.contains("8080"), "by another container: {said}");
    let server = host.node.enter(|| TcpListener::bind("0.0.0.0:8081")).expect("a server");
    let said = docker.fails(&line("8081:80"));
    assert!(said.contains("8081"), "by a program: {said}");
    drop(server);
    assert_serves(world.network.router(), NODE, 8080, "the first one stays");
    docker.remove(&["web"]);
    until("refused containers leave nothing", || docker.run(&line("8080:80")).succeeded);
    world.assert_nothing_allocated();
}

#[test]
fn a_port_of_one_address_is_published_there_alone() {
    let world = one_host();
    let host = &world.hosts[0];
    host.node.run(&["ip", "address", "add", "172.30.0.99/32", "dev", "eth0"]);
    create_network(&host.docker, "blue", &["--subnet", "10.7.0.0/24"]);
    let port = ["--publish", "172.30.0.99:8080:80"];
    host.docker.start_container("web", "blue", &port);
    let router = world.network.router();
    assert_serves(router, "172.30.0.99", 8080, "from outside");
    assert!(fetch(router, NODE, 8080).is_err());
    // The same port of another address is free.
    host.docker.start_container("other", "blue", &["--publish", "172.30.0.11:8080:80"]);
    assert_serves(router, NODE, 8080, "from outside");
    host.docker.remove(&["web", "other"]);
    world.assert_nothing_allocated();
}

#[test]
fn ports_that_docker_chooses_are_free_ones() {
    let world = one_host();
    let host = &world.hosts[0];
    create_network(&host.docker, "blue", &["--subnet", "10.7.0.0/24"]);
    for name in ["one", "two"] {
        host.docker.start_container(name, "blue", &["--publish", "80"]);
    }
    let rules = host.node.run(&["nft", "list", "ruleset"]);
    // Whom each published port of the node answers for.
    let router = world.network.router();
    let published = (32768..=61000).filter(|port: &u16| rules.contains(&port.to_string()));
    let published: Vec<u16> = published.collect();
    let serves = |port: &&u16| fetch(router, NODE, **port).is_ok_and(|it| it == SERVED);
    until_reporting(
        || published.iter().filter(serves).count() == 2,
        || format!("two of {published:?} are served: {rules}"),
    );
    host.docker.remove(&["one", "two"]);
    world.assert_nothing_allocated();
}

#[test]
fn a_port_is_published_in_both_families() {
    let world = one_host();
    let host = &world.hosts[0];
    let subnets = ["--ipv6", "--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/112"];
    create_network(&host.docker, "blue", &subnets);
    host.docker.start_container("web", "blue", &["--publish", "8080:80"]);
    let router = world.network.router();
    assert_serves(router, NODE, 8080, "from outside");
    assert_serves(router, "fd00:30::11", 8080, "from outside");
    host.docker.remove(&["web"]);
    world.assert_nothing_allocated();
}
