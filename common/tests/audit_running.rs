//! Repairs of a node on which containers come, go, vanish and come back: no
//! container loses its address.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use support::stores::*;
use support::*;
use tokio::sync::Mutex;
use tokio::task::{LocalSet, yield_now};
use weir_common::audit::engine::{self as audit_engine, RepairRun};
use weir_common::audit::{AuditContext, ThisNode, audit};
use weir_common::ipam::{Family, IpamSnapshot, engine};
use weir_datastore::Memory;

/// What happens to a container, and how long its call dawdles before the kernel
/// has the result.
#[derive(Clone, Copy, Debug)]
enum Event {
    Add { dawdles: u8 },
    Vanish,
    Del,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0u8..12).prop_map(|dawdles| Event::Add { dawdles }),
        2 => Just(Event::Vanish),
        1 => Just(Event::Del),
    ];
    prop::collection::vec(event, 1..12)
}

/// The node: its store, its kernel, its lock and its clock.
struct Node {
    store: Memory,
    lock: Mutex<()>,
    kernel: RefCell<BTreeMap<String, IpAddr>>,
    seconds: Cell<i64>,
    adding: Cell<u32>,
}

impl Node {
    fn new() -> Rc<Self> {
        let store = Memory::new();
        pool(&store, "blue", "10.0.0.0/24", json!({"blockSize": 29}));
        let (lock, kernel) = (Mutex::default(), RefCell::default());
        Rc::new(Self { store, lock, kernel, seconds: Cell::new(0), adding: Cell::new(0) })
    }

    fn now(&self) -> Timestamp {
        now() + SignedDuration::from_secs(self.seconds.get())
    }

    /// A minute goes by; no call takes as long.
    fn wait(&self) {
        if self.adding.get() == 0 {
            self.seconds.set(self.seconds.get() + 61);
        }
    }

    fn here(&self) -> ThisNode {
        let kernel = self.kernel.borrow();
        let attachments = kernel.iter().map(|(name, address)| attached(name, "eth0", &[*address]));
        ThisNode {
            host: "n1".to_owned(),
            attachments: attachments.collect(),
            routed: kernel.values().copied().collect(),
            networks: ["net".to_owned()].into(),
            ..ThisNode::default()
        }
    }

    async fn happen(&self, container: &str, event: Event) {
        let request = request("n1", container, &[Family::V4]);
        match event {
            Event::Vanish => {
                self.kernel.borrow_mut().remove(container);
            }
            Event::Add { dawdles } => {
                self.adding.set(self.adding.get() + 1);
                let assigned = {
                    let _turn = self.lock.lock().await;
                    engine::assign(&self.store, &request, &[], self.now()).await.unwrap()
                };
                // An attachment that is there but not whole is made again.
                self.kernel.borrow_mut().remove(container);
                for _ in 0..dawdles {
                    yield_now().await;
                }
                let address = assigned.addresses[0].address;
                self.kernel.borrow_mut().insert(container.to_owned(), address);
                self.adding.set(self.adding.get() - 1);
            }
            Event::Del => {
                self.kernel.borrow_mut().remove(container);
                let _turn = self.lock.lock().await;
                engine::release(&self.store, &request.assignee, &Default::default()).await.unwrap();
            }
        }
    }

    /// One round of a repair, as `weirctl` goes through it.
    async fn repair(&self) {
        let snapshot = IpamSnapshot::list(&self.store).await.unwrap();
        let now = self.now();
        let here = self.here();
        let findings = audit(&snapshot, &AuditContext::new(Some(&here), now));
        let mut repair = RepairRun::new(&self.store, &snapshot, snapshot.revision);
        for finding in audit_engine::in_turn(findings) {
            let now = self.now();
            let _turn = self.lock.lock().await;
            let here = self.here();
            yield_now().await;
            repair.repair(&finding, &AuditContext::new(Some(&here), now)).await.unwrap();
        }
    }

    /// Every container that is attached has its address.
    async fn assert_alive(&self) {
        let kernel = self.kernel.borrow().clone();
        for (container, address) in kernel {
            let held = engine::lookup(&self.store, &assignee("n1", &container)).await.unwrap();
            assert_eq!(addresses(&held), [address], "{container}");
        }
    }
}

async fn live(lives: Vec<Vec<Event>>) {
    let node = Node::new();
    let local = LocalSet::new();
    for (number, events) in lives.into_iter().enumerate() {
        let node = Rc::clone(&node);
        local.spawn_local(async move {
            let container = format!("c{number}");
            for event in events {
                node.happen(&container, event).await;
                node.wait();
                yield_now().await;
                yield_now().await;
            }
        });
    }
    let repairs = async {
        for _ in 0..12 {
            node.repair().await;
            node.wait();
        }
    };
    local.run_until(repairs).await;
    local.await;
    node.assert_alive().await;
    node.wait();
    node.repair().await;
    node.repair().await;
    node.assert_alive().await;
    assert_consistent(&node.store);
    let held = allocations(&node.store).into_keys().collect::<Vec<_>>();
    let mut attached: Vec<_> = node.kernel.borrow().values().copied().collect();
    attached.sort();
    assert_eq!(held, attached, "what leaked is released, and nothing else");
}

proptest! {
    #[test]
    fn no_container_loses_its_address(lives in prop::collection::vec(events(), 1..5)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(live(lives));
    }
}
