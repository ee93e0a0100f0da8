//! Several networks in a container, cut-off ones, and their options.

use weir_tests::{Docker, DockerHosts, Firewall, Place, until};

use crate::{create_network, hosts, one_host, with_and_without_rules};

/// The next hop and interface of a container's default route.
fn default_route(place: &impl Place) -> String {
    place.run(&["ip", "-4", "route", "show", "default"]).trim().to_owned()
}

/// A container in two networks reaches the peers in both, and answers in both; when it leaves
/// the first one, its default route is that of the second.
fn two_networks(firewall: Firewall) {
    let world = hosts(1, firewall);
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    create_network(docker, "green", &["--subnet", "10.9.0.0/24"]);
    let first = docker.start_container("first", "blue", &[]);
    let second = docker.start_container("second", "green", &[]);
    let both = docker.start_container("both", "blue", &[]);
    docker.succeeds(&["network", "connect", "green", "both"]);
    let [in_blue, in_green] = ["blue", "green"].map(|network| docker.address("both", network));
    assert!(both.reaches(&docker.address("first", "blue")));
    assert!(both.reaches(&docker.address("second", "green")));
    for (peer, address) in
        [(&first, &in_blue), (&second, &in_green), (&first, &in_green), (&second, &in_blue)]
    {
        assert!(peer.reaches(address), "{} reaches {address}", peer.name());
    }
    assert!(default_route(&both).contains("dev eth0"), "{}", default_route(&both));
    assert!(both.reaches("172.30.0.11"));
    docker.succeeds(&["network", "disconnect", "blue", "both"]);
    assert!(default_route(&both).contains("dev eth1"), "{}", default_route(&both));
    assert!(both.reaches(&docker.address("second", "green")));
    assert!(both.reaches("172.30.0.11"));
    assert!(first.reaches(&in_green));
    // And back again.
    docker.succeeds(&["network", "connect", "blue", "both"]);
    assert!(first.reaches(&docker.address("both", "blue")));
    assert!(second.reaches(&in_green));
    docker.succeeds(&["restart", "both"]);
    assert!(first.reaches(&docker.address("both", "blue")));
    assert!(second.reaches(&docker.address("both", "green")));
    docker.remove(&["first", "second", "both"]);
    docker.succeeds(&["network", "rm", "blue", "green"]);
    world.assert_nothing_allocated();
    assert!(world.hosts[0].weir_links().is_empty(), "{:?}", world.hosts[0].weir_links());
}
with_and_without_rules!(two_networks);

#[test]
fn two_networks_of_both_families() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    let both_families = |first, second| ["--ipv6", "--subnet", first, "--subnet", second];
    create_network(docker, "blue", &both_families("10.7.0.0/24", "fd00:7::/112"));
    create_network(docker, "green", &both_families("10.9.0.0/24", "fd00:9::/112"));
    let first = docker.start_container("first", "blue", &[]);
    let second = docker.start_container("second", "green", &[]);
    let both = docker.start_container("both", "blue", &[]);
    docker.succeeds(&["network", "connect", "green", "both"]);
    for (peer, network) in [(&first, "blue"), (&second, "green")] {
        for address in [docker.address("both", network), docker.address_v6("both", network)] {
            assert!(peer.reaches(&address), "{network}: {address}");
        }
        assert!(both.reaches(&docker.address_v6(peer.name(), network)), "{network}");
    }
    docker.succeeds(&["network", "disconnect", "blue", "both"]);
    let routes = both.run(&["ip", "-6", "route", "show", "default"]);
    assert!(routes.contains("default via fe80::") && routes.contains("dev eth1"), "{routes}");
    assert!(second.reaches(&docker.address_v6("both", "green")));
    docker.remove(&["first", "second", "both"]);
    world.assert_nothing_allocated();
}

#[test]
fn an_internal_network_leads_to_its_own_containers_alone() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    create_network(docker, "inside", &["--internal", "--subnet", "10.7.0.0/24"]);
    let first = docker.start_container("first", "inside", &[]);
    docker.start_container("second", "inside", &[]);
    assert!(first.reaches(&docker.address("second", "inside")));
    assert_eq!(default_route(&first), "");
    assert!(!first.succeeds(&["ping", "-n", "-q", "-c1", "-W1", "172.30.0.1"]));
    docker.remove(&["first", "second"]);
    world.assert_nothing_allocated();
}

/// Each interface has next hops of its own, by which dockerd finds it.
#[test]
fn two_internal_networks_of_both_families() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    for (name, first, second) in
        [("blue", "10.7.0.0/24", "fd00:7::/112"), ("green", "10.9.0.0/24", "fd00:9::/112")]
    {
        let arguments = ["--internal", "--ipv6", "--subnet", first, "--subnet", second];
        create_network(docker, name, &arguments);
    }
    let first = docker.start_container("first", "blue", &[]);
    let second = docker.start_container("second", "green", &[]);
    let both = docker.start_container("both", "blue", &[]);
    docker.succeeds(&["network", "connect", "green", "both"]);
    for (peer, network) in [(&first, "blue"), (&second, "green")] {
        assert!(peer.reaches(&docker.address("both", network)), "{network}");
        assert!(both.reaches(&docker.address(peer.name(), network)), "{network}");
        assert!(peer.reaches(&docker.address_v6("both", network)), "{network}");
        assert!(both.reaches(&docker.address_v6(peer.name(), network)), "{network}");
    }
    let route = both.run(&["ip", "-6", "route", "show", "fd00:9::/112"]);
    assert!(route.contains("dev eth1"), "{route}");
    docker.succeeds(&["network", "disconnect", "blue", "both"]);
    assert!(both.reaches(&docker.address_v6("second", "green")));
    docker.remove(&["first", "second", "both"]);
    world.assert_nothing_allocated();
}

#[test]
fn a_chosen_gateway_is_refused_and_other_options_are_named() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    let refused = |arguments: &[&str]| {
        let line = ["network", "create", "--driver", "weir", "--ipam-driver", "weir"];
        docker.fails(&[&line[..], arguments, &["refused"]].concat())
    };
    let said = refused(&["--subnet", "10.7.0.0/24", "--gateway", "10.7.0.1"]);
    assert!(said.contains("--gateway"), "{said}");
    let said = refused(&["--subnet", "10.7.0.0/24", "--opt", "colour=red"]);
    assert!(said.contains("colour"), "{said}");
    let said = refused(&["--subnet", "10.7.0.0/24", "--ip-range", "10.9.0.0/29"]);
    assert!(said.contains("10.9.0.0/29"), "{said}");
    let line = ["network", "create", "--driver", "weir", "--subnet", "10.7.0.0/24", "refused"];
    let said = docker.fails(&line);
    assert!(said.contains("--ipam-driver weir"), "{said}");
    assert!(!docker.succeeds(&["network", "ls", "--format", "{{.Name}}"]).contains("refused"));
    // Refused networks keep nothing from a good one.
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.succeeds(&["run", "--rm", "--network", "blue", Docker::image(), "echo"]);
    world.assert_nothing_allocated();
}

#[test]
fn options_that_mean_something_are_taken() {
    let world = one_host();
    let docker = &world.hosts[0].docker;
    let mtu = ["--subnet", "10.7.0.0/24", "--opt", "com.docker.network.driver.mtu=1300"];
    create_network(docker, "small", &mtu);
    let web = docker.start_container("web", "small", &[]);
    assert_eq!(web.link("eth0")["mtu"], 1300);
    create_network(docker, "chosen", &["--ipam-opt", "pools=green"]);
    docker.start_container("db", "chosen", &[]);
    let address = docker.address("db", "chosen");
    assert!(address.starts_with("10.9.0."), "{address}");
    docker.remove(&["web", "db"]);
    world.assert_nothing_allocated();
}

/// Other network drivers can have addresses of the pools, with a gateway of theirs.
fn bridge_with_addresses_of_the_pools(firewall: Firewall) {
    let world = hosts(1, firewall);
    let docker = &world.hosts[0].docker;
    let line = ["network", "create", "--driver", "bridge", "--ipam-driver", "weir"];
    let ipam = ["--subnet", "10.9.0.0/24", "--ipam-opt", "gateway=10.9.0.1"];
    docker.succeeds(&[&line[..], &ipam, &["bridged"]].concat());
    let first = docker.start_container("first", "bridged", &[]);
    docker.start_container("second", "bridged", &[]);
    let address = docker.address("second", "bridged");
    assert!(address.starts_with("10.9.0.") && address != "10.9.0.1", "{address}");
    assert!(first.reaches(&address));
    assert!(first.reaches("10.9.0.1"), "the bridge has the gateway's address");
    assert!(default_route(&first).contains("via 10.9.0.1"), "{}", default_route(&first));
    docker.remove(&["first", "second"]);
    docker.succeeds(&["network", "rm", "bridged"]);
    world.assert_nothing_allocated();
}
with_and_without_rules!(bridge_with_addresses_of_the_pools);

/// What is left of a network that is removed while another one stays.
#[test]
fn what_dockerd_said_of_networks_goes_with_them() {
    let world = one_host();
    let host = &world.hosts[0];
    let kept = || {
        // Besides, it is kept which dockerd it is.
        let networks = ["-maxdepth", "1", "-type", "f", "!", "-name", "daemon.json"];
        host.node.run(&[&["find", "/var/lib/weir/docker"][..], &networks].concat())
    };
    create_network(&host.docker, "blue", &["--subnet", "10.7.0.0/24"]);
    create_network(&host.docker, "green", &["--subnet", "10.9.0.0/24"]);
    assert_eq!(kept().lines().count(), 2, "{}", kept());
    let rights = host.node.run(&["stat", "--format", "%a", "/var/lib/weir/docker"]);
    assert_eq!(rights.trim(), "700");
    host.docker.succeeds(&["network", "rm", "blue"]);
    assert_eq!(kept().lines().count(), 1, "{}", kept());
    host.docker.succeeds(&["network", "rm", "green"]);
    until("nothing is left", || kept().is_empty());
    assert_is_clean(&world);
}

fn assert_is_clean(world: &DockerHosts) {
    world.assert_nothing_allocated();
    for host in &world.hosts {
        assert!(host.weir_links().is_empty(), "{:?}", host.weir_links());
    }
}
