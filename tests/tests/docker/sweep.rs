//! What nobody will ask for again is given back, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir_tests::{DockerHost, DockerHosts, Place, PluginSocket, allocations, until};

use crate::{create_network, one_host};

/// Looks a second apart.
const QUICKLY: [&str; 2] = ["--sweep-pause", "1"];

/// An identifier as dockerd's are.
fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn taken(world: &DockerHosts) -> BTreeSet<String> {
    allocations(&world.store.entries()).keys().map(ToString::to_string).collect()
}

/// Takes an address of pool `blue` as dockerd does for a container of this hardware address.
fn request(socket: &PluginSocket, mac: &str) -> String {
    let pool = socket.succeeds("/IpamDriver.RequestPool", &json!({"Pool": "10.7.0.0/24"}));
    let options = json!({"com.docker.network.endpoint.macaddress": mac});
    let call = json!({"PoolID": pool["PoolID"], "Address": "", "Options": options});
    let address = socket.succeeds("/IpamDriver.RequestAddress", &call)["Address"].clone();
    address.as_str().expect("an address").to_owned()
}

/// Makes an endpoint in a network that dockerd does not know, and so never removes.
fn make_lost_endpoint(host: &DockerHost, digit: char) -> String {
    let socket = host.driver.socket("weir");
    let range =
        json!([{"AddressSpace": "WeirLocal", "Pool": "10.7.0.0/24", "Gateway": "0.0.0.0/0"}]);
    let network = json!({"NetworkID": id('a'), "Options": {}, "IPv4Data": range});
    socket.succeeds("/NetworkDriver.CreateNetwork", &network);
    let mac = format!("02:42:0a:07:00:0{digit}");
    let address = request(&socket, &mac);
    let interface = json!({"Address": address, "AddressIPv6": "", "MacAddress": mac});
    let call = json!({"NetworkID": id('a'), "EndpointID": id(digit), "Interface": interface,
                      "Options": Value::Null});
    socket.succeeds("/NetworkDriver.CreateEndpoint", &call);
    address.trim_end_matches("/32").to_owned()
}

/// Makes the link of an endpoint with this address as a driver leaves it that was killed after
/// its first request.
fn unfinish(host: &DockerHost, address: &str) {
    let route = host.node.run(&["ip", "route", "show", address]);
    let link = route.split(' ').find(|word| word.starts_with("weir")).expect("a route by a link");
    host.node.run(&["ip", "link", "set", link, "alias", ""]);
    host.node.run(&["ip", "route", "flush", "dev", link]);
}

/// Containers that run in two networks, one of which has a gateway and a kept address.
fn start_living_ones(host: &DockerHost) -> BTreeSet<String> {
    let docker = &host.docker;
    let kept = ["--subnet", "10.7.0.0/24", "--aux-address", "printer=10.7.0.9"];
    create_network(docker, "blue", &kept);
    docker.start_container("web", "blue", &[]);
    let bridge = ["network", "create", "--driver", "bridge", "--ipam-driver", "weir"];
    let gateway = ["--subnet", "10.9.0.0/24", "--ipam-opt", "gateway=10.9.0.1", "bridged"];
    docker.succeeds(&[&bridge[..], &gateway].concat());
    docker.start_container("db", "bridged", &[]);
    // The gateway is each host's own, and so nobody's in the store.
    let used = [docker.address("web", "blue"), docker.address("db", "bridged")];
    used.into_iter().chain(["10.7.0.9".to_owned()]).collect()
}

#[test]
fn what_dockerd_has_forgotten_is_given_back() {
    let mut world = one_host();
    let living = start_living_ones(&world.hosts[0]);
    request(&world.hosts[0].driver.socket("weir"), "02:42:0a:07:00:99");
    make_lost_endpoint(&world.hosts[0], 'b');
    unfinish(&world.hosts[0], &make_lost_endpoint(&world.hosts[0], 'c'));
    assert_eq!(taken(&world).len(), living.len() + 3, "{:?}", taken(&world));
    assert_eq!(world.hosts[0].weir_links().len(), 5, "{:?}", world.hosts[0].weir_links());
    world.store.age_allocations();
    world.hosts[0].driver.restart_with(&QUICKLY);
    until("what is lost is given back", || taken(&world) == living);
    let host = &world.hosts[0];
    // Networks go last.
    let kept = || host.node.run(&["ls", "/var/lib/weir/docker"]);
    until("the lost network's file is gone", || !kept().contains(&id('a')));
    assert_eq!(kept().matches(".json").count(), 2, "blue's and dockerd's: {}", kept());
    assert_eq!(host.weir_links().len(), 1, "{:?}", host.weir_links());
    // In no later look anything of the living.
    host.docker.start_container("later", "blue", &[]);
    assert!(host.docker.container("later").reaches(&host.docker.address("web", "blue")));
    let checked = world.weirctl(&host.node, &["ipam", "check"]);
    assert!(checked.succeeded, "{checked:?}");
    host.docker.remove(&["web", "db", "later"]);
    host.docker.succeeds(&["network", "rm", "blue", "bridged"]);
    world.assert_nothing_allocated();
}

#[test]
fn without_dockerd_nothing_is_given_back() {
    let mut world = one_host();
    start_living_ones(&world.hosts[0]);
    make_lost_endpoint(&world.hosts[0], 'b');
    world.store.age_allocations();
    let (before, host) = (taken(&world), &mut world.hosts[0]);
    host.docker.kill();
    host.driver.restart_with(&QUICKLY);
    let links = host.weir_links();
    until("two looks have been taken", || {
        host.driver.log().matches("is left for now").count() >= 3
    });
    assert_eq!(host.weir_links(), links);
    assert_eq!(taken(&world), before);
    let checked = world.weirctl(&world.hosts[0].node, &["ipam", "check"]);
    assert!(checked.stdout.contains("dockerd"), "{checked:?}");
    assert_eq!(taken(&world), before);
}

/// An address that waits for its endpoint when the driver starts is not yet lost.
#[test]
fn what_is_being_made_stays() {
    let mut world = one_host();
    create_network(&world.hosts[0].docker, "blue", &["--subnet", "10.7.0.0/24"]);
    for _ in 0..3 {
        world.hosts[0].driver.restart_with(&QUICKLY);
        let docker = &world.hosts[0].docker;
        for name in ["one", "two", "three"] {
            docker.start_container(name, "blue", &[]);
        }
        let addresses: BTreeSet<_> =
            ["one", "two", "three"].map(|name| docker.address(name, "blue")).into();
        assert_eq!(taken(&world), addresses);
        let one = docker.container("one");
        assert!(one.reaches(&docker.address("three", "blue")));
        docker.remove(&["one", "two", "three"]);
    }
    world.assert_nothing_allocated();
}
