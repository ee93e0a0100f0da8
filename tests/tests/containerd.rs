//! Containers that containerd runs, by `ctr run --cni`.

use std::process::Child;

use serde_json::{Value, json};
use weir_tests::{Answer, Containerd, Place, Published};

/// ctr cannot be asked to publish a port, so the list has it, while `web` starts.
fn publishing() -> Value {
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    json!({"runtimeConfig": {"portMappings": ports}})
}

fn start_web(world: &Published, containerd: &Containerd) -> (Child, String) {
    world.write_list(publishing());
    let ctr = containerd.run("web");
    world.write_list(json!({}));
    (ctr, world.address())
}

/// Ends a container's program and waits for its ctr, which then removes the network:
/// always without the namespace, which went with the container.
fn stop(containerd: &Containerd, name: &str, mut ctr: Child) {
    kill(containerd, name);
    ctr.wait().expect("waiting for a child");
    containerd.forget(name);
}

fn kill(containerd: &Containerd, name: &str) {
    let killed = containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", name]);
    assert!(killed.succeeded, "{killed:?}");
}

fn ping(containerd: &Containerd, from: &str, to: &str) -> Answer {
    let ping = ["/bin/ping", "-c1", "-W2", to];
    containerd.ctr(&[&["tasks", "exec", "--exec-id", "ping", from][..], &ping].concat())
}

#[test]
fn containers_reach_each_other_and_are_published() {
    let world = Published::new();
    let containerd = Containerd::start(&world.cluster.node);
    world.twice(|| {
        let (web, web_address) = start_web(&world, &containerd);
        let db = containerd.run("db");
        let pinged = ping(&containerd, "db", &web_address);
        assert!(pinged.succeeded, "{pinged:?}");
        assert!(pinged.stdout.contains(&format!("64 bytes from {web_address}")), "{pinged:?}");
        world.assert_published();
        stop(&containerd, "web", web);
        assert_ne!(world.address(), web_address, "db is still there");
        stop(&containerd, "db", db);
    });
}

#[test]
fn containerd_is_killed() {
    let world = Published::new();
    let mut containerd = Containerd::start(&world.cluster.node);
    world.twice(|| {
        let (mut ctr, _) = start_web(&world, &containerd);
        world.assert_published();
        containerd.kill();
        // ctr gives up, and removes a network whose container still runs.
        ctr.wait().expect("waiting for a child");
        world.assert_clean();
        containerd.restart();
        kill(&containerd, "web");
        containerd.forget("web");
    });
}

#[test]
fn ctr_is_killed() {
    let world = Published::new();
    let containerd = Containerd::start(&world.cluster.node);
    world.twice(|| {
        let (mut ctr, address) = start_web(&world, &containerd);
        ctr.kill().expect("killing a child");
        ctr.wait().expect("waiting for a child");
        assert!(world.cluster.node.reaches(&address), "the container goes on");
        kill(&containerd, "web");
        containerd.forget("web");
        // Nobody is left to call DEL. The link went with the container's namespace.
        world.until_links_are_gone();
        assert_eq!(world.address(), address);
        // portmap removes what the list, or the cache, says that it published.
        world.collect(publishing());
    });
}
