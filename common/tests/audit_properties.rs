//! Whatever the engine does leaves a healthy store; whatever is damaged at
//! random is found, and a repair comes to an end without touching what is in
//! use.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::stores::*;
use support::*;
use weir_common::audit::AuditContext;
use weir_common::datastore::keys;
use weir_common::ipam::{Block, Family, engine};
use weir_datastore::Memory;

/// What happens to a container: it comes to a host, or goes.
type Event = (u8, u8, bool);

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec((0u8..4, 0u8..12, prop::bool::weighted(0.7)), 0..40)
}

/// A store in which this happened. It runs full, so that hosts borrow.
async fn lived(events: &[Event]) -> Memory {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/28", json!({"blockSize": 30}));
    pool(&store, "six", "fd00::/120", json!({"blockSize": 124}));
    (0..4).for_each(|host| node(&store, &format!("n{host}")));
    for (host, container, comes) in events {
        let container = container.to_string();
        if *comes {
            let both = request(&format!("n{host}"), &container, &[Family::V4, Family::V6]);
            let _ = assign(&store, &both).await;
        } else {
            engine::release(
                &store,
                &assignee(&format!("n{host}"), &container),
                &Default::default(),
            )
            .await
            .unwrap();
        }
    }
    store
}

/// A way to damage a store. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Damage {
    Lose(prop::sample::Index),
    CountWrong(prop::sample::Index, u64),
    NameOther(prop::sample::Index),
    Handle(u8),
    Claim(u8, prop::sample::Index, &'static str),
    ClaimNothing(u8, u8, &'static str),
    Owner(prop::sample::Index, Option<u8>),
    Free(prop::sample::Index, u8),
    Forget(prop::sample::Index, u8),
    Stray(u8),
    Misfit(u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let state = || prop::sample::select(vec!["confirmed", "pending", "pendingDeletion", ""]);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        index().prop_map(Damage::Lose),
        index().prop_map(Damage::Lose),
        (index(), 0u64..9).prop_map(|(at, count)| Damage::CountWrong(at, count)),
        index().prop_map(Damage::NameOther),
        any::<u8>().prop_map(Damage::Handle),
        (0u8..4, index(), state()).prop_map(|(host, at, state)| Damage::Claim(host, at, state)),
        (0u8..6, 0u8..8, state())
            .prop_map(|(host, at, state)| Damage::ClaimNothing(host, at, state)),
        (index(), proptest::option::of(0u8..4)).prop_map(|(at, host)| Damage::Owner(at, host)),
        (index(), 0u8..4).prop_map(|(at, ordinal)| Damage::Free(at, ordinal)),
        (index(), 0u8..4).prop_map(|(at, ordinal)| Damage::Forget(at, ordinal)),
        (0u8..4).prop_map(Damage::Stray),
        (0u8..4).prop_map(Damage::Misfit),
    ]
}

/// The keys under these prefixes, one of which an index chooses.
fn keys_under(store: &Memory, prefixes: &[&str]) -> Vec<String> {
    let wanted = |key: &String| prefixes.iter().any(|prefix| key.starts_with(prefix));
    store.dump().into_keys().filter(wanted).collect()
}

fn choose(store: &Memory, prefixes: &[&str], at: &prop::sample::Index) -> Option<String> {
    let keys = keys_under(store, prefixes);
    (!keys.is_empty()).then(|| at.get(&keys).clone())
}

async fn inflict(store: &Memory, damage: &Damage) {
    match damage {
        Damage::Lose(at) => {
            if let Some(key) = choose(store, &[keys::HANDLES, keys::HOSTS], at) {
                delete(store, key).await;
            }
        }
        Damage::Handle(number) => {
            let counts = json!({"block": {format!("10.0.0.{}/30", number % 4 * 4): 1}});
            put(store, keys::handle(&format!("net.lost{number}")), counts);
        }
        Damage::ClaimNothing(host, at, state) => {
            let block = cidr(&format!("10.0.0.{}/30", at * 4));
            put(store, keys::affinity(&format!("n{host}"), block), json!({"state": state}));
        }
        Damage::Stray(number) => {
            let block = Block::new(cidr(&format!("10.7.0.{}/30", number * 4)), "n1", 1);
            store.seed([(keys::block(block.cidr), block.to_json())]);
        }
        Damage::Misfit(number) => {
            let block = Block::new(cidr(&format!("10.0.0.{}/31", number * 4)), "n2", 1);
            store.seed([(keys::block(block.cidr), block.to_json())]);
        }
        _ => inflict_on_value(store, damage),
    }
}

fn inflict_on_value(store: &Memory, damage: &Damage) {
    let handles = &[keys::HANDLES];
    let blocks = &[keys::BLOCKS];
    let change = |prefixes: &[&str], at, change: &dyn Fn(&mut Value)| {
        if let Some(key) = choose(store, prefixes, at) {
            edit(store, key, change);
        }
    };
    match damage {
        Damage::CountWrong(at, count) => change(handles, at, &|handle| {
            handle["block"].as_object_mut().unwrap().values_mut().for_each(|it| *it = json!(count));
        }),
        Damage::NameOther(at) => change(handles, at, &|handle| {
            handle["block"]["10.0.0.4/30"] = json!(1);
            handle["block"].as_object_mut().unwrap().shift_remove("10.0.0.0/30");
        }),
        Damage::Claim(host, at, state) => {
            if let Some(block) = choose(store, blocks, at).and_then(|key| keys::parse_block(&key)) {
                put(store, keys::affinity(&format!("n{host}"), block), json!({"state": state}));
            }
        }
        Damage::Owner(at, host) => change(blocks, at, &|block| {
            block["affinity"] = json!(host.map(|host| format!("host:n{host}")));
        }),
        Damage::Free(at, ordinal) => change(blocks, at, &|block| {
            let size = block["allocations"].as_array().unwrap().len();
            let free = block["unallocated"].as_array_mut().unwrap();
            free.insert(0, json!(usize::from(*ordinal) % size));
        }),
        Damage::Forget(at, ordinal) => change(blocks, at, &|block| {
            let free = block["unallocated"].as_array_mut().unwrap();
            if !free.is_empty() {
                free.remove(usize::from(*ordinal) % free.len());
            }
        }),
        other => panic!("{other:?} has no value"),
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #[test]
    fn what_the_engine_leaves_is_healthy(events in events()) {
        run(async {
            let store = lived(&events).await;
            assert_eq!(check(&store, None).await, []);
        });
    }

    #[test]
    fn damage_is_found_and_mended(
        events in events(),
        damages in prop::collection::vec(damage(), 1..12),
    ) {
        run(async {
            let store = lived(&events).await;
            for damage in &damages {
                inflict(&store, damage).await;
            }
            let before = in_use(&store);
            let sound = std::panic::catch_unwind(|| assert_consistent(&store)).is_ok();
            let found = check(&store, None).await;
            assert!(sound || !found.is_empty(), "the damage is not found");
            let left = repair(&store, None).await;
            assert_eq!(in_use(&store), before, "what is in use was touched");
            assert!(left.iter().all(|finding| finding.obstacle.is_some()), "{left:?}");
            assert_eq!(check(&store, None).await, left);
            if left.is_empty() {
                assert_consistent(&store);
            }
        });
    }
}

/// The size at which an audit must find nothing in reasonable time and memory;
/// `scripts/bench-check.sh` measures both.
#[tokio::test]
async fn nothing_is_found_in_a_hundred_thousand_addresses() {
    let store = Memory::new();
    let addresses = crowd::fill(&store, 100_000, 26);
    let snapshot = weir_common::ipam::IpamSnapshot::list(&store).await.unwrap();
    assert!(snapshot.steady);
    let context = AuditContext::new(None, later());
    let findings = weir_common::audit::audit(&snapshot, &context);
    assert_eq!(findings, []);
    let report = weir_common::audit::Report::new(&snapshot, &findings, &context);
    assert_eq!((report.addresses, report.handles), (addresses, addresses));
    let pages = store.counters().lists;
    assert!((10..100).contains(&pages), "{pages} pages");
}
