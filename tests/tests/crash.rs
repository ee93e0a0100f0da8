//! Plugins killed at random moments, while others are at work: after one GC, with
//! what the runtime holds, nothing is leaked and nothing was handed out twice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{
    Call, Cluster, Container, Families, Moments, Place, Snapshot, address, allocations,
    assert_consistent, handles, host_interface,
};

/// How many calls are killed before they came to their end.
const KILLS: usize = 100;
/// How many may be begun for that: some end before they can be killed.
const ROUNDS: usize = 3 * KILLS;
/// How many runtimes add and delete meanwhile.
const WORKERS: usize = 3;
/// What the moments are drawn from.
const SEED: u64 = 0x5eed_0006;

/// What the runtimes of a node hold.
#[derive(Default)]
struct Held {
    /// Results by the containers' names.
    attachments: BTreeMap<String, Value>,
    addresses: BTreeSet<IpAddr>,
}

impl Held {
    fn note(&mut self, container: &Container, result: Value) {
        for address in addresses(&result) {
            assert!(self.addresses.insert(address), "{address} was handed out twice");
        }
        self.attachments.insert(container.name().to_owned(), result);
    }

    /// Forgets a container before it is deleted.
    fn forget(&mut self, container: &Container) {
        let result = self.attachments.remove(container.name()).expect("it is held");
        for address in addresses(&result) {
            self.addresses.remove(&address);
        }
    }
}

fn addresses(result: &Value) -> impl Iterator<Item = IpAddr> {
    [0, 1].map(|index| address(result, index).parse().expect("an address")).into_iter()
}

struct World {
    cluster: Cluster,
    held: Mutex<Held>,
    /// How long an ADD and a DEL take here, by who is asked.
    usual: Duration,
    /// The node once it has had a container and been tidied up.
    idle: Snapshot,
}

/// GC with this list of what lives.
fn collect(cluster: &Cluster, list: Value) {
    let call = cluster.ipam(Families::Dual, "").configure("/type", "weir".into());
    let main = Call::new("weir", call.configuration().clone());
    main.configure("/cniVersion", "1.1.0".into())
        .configure("/cni.dev~1valid-attachments", list)
        .run(&cluster.node, "GC")
        .silence();
}

fn has_nat(cluster: &Cluster) -> bool {
    cluster.node.run(&["nft", "list", "ruleset"]).contains("masquerade")
}

impl World {
    fn new(cluster: Cluster) -> Self {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/20", "natOutgoing": true}));
        cluster.create_pool("blue-v6", json!({"cidr": "fd00:7::/112"}));
        let first = cluster.node.container("first");
        let call = cluster.weir(Families::Dual, &first);
        call.add(&cluster.node);
        call.delete(&cluster.node);
        collect(&cluster, json!([]));
        let idle = Snapshot::of(&cluster.node);
        assert!(!has_nat(&cluster), "no container is left");
        let begin = Instant::now();
        let result = call.add(&cluster.node);
        let usual = begin.elapsed();
        let mut held = Held::default();
        held.note(&first, result);
        Self { cluster, held: Mutex::new(held), usual, idle }
    }

    fn call(&self, container: &Container) -> Call {
        self.cluster.weir(Families::Dual, container)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().expect("no other thread has panicked")
    }

    fn add(&self, container: &Container) {
        let result = self.call(container).add(&self.cluster.node);
        self.held().note(container, result);
    }

    /// Adds and deletes until it is told to stop; one container stays.
    fn work(&self, container: &Container, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.add(container);
            self.held().forget(container);
            self.call(container).delete(&self.cluster.node);
        }
        self.add(container);
    }

    /// Runs `rounds` while others work.
    fn under_load(&self, rounds: impl FnOnce()) {
        let stop = AtomicBool::new(false);
        let containers: Vec<_> = (0..WORKERS)
            .map(|number| self.cluster.node.container(&format!("worker{number}")))
            .collect();
        thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| self.work(container, &stop));
            }
            // Workers end also when a round panics.
            let _stop = StopOnDrop(&stop);
            rounds();
        });
    }

    /// One GC makes the node and the store hold what the runtimes do, and no more.
    fn assert_one_collection_is_enough(&self) {
        let held = self.held();
        let attachment = |id: &String| json!({"containerID": id, "ifname": "eth0"});
        let list: Vec<Value> = held.attachments.keys().map(attachment).collect();
        collect(&self.cluster, list.into());
        assert!(has_nat(&self.cluster), "containers of a pool with NAT live");
        let entries = self.cluster.store.entries();
        assert_consistent(&entries);
        let recorded: BTreeSet<IpAddr> = allocations(&entries).into_keys().collect();
        assert_eq!(recorded, held.addresses, "what is allocated (left), what runtimes hold");
        let alive: BTreeSet<String> =
            held.attachments.keys().map(|id| format!("pods.{id}")).collect();
        assert_eq!(handles(&entries), alive);
        let links = held.attachments.values().map(|result| host_interface(result).to_owned());
        let expected = links.chain(["lo", "eth0"].map(str::to_owned)).collect();
        let found: BTreeSet<String> = self.cluster.interfaces().into_iter().collect();
        assert_eq!(found, expected, "links there (left), links of what runtimes hold");
        for result in held.attachments.values() {
            assert!(
                addresses(result).all(|address| self.cluster.node.reaches(&address.to_string()))
            );
        }
        collect(&self.cluster, json!([]));
        self.cluster.assert_nothing_allocated();
        assert_eq!(self.cluster.interfaces(), ["lo", "eth0"]);
        // It has more blocks than it had, and keeps them.
        let blocks = [r#""type":"blackhole""#];
        let after = Snapshot::of(&self.cluster.node).without(&blocks);
        self.idle.without(&blocks).assert_unchanged(&after);
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Begins calls and kills them, [`KILLS`] times.
fn kill_many(world: &World, command: &str) {
    let (mut moments, mut kills) = (Moments::new(SEED), 0);
    // Shorter after a call that was done before, longer after one that was not: as many as are
    // needed die, however busy the machine is.
    let mut longest = 2 * world.usual;
    for round in 0..ROUNDS {
        if kills == KILLS {
            break;
        }
        let container = world.cluster.node.container(&format!("victim{round}"));
        if command == "DEL" {
            world.add(&container);
            world.held().forget(&container);
        }
        let running = world.call(&container).start(&world.cluster.node, command);
        // Not to wait for anything: to die at another point each time.
        thread::sleep(moments.within(longest));
        let answer = running.kill();
        if answer.status.is_none() {
            kills += 1;
            longest = longest * 21 / 20;
            continue;
        }
        longest = longest * 9 / 10;
        if command == "ADD" {
            world.held().note(&container, answer.result());
        }
    }
    assert_eq!(kills, KILLS);
}

fn killed_at_any_moment(cluster: Cluster, command: &str) {
    let world = World::new(cluster);
    world.under_load(|| kill_many(&world, command));
    world.assert_one_collection_is_enough();
}

#[test]
fn adds_on_the_embedded_store() {
    killed_at_any_moment(Cluster::embedded(), "ADD");
}

#[test]
fn adds_on_etcd() {
    killed_at_any_moment(Cluster::etcd(), "ADD");
}

#[test]
fn deletes_on_the_embedded_store() {
    killed_at_any_moment(Cluster::embedded(), "DEL");
}

#[test]
fn deletes_on_etcd() {
    killed_at_any_moment(Cluster::etcd(), "DEL");
}
