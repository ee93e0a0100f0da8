//! WorkloadEndpoints for programs that read them, and a dockerd that does not answer.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Docker, DockerHosts, DockerOptions, Node, Place, until};

use crate::create_network;

/// A socket on which nothing is ever answered.
const HUNG: &str = "/run/hung.sock";

const WORKLOADS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/libnetwork/";

fn workloads(world: &DockerHosts) -> Vec<Value> {
    let entries = world.store.entries();
    let ours = entries.iter().filter(|(key, _)| key.starts_with(WORKLOADS));
    ours.map(|(_, value)| serde_json::from_str(value).expect("JSON")).collect()
}

fn labelling(driver: Vec<&'static str>) -> DockerHosts {
    let environment = vec![("CALICO_LIBNETWORK_LABEL_ENDPOINTS", "true")];
    let options = DockerOptions { driver, environment, ..DockerOptions::default() };
    let world = DockerHosts::new(1, &options);
    world.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    world
}

#[test]
fn labels_of_containers_are_those_of_endpoints() {
    let world = labelling(Vec::new());
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    let labels = ["--label", "org.projectcalico.label.role=web", "--label", "other=1"];
    docker.start_container("web", "blue", &labels);
    docker.start_container("plain", "blue", &[]);
    let address = docker.address("web", "blue");
    let networks = json!([format!("{address}/32")]);
    let of_web = || workloads(&world).into_iter().find(|it| it["spec"]["ipNetworks"] == networks);
    until("the labels are there", || {
        of_web().is_some_and(|it| it["metadata"]["labels"] == json!({"role": "web"}))
    });
    assert_eq!(workloads(&world).len(), 2);
    let written = of_web().expect("it is there");
    let id = docker.inspect("web", "(index .NetworkSettings.Networks \"blue\").EndpointID");
    assert_eq!(written["metadata"]["name"], format!("n1-libnetwork-libnetwork-{id}"));
    assert_eq!(written["metadata"]["namespace"], "libnetwork");
    assert_eq!(written["spec"]["node"], "n1");
    let link = written["spec"]["interfaceName"].as_str().expect("a link's name");
    assert!(world.hosts[0].weir_links().iter().any(|it| it == link), "{link}");
    let mac = docker.inspect("web", "(index .NetworkSettings.Networks \"blue\").MacAddress");
    assert_eq!(written["spec"]["mac"], mac);
    docker.remove(&["web", "plain"]);
    until("they go with their containers", || workloads(&world).is_empty());
    world.assert_nothing_allocated();
}

/// A driver that asked dockerd while dockerd asks it would hang with it.
#[test]
fn a_dockerd_that_does_not_answer_the_driver_holds_nothing_up() {
    let mut world = labelling(vec!["--docker-socket", HUNG]);
    let node: Node = world.hosts[0].node.clone();
    let hung = node.enter(|| UnixListener::bind(HUNG)).expect("a socket");
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("web", "blue", &["--restart", "always"]);
    let begin = Instant::now();
    docker.succeeds(&["run", "--rm", "--network", "blue", Docker::image(), "echo"]);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let docker = &mut world.hosts[0].docker;
    docker.kill();
    let begin = Instant::now();
    docker.restart();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    until("the container is back", || docker.succeeds(&["ps", "--format", "{{.Names}}"]) == "web");
    assert!(docker.container("web").reaches("172.30.0.11"));
    assert_eq!(workloads(&world).len(), 1, "written, if without labels");
    world.hosts[0].docker.remove(&["web"]);
    world.assert_nothing_allocated();
    assert!(workloads(&world).is_empty());
    drop(hung);
}

#[test]
fn without_being_asked_for_nothing_is_written() {
    let world = crate::one_host();
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("web", "blue", &["--label", "org.projectcalico.label.role=web"]);
    assert!(workloads(&world).is_empty());
    docker.remove(&["web"]);
}
