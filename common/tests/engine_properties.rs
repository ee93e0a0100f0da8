//! The engine under random operations, hosts, conflicts and crashes, against a
//! simple model: which attachment has which addresses. Hosts use each other's
//! container ids.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::json;
use support::faults::now_and_then_a_fault;
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::{Assignee, Error, Family, engine};
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

#[derive(Clone, Debug)]
enum Operation {
    Add { host: u8, container: u8 },
    Del { host: u8, container: u8 },
}

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    /// What goes wrong with which commit of the operation.
    fault: Option<(u64, CommitFault)>,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0u8..4, 0u8..12).prop_map(|(host, container)| Operation::Add { host, container }),
        2 => (0u8..4, 0u8..12).prop_map(|(host, container)| Operation::Del { host, container }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (operation(), now_and_then_a_fault()).prop_map(|(operation, fault)| Step { operation, fault })
}

/// A small cluster: 16 addresses in blocks of four, so that it fills up,
/// borrows and refuses.
fn cluster(strict: bool) -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/28", json!({"blockSize": 30}));
    pool(&store, "six", "fd00::/120", json!({"blockSize": 124}));
    let config = json!({"strict_affinity": strict, "auto_allocate_blocks": true});
    put(&store, keys::IPAM_CONFIG.to_owned(), config);
    store
}

const V4: &[Family] = &[Family::V4];

/// Every second container is dual stack.
fn families(container: u8) -> &'static [Family] {
    if container.is_multiple_of(2) { &[Family::V4, Family::V6] } else { &[Family::V4] }
}

/// What is known of an attachment: its addresses, or that an operation on it
/// failed and left one of two states.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    Has(Vec<IpAddr>),
    Uncertain,
}

#[derive(Default)]
struct Model {
    attachments: BTreeMap<Attachment, Known>,
}

/// Host and container.
type Attachment = (u8, u8);

fn assignee_of((host, container): Attachment) -> Assignee {
    assignee(&format!("n{host}"), &container.to_string())
}

impl Model {
    fn added(&mut self, attachment: Attachment, got: Vec<IpAddr>) {
        for (other, known) in &self.attachments {
            if let Known::Has(addresses) = known {
                let twice = addresses.iter().find(|address| got.contains(address));
                assert!(*other == attachment || twice.is_none(), "{twice:?} twice");
            }
        }
        if let Some(Known::Has(before)) = self.attachments.get(&attachment) {
            assert!(
                before.iter().all(|address| got.contains(address)),
                "{before:?} became {got:?}"
            );
        }
        self.attachments.insert(attachment, Known::Has(got));
    }

    /// The store holds what the model says, and of uncertain attachments
    /// anything.
    fn assert_matches(&self, store: &Memory) {
        let mut left: BTreeSet<IpAddr> = allocations(store).into_keys().collect();
        let blocks = blocks(store);
        for (attachment, known) in &self.attachments {
            let assignee = assignee_of(*attachment);
            let mut held = BTreeSet::new();
            for block in &blocks {
                let ordinals = block.held_by(|holder| assignee.has(holder, None));
                held.extend(ordinals.into_iter().map(|ordinal| block.address(ordinal)));
            }
            if let Known::Has(addresses) = known {
                assert!(addresses.iter().all(|address| held.contains(address)));
            }
            left.retain(|address| !held.contains(address));
        }
        assert!(left.is_empty(), "leaked: {left:?}");
    }
}

async fn perform(store: &Memory, model: &mut Model, step: &Step) {
    let process = store.another_process();
    if let Some((nth, fault)) = step.fault {
        process.fail_commit(nth, fault);
    }
    match &step.operation {
        Operation::Add { host, container } => {
            let request =
                request(&format!("n{host}"), &container.to_string(), families(*container));
            match assign(&process, &request).await {
                Ok(got) => model.added((*host, *container), got),
                Err(Error::Exhausted { .. }) => {}
                Err(Error::Datastore(_)) => {
                    model.attachments.insert((*host, *container), Known::Uncertain);
                }
                Err(error) => panic!("{error}"),
            }
        }
        Operation::Del { host, container } => {
            let attachment = (*host, *container);
            match engine::release(&process, &assignee_of(attachment), &Default::default()).await {
                Ok(_) => {
                    model.attachments.remove(&attachment);
                }
                Err(Error::Datastore(_)) => {
                    model.attachments.insert(attachment, Known::Uncertain);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn release_all(store: &Memory) {
    for attachment in (0..4).flat_map(|host| (0..12).map(move |container| (host, container))) {
        engine::release(store, &assignee_of(attachment), &Default::default()).await.unwrap();
    }
    assert_eq!(allocations(store), BTreeMap::new());
    assert!(!store.dump().keys().any(|key| key.starts_with(keys::HANDLES)));
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(future);
}

proptest! {
    #[test]
    fn one_after_another(steps in prop::collection::vec(step(), 1..60), strict: bool) {
        run(async {
            let store = cluster(strict);
            let mut model = Model::default();
            for step in &steps {
                perform(&store, &mut model, step).await;
                assert_consistent(&store);
                model.assert_matches(&store);
            }
            release_all(&store).await;
            assert_consistent(&store);
        });
    }

    #[test]
    fn nobody_gets_what_another_has(
        adds in prop::collection::vec((0u8..4, prop::option::of(1u64..3)), 2..20),
        strict: bool,
    ) {
        run(async {
            let store = cluster(strict);
            let assigning = adds.iter().enumerate().map(|(container, (host, conflict))| {
                let process = store.another_process();
                if let Some(nth) = conflict {
                    process.fail_commit(*nth, CommitFault::Conflict);
                }
                let request = request(&format!("n{host}"), &container.to_string(), V4);
                async move { assign(&process, &request).await.ok() }
            });
            let mut given: Vec<IpAddr> =
                futures_util::future::join_all(assigning).await.into_iter().flatten().flatten().collect();
            let count = given.len();
            given.sort();
            given.dedup();
            assert_eq!(given.len(), count, "an address twice");
            let held: Vec<IpAddr> = allocations(&store).into_keys().collect();
            assert_eq!(given, held);
            assert_consistent(&store);
        });
    }

    #[test]
    fn at_the_same_time(steps in prop::collection::vec(step(), 2..24), strict: bool) {
        run(async {
            let store = cluster(strict);
            let local = tokio::task::LocalSet::new();
            for step in steps {
                let store = store.clone();
                local.spawn_local(async move {
                    perform(&store, &mut Model::default(), &step).await;
                });
            }
            local.await;
            assert_consistent(&store);
            release_all(&store).await;
            assert_consistent(&store);
        });
    }
}
