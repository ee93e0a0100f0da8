//! `weirctl ipam check` on a node with containers: what the kernel has is
//! compared with the store, and mended.

use weir_tests::{
    Answer, Cluster, CniTool, Container, Families, Place, address, allocations, assert_consistent,
};

/// A node with two containers of both families.
struct World {
    cluster: Cluster,
    tool: CniTool,
    containers: [Container; 2],
    addresses: [[String; 2]; 2],
}

impl World {
    fn new(cluster: Cluster) -> Self {
        let cluster = cluster.with_pools(Families::Dual);
        let tool = CniTool::new(&cluster.node, &cluster.list(cluster.plugin(Families::Dual)));
        let containers = ["web", "db"].map(|name| cluster.node.container(name));
        let addresses = containers.each_ref().map(|container| {
            let result = tool.add(container);
            [0, 1].map(|index| address(&result, index).to_owned())
        });
        Self { cluster, tool, containers, addresses }
    }

    fn check(&self, more: &[&str]) -> Answer {
        self.cluster.weirctl(&[&["ipam", "check"], more].concat())
    }

    fn assert_healthy(&self, interfaces: usize) {
        let answer = self.check(&[]);
        assert!(answer.succeeded, "{answer:?}");
        let compared = format!("at {interfaces} containers' interfaces on node n1");
        assert!(answer.stdout.contains(&compared), "{answer:?}");
        assert!(answer.stdout.ends_with("found 0 problems.\n"), "{answer:?}");
        assert_consistent(&self.cluster.store.entries());
    }

    fn assert_found(&self, kind: &str) {
        let answer = self.check(&[]);
        assert!(!answer.succeeded && answer.stdout.contains(kind), "{answer:?}");
        assert!(answer.stderr.contains("weirctl ipam check --repair"), "{answer:?}");
    }
}

/// A container whose address was given to nobody gets it back; one that went
/// without a DEL loses it; the other is not touched.
fn what_kernel_and_store_disagree_on_is_mended(cluster: Cluster) {
    let world = World::new(cluster);
    world.assert_healthy(2);
    let lost = &world.addresses[0][0];
    let answer = world.cluster.weirctl(&["ipam", "release", &format!("--ip={lost}")]);
    assert!(answer.succeeded, "{answer:?}");
    world.assert_found("attachment-without-address");
    assert!(world.check(&["--repair"]).succeeded);
    world.tool.check(&world.containers[0]);
    world.assert_healthy(2);

    let listing = world.cluster.node.run(&["ip", "-o", "route", "show", &world.addresses[1][0]]);
    let link = listing.split_whitespace().skip_while(|word| *word != "dev").nth(1);
    world.cluster.node.run(&["ip", "link", "delete", link.expect("a link")]);
    // Its ADD might still be going on.
    world.assert_healthy(1);
    world.cluster.age_allocations();
    world.assert_found("address-without-attachment");
    assert!(world.check(&["--repair"]).succeeded);
    world.assert_healthy(1);
    let left: Vec<String> =
        allocations(&world.cluster.store.entries()).keys().map(ToString::to_string).collect();
    assert_eq!(left, world.addresses[0]);
    world.tool.check(&world.containers[0]);
    assert!(world.containers[0].reaches("172.30.0.11"));
}

/// While a repair waits for its turn, a container comes back: it keeps its
/// address.
fn a_container_that_comes_back_keeps_its_address(cluster: Cluster) {
    let world = World::new(cluster);
    let node = &world.cluster.node;
    let listing = node.run(&["ip", "-o", "route", "show", &world.addresses[1][0]]);
    let link = listing.split_whitespace().skip_while(|word| *word != "dev").nth(1);
    let link = link.expect("a link").to_owned();
    let alias = node.link(&link)["ifalias"].as_str().expect("an alias").to_owned();
    node.run(&["ip", "link", "delete", &link]);
    world.cluster.age_allocations();
    world.assert_found("address-without-attachment");
    let before = world.cluster.store.entries();

    let lock = node.lock("/run/weir/ipam.lock");
    std::thread::scope(|scope| {
        let repair = scope.spawn(|| world.check(&["--repair"]));
        lock.wait_for_another();
        assert!(!repair.is_finished());
        node.run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "peer0"]);
        node.run(&["ip", "link", "set", &link, "alias", &alias]);
        drop(lock);
        let answer = repair.join().expect("it ends");
        assert!(answer.succeeded && answer.stdout.contains("gone by itself"), "{answer:?}");
    });
    assert_eq!(world.cluster.store.entries(), before);
}

#[test]
fn a_container_that_comes_back_embedded() {
    a_container_that_comes_back_keeps_its_address(Cluster::embedded());
}

#[test]
fn a_container_that_comes_back_etcd() {
    a_container_that_comes_back_keeps_its_address(Cluster::etcd());
}

/// The same etcd by another name, and a directory without the network's file.
#[test]
fn a_datastore_is_the_same_however_it_is_spelt() {
    let world = World::new(Cluster::etcd());
    let lost = &world.addresses[0][0];
    assert!(world.cluster.weirctl(&["ipam", "release", &format!("--ip={lost}")]).succeeded);
    for endpoints in ["http://127.0.0.1:2379/", "http://localhost:2379"] {
        let answer = world.check(&["--etcd-endpoints", endpoints]);
        assert!(!answer.succeeded, "{answer:?}");
        assert!(answer.stdout.contains("[attachment-without-address]"), "{answer:?}");
        assert!(answer.stdout.contains("at 2 containers' interfaces on node n1"), "{answer:?}");
        assert!(!answer.stdout.contains("Not judged"), "{answer:?}");
    }
    // In another directory the network's file is not found.
    let answer = world.check(&["--cni-directory", "/run/none"]);
    assert!(answer.stdout.contains("at 0 containers' interfaces"), "{answer:?}");
    let hint =
        "no file in /run/none describes it; name the runtime's directory with --cni-directory";
    assert!(answer.stdout.contains(hint), "{answer:?}");
    let report = world.check(&["--cni-directory", "/run/none", "-o", "json"]).stdout;
    assert!(report.contains("\"notJudged\"") && report.contains(hint), "{report}");
}

/// What is in another datastore, or in one that does not answer, is not judged, and that
/// is said.
#[test]
fn what_cannot_be_judged_is_said() {
    let world = World::new(Cluster::etcd());
    for (endpoints, says) in [
        ("http://127.0.0.1:4", "(http://127.0.0.1:4) holds the cluster in use cannot be judged"),
        ("", "it names another datastore (/var/lib/weir/weir.db)"),
    ] {
        let mut plugin = world.cluster.plugin(Families::Dual);
        plugin["datastore_type"] = if endpoints.is_empty() { "embedded" } else { "etcdv3" }.into();
        plugin["etcd_endpoints"] = (!endpoints.is_empty()).then_some(endpoints).into();
        let list = world.cluster.list(plugin).to_string();
        world.cluster.node.write("/run/elsewhere/10-pods.conflist", &list);
        let answer = world.check(&["--cni-directory", "/run/elsewhere"]);
        assert!(answer.succeeded, "{answer:?}");
        assert!(answer.stdout.contains("at 0 containers' interfaces"), "{answer:?}");
        let not_judged = "Not judged: address-without-attachment and attachment-without-address \
                          for network pods of /run/elsewhere/10-pods.conflist: ";
        assert!(answer.stdout.contains(not_judged), "{answer:?}");
        assert!(answer.stdout.contains(says), "{answer:?}");
    }
}

#[test]
fn embedded() {
    what_kernel_and_store_disagree_on_is_mended(Cluster::embedded());
}

#[test]
fn etcd() {
    what_kernel_and_store_disagree_on_is_mended(Cluster::etcd());
}
