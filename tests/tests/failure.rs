//! What fails leaves the kernel and the datastore as they were, and what dies
//! half-way can be tried again.

use std::process::Command;
use std::thread;
use std::time::Instant;

use serde_json::json;
use weir_tests::{
    Answer, Call, Cluster, Container, Entries, Families, Place, Snapshot, allocations, until,
};

/// What must not change.
struct Before<'a> {
    cluster: &'a Cluster,
    container: &'a Container,
    node: Snapshot,
    inside: Snapshot,
    entries: Entries,
}

impl<'a> Before<'a> {
    fn new(cluster: &'a Cluster, container: &'a Container) -> Self {
        let (node, inside) = (Snapshot::of(&cluster.node), Snapshot::of(container));
        Self { cluster, container, node, inside, entries: cluster.store.entries() }
    }

    /// Kernel and allocations are as before. Blocks that were claimed for the
    /// node may stay: they hold no address.
    fn assert_unchanged(&self) {
        self.node.assert_unchanged(&Snapshot::of(&self.cluster.node));
        self.inside.assert_unchanged(&Snapshot::of(self.container));
        let entries = self.cluster.store.entries();
        assert_eq!(allocations(&self.entries), allocations(&entries));
        weir_tests::assert_consistent(&entries);
    }
}

/// A container beside the one that fails, so that the node is set up and there
/// is something to be spared.
fn neighbour(cluster: &Cluster) -> Container {
    let container = cluster.node.container("neighbour");
    cluster.weir(Families::Dual, &container).add(&cluster.node);
    until_links_are_whole(cluster);
    container
}

/// Waits for the IPv6 routes that the kernel makes for each container's link a moment
/// after ADD: a snapshot would see them appear.
fn until_links_are_whole(cluster: &Cluster) {
    let local = ["ip", "-6", "route", "show", "table", "local"];
    let links = cluster.interfaces();
    let links = links.iter().filter(|name| name.starts_with("weir")).count();
    let own = || cluster.node.run(&local).matches("fe80::ecee:eeff:feee:eeee dev").count();
    until("each link has an IPv6 address of its own", || own() == links);
}

#[test]
fn the_ipam_plugin_is_not_there() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    neighbour(&cluster);
    let container = cluster.node.container("web");
    let before = Before::new(&cluster, &container);
    let call = cluster.weir(Families::Dual, &container).configure("/ipam/type", "nowhere".into());
    let failure = call.run(&cluster.node, "ADD").failure();
    assert!(failure.text.contains("nowhere") && failure.text.contains("CNI_PATH"), "{failure:?}");
    before.assert_unchanged();
    assert_eq!(before.entries, cluster.store.entries());
}

#[test]
fn the_ipam_plugin_fails() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    neighbour(&cluster);
    let container = cluster.node.container("web");
    let before = Before::new(&cluster, &container);
    let call = cluster.weir(Families::Dual, &container);
    let call = call.configure("/ipam/ipv6_pools", json!(["missing"]));
    call.run(&cluster.node, "ADD").failure().expect(7, &["missing"]);
    before.assert_unchanged();
    assert_eq!(before.entries, cluster.store.entries());
}

/// Every system call of a kind that weir makes in one ADD fails in turn: those
/// that speak to the kernel over netlink, and those that write kernel parameters
/// and to the IPAM plugin.
#[test]
fn any_system_call_fails() {
    for (cluster, call) in [
        (Cluster::embedded(), "sendto"),
        (Cluster::embedded(), "write"),
        (Cluster::etcd(), "sendto"),
    ] {
        let cluster = cluster.with_pools(Families::Dual);
        neighbour(&cluster);
        let container = cluster.node.container("web");
        let mut refused = 0;
        for number in 1.. {
            let before = Before::new(&cluster, &container);
            let (answer, injected) = add_failing(&cluster, &container, call, number);
            if answer.succeeded {
                cluster.weir(Families::Dual, &container).delete(&cluster.node);
            } else {
                refused += 1;
            }
            before.assert_unchanged();
            if !injected {
                assert!(answer.succeeded, "{answer:?}");
                break;
            }
        }
        assert!(refused >= 8, "{refused} failures of {call}");
    }
}

/// An ADD in which the system call `name` fails the `number`th time that weir
/// makes it, and whether it came to that.
fn add_failing(
    cluster: &Cluster,
    container: &Container,
    name: &str,
    number: usize,
) -> (Answer, bool) {
    let call = cluster.weir(Families::Dual, container).with("CNI_COMMAND", "ADD");
    let plugin = call.command();
    let mut command = Command::new("/usr/bin/strace");
    let inject = format!("inject={name}:error=EIO:when={number}");
    command.args(["-qq", "-o", "/run/strace", "-e", &inject]).arg(plugin.get_program());
    command.env_clear().envs(plugin.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = cluster.node.output(&mut command, &call.configuration().to_string());
    (Answer::of(&output), cluster.node.read("/run/strace").contains("(INJECTED)"))
}

#[test]
fn the_kernel_refuses_a_setting() {
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::Dual);
        neighbour(&cluster);
        let container = cluster.node.container("web");
        let before = Before::new(&cluster, &container);
        cluster.node.run(&["mount", "--bind", "/proc/sys", "/proc/sys"]);
        cluster.node.run(&["mount", "-o", "remount,bind,ro", "/proc/sys"]);
        let call = cluster.weir(Families::Dual, &container);
        let failure = call.run(&cluster.node, "ADD").failure();
        assert!(failure.text.contains("net/ipv"), "{failure:?}");
        cluster.node.run(&["umount", "/proc/sys"]);
        before.assert_unchanged();
        call.add(&cluster.node);
    }
}

/// The kernel takes IPv6 off a link below 1280 bytes: that is found before anything is
/// done, and the message says where the MTU is from.
#[test]
fn the_mtu_is_too_small_for_ipv6() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    neighbour(&cluster);
    let node = &cluster.node;
    let container = node.container("web");
    let call = cluster.weir(Families::Dual, &container).configure("/cniVersion", "1.1.0".into());
    let refused = |call: &Call, words: &[&str]| {
        let before = Before::new(&cluster, &container);
        let words = [&["1280", "assign_ipv6"], words].concat();
        call.run(node, "ADD").failure().expect(7, &words);
        call.run(node, "STATUS").failure().expect(50, &words);
        before.assert_unchanged();
    };
    refused(&call.clone().configure("/mtu", 600.into()), &["mtu 600", "configuration"]);
    let uplink = |mtu: &str| node.run(&["ip", "link", "set", "eth0", "mtu", mtu]);
    uplink("1270");
    // What the last ADD found on the uplink does not count any more.
    refused(&call, &["mtu 1270", "uplink"]);
    uplink("1290");
    cluster.create_pool("tunnels", json!({"cidr": "10.8.0.0/24", "ipipMode": "Always"}));
    let first = node.container("first");
    cluster.weir(Families::V4, &first).add(node);
    assert_eq!(first.link("eth0")["mtu"], 1270);
    refused(&call, &["mtu 1270", "uplink", "IPIP 20", "ipipMode"]);
    uplink("1500");
    call.add(node);
    assert_eq!(container.link("eth0")["mtu"], 1480);
}

#[test]
fn etcd_is_gone() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    call.add(&cluster.node);
    until_links_are_whole(&cluster);
    let other = cluster.node.container("other");
    let (node, inside) = (Snapshot::of(&cluster.node), Snapshot::of(&other));
    let Cluster { node: host, store } = cluster;
    drop(store);
    let refused = Call::clone(&call).container(&other).run(&host, "ADD").failure();
    refused.expect(11, &["127.0.0.1:2379"]);
    node.assert_unchanged(&Snapshot::of(&host));
    inside.assert_unchanged(&Snapshot::of(&other));
    // The links go at once; the runtime is told to come back for the rest.
    call.run(&host, "DEL").failure().expect(11, &["127.0.0.1:2379"]);
    assert!(!container.succeeds(&["ip", "link", "show", "eth0"]));
    let again = weir_tests::Etcd::start(&host);
    assert_eq!(allocations(&again.entries()).len(), 1);
    call.delete(&host);
    assert!(allocations(&again.entries()).is_empty());
}

#[test]
fn the_store_is_being_moved() {
    let key = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
    let information = |ready: bool| {
        json!({
            "kind": "ClusterInformation",
            "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "default"},
            "spec": {"datastoreReady": ready},
        })
    };
    for cluster in [Cluster::embedded(), Cluster::etcd()] {
        let cluster = cluster.with_pools(Families::V4);
        let call = cluster.ipam(Families::V4, "web");
        call.add(&cluster.node);
        cluster.store.put(key, &information(false));
        let before = cluster.store.entries();
        let other = cluster.ipam(Families::V4, "other");
        other.run(&cluster.node, "ADD").failure().expect(11, &["datastoreReady"]);
        call.run(&cluster.node, "DEL").failure().expect(11, &["datastoreReady"]);
        assert_eq!(before, cluster.store.entries());
        cluster.store.put(key, &information(true));
        call.delete(&cluster.node);
        cluster.assert_nothing_allocated();
    }
}

/// In how many rounds an ADD is killed, each time at a later point.
const KILLS: u32 = 24;

#[test]
fn a_killed_add_can_be_repeated_or_deleted() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let node = &cluster.node;
    let begin = Instant::now();
    neighbour(&cluster);
    let whole = begin.elapsed();
    let before = (cluster.interfaces(), allocations(&cluster.store.entries()));
    for round in 0..KILLS {
        let container = node.container(&format!("web{round}"));
        let call = cluster.weir(Families::Dual, &container);
        let running = call.start(node, "ADD");
        // Not to wait for anything: to die at another point in each round.
        thread::sleep(whole * round / KILLS);
        running.kill();
        if round % 2 == 0 {
            let result = call.add(node);
            call.check(node, &result).silence();
        }
        call.delete(node);
        let after = (cluster.interfaces(), allocations(&cluster.store.entries()));
        assert_eq!(before, after, "round {round}");
        weir_tests::assert_consistent(&cluster.store.entries());
    }
}
