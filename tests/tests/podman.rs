//! Containers that podman runs, with `network_backend = "cni"`.

use serde_json::json;
use weir_tests::{Place, Podman, Published, allocations};

const PUBLISH: [&str; 2] = ["--publish", "8080:80"];

/// Removes a container as a user does who wants it gone.
fn remove(podman: &Podman, name: &str) {
    podman.succeeds(&["rm", "--force", "--time", "0", name]);
}

/// Kills the process of a container that podman knows by this name, with SIGKILL.
fn kill(world: &Published, podman: &Podman, name: &str, process: &str) {
    let id = podman.inspect(name, process);
    world.cluster.node.run(&["kill", "-9", &id]);
}

#[test]
fn containers_reach_each_other_and_are_published() {
    let world = Published::new();
    let podman = Podman::new(&world.cluster.node);
    world.twice(|| {
        podman.start("web", "pods", &PUBLISH);
        let web = world.address();
        assert_eq!(podman.inspect("web", ".NetworkSettings.Networks.pods.IPAddress"), web);
        podman.start("db", "pods", &[]);
        let pinged = podman.succeeds(&["exec", "db", "ping", "-c1", "-W2", &web]);
        assert!(pinged.contains(&format!("64 bytes from {web}")), "{pinged}");
        world.assert_published();
        remove(&podman, "web");
        assert_ne!(world.address(), web, "db is still there");
        remove(&podman, "db");
    });
}

#[test]
fn the_runtime_is_killed() {
    let world = Published::new();
    let podman = Podman::new(&world.cluster.node);
    world.twice(|| {
        podman.start("web", "pods", &PUBLISH);
        // podman itself runs only while it is asked for something.
        kill(&world, &podman, "web", ".State.ConmonPid");
        world.assert_published();
        remove(&podman, "web");
    });
}

/// podman 4.3 calls no DEL for a namespace that it cannot enter (libpod,
/// replaceNetNS), and forgets the container.
#[test]
fn the_namespace_vanishes() {
    let world = Published::new();
    let podman = Podman::new(&world.cluster.node);
    world.twice(|| {
        podman.start("web", "pods", &PUBLISH);
        world.assert_published();
        let namespace = podman.inspect("web", ".NetworkSettings.SandboxKey");
        // Without conmon nobody notices the container's end.
        let container = podman.inspect("web", ".State.Pid");
        kill(&world, &podman, "web", ".State.ConmonPid");
        world.cluster.node.run(&["kill", "-9", &container]);
        let name = namespace.rsplit('/').next().expect("a path");
        world.cluster.node.run(&["ip", "netns", "delete", name]);
        remove(&podman, "web");
        world.until_links_are_gone();
        assert_eq!(allocations(&world.cluster.store.entries()).len(), 1);
        world.collect(json!({}));
    });
}
