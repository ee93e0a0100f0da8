//! Calls whose connection breaks, each once before the driver has heard of it and once after it
//! has done what was asked: dockerd 20.10 repeats them without their bodies.

use serde_json::json;
use weir_tests::{Answer, Docker, DockerHosts, DockerOptions, Lost, Place, Relay, until_reporting};

use crate::{create_network, usual_firewall};

/// The calls by which a container gets its interface.
const CALLS_OF_RUN: [&str; 4] = [
    "/IpamDriver.RequestAddress",
    "/NetworkDriver.CreateEndpoint",
    "/NetworkDriver.Join",
    "/NetworkDriver.ProgramExternalConnectivity",
];

/// The calls by which it goes.
const CALLS_OF_REMOVE: [&str; 4] = [
    "/NetworkDriver.RevokeExternalConnectivity",
    "/NetworkDriver.Leave",
    "/NetworkDriver.DeleteEndpoint",
    "/IpamDriver.ReleaseAddress",
];

/// A host whose driver looks for what is forgotten every second.
fn world() -> (DockerHosts, Relay) {
    let options = DockerOptions {
        firewall: usual_firewall(),
        driver: vec!["--sweep-pause", "1"],
        ..DockerOptions::default()
    };
    let world = DockerHosts::new(1, &options);
    world.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    let host = &world.hosts[0];
    let relay = Relay::before(&host.node, &host.driver.socket("weir"));
    (world, relay)
}

fn run(docker: &Docker) -> Answer {
    let line = ["run", "--detach", "--publish", "8080:80", "--network", "blue", "--name", "web"];
    docker.run(&[&line[..], &[Docker::image()]].concat())
}

#[test]
fn nothing_stays_of_a_container_at_which_a_call_was_lost() {
    let (world, relay) = world();
    let host = &world.hosts[0];
    create_network(&host.docker, "blue", &["--subnet", "10.7.0.0/24"]);
    for lost in [Lost::Call, Lost::Answer] {
        for call in CALLS_OF_RUN {
            relay.lose(call, lost);
            let ran = run(&host.docker);
            assert!(relay.has_lost(), "{call}");
            assert!(ran.stderr.contains("do again what failed"), "{call} {lost:?}: {ran:?}");
            host.docker.remove(&["web"]);
        }
        for call in CALLS_OF_REMOVE {
            // Also: what was lost before is in nobody's way.
            let ran = run(&host.docker);
            assert!(ran.succeeded, "before {call} {lost:?}: {ran:?}");
            relay.lose(call, lost);
            host.docker.remove(&["web"]);
            assert!(relay.has_lost(), "{call}");
        }
    }
    until_reporting(
        || host.weir_links().is_empty(),
        || format!("no links are left: {:?}\n{}", host.weir_links(), host.driver.log()),
    );
    world.assert_nothing_allocated();
    host.docker.succeeds(&["network", "rm", "blue"]);
}

#[test]
fn nothing_stays_of_a_network_at_which_a_call_was_lost() {
    let (world, relay) = world();
    let host = &world.hosts[0];
    let create = |name: &str| {
        let line = ["network", "create", "--driver", "weir", "--ipam-driver", "weir"];
        host.docker.run(&[&line[..], &["--subnet", "10.7.0.0/24", name]].concat())
    };
    for lost in [Lost::Call, Lost::Answer] {
        for call in ["/IpamDriver.RequestPool", "/NetworkDriver.CreateNetwork"] {
            relay.lose(call, lost);
            let created = create("blue");
            assert!(relay.has_lost(), "{call}");
            assert!(created.stderr.contains("do again what failed"), "{call}: {created:?}");
        }
        for call in ["/NetworkDriver.DeleteNetwork", "/IpamDriver.ReleasePool"] {
            let created = create("blue");
            assert!(created.succeeded, "before {call} {lost:?}: {created:?}");
            relay.lose(call, lost);
            host.docker.succeeds(&["network", "rm", "blue"]);
            assert!(relay.has_lost(), "{call}");
        }
    }
    let kept = || host.node.run(&["ls", "/var/lib/weir/docker"]);
    // But for the one that names dockerd.
    until_reporting(
        || kept().matches(".json").count() == 1,
        || format!("no file of a network is left: {}\n{}", kept(), host.driver.log()),
    );
    world.assert_nothing_allocated();
}
