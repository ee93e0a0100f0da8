//! Many ADDs of one node at once.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::{Call, Cluster, Families, Node, Place};

use crate::operations::{EMBEDDED, ETCD, REFERENCE, reference_configuration};
use crate::run;
use crate::samples::{Table, in_turn};

/// How many ADDs there are in one round.
const CALLS: usize = 100;
/// How many of them are under way at any moment.
const AT_ONCE: usize = 10;
/// How much faster than the reference Weir is to be.
const TARGET: f64 = 3.5;

/// One plugin on a node of its own, with a call for each container.
struct Subject {
    name: &'static str,
    node: Node,
    calls: Vec<Call>,
    /// Kept, because its datastore goes with it.
    _cluster: Option<Cluster>,
}

impl Subject {
    fn reference() -> Self {
        let node = Node::new("n1");
        let call = Call::reference("ptp", reference_configuration());
        Self { name: REFERENCE, calls: calls(&node, &call), node, _cluster: None }
    }

    fn weir(name: &'static str, cluster: Cluster) -> Self {
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/16"}));
        let node = cluster.node.clone();
        let call = Call::new("weir", cluster.configuration(Families::V4));
        Self { name, calls: calls(&node, &call), node, _cluster: Some(cluster) }
    }

    /// Adds all containers, and returns how long that took.
    fn add_all(&self) -> Duration {
        let ready = Barrier::new(AT_ONCE + 1);
        thread::scope(|scope| {
            let workers: Vec<_> = self
                .calls
                .chunks(CALLS / AT_ONCE)
                .map(|calls| {
                    let ready = &ready;
                    scope.spawn(move || {
                        self.node.join();
                        self.node.join_processes();
                        ready.wait();
                        calls.iter().for_each(add);
                    })
                })
                .collect();
            ready.wait();
            let begin = Instant::now();
            for worker in workers {
                worker.join().expect("all ADDs succeed");
            }
            begin.elapsed()
        })
    }
}

fn calls(node: &Node, call: &Call) -> Vec<Call> {
    let container = |number| node.container(&format!("c{number}"));
    (0..CALLS).map(|number| call.clone().container(&container(number))).collect()
}

fn add(call: &Call) {
    let input = call.configuration().to_string();
    let (_, answer) = run(&mut call.clone().with("CNI_COMMAND", "ADD").command(), &input);
    assert!(answer.succeeded, "ADD failed: {answer:?}");
}

/// Measures all subjects in turn.
pub fn measure(rounds: usize) -> Table {
    let subjects = [
        Subject::reference(),
        Subject::weir(EMBEDDED, Cluster::embedded()),
        Subject::weir(ETCD, Cluster::etcd()),
    ];
    let mut table = Table::default();
    for round in 0..rounds {
        for subject in in_turn(&subjects, round) {
            table.add(subject.name, subject.add_all());
            subject.calls.iter().for_each(|call| call.delete(&subject.node));
        }
    }
    for name in [EMBEDDED, ETCD] {
        table.compare_rate(name, REFERENCE, TARGET);
    }
    table
}
