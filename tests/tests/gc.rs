//! GC: what belongs to no attachment that lives goes, of this network and this
//! host alone, and everything else stays.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};
use weir_tests::{
    Answer, Call, Cluster, CniTool, Container, Families, Node, Place, Snapshot, address,
    allocations, assert_consistent, binaries, cni_path, find_program, handles, host_interface,
};

fn stores() -> [Cluster; 2] {
    [Cluster::embedded(), Cluster::etcd()]
}

/// GC, as libcni asks for it: without container, namespace and interface.
fn collect(cluster: &Cluster, call: &Call) -> Answer {
    let call = call.clone().configure("/cniVersion", "1.1.0".into());
    let nothing = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = nothing.iter().fold(call, |call, variable| call.with(variable, ""));
    call.run(&cluster.node, "GC")
}

/// The same call with these containers, each with its `eth0`, as those that live.
fn listing(call: &Call, containers: &[&str]) -> Call {
    let attachment = |id: &&str| json!({"containerID": id, "ifname": "eth0"});
    let list: Vec<Value> = containers.iter().map(attachment).collect();
    call.clone()
        .configure("/cni.dev~1valid-attachments", list.clone().into())
        .configure("/cni.dev~1attachments", list.into())
}

fn held(cluster: &Cluster) -> BTreeSet<String> {
    let entries = cluster.store.entries();
    assert_consistent(&entries);
    handles(&entries)
}

fn names(handles: &[&str]) -> BTreeSet<String> {
    handles.iter().map(|&handle| handle.to_owned()).collect()
}

/// A node with containers `a`, `b` and `c` in network `pods`, one in network
/// `other`, and an address of another host.
struct World {
    cluster: Cluster,
    containers: Vec<Container>,
    results: Vec<Value>,
    call: Call,
}

impl World {
    fn new(cluster: Cluster) -> Self {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "natOutgoing": true}));
        cluster.create_pool("blue-v6", json!({"cidr": "fd00:7::/112"}));
        let ids = ["a", "b", "c", "stranger"];
        let containers: Vec<_> = ids.iter().map(|id| cluster.node.container(id)).collect();
        let results = containers.iter().zip(ids).map(|(container, id)| {
            let network = if id == "stranger" { "other" } else { "pods" };
            let call = cluster.weir(Families::Dual, container);
            call.configure("/name", network.into()).add(&cluster.node)
        });
        let results = results.collect();
        elsewhere(&cluster, "far").add(&cluster.node);
        let call = cluster.weir(Families::Dual, &containers[0]);
        Self { cluster, containers, results, call }
    }

    /// These containers of `pods` are as they were added, and of the others of
    /// that network nothing is left; the other network and the other host have all
    /// they had.
    fn assert_alive(&self, alive: &[&str]) {
        let mut expected = names(&["other.stranger", "pods.far"]);
        expected.extend(alive.iter().map(|id| format!("pods.{id}")));
        assert_eq!(held(&self.cluster), expected);
        let mut links = BTreeSet::from(["lo".to_owned(), "eth0".to_owned()]);
        for (container, result) in self.containers.iter().zip(&self.results) {
            let lives = alive.contains(&container.name()) || container.name() == "stranger";
            assert_eq!(container.succeeds(&["ip", "link", "show", "eth0"]), lives);
            if lives {
                links.insert(host_interface(result).to_owned());
                assert!([0, 1].iter().all(|&ip| self.cluster.node.reaches(address(result, ip))));
            }
            let routed = self.cluster.node.run(&["ip", "route", "show", address(result, 0)]);
            assert_eq!(!routed.is_empty(), lives, "{routed}");
        }
        assert_eq!(self.cluster.interfaces().into_iter().collect::<BTreeSet<_>>(), links);
    }

    fn has_nat(&self) -> bool {
        self.cluster.node.succeeds(&["nft", "list", "table", "inet", "weir"])
    }
}

/// The lock under which the node is changed, its NAT too.
const NODE_LOCK: &str = "/run/weir/node-state.lock";

#[test]
fn nat_stays_for_a_container_that_came_meanwhile() {
    let cluster = Cluster::embedded();
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "natOutgoing": true}));
    let node = &cluster.node;
    let (first, second) = (node.container("first"), node.container("second"));
    let call = cluster.weir(Families::V4, &first);
    let has_nat = || node.run(&["nft", "list", "ruleset"]).contains("masquerade");
    call.add(node);
    let in_gc = listing(&call, &[])
        .configure("/cniVersion", "1.1.0".into())
        .configure("/name", "pods".into());
    // The GC has seen that no container is left when one of another network comes, which
    // takes its address from elsewhere and so does not look at NAT.
    let lock = node.lock(NODE_LOCK);
    let gc = in_gc.start(node, "GC");
    lock.wait_for_another();
    let ipam = json!({"type": "static", "addresses": [{"address": "10.7.0.9/24"}]});
    let other = cluster.weir(Families::V4, &second).configure("/name", "other".into());
    let other = other.configure("/ipam", ipam);
    other.add(node);
    drop(lock);
    gc.finish().silence();
    assert!(has_nat(), "a container is attached");
    other.delete(node);
    in_gc.run(node, "GC").silence();
    assert!(!has_nat(), "no container is left");
    // An ADD looks at NAT when no GC is about to remove it.
    let lock = node.lock(NODE_LOCK);
    let add = call.start(node, "ADD");
    lock.wait_for_another();
    assert!(!has_nat());
    drop(lock);
    add.finish().result();
    assert!(has_nat());
}

/// `weir-ipam` on another host, `n2`.
fn elsewhere(cluster: &Cluster, id: &str) -> Call {
    cluster
        .ipam(Families::V4, id)
        .configure("/nodename", "n2".into())
        .configure("/ipam_lock_file", "/run/n2.lock".into())
}

#[test]
fn what_is_not_listed_goes() {
    for cluster in stores() {
        let world = World::new(cluster);
        collect(&world.cluster, &listing(&world.call, &["a", "b", "c"])).silence();
        world.assert_alive(&["a", "b", "c"]);
        let again = listing(&world.call, &["b", "unheard-of"]);
        collect(&world.cluster, &again).silence();
        world.assert_alive(&["b"]);
        let before = (Snapshot::of(&world.cluster.node), world.cluster.store.entries());
        collect(&world.cluster, &again).silence();
        before.0.assert_unchanged(&Snapshot::of(&world.cluster.node));
        assert_eq!(before.1, world.cluster.store.entries());
        let b = world.call.clone().container(&world.containers[1]);
        b.check(&world.cluster.node, &world.results[1]).silence();
        // Who was dropped can be deleted, and added again.
        let a = world.call.clone().container(&world.containers[0]);
        a.delete(&world.cluster.node);
        a.add(&world.cluster.node);
    }
}

#[test]
fn an_empty_list_drops_all_of_this_network_on_this_host() {
    for cluster in stores() {
        let world = World::new(cluster);
        collect(&world.cluster, &listing(&world.call, &[])).silence();
        world.assert_alive(&[]);
        assert!(world.has_nat(), "the other network's container needs it");
        let other = listing(&world.call, &[]).configure("/name", "other".into());
        collect(&world.cluster, &other).silence();
        assert!(!world.has_nat(), "no container is left");
        assert_eq!(world.cluster.interfaces(), ["lo", "eth0"]);
        assert_eq!(held(&world.cluster), names(&["pods.far"]));
        collect(&world.cluster, &listing(&elsewhere(&world.cluster, "x"), &[])).silence();
        world.cluster.assert_nothing_allocated();
    }
}

/// What is listed with another interface is another attachment.
#[test]
fn each_interface_of_a_container_counts_by_itself() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::V4);
        let call = cluster.ipam(Families::V4, "web");
        call.add(&cluster.node);
        let second = call.clone().with("CNI_IFNAME", "net1");
        let result = second.add(&cluster.node);
        let list = json!([{"containerID": "web", "ifname": "net1"}]);
        collect(&cluster, &call.configure("/cni.dev~1valid-attachments", list)).silence();
        assert_eq!(held(&cluster), names(&["pods.web"]));
        let left = allocations(&cluster.store.entries());
        let kept: IpAddr = address(&result, 0).parse().expect("an address");
        assert_eq!(left.into_keys().collect::<Vec<_>>(), [kept]);
    }
}

#[test]
fn half_made_links_go() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (web, half) = (cluster.node.container("web"), cluster.node.container("half"));
    let kept = host_interface(&cluster.weir(Families::V4, &web).add(&cluster.node)).to_owned();
    let call = cluster.weir(Families::V4, &half);
    let left = host_interface(&call.add(&cluster.node)).to_owned();
    // Of another network, and living: somebody took its alias.
    let other = cluster.node.container("other");
    let living = cluster.weir(Families::V4, &other).configure("/name", "others".into());
    let living = host_interface(&living.add(&cluster.node)).to_owned();
    cluster.node.run(&["ip", "link", "set", &living, "alias", ""]);
    for link in [&kept, &left] {
        unfinish(&cluster, link);
    }
    collect(&cluster, &listing(&call, &["web"])).silence();
    assert_eq!(cluster.interfaces(), ["lo", "eth0", kept.as_str(), living.as_str()]);
    assert_eq!(held(&cluster), names(&["others.other", "pods.web"]));
}

/// Makes a container's link as an ADD leaves it that was killed after its first request.
fn unfinish(cluster: &Cluster, link: &str) {
    cluster.node.run(&["ip", "link", "set", link, "alias", ""]);
    cluster.node.run(&["ip", "route", "flush", "dev", link]);
}

#[test]
fn without_a_list_half_made_links_go_with_their_addresses() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let (web, half) = (cluster.node.container("web"), cluster.node.container("half"));
    let kept = host_interface(&cluster.weir(Families::V4, &web).add(&cluster.node)).to_owned();
    let call = cluster.weir(Families::V4, &half);
    let left = host_interface(&call.add(&cluster.node)).to_owned();
    // A living container's, whose alias somebody removed.
    cluster.node.run(&["ip", "link", "set", &kept, "alias", ""]);
    unfinish(&cluster, &left);
    cluster.age_allocations();
    collect(&cluster, &call).silence();
    assert_eq!(cluster.interfaces(), ["lo", "eth0", kept.as_str()]);
    assert_eq!(held(&cluster), names(&["pods.web"]));
}

#[test]
fn without_a_list_only_what_is_provably_dead_goes() {
    for cluster in stores() {
        let world = World::new(cluster);
        let cluster = &world.cluster;
        collect(cluster, &world.call).silence();
        world.assert_alive(&["a", "b", "c"]);
        // Lost their links, just now: an ADD may be at it.
        for index in [1, 2] {
            let link = host_interface(&world.results[index]);
            cluster.node.run(&["ip", "link", "delete", link]);
        }
        collect(cluster, &world.call).silence();
        let all = ["other.stranger", "pods.a", "pods.b", "pods.c", "pods.far"];
        assert_eq!(held(cluster), names(&all));
        cluster.age_allocations();
        // Under a main plugin whose links Weir does not know this proves nothing.
        collect(cluster, &cluster.ipam(Families::V4, "x").configure("/type", "ptp".into()))
            .silence();
        assert_eq!(held(cluster), names(&all));
        collect(cluster, &world.call).silence();
        world.assert_alive(&["a"]);
    }
}

#[test]
fn without_a_list_what_an_earlier_boot_left_goes() {
    for cluster in stores() {
        let world = World::new(cluster);
        world.cluster.node.reboot("00000000-0000-4000-8000-000000000002");
        collect(&world.cluster, &world.call).silence();
        // far's host is another one, which was not restarted.
        assert_eq!(held(&world.cluster), names(&["other.stranger", "pods.far"]));
    }
}

#[test]
fn what_cannot_be_removed_does_not_keep_the_rest() {
    for cluster in stores() {
        let world = World::new(cluster);
        let block = "/calico/ipam/v2/assignment/ipv4/block/10.7.0.192-26";
        let handle = "/calico/ipam/v2/handle/pods.b";
        let whole = world.cluster.store.entries()[handle].clone();
        world.cluster.store.put(block, &json!({"cidr": "nonsense"}));
        world.cluster.store.put(handle, &json!({"block": "nonsense"}));
        let call = listing(&world.call, &[]);
        let failure = collect(&world.cluster, &call).failure();
        for named in [block, handle] {
            assert!(failure.text.contains(named), "{failure:?}");
        }
        let left = handles(&world.cluster.store.entries());
        assert_eq!(left, names(&["other.stranger", "pods.b", "pods.far"]));
        assert_eq!(world.cluster.interfaces().len(), 3, "the links are gone");
        world.cluster.store.put(handle, &serde_json::from_str(&whole).expect("JSON"));
        let failure = collect(&world.cluster, &call).failure();
        assert!(failure.text.contains(block) && !failure.text.contains(handle), "{failure:?}");
        assert!(!handles(&world.cluster.store.entries()).contains("pods.b"));
    }
}

/// Links go though the IPAM plugin or its datastore is not there, and the error says
/// what was.
#[test]
fn each_side_goes_on_without_the_other() {
    let world = World::new(Cluster::etcd());
    let missing = listing(&world.call, &["a"]).configure("/ipam/type", "nowhere".into());
    collect(&world.cluster, &missing).failure().expect(7, &["nowhere", "CNI_PATH"]);
    assert_eq!(world.cluster.interfaces().len(), 4, "{:?}", world.cluster.interfaces());
    let World { cluster, call, .. } = world;
    let Cluster { node, store } = cluster;
    drop(store);
    let gone = Cluster::embedded_on(node);
    let failure = collect(&gone, &listing(&call, &[])).failure();
    failure.expect(11, &["127.0.0.1:2379"]);
    assert_eq!(gone.interfaces().len(), 3);
}

/// An address whose link is left is not given to anybody else.
#[test]
fn a_link_that_cannot_be_removed_keeps_its_addresses() {
    for cluster in stores() {
        let world = World::new(cluster);
        world.cluster.ipam(Families::V4, "lost").add(&world.cluster.node);
        let link = host_interface(&world.results[1]).to_owned();
        let list = listing(&world.call, &["a"]);
        let powerless = Call::at(
            powerless(&world.cluster.node, "weir"),
            list.configuration().clone(),
            &cni_path(),
        );
        let failure = collect(&world.cluster, &powerless).failure();
        failure.expect(105, &[&format!("ip link delete {link}")]);
        let all = ["other.stranger", "pods.a", "pods.b", "pods.c", "pods.far"];
        assert_eq!(held(&world.cluster), names(&all), "what has no link is given back");
        world.assert_alive(&["a", "b", "c"]);
        collect(&world.cluster, &list).silence();
        world.assert_alive(&["a"]);
    }
}

/// A program that becomes this plugin of Weir's, which may then change nothing in the
/// kernel's network.
fn powerless(node: &Node, plugin: &str) -> PathBuf {
    let path = PathBuf::from(format!("/run/powerless-{plugin}"));
    let script = format!(
        "#!/bin/sh\nexec {} --bounding-set -net_admin --inh-caps -net_admin {}\n",
        find_program("setpriv").display(),
        binaries().join(plugin).display(),
    );
    node.write(path.to_str().expect("a path in UTF-8"), &script);
    node.run(&["chmod", "+x", path.to_str().expect("a path in UTF-8")]);
    path
}

#[test]
fn a_list_that_cannot_be_read_drops_nothing() {
    let world = World::new(Cluster::embedded());
    for wrong in
        [json!({}), json!("a"), json!([{"containerID": "a"}]), json!([3]), json!([["a", "eth0"]])]
    {
        let call = world.call.clone().configure("/cni.dev~1valid-attachments", wrong);
        collect(&world.cluster, &call).failure().expect(6, &["cni.dev/valid-attachments"]);
    }
    world.assert_alive(&["a", "b", "c"]);
}

/// The name that the specification gave up is not obeyed alone: an empty list under it
/// would take all of the network away.
#[test]
fn a_list_under_the_old_name_alone_is_none() {
    let world = World::new(Cluster::embedded());
    for list in [json!([]), Value::Null] {
        let call = world.call.clone().configure("/cni.dev~1attachments", list);
        collect(&world.cluster, &call).silence();
    }
    world.assert_alive(&["a", "b", "c"]);
}

/// cnitool has its own containers deleted, sends no list, and so leaves those of
/// another runtime.
#[test]
fn cnitool_collects() {
    for cluster in stores() {
        let cluster = cluster.with_pools(Families::V4);
        let plugin = cluster.plugin(Families::V4);
        let list = json!({"cniVersion": "1.1.0", "name": "pods", "plugins": [plugin]});
        let tool = CniTool::new(&cluster.node, &list);
        let (own, foreign) = (cluster.node.container("own"), cluster.node.container("foreign"));
        tool.add(&own);
        let result = cluster.weir(Families::V4, &foreign).add(&cluster.node);
        cluster.ipam(Families::V4, "lost").add(&cluster.node);
        cluster.age_allocations();
        tool.run("gc", &own).silence();
        assert_eq!(held(&cluster), names(&["pods.foreign"]));
        assert_eq!(cluster.interfaces(), ["lo", "eth0", host_interface(&result)]);
        assert!(cluster.node.reaches(address(&result, 0)));
    }
}
