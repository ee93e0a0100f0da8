//! Two calls on one attachment at the same moment, some of them killed: afterwards the
//! kernel and the store agree, and the next call finds nothing in its way.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::json;
use weir_tests::{
    Answer, Call, Cluster, Container, Families, Moments, Place, address, allocations,
    assert_consistent, rounds,
};

/// How many pairs of ADDs there are on each store, in short and in long.
const ADDS: [usize; 2] = [150, 500];
/// How many pairs with a DEL or a GC, likewise.
const OTHERS: [usize; 2] = [50, 150];
/// How far apart the calls of a pair begin at the most.
const APART: Duration = Duration::from_millis(7);
/// How long after the second one's begin one of them is killed at the most.
const KILLED_WITHIN: Duration = Duration::from_millis(12);
/// How many containers there are besides.
const NEIGHBOURS: usize = 3;

/// A node whose containers take turns in being the one that pairs of calls are about.
struct World {
    cluster: Cluster,
    containers: Vec<Container>,
    moments: Moments,
}

/// What became of a pair.
struct Pair {
    answers: [Answer; 2],
    /// Whether one of them was killed before it came to its end.
    killed: bool,
}

impl World {
    fn new(cluster: Cluster, seed: u64) -> Self {
        let cluster = cluster.with_pools(Families::V4);
        let container = |number| cluster.node.container(&format!("c{number}"));
        let containers = (0..=NEIGHBOURS).map(container).collect();
        let world = Self { cluster, containers, moments: Moments::new(seed) };
        world.containers[1..]
            .iter()
            .for_each(|container| drop(world.call(container).add(world.node())));
        world
    }

    fn node(&self) -> &weir_tests::Node {
        &self.cluster.node
    }

    fn call(&self, container: &Container) -> Call {
        self.cluster.weir(Families::V4, container)
    }

    /// GC by a runtime that holds all but the first container.
    fn collection(&self) -> Call {
        let name = |it: &Container| json!({"containerID": it.name(), "ifname": "eth0"});
        let list: Vec<_> = self.containers[1..].iter().map(name).collect();
        Call::new("weir", self.cluster.configuration(Families::V4))
            .configure("/cniVersion", "1.1.0".into())
            .configure("/cni.dev~1valid-attachments", list.into())
    }

    /// Begins an ADD of the first container and another call, in any order, and kills one
    /// of them in every second round.
    fn pair(&mut self, round: usize, other: &Call, command: &str) -> Pair {
        let add = (self.call(&self.containers[0]), "ADD");
        let mut calls = [add, (other.clone(), command)];
        if self.moments.below(2) == 1 {
            calls.reverse();
        }
        let first = calls[0].0.start(self.node(), calls[0].1);
        // Not to wait for anything: to meet at another point each time.
        thread::sleep(self.moments.within(APART));
        let second = calls[1].0.start(self.node(), calls[1].1);
        if round.is_multiple_of(2) {
            return Pair { answers: [first.finish(), second.finish()], killed: false };
        }
        thread::sleep(self.moments.within(KILLED_WITHIN));
        let (victim, survivor) =
            if self.moments.below(2) == 0 { (first, second) } else { (second, first) };
        let victim = victim.kill();
        let killed = victim.status.is_none();
        Pair { answers: [victim, survivor.finish()], killed }
    }

    /// The addresses that the node routes to a container.
    fn routed(&self, container: &Container) -> BTreeSet<IpAddr> {
        let alias = format!("weir:pods:{}:eth0", container.name());
        let links = self.node().run(&["ip", "-j", "link", "show"]);
        let links: serde_json::Value = serde_json::from_str(&links).expect("ip prints JSON");
        let mut links = links.as_array().expect("a list").iter();
        let Some(link) = links.find(|link| link["ifalias"] == alias.as_str()) else {
            return BTreeSet::new();
        };
        let name = link["ifname"].as_str().expect("a link has a name");
        let routes = self.node().run(&["ip", "-4", "route", "show", "dev", name]);
        let addresses = routes.lines().filter_map(|line| line.split_whitespace().next());
        addresses.map(|address| address.parse().expect("an address")).collect()
    }

    /// Every address that the kernel has is its attachment's in the store; the other way
    /// round too, unless a call was `killed`.
    fn assert_agreement(&self, killed: bool, what: &str) {
        let entries = self.cluster.store.entries();
        assert_consistent(&entries);
        let allocations = allocations(&entries);
        for container in &self.containers {
            let handle = format!("pods.{}", container.name());
            let of_handle = allocations.iter().filter(|(_, holder)| **holder == handle);
            let allocated: BTreeSet<IpAddr> = of_handle.map(|(address, _)| *address).collect();
            let routed = self.routed(container);
            assert!(
                routed.is_subset(&allocated) && (killed || routed == allocated),
                "{what}: {handle} has {routed:?} in the kernel and {allocated:?} in the store"
            );
            assert!(allocated.len() <= 1, "{what}: {handle} has {allocated:?}");
        }
    }

    /// The next ADD works, and so does the next DEL.
    fn assert_usable(&self) {
        let call = self.call(&self.containers[0]);
        let result = call.add(self.node());
        assert!(self.node().reaches(address(&result, 0)));
        self.assert_agreement(false, "after the next ADD");
        call.delete(self.node());
    }

    fn finish(self) {
        self.containers.iter().for_each(|container| self.call(container).delete(self.node()));
        self.cluster.assert_nothing_allocated();
        assert_eq!(self.cluster.interfaces(), ["lo", "eth0"]);
    }
}

/// The second ADD waits for the first and answers like it.
fn two_adds(cluster: Cluster) {
    let mut world = World::new(cluster, 0x5eed_0011);
    let add = world.call(&world.containers[0]);
    for round in 0..rounds(ADDS[0], ADDS[1]) {
        let Pair { answers, killed } = world.pair(round, &add, "ADD");
        let what = format!("round {round}: {answers:?}");
        if !killed {
            assert_eq!(answers[0].result(), answers[1].result(), "{what}");
        }
        // The survivor has done it all, whatever the other one left.
        let result = answers[1].result();
        let routed = world.routed(&world.containers[0]);
        assert_eq!(routed, [address(&result, 0).parse().expect("an address")].into(), "{what}");
        if round.is_multiple_of(10) {
            world.assert_agreement(false, &what);
            world.assert_usable();
        } else {
            add.delete(world.node());
        }
    }
    world.finish();
}

fn with_another(cluster: Cluster, seed: u64, command: &str) {
    let mut world = World::new(cluster, seed);
    let other = match command {
        "GC" => world.collection(),
        _ => world.call(&world.containers[0]),
    };
    for round in 0..rounds(OTHERS[0], OTHERS[1]) {
        let Pair { answers, killed } = world.pair(round, &other, command);
        let what = format!("round {round}: {answers:?}");
        assert!(answers[1].succeeded, "{what}");
        world.assert_agreement(killed, &what);
        world.assert_usable();
    }
    world.finish();
}

#[test]
fn two_adds_on_the_embedded_store() {
    two_adds(Cluster::embedded());
}

#[test]
fn two_adds_on_etcd() {
    two_adds(Cluster::etcd());
}

#[test]
fn an_add_and_a_del_on_the_embedded_store() {
    with_another(Cluster::embedded(), 0x5eed_0012, "DEL");
}

#[test]
fn an_add_and_a_del_on_etcd() {
    with_another(Cluster::etcd(), 0x5eed_0013, "DEL");
}

#[test]
fn an_add_and_a_collection_on_the_embedded_store() {
    with_another(Cluster::embedded(), 0x5eed_0014, "GC");
}

#[test]
fn an_add_and_a_collection_on_etcd() {
    with_another(Cluster::etcd(), 0x5eed_0015, "GC");
}
