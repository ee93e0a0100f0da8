//! Docker's addresses: they wait for an endpoint, become its, and are given back.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::json;
use support::faults::now_and_then_a_fault;
use support::stores::{check, delete, node};
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::docker::{
    self, ATTRIBUTE_DOCKER_NETWORK, ATTRIBUTE_MAC, EndpointFacts, HandOverBarrier, NotReleased,
    Waiting, WaitingPlace, WantedAddress, hand_over,
};
use weir_common::ipam::{Allocation, Assignee, Error, Family, FoundAddress, MachineId, engine};
use weir_common::link::MacAddress;
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;

const MAC: MacAddress = MacAddress([2, 0x42, 10, 9, 0, 1]);
const OTHER: MacAddress = MacAddress([2, 0x42, 10, 9, 0, 2]);

fn cluster() -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/28", json!({"blockSize": 30}));
    pool(&store, "six", "fd00::/120", json!({"blockSize": 124}));
    node(&store, "n1");
    node(&store, "n2");
    store
}

/// A request as RequestAddress makes it.
fn waiting(host: &str, mac: MacAddress, family: Family) -> Request {
    Request {
        assignee: docker::waiting(host, mac, 1),
        facts: BTreeMap::from([(ATTRIBUTE_MAC.to_owned(), mac.to_string())]),
        wants: vec![Want::Any { family, pools: vec![] }],
        gateways: vec![],
        within: None,
    }
}

/// What an endpoint with this hardware address in network `net` tells.
fn facts(mac: MacAddress) -> EndpointFacts<'static> {
    EndpointFacts { network: "net", mac, now: now() }
}

/// The addresses of both families that wait under [`MAC`].
async fn both(store: &Memory) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for family in [Family::V4, Family::V6] {
        addresses.extend(assign(store, &waiting("n1", MAC, family)).await.unwrap());
    }
    addresses
}

async fn barrier(store: &Memory, to: &Assignee, address: IpAddr) -> HandOverBarrier {
    match hand_over(store, to, &[address], facts(MAC)).await {
        Err(Error::NotHandedOver { address: named, barrier }) if named == address => barrier,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_waits_becomes_the_endpoints_in_one_transaction_and_once() {
    let store = cluster();
    let waits = both(&store).await;
    let to = docker::endpoint("n1", "e1");
    let before = store.dump();
    // A conflict and a lost answer change nothing of that.
    store.fail_commit(1, CommitFault::Conflict);
    let later = now() + jiff::SignedDuration::from_secs(59);
    let since = EndpointFacts { now: later, ..facts(MAC) };
    let handed = hand_over(&store, &to, &waits, since).await.unwrap();
    assert_eq!(addresses(&handed), waits);
    let after = store.dump();
    assert!(before.contains_key(&keys::handle("docker.02420a090001")));
    assert!(!after.contains_key(&keys::handle("docker.02420a090001")));
    assert!(after.contains_key(&keys::handle("docker.e1")));
    for address in &waits {
        let found = FoundAddress::find(&store, *address).await.unwrap().unwrap();
        let holder = found.holder().unwrap();
        assert!(to.has(holder, None), "{holder:?}");
        let made = Allocation::read(&found.block.value, found.ordinal).unwrap().made;
        assert_eq!(made, Some(later), "it is the endpoint's since then");
        assert_eq!(holder.fact(ATTRIBUTE_DOCKER_NETWORK), Some("net"));
        assert_eq!(holder.fact(ATTRIBUTE_MAC), Some("02:42:0a:09:00:01"));
    }
    assert_eq!(check(&store, None).await, []);
    // dockerd repeats the call.
    assert_eq!(hand_over(&store, &to, &waits, facts(MAC)).await.unwrap(), handed);
    assert_eq!(store.dump(), after);
    // The hardware address is free for another address.
    let more = both(&store).await;
    assert!(more.iter().all(|address| !waits.contains(address)), "{more:?}");
}

#[tokio::test]
async fn what_does_not_wait_here_is_refused_and_all_stays() {
    let store = cluster();
    let waits = both(&store).await;
    let container = assign(&store, &request("n1", "c", &[Family::V4])).await.unwrap()[0];
    let elsewhere = assign(&store, &waiting("n2", MAC, Family::V4)).await;
    let elsewhere = elsewhere.unwrap()[0];
    let gateway: IpAddr = "10.0.0.14".parse().unwrap();
    let kept = Request {
        assignee: docker::of_network("n1", gateway),
        wants: vec![Want::Exactly(gateway)],
        ..request("n1", "", &[])
    };
    assign(&store, &kept).await.unwrap();
    let to = docker::endpoint("n1", "e1");
    let before = store.dump();
    let free: IpAddr = "192.0.2.1".parse().unwrap();
    assert_eq!(barrier(&store, &to, free).await, HandOverBarrier::NotAssigned);
    assert!(matches!(barrier(&store, &to, container).await, HandOverBarrier::NotDockers(_)));
    assert!(matches!(barrier(&store, &to, elsewhere).await, HandOverBarrier::OfOtherNode(_)));
    assert_eq!(barrier(&store, &to, gateway).await, HandOverBarrier::OfNetwork);
    let other_machine = to.clone().on(Some(MachineId::from_source("other")));
    put(&store, keys::machine("n1"), json!({"machine": MachineId::from_source("own")}));
    assert!(matches!(
        barrier(&store, &other_machine, waits[0]).await,
        HandOverBarrier::OfOtherNode(_)
    ));
    delete(&store, keys::machine("n1")).await;
    // One that cannot be had keeps the others.
    let refused = hand_over(&store, &to, &[waits[0], container], facts(MAC)).await;
    assert!(matches!(refused, Err(Error::NotHandedOver { .. })), "{refused:?}");
    assert_eq!(store.dump(), before);
    hand_over(&store, &to, &waits, facts(MAC)).await.unwrap();
    let other = docker::endpoint("n1", "e2");
    assert!(matches!(barrier(&store, &other, waits[0]).await, HandOverBarrier::OfOtherEndpoint(_)));
    // It waits for a container with another hardware address, or is one's that bridge wires.
    for assignee in [docker::waiting("n1", OTHER, 1), docker::wired_by_another("n1", MAC, now())] {
        let request = Request { assignee, ..waiting("n1", OTHER, Family::V4) };
        let address = assign(&store, &request).await.unwrap()[0];
        let refused = barrier(&store, &other, address).await;
        assert!(matches!(refused, HandOverBarrier::OfOtherEndpoint(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_address_is_given_back_by_itself_and_only_where_it_is_docker_s_here() {
    let store = cluster();
    let own = MachineId::from_source("own");
    let here = |machine: Option<&MachineId>| ("n1", machine.cloned());
    let give_back = async |host: (&str, Option<MachineId>), address: IpAddr| {
        docker::release(&store, (host.0, host.1.as_ref()), address, async |_| false).await.unwrap()
    };
    let waits = both(&store).await;
    let to = docker::endpoint("n1", "e1");
    hand_over(&store, &to, &waits, facts(MAC)).await.unwrap();
    let container = assign(&store, &request("n1", "c", &[Family::V4])).await.unwrap()[0];
    let before = store.dump();
    let of_another = |handle: &str| Err(NotReleased::OfAnother(Some(handle.to_owned())));
    assert_eq!(give_back(here(None), container).await, of_another("net.c"));
    assert_eq!(give_back(("n2", None), waits[0]).await, of_another("docker.e1"));
    let free = "192.0.2.1".parse().unwrap();
    assert_eq!(give_back(here(None), free).await, Err(NotReleased::NotInUse));
    let kept = docker::release(&store, ("n1", None), waits[0], async |id| id == "docker.e1").await;
    assert_eq!(kept.unwrap(), Err(NotReleased::Kept("docker.e1".to_owned())));
    assert_eq!(store.dump(), before);
    // The name is another machine's by now.
    put(&store, keys::machine("n1"), json!({"machine": MachineId::from_source("other")}));
    assert_eq!(give_back(here(Some(&own)), waits[0]).await, of_another("docker.e1"));
    delete(&store, keys::machine("n1")).await;
    store.fail_commit(1, CommitFault::Conflict);
    assert_eq!(give_back(here(None), waits[0]).await, Ok(()));
    assert_eq!(give_back(here(None), waits[0]).await, Err(NotReleased::NotInUse));
    assert!(FoundAddress::find(&store, waits[1]).await.unwrap().is_some(), "the other family's");
    assert_eq!(give_back(here(None), waits[1]).await, Ok(()));
    assert!(!store.dump().contains_key(&keys::handle("docker.e1")));
    assert_eq!(check(&store, None).await, []);
}

/// dockerd names the same hardware address when it repeats a call, and when two containers have
/// one.
#[tokio::test]
async fn a_repeated_request_finds_what_waits_and_another_one_does_not() {
    let store = cluster();
    let read = async || Waiting::read(&store, ("n1", None), MAC).await.unwrap();
    let ranges = ["10.0.0.0/28", "10.1.0.0/28"].map(|text| text.parse().unwrap());
    let any = |ranges| WantedAddress::Any { family: Family::V4, ranges };
    assert_eq!(read().await.place(any(&[]), now()), Some(WaitingPlace::New(1)));
    let first = assign(&store, &waiting("n1", MAC, Family::V4)).await.unwrap()[0];
    let waits = read().await;
    assert_eq!(waits.place(any(&[]), now()), Some(WaitingPlace::Found(first)));
    assert_eq!(waits.place(any(&ranges[..1]), now()), Some(WaitingPlace::Found(first)));
    // Another range, another family, another address, or long ago.
    assert_eq!(waits.place(any(&ranges[1..]), now()), Some(WaitingPlace::New(2)));
    let v6 = WantedAddress::Any { family: Family::V6, ranges: &[] };
    assert_eq!(waits.place(v6, now()), Some(WaitingPlace::New(1)));
    let other = "10.0.0.15".parse().unwrap();
    assert_eq!(waits.place(WantedAddress::Exactly(other), now()), Some(WaitingPlace::New(2)));
    let later = now() + jiff::SignedDuration::from_secs(61);
    assert_eq!(waits.place(any(&[]), later), Some(WaitingPlace::New(2)));
    let exactly = WantedAddress::Exactly(first);
    assert_eq!(waits.place(exactly, now()), Some(WaitingPlace::Found(first)));
    assert_eq!(waits.place(exactly, later), Some(WaitingPlace::New(2)));
    // Another node's is not this one's.
    let elsewhere = Waiting::read(&store, ("n2", None), MAC).await.unwrap();
    assert_eq!(elsewhere.place(any(&[]), now()), Some(WaitingPlace::New(1)));
    // An endpoint's does not wait.
    hand_over(&store, &docker::endpoint("n1", "e1"), &[first], facts(MAC)).await.unwrap();
    assert_eq!(read().await.place(any(&[]), now()), Some(WaitingPlace::New(1)));
    for nth in 1..=docker::MAX_WAITING {
        let request =
            Request { assignee: docker::waiting("n1", MAC, nth), ..waiting("n1", MAC, Family::V4) };
        assign(&store, &request).await.unwrap();
    }
    assert_eq!(read().await.place(any(&[]), later), None);
}

/// A container that starts, as dockerd calls for it.
struct Starting {
    endpoint: String,
    mac: MacAddress,
    /// Whether it fails before its endpoint is made.
    fails: bool,
    address: Option<IpAddr>,
    /// Whether its endpoint has the address: then it is at work or has a link.
    has_endpoint: bool,
    steps: usize,
}

async fn holder_of(store: &Memory, address: IpAddr) -> Option<String> {
    let found = FoundAddress::find(store, address).await.unwrap()?;
    found.holder()?.handle_id.clone()
}

impl Starting {
    /// Its next step; `keeping` are the handles of endpoints that are there.
    async fn step(&mut self, store: &Memory, wanted: Want, keeping: &[String]) {
        self.steps += 1;
        match (self.steps, self.address) {
            (1, _) => {
                let asked = match &wanted {
                    Want::Exactly(address) => WantedAddress::Exactly(*address),
                    _ => WantedAddress::Any { family: Family::V4, ranges: &[] },
                };
                let waits = Waiting::read(store, ("n1", None), self.mac).await.unwrap();
                self.address = match waits.place(asked, now()).unwrap() {
                    WaitingPlace::Found(address) => Some(address),
                    WaitingPlace::New(nth) => {
                        let assignee = docker::waiting("n1", self.mac, nth);
                        let wants = vec![wanted];
                        let plain = waiting("n1", self.mac, Family::V4);
                        let assigned = assign(store, &Request { assignee, wants, ..plain }).await;
                        assigned.ok().map(|addresses| addresses[0])
                    }
                };
            }
            (2, Some(address)) if !self.fails => {
                let before = holder_of(store, address).await;
                let to = docker::endpoint("n1", &self.endpoint);
                let handed = hand_over(store, &to, &[address], facts(self.mac)).await;
                self.has_endpoint = handed.is_ok();
                if self.has_endpoint {
                    let its_own = docker::waiting("n1", self.mac, 1).handle_id;
                    assert!(before.is_some_and(|it| it.starts_with(&its_own)));
                }
            }
            // dockerd gives back what a container had that does not start.
            (3, Some(address)) if !self.has_endpoint => {
                let keeps = async |id: &str| keeping.iter().any(|it| it == id);
                docker::release(store, ("n1", None), address, keeps).await.unwrap().ok();
            }
            _ => {}
        }
    }
}

/// All orders of so many steps of each.
fn orders(left: [usize; 3]) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for first in (0..3).filter(|it| left[*it] > 0) {
        let mut rest = left;
        rest[first] -= 1;
        all.extend(orders(rest).into_iter().map(|order| [vec![first], order].concat()));
    }
    if all.is_empty() { vec![vec![]] } else { all }
}

/// Two containers with one hardware address start beside each other, and a third one that is told
/// to have the address that they get.
#[tokio::test]
async fn an_endpoint_keeps_its_address_in_whatever_order_others_fail() {
    let contested = assign(&cluster(), &waiting("n1", MAC, Family::V4)).await.unwrap()[0];
    let all = orders([3; 3]);
    assert_eq!(all.len(), 1680);
    let mut started = 0;
    for (order, second_fails) in all.iter().flat_map(|order| [(order, true), (order, false)]) {
        let store = cluster();
        let starting = |(endpoint, mac, fails): (&str, _, _)| Starting {
            endpoint: endpoint.to_owned(),
            mac,
            fails,
            address: None,
            has_endpoint: false,
            steps: 0,
        };
        let mut containers =
            [("e1", MAC, false), ("e2", MAC, second_fails), ("e3", OTHER, false)].map(starting);
        for nth in order {
            let own = |it: &Starting| docker::endpoint("n1", &it.endpoint).handle_id;
            let there = containers.iter().filter(|it| it.has_endpoint);
            let keeping: Vec<String> = there.map(own).collect();
            let wanted = match nth {
                2 => Want::Exactly(contested),
                _ => Want::Any { family: Family::V4, pools: vec![] },
            };
            containers[*nth].step(&store, wanted, &keeping).await;
            for it in containers.iter().filter(|it| it.has_endpoint) {
                let holder = holder_of(&store, it.address.unwrap()).await;
                assert_eq!(holder, Some(own(it)), "{order:?} {second_fails}");
            }
        }
        started += containers.iter().filter(|it| it.has_endpoint).count();
        assert_eq!(check(&store, None).await, []);
    }
    assert!(started > 2 * all.len(), "most orders let one start: {started}");
}

#[derive(Clone, Debug)]
enum Operation {
    Request { mac: u8, family: Family },
    HandOver { mac: u8, endpoint: u8 },
    Release { nth: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        3 => (0u8..3, family).prop_map(|(mac, family)| Operation::Request { mac, family }),
        3 => (0u8..3, 0u8..4).prop_map(|(mac, endpoint)| Operation::HandOver { mac, endpoint }),
        2 => (0usize..32).prop_map(|nth| Operation::Release { nth }),
    ]
}

fn step() -> impl Strategy<Value = (Operation, Option<(u64, CommitFault)>)> {
    (operation(), now_and_then_a_fault())
}

/// Carries an operation out as the driver does, with what a crash leaves.
async fn perform(store: &Memory, operation: &Operation) -> Result<(), Error> {
    let mac = |number: u8| MacAddress([2, 0, 0, 0, 0, number]);
    match operation {
        Operation::Request { mac: number, family } => {
            let waits = Waiting::read(store, ("n1", None), mac(*number)).await?;
            let wanted = WantedAddress::Any { family: *family, ranges: &[] };
            let Some(WaitingPlace::New(nth)) = waits.place(wanted, now()) else { return Ok(()) };
            let request = Request {
                assignee: docker::waiting("n1", mac(*number), nth),
                ..waiting("n1", mac(*number), *family)
            };
            assign(store, &request).await?;
        }
        Operation::HandOver { mac: number, endpoint } => {
            let handle = docker::waiting("n1", mac(*number), 1);
            let waits = engine::lookup(store, &handle).await?;
            let to = docker::endpoint("n1", &format!("e{endpoint}"));
            let handed = hand_over(store, &to, &addresses(&waits), facts(mac(*number))).await?;
            assert_eq!(handed, waits);
            let held = engine::lookup(store, &to).await?;
            assert!(waits.iter().all(|it| held.contains(it)), "{waits:?} {held:?}");
        }
        Operation::Release { nth } => {
            let used: Vec<IpAddr> = allocations(store).into_keys().collect();
            if let Some(address) = used.get(*nth) {
                let released =
                    docker::release(store, ("n1", None), *address, async |_| false).await?;
                assert_eq!(released, Ok(()));
            }
        }
    }
    Ok(())
}

proptest! {
    /// Blocks, handles and affinities fit together whatever happens in whatever order.
    #[test]
    fn nothing_is_damaged_and_nothing_is_lost(steps in prop::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = cluster();
            for (operation, fault) in &steps {
                let process = store.another_process();
                if let Some((nth, fault)) = fault {
                    process.fail_commit(*nth, *fault);
                }
                match perform(&process, operation).await {
                    Ok(()) | Err(Error::Exhausted { .. } | Error::Datastore(_)) => {}
                    Err(error) => panic!("{operation:?}: {error}"),
                }
                assert_consistent(&store);
                assert_eq!(check(&store, None).await, []);
                // A repeated call ends where the first one did.
                if fault.is_none() && matches!(operation, Operation::Request { .. }) {
                    let before = allocations(&store);
                    drop(perform(&store, operation).await);
                    assert_eq!(allocations(&store), before);
                }
            }
            while !allocations(&store).is_empty() {
                perform(&store, &Operation::Release { nth: 0 }).await.unwrap();
            }
            assert!(!store.dump().keys().any(|key| key.starts_with(keys::HANDLES)));
            assert_eq!(check(&store, None).await, []);
        });
    }
}
