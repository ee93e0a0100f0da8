//! Which addresses containers get, and what is asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;
use weir_tests::{Docker, DockerHosts, DockerOptions, Place, allocations, until};

use crate::{create_network, one_host};

fn within(address: &str, range: &str) -> bool {
    let range: IpNet = range.parse().expect("a range");
    address.parse::<IpAddr>().is_ok_and(|it| range.contains(&it))
}

#[test]
fn a_network_of_a_pool_has_addresses_of_it_alone() {
    let world = one_host();
    let host = &world.hosts[0];
    create_network(&host.docker, "green", &["--subnet", "10.9.0.0/24"]);
    create_network(&host.docker, "any", &[]);
    // Of any pool is the first one by name, until the node has blocks.
    host.docker.start_container("db", "any", &[]);
    let address = host.docker.address("db", "any");
    assert!(within(&address, "10.7.0.0/24"), "{address}");
    host.docker.start_container("web", "green", &[]);
    let address = host.docker.address("web", "green");
    assert!(within(&address, "10.9.0.0/24"), "{address}");
    host.docker.remove(&["web", "db"]);
    host.docker.succeeds(&["network", "rm", "green", "any"]);
    world.assert_nothing_allocated();
    assert!(host.weir_links().is_empty(), "{:?}", host.weir_links());
}

#[test]
fn addresses_that_are_asked_for_are_given_or_refused() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    let subnets = ["--ipv6", "--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/112"];
    create_network(docker, "blue", &subnets);
    let both = ["--ip", "10.7.0.77", "--ip6", "fd00:7::77"];
    docker.start_container("web", "blue", &both);
    assert_eq!(docker.address("web", "blue"), "10.7.0.77");
    assert_eq!(docker.address_v6("web", "blue"), "fd00:7::77");
    // Taken.
    let line = |options: &[&'static str]| {
        let line = ["run", "--rm", "--network", "blue"];
        [&line[..], options, &[Docker::image(), "echo"]].concat()
    };
    let said = docker.fails(&line(&["--ip", "10.7.0.77"]));
    assert!(said.contains("10.7.0.77"), "{said}");
    // Of another pool.
    let said = docker.fails(&line(&["--ip", "10.9.0.77"]));
    assert!(!said.is_empty());
    // What was refused has taken nothing.
    assert_eq!(allocations(&world.store.entries()).len(), 2);
    docker.remove(&["web"]);
    docker.start_container("again", "blue", &both);
    assert_eq!(docker.address("again", "blue"), "10.7.0.77");
    // It is the same after a restart, as without being asked for it need not be.
    docker.succeeds(&["restart", "again"]);
    assert_eq!(docker.address("again", "blue"), "10.7.0.77");
    assert_eq!(docker.address_v6("again", "blue"), "fd00:7::77");
    docker.remove(&["again"]);
    world.assert_nothing_allocated();
}

#[test]
fn two_containers_of_one_hardware_address_have_two_addresses() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    create_network(docker, "green", &["--subnet", "10.9.0.0/24"]);
    let mac = ["--mac-address", "02:42:0a:07:00:99"];
    let containers = [("one", "blue"), ("two", "blue"), ("three", "green")];
    let places: Vec<_> =
        containers.map(|(name, network)| docker.start_container(name, network, &mac)).into();
    let addresses: BTreeSet<String> =
        containers.iter().map(|(name, network)| docker.address(name, network)).collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    for place in &places {
        assert_eq!(place.link("eth0")["address"], "02:42:0a:07:00:99");
    }
    assert!(places[0].reaches(&docker.address("two", "blue")));
    docker.remove(&["one"]);
    assert!(places[1].reaches(&docker.address("three", "green")), "it keeps its own");
    docker.remove(&["two", "three"]);
    world.assert_nothing_allocated();
}

#[test]
fn a_range_and_kept_addresses_restrict_a_network() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    let arguments = ["--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.8/29"];
    let kept = ["--aux-address", "printer=10.9.0.9", "--aux-address", "router=10.9.0.10"];
    create_network(docker, "few", &[&arguments[..], &kept].concat());
    let names = ["c1", "c2", "c3", "c4", "c5", "c6"];
    let addresses: BTreeSet<String> = names
        .map(|name| {
            docker.start_container(name, "few", &[]);
            docker.address(name, "few")
        })
        .into();
    let expected = [8, 11, 12, 13, 14, 15].map(|last| format!("10.9.0.{last}"));
    assert_eq!(addresses, expected.into());
    let line = ["run", "--rm", "--network", "few", Docker::image(), "echo"];
    let said = docker.fails(&line);
    assert!(said.contains("10.9.0.8/29"), "the range that is full is named: {said}");
    docker.remove(&names);
    docker.succeeds(&["network", "rm", "few"]);
    world.assert_nothing_allocated();
}

#[test]
fn a_restarted_container_works() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("web", "blue", &[]);
    let db = docker.start_container("db", "blue", &[]);
    for _ in 0..3 {
        docker.succeeds(&["restart", "web"]);
        let address = docker.address("web", "blue");
        assert!(db.reaches(&address), "{address}");
        assert!(docker.container("web").reaches("172.30.0.11"));
        assert_eq!(allocations(&world.store.entries()).len(), 2);
    }
    docker.succeeds(&["stop", "web"]);
    assert_eq!(allocations(&world.store.entries()).len(), 1);
    docker.succeeds(&["start", "web"]);
    assert!(db.reaches(&docker.address("web", "blue")));
    docker.remove(&["web", "db"]);
    world.assert_nothing_allocated();
}

/// dockerd asks for an IPv4 address, then for the IPv6 address that it cannot have, and forgets
/// the first one.
#[test]
fn what_dockerd_forgets_of_a_refused_pair_is_given_back() {
    let mut world = one_host();
    let docker = &world.hosts[0].docker;
    let subnets = ["--ipv6", "--subnet", "10.7.0.0/24", "--subnet", "fd00:7::/112"];
    create_network(docker, "blue", &subnets);
    docker.start_container("web", "blue", &["--ip6", "fd00:7::77"]);
    let line = ["run", "--rm", "--network", "blue", "--ip6", "fd00:7::77", Docker::image(), "echo"];
    let said = docker.fails(&line);
    assert!(said.contains("fd00:7::77"), "{said}");
    world.store.age_allocations();
    world.hosts[0].driver.restart_with(&["--sweep-pause", "1"]);
    until("the other address is given back", || allocations(&world.store.entries()).len() == 2);
    world.hosts[0].docker.remove(&["web"]);
    world.assert_nothing_allocated();
}

#[test]
fn without_pools_the_error_names_its_cure() {
    let world = DockerHosts::new(1, &DockerOptions::default());
    let host = &world.hosts[0];
    let create = ["network", "create", "--driver", "weir", "--ipam-driver", "weir", "any"];
    let run = ["run", "--rm", "--network", "any", Docker::image(), "echo"];
    let is_cured = |said: &str| said.contains("no IPv4 pool") && said.contains("weirctl create -f");
    let said = host.docker.fails(&create);
    assert!(is_cured(&said), "{said}");
    world.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    host.docker.succeeds(&create);
    host.docker.succeeds(&run);
    world.assert_nothing_allocated();
    let deleted = world.weirctl(&host.node, &["delete", "ippool", "blue"]);
    assert!(deleted.succeeded, "{deleted:?}");
    let said = host.docker.fails(&run);
    assert!(is_cured(&said), "{said}");
    world.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    host.docker.succeeds(&run);
    world.assert_nothing_allocated();
}
