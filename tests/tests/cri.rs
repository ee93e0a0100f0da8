//! Pod sandboxes of containerd's CRI service, which is what the kubelet calls.

use weir_tests::{Containerd, Cri, Place, Published, Sandbox, allocations};

const WEB: Sandbox<'_> = Sandbox { name: "web", namespace: "shop", ports: &[(8080, 80)] };
const DB: Sandbox<'_> = Sandbox { name: "db", namespace: "shop", ports: &[] };

/// The names of the network namespaces that runtimes made on the node.
fn namespaces(world: &Published) -> Vec<String> {
    let names = world.cluster.node.run(&["ls", "/run/netns"]);
    names.lines().map(str::to_owned).collect()
}

fn remove(cri: &Cri, id: &str) {
    cri.stop(id);
    cri.remove(id);
}

#[test]
fn sandboxes_reach_each_other_and_are_published() {
    let world = Published::new();
    let containerd = Containerd::start(&world.cluster.node);
    let cri = Cri::new(&containerd);
    world.twice(|| {
        let web = cri.run(&WEB);
        let address = world.address();
        assert_eq!(cri.address(&web), address);
        let [first] = &namespaces(&world)[..] else { panic!("one sandbox, one namespace") };
        let db = cri.run(&DB);
        let ping = ["ping", "-c1", "-W2"];
        let enter = ["ip", "netns", "exec", first];
        world.cluster.node.run(&[&enter[..], &ping, &[&cri.address(&db)]].concat());
        world.assert_published();
        remove(&cri, &web);
        assert_eq!(world.address(), cri.address(&db));
        // The kubelet asks again until it is sure.
        cri.stop(&db);
        remove(&cri, &db);
        cri.remove(&db);
    });
}

#[test]
fn the_pod_is_recorded() {
    let world = Published::new();
    let containerd = Containerd::start(&world.cluster.node);
    let cri = Cri::new(&containerd);
    let id = cri.run(&WEB);
    let address = world.address();
    let entries = world.cluster.store.entries();
    let handles: Vec<String> = allocations(&entries).into_values().collect();
    assert_eq!(handles, [format!("pods.{id}")]);
    let block = entries.iter().find(|(key, _)| key.contains("/assignment/ipv4/block/"));
    let (_, block) = block.expect("the address is in a block");
    let block: serde_json::Value = serde_json::from_str(block).expect("a block is JSON");
    let secondary = &block["attributes"][0]["secondary"];
    assert_eq!(secondary["namespace"], "shop", "{block}");
    assert_eq!(secondary["pod"], "web", "{block}");
    assert_eq!(secondary["node"], "n1", "{block}");
    let shown = world.cluster.weirctl(&["ipam", "show", &format!("--ip={address}")]);
    assert!(shown.succeeded, "{shown:?}");
    for line in [format!("IP {address} is in use"), "namespace:shop".into(), "pod:web".into()] {
        assert!(shown.stdout.replace(": ", ":").contains(&line), "{line}: {}", shown.stdout);
    }
    remove(&cri, &id);
    world.assert_clean();
}

#[test]
fn containerd_is_killed() {
    let world = Published::new();
    let mut containerd = Containerd::start(&world.cluster.node);
    world.twice(|| {
        let id = Cri::new(&containerd).run(&WEB);
        containerd.kill();
        world.assert_published();
        containerd.restart();
        remove(&Cri::new(&containerd), &id);
    });
}

#[test]
fn the_namespace_vanishes() {
    let world = Published::new();
    let containerd = Containerd::start(&world.cluster.node);
    let cri = Cri::new(&containerd);
    world.twice(|| {
        let id = cri.run(&WEB);
        for name in namespaces(&world) {
            world.cluster.node.run(&["ip", "netns", "delete", &name]);
        }
        remove(&cri, &id);
    });
}
