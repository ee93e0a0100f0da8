//! Containers of two hosts reach each other and the world outside.

use std::net::IpAddr;

use serde_json::json;
use weir_tests::{DockerHosts, DockerOptions, Firewall, Place, Pod, until};

use crate::{create_network, with_and_without_rules};

fn two_hosts(firewall: Firewall, pools: &[(&str, &str, bool)]) -> DockerHosts {
    let options = DockerOptions { firewall, agents: true, ..DockerOptions::default() };
    let world = DockerHosts::new(2, &options);
    for (name, cidr, nat) in pools {
        world.create_pool(name, json!({"cidr": cidr, "natOutgoing": nat}));
    }
    world
}

/// Whom a server outside of the hosts sees a container as.
fn seen_outside(world: &DockerHosts, host: usize, name: &str, network: &str) -> IpAddr {
    let docker = &world.hosts[host].docker;
    let address = docker.address(name, network).parse().expect("an address");
    let pod = Pod { container: docker.container(name), address };
    pod.connect(world.network.router(), "172.30.0.1".parse().expect("an address")).seen
}

fn containers_of_two_hosts_reach_each_other(firewall: Firewall) {
    let pools = [("blue", "10.7.0.0/24", false), ("green", "10.9.0.0/24", true)];
    let world = two_hosts(firewall, &pools);
    let containers = [(0, "web"), (1, "db")].map(|(host, name)| {
        let docker = &world.hosts[host].docker;
        create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
        create_network(docker, "green", &["--subnet", "10.9.0.0/24"]);
        let container = docker.start_container(name, "blue", &[]);
        let address = docker.address(name, "blue");
        // The world outside knows where this pool's addresses are, as by BGP.
        let via = format!("172.30.0.1{}", host + 1);
        world.network.router().run(&["ip", "route", "add", &address, "via", &via]);
        (container, address)
    });
    let [(web, web_address), (db, db_address)] = &containers;
    until("web reaches db", || web.reaches(db_address));
    assert!(db.reaches(web_address));
    let pinged = world.hosts[0].docker.succeeds(&["exec", "web", "ping", "-c1", "-W2", db_address]);
    assert!(pinged.contains(" 0% packet loss"), "{pinged}");
    assert!(world.hosts[1].node.reaches(web_address), "the other node reaches it, too");
    // NAT as the pool says.
    assert_eq!(seen_outside(&world, 0, "web", "blue").to_string(), *web_address);
    world.hosts[1].docker.start_container("natted", "green", &[]);
    until("NAT is as the pool says", || {
        seen_outside(&world, 1, "natted", "green").to_string() == "172.30.0.12"
    });
    let natted = world.hosts[1].docker.container("natted");
    until("natted reaches web", || natted.reaches(web_address));
    for (host, names) in [(0, &["web"][..]), (1, &["db", "natted"])] {
        let docker = &world.hosts[host].docker;
        docker.remove(names);
        docker.succeeds(&["network", "rm", "blue", "green"]);
    }
    world.assert_nothing_allocated();
}
with_and_without_rules!(containers_of_two_hosts_reach_each_other);

#[test]
fn a_host_without_an_agent_has_nat_as_the_pool_says() {
    let world = DockerHosts::new(1, &DockerOptions::default());
    world.create_pool("green", json!({"cidr": "10.9.0.0/24", "natOutgoing": true}));
    let docker = &world.hosts[0].docker;
    create_network(docker, "green", &["--subnet", "10.9.0.0/24"]);
    docker.start_container("web", "green", &[]);
    assert_eq!(seen_outside(&world, 0, "web", "green").to_string(), "172.30.0.11");
    docker.remove(&["web"]);
    world.assert_nothing_allocated();
}

#[test]
fn a_container_cannot_send_as_another() {
    let world = crate::one_host();
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    let web = docker.start_container("web", "blue", &[]);
    docker.start_container("db", "blue", &[]);
    let target = docker.address("db", "blue");
    assert!(web.reaches(&target));
    web.run(&["ip", "address", "add", "10.7.0.200/32", "dev", "eth0"]);
    assert!(
        !web.succeeds(&["ping", "-n", "-q", "-c1", "-W1", "-I", "10.7.0.200", &target]),
        "an address that it was not given"
    );
    docker.remove(&["web", "db"]);
    world.assert_nothing_allocated();
}
