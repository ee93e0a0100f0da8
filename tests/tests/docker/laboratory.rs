//! The laboratory itself, with Docker's own bridge.

use weir_tests::{Docker, Firewall, Network, Place};

use crate::{assert_serves, fetch};

#[test]
fn containers_of_dockers_own_bridge_work() {
    let network = Network::new();
    let node = network.node(1);
    let mut docker = Docker::start(&node, Firewall::Dockers, &[]);
    let web = docker.start_container("web", "bridge", &["--publish", "8080:80"]);
    let address = docker.address("web", "bridge");
    let db = docker.start_container("db", "bridge", &["--restart", "always"]);
    assert!(db.reaches(&address));
    assert!(web.reaches("172.30.0.1"));
    assert_serves(network.router(), "172.30.0.11", 8080, "from outside");
    docker.kill();
    docker.restart();
    assert!(docker.container("db").reaches("172.30.0.1"));
    docker.remove(&["web", "db"]);
    assert!(fetch(network.router(), "172.30.0.11", 8080).is_err());
}
