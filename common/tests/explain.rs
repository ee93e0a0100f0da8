//! An explanation foretells what the next ADD returns.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeMap;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::condition::{Condition, condition};
use support::*;
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::explain::{
    AddressSource, Explanation, HeldState, NotUsed, explain, newcomer,
};
use weir_common::ipam::{Error, Family, PassedOver, PoolReference, engine};
use weir_datastore::Memory;

const V4: &[Family] = &[Family::V4];

/// A cluster at random: its pools, nodes, reservations and configuration, and
/// what was assigned in it before.
#[derive(Clone, Debug)]
struct Cluster {
    pools: Vec<Value>,
    /// The node selector of each pool.
    selectors: Vec<Condition>,
    /// Each node's zone and rack; none for 0.
    labels: [(u8, u8); 3],
    reserved: Vec<String>,
    config: (bool, bool, u8),
    before: Vec<(u8, u8, bool)>,
    damage: Vec<Damage>,
}

/// A stored value that cannot be used.
#[derive(Clone, Debug)]
enum Damage {
    /// A block that was there, the one with this number, gets this value.
    Block(usize, &'static str),
    /// A block that nobody claimed, of these pool and address.
    Unclaimed(u8, u8),
    /// Something that every ADD reads.
    Common(&'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let value = prop_oneof![Just("{}"), Just("no JSON"), Just(r#"{"cidr": "10.9.9.0/29"}"#)];
    let common = prop_oneof![
        Just("/calico/resources/v3/projectcalico.org/ippools/zz"),
        Just("/calico/resources/v3/projectcalico.org/ipreservations/zz"),
        Just(keys::IPAM_CONFIG),
    ];
    prop_oneof![
        6 => (0usize..64, value).prop_map(|(number, value)| Damage::Block(number, value)),
        6 => (0u8..4, 0u8..16).prop_map(|(pool, last)| Damage::Unclaimed(pool, last)),
        1 => common.prop_map(Damage::Common),
    ]
}

/// A range in one of the pools.
fn range() -> impl Strategy<Value = IpNet> {
    (0u8..4, 0u8..16, 28u8..=32).prop_map(|(pool, last, length)| {
        format!("10.{pool}.0.{last}/{length}").parse::<IpNet>().unwrap().trunc()
    })
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let uses = prop_oneof![
        6 => Just(json!(["Workload", "Tunnel"])),
        3 => Just(json!(["Workload"])),
        1 => Just(json!(["Tunnel"])),
    ];
    let namespaces = prop_oneof![6 => Just(""), 1 => Just("has(team)")];
    let (disabled, manual) = (prop::bool::weighted(0.15), prop::bool::weighted(0.2));
    let pool = (29u8..=32, condition(), disabled, manual, uses, namespaces).prop_map(
        |(block_size, selector, disabled, manual, uses, namespaces)| {
            let spec = json!({
                "blockSize": block_size, "nodeSelector": selector.text(), "disabled": disabled,
                "assignmentMode": if manual { "Manual" } else { "Automatic" },
                "allowedUses": uses, "namespaceSelector": namespaces,
            });
            (spec, selector)
        },
    );
    let labels = || (0u8..3, 0u8..3);
    (
        prop::collection::vec(pool, 0..5),
        [labels(), labels(), labels()],
        prop::collection::vec((0u8..4, 0u8..16, 28u8..=32), 0..3),
        (any::<bool>(), prop::bool::weighted(0.9), 0u8..3),
        prop::collection::vec((0u8..3, 0u8..16, any::<bool>()), 0..40),
        prop_oneof![1 => Just(vec![]), 2 => prop::collection::vec(damage(), 1..4)],
    )
        .prop_map(|(pools, labels, reserved, config, before, damage)| {
            let (pools, selectors) = pools.into_iter().unzip();
            let reserved = reserved
                .into_iter()
                .map(|(pool, last, length)| format!("10.{pool}.0.{last}/{length}"))
                .collect();
            Cluster { pools, selectors, labels, reserved, config, before, damage }
        })
}

impl Cluster {
    /// The labels of a node; none of one that is not registered.
    fn labels(&self, node: u8) -> BTreeMap<&'static str, String> {
        let Some((zone, rack)) = self.labels.get(usize::from(node)) else { return BTreeMap::new() };
        let zone = (*zone > 0).then(|| ("zone", format!("z{zone}")));
        let rack = (*rack > 0).then(|| ("rack", format!("r{rack}")));
        zone.into_iter().chain(rack).collect()
    }

    /// The names of the pools that a container of a node gets an IPv4 address
    /// from when it asks for none, in the order of their use.
    fn automatic(&self, node: u8) -> Vec<String> {
        let labels = self.labels(node);
        let serves = |(number, spec): (usize, &Value)| {
            let open = spec["disabled"] == false
                && spec["assignmentMode"] == "Automatic"
                && spec["namespaceSelector"] == ""
                && spec["allowedUses"].as_array().unwrap().contains(&json!("Workload"));
            (open && self.selectors[number].holds(&labels)).then(|| format!("p{number}"))
        };
        self.pools.iter().enumerate().filter_map(serves).collect()
    }
}

/// Builds the cluster. All its assignments go into the pools by their names, so
/// that pools that serve nobody have blocks as well.
async fn build(cluster: &Cluster) -> Memory {
    let store = Memory::new();
    for (number, spec) in cluster.pools.iter().enumerate() {
        let mut open = spec.clone();
        open["disabled"] = json!(false);
        open["allowedUses"] = json!(["Workload"]);
        pool(&store, &format!("p{number}"), &format!("10.{number}.0.0/28"), open);
    }
    pool(&store, "six", "fd00::/123", json!({"blockSize": 125}));
    for number in 0..3 {
        let labels = cluster.labels(number);
        let node = json!({"metadata": {"name": format!("n{number}"), "labels": labels}});
        put(&store, keys::node(&format!("n{number}")), node);
    }
    for (host, container, by_name) in &cluster.before {
        let families = if *container % 3 == 0 { &[Family::V4, Family::V6] } else { V4 };
        let mut request = request(&format!("n{host}"), &container.to_string(), families);
        if *by_name && !cluster.pools.is_empty() {
            let name = format!("p{}", usize::from(*container) % cluster.pools.len());
            request.wants =
                vec![Want::Any { family: Family::V4, pools: vec![PoolReference::Name(name)] }];
        }
        let _ = assign(&store, &request).await;
    }
    for (number, spec) in cluster.pools.iter().enumerate() {
        pool(&store, &format!("p{number}"), &format!("10.{number}.0.0/28"), spec.clone());
    }
    let reserved =
        json!({"metadata": {"name": "kept"}, "spec": {"reservedCIDRs": cluster.reserved}});
    put(&store, keys::reservation("kept"), reserved);
    let (strict, claim, most) = cluster.config;
    let config = json!({"strict_affinity": strict, "auto_allocate_blocks": claim,
        "maxBlocksPerHost": most});
    put(&store, keys::IPAM_CONFIG.to_owned(), config);
    for damage in &cluster.damage {
        inflict(damage, cluster, &store);
    }
    store
}

fn inflict(damage: &Damage, cluster: &Cluster, store: &Memory) {
    let seed = |key: String, value: &str| {
        store.seed([(key, value.as_bytes().to_vec())]);
    };
    match damage {
        Damage::Block(number, value) => {
            let keys: Vec<_> =
                store.dump().into_keys().filter(|key| key.starts_with(keys::BLOCKS)).collect();
            if !keys.is_empty() {
                seed(keys[number % keys.len()].clone(), value);
            }
        }
        Damage::Unclaimed(pool, last) => {
            let size = cluster
                .pools
                .get(usize::from(*pool))
                .map_or(29, |pool| u8::try_from(pool["blockSize"].as_u64().unwrap()).unwrap());
            let block = format!("10.{pool}.0.{last}/{size}").parse::<IpNet>().unwrap().trunc();
            seed(keys::block(block), "{}");
        }
        Damage::Common(key) => seed((*key).to_owned(), "[]"),
    }
}

/// A family's part of a request: pools by name and by CIDR, of its own and of
/// the other family, some of which are not there.
fn any_want(family: Family) -> impl Strategy<Value = Want> {
    let pool = prop_oneof![
        24 => (0u8..3).prop_map(|number| format!("p{number}")),
        12 => (0u8..3).prop_map(|number| format!("10.{number}.0.0/28")),
        2 => Just("six".to_owned()),
        2 => Just("fd00::/123".to_owned()),
        1 => Just("10.0.0.0/27".to_owned()),
        1 => Just("nothing".to_owned()),
    ];
    let pools = prop_oneof![2 => Just(vec![]), 3 => prop::collection::vec(pool, 1..3)];
    pools.prop_map(move |pools| {
        let pools = pools.iter().map(|pool| pool.parse().unwrap()).collect();
        Want::Any { family, pools }
    })
}

fn wants() -> impl Strategy<Value = Vec<Want>> {
    let exactly = prop_oneof![
        3 => (0u8..4, 0u8..16).prop_map(|(pool, last)| format!("10.{pool}.0.{last}")),
        1 => (0u8..32).prop_map(|last| format!("fd00::{last:x}")),
    ];
    prop_oneof![
        4 => any_want(Family::V4).prop_map(|four| vec![four]),
        1 => any_want(Family::V6).prop_map(|six| vec![six]),
        2 => (any_want(Family::V4), any_want(Family::V6)).prop_map(|(four, six)| vec![four, six]),
        1 => exactly.prop_map(|address| vec![Want::Exactly(address.parse().unwrap())]),
    ]
}

/// Blocks that the last call may have left word of; any will do.
fn likely() -> impl Strategy<Value = Vec<IpNet>> {
    let block = (0u8..4, 0u8..16, 29u8..=32).prop_map(|(pool, last, length)| {
        format!("10.{pool}.0.{last}/{length}").parse::<IpNet>().unwrap().trunc()
    });
    prop::collection::vec(block, 0..3)
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_next_add_does_what_was_explained(
        cluster in cluster(),
        wants in wants(),
        number in 0u8..4,
        likely in likely(),
        has_gateways in any::<bool>(),
        within in prop::option::weighted(0.3, range()),
    ) {
        run(async {
            let store = build(&cluster).await;
            let before = store.dump();
            let host = format!("n{number}");
            let gateways: Vec<IpNet> = likely.iter().copied().filter(|_| has_gateways).collect();
            let asked = Request { gateways, within, ..newcomer(&host, wants.clone()) };
            let explained = explain(&store, &asked, vec![], now()).await.unwrap();
            assert_eq!(store.dump(), before, "explaining changes nothing");
            for considered in &explained.wants {
                if matches!(&considered.want, Want::Any { family: Family::V4, pools } if pools.is_empty()) {
                    let used: Vec<_> = considered.pools.iter().map(|pool| &pool.name).collect();
                    assert_eq!(used, cluster.automatic(number).iter().collect::<Vec<_>>());
                }
            }
            let newcomer = Request { assignee: assignee(&host, "newcomer"), ..asked };
            let got = engine::assign(&store, &newcomer, &likely, now()).await.map(|it| it.addresses);
            assert_foretold(&explained, got, &before);
        });
    }
}

fn assert_foretold(
    explained: &Explanation,
    got: Result<Vec<weir_common::ipam::Assigned>, Error>,
    before: &std::collections::BTreeMap<String, Vec<u8>>,
) {
    match (&explained.outcome, got) {
        (Ok(next), Ok(got)) => {
            let pairs = |address, block| (address, block);
            let foretold: Vec<_> = next.iter().map(|it| pairs(it.address, it.block)).collect();
            let got: Vec<_> = got.iter().map(|it| pairs(it.address, it.block)).collect();
            assert_eq!(foretold, got);
            for next in next {
                let was_there = before.contains_key(&keys::block(next.block));
                assert_eq!(next.source == AddressSource::Claimed, !was_there, "{next:?}");
                let key = keys::affinity(&explained.host, next.block);
                assert_eq!(
                    next.source == AddressSource::Held,
                    before.contains_key(&key),
                    "{next:?}"
                );
            }
        }
        (Err(foretold), Err(got)) => assert_eq!(foretold.to_string(), got.to_string()),
        (foretold, got) => panic!("{foretold:?} was foretold, {got:?} came"),
    }
}

#[tokio::test]
async fn every_pool_is_accounted_for() {
    let store = Memory::new();
    pool(&store, "a-off", "10.0.0.0/24", json!({"disabled": true}));
    pool(&store, "b-manual", "10.1.0.0/24", json!({"assignmentMode": "Manual"}));
    pool(&store, "c-elsewhere", "10.2.0.0/24", json!({"nodeSelector": "zone == 'far'"}));
    pool(&store, "d-here", "10.3.0.0/24", json!({}));
    pool(&store, "six", "fd00::/64", json!({}));
    let any = |pools| Want::Any { family: Family::V4, pools };
    let explained =
        explain(&store, &newcomer("n1", vec![any(vec![])]), vec![], now()).await.unwrap();
    let [considered] = explained.wants.as_slice() else { panic!("{explained:?}") };
    let used: Vec<_> = considered.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(used, ["d-here"]);
    let why: Vec<_> =
        considered.passed_over.iter().map(|(pool, why)| (pool.name.as_str(), why)).collect();
    assert_eq!(
        why,
        [
            ("a-off", &NotUsed::PassedOver(PassedOver::Disabled)),
            ("b-manual", &NotUsed::PassedOver(PassedOver::Manual)),
            ("c-elsewhere", &NotUsed::PassedOver(PassedOver::NotSelected("zone == 'far'".into()))),
        ]
    );
    let asked = vec![any(vec!["b-manual".parse().unwrap()])];
    let explained = explain(&store, &newcomer("n1", asked), vec![], now()).await.unwrap();
    let considered = &explained.wants[0];
    assert_eq!(considered.pools[0].name, "b-manual");
    assert!(considered.passed_over.iter().all(|(_, why)| *why == NotUsed::NotAskedFor));
}

#[tokio::test]
async fn a_pool_of_the_other_family_is_refused_as_an_add_refuses_it() {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/24", json!({}));
    pool(&store, "six", "fd00::/64", json!({}));
    for reference in ["six", "fd00::/64"] {
        let pools = vec!["four".parse().unwrap(), reference.parse().unwrap()];
        let want = Want::Any { family: Family::V4, pools };
        let explained =
            explain(&store, &newcomer("n1", vec![want.clone()]), vec![], now()).await.unwrap();
        let newcomer = Request { wants: vec![want], ..request("n1", "newcomer", &[]) };
        let refused = assign(&store, &newcomer).await.unwrap_err();
        assert_eq!(explained.outcome.unwrap_err().to_string(), refused.to_string());
        assert!(refused.to_string().contains("six was asked for but is not of family IPv4"));
        let passed_over = &explained.wants[0].passed_over;
        let why: Vec<_> = passed_over.iter().map(|(pool, why)| (&*pool.name, why)).collect();
        let other = NotUsed::PassedOver(PassedOver::OtherFamily(Family::V4));
        assert_eq!(why, [("four", &NotUsed::WithAnother), ("six", &other)]);
    }
}

#[tokio::test]
async fn for_an_address_asked_for_its_own_pool_is_named() {
    let store = Memory::new();
    pool(&store, "here", "10.0.0.0/24", json!({"nodeSelector": "zone == 'far'"}));
    pool(&store, "there", "10.1.0.0/24", json!({}));
    let wants = vec![Want::Exactly("10.0.0.9".parse().unwrap())];
    let explained = explain(&store, &newcomer("n1", wants), vec![], now()).await.unwrap();
    let [considered] = explained.wants.as_slice() else { panic!("{explained:?}") };
    assert_eq!(considered.pools[0].name, "here");
    let why: Vec<_> = considered.passed_over.iter().map(|(_, why)| why.to_string()).collect();
    assert_eq!(why, ["does not contain 10.0.0.9"]);
}

/// Whether an ADD fails over a block depends on whether it needs it, not on
/// what was read along with it.
#[tokio::test]
async fn a_block_that_cannot_be_used_matters_only_where_it_is_needed() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/28", json!({"blockSize": 31}));
    for container in 0..8 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let want = || vec![Want::Any { family: Family::V4, pools: vec![] }];
    let explained = explain(&store, &newcomer("n1", want()), vec![], now()).await.unwrap();
    let order: Vec<IpNet> = explained.wants[0].held.iter().map(|held| held.block).collect();
    let next = explained.outcome.unwrap()[0].address;
    // All that the host holds is full: what it holds is read to the end.
    store.seed([(keys::block(*order.last().unwrap()), b"{}".to_vec())]);
    let explained = explain(&store, &newcomer("n1", want()), vec![], now()).await.unwrap();
    let foretold = explained.outcome.unwrap_err().to_string();
    let refused = assign(&store, &request("n1", "x", V4)).await.unwrap_err().to_string();
    assert_eq!(foretold, refused);
    assert!(refused.contains(&keys::block(*order.last().unwrap())), "{refused}");
    assert!(refused.contains("weirctl ipam check"), "{refused}");
    // With room in a block before it, it is not needed, even if it is read.
    let second = order[1];
    let given = with_room(&store, second);
    store.seed([(keys::block(second), given.to_json())]);
    let explained = explain(&store, &newcomer("n1", want()), vec![], now()).await.unwrap();
    let foretold = explained.outcome.unwrap()[0].address;
    assert!(second.contains(&foretold) && foretold != next);
    assert_eq!(assign(&store, &request("n1", "x", V4)).await.unwrap(), [foretold]);
}

/// The block with its first address given back.
fn with_room(store: &Memory, cidr: IpNet) -> weir_common::ipam::Block {
    let mut block = weir_common::ipam::Block::from_json(&store.dump()[&keys::block(cidr)]).unwrap();
    block.release(&[0]);
    block
}

#[tokio::test]
async fn blocks_are_counted_in_the_order_tried() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/27", json!({"blockSize": 30}));
    for container in 0..6 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let [older, newer] =
        support::blocks(&store).try_into().unwrap_or_else(|_| panic!("two blocks"));
    let (newer, older) = if older.free().count() == 0 { (newer, older) } else { (older, newer) };
    let last = newer.address(3);
    let kept = json!({"metadata": {"name": "kept"}, "spec": {"reservedCIDRs": [last.to_string()]}});
    put(&store, keys::reservation("kept"), kept);
    let wants = vec![Want::Any { family: Family::V4, pools: vec![] }];
    let explained = explain(&store, &newcomer("n1", wants), vec![], now()).await.unwrap();
    let held: Vec<_> =
        explained.wants[0].held.iter().map(|held| (held.block, free(&held.state))).collect();
    assert_eq!(held, [(newer.cidr, 1), (older.cidr, 0)]);
    assert_eq!(explained.outcome.unwrap()[0].address, newer.address(2));
}

fn free(state: &HeldState) -> usize {
    match state {
        HeldState::Free(free) => *free,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_keeps_an_add_from_its_address_is_the_outcome() {
    let store = Memory::new();
    let wants = || vec![Want::Any { family: Family::V4, pools: vec![] }];
    let outcome = |explained: Explanation| explained.outcome.unwrap_err();
    let none = explain(&store, &newcomer("n1", wants()), vec![], now()).await.unwrap();
    assert!(matches!(outcome(none), Error::NoPool(Family::V4)));
    pool(&store, "blue", "10.0.0.0/30", json!({"blockSize": 30}));
    for container in 0..4 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let full = explain(&store, &newcomer("n1", wants()), vec![], now()).await.unwrap();
    assert_eq!(free(&full.wants[0].held[0].state), 0);
    assert!(matches!(outcome(full), Error::Exhausted { .. }));
    store.seed([(keys::block("10.0.0.0/30".parse().unwrap()), b"{}".to_vec())]);
    let damaged = explain(&store, &newcomer("n1", wants()), vec![], now()).await.unwrap();
    assert!(matches!(damaged.wants[0].held[0].state, HeldState::Unreadable(_)));
    assert!(matches!(outcome(damaged), Error::Malformed { .. }));
    store.seed([(keys::pool("blue"), b"[]".to_vec())]);
    let damaged = explain(&store, &newcomer("n1", wants()), vec![], now()).await.unwrap();
    assert!(damaged.wants.is_empty());
    assert!(outcome(damaged).to_string().contains(&keys::pool("blue")));
}

/// Which blocks are known by chance does not decide what an ADD complains of.
#[tokio::test]
async fn of_two_families_that_are_exhausted_the_first_is_named() {
    let store = Memory::new();
    pool(&store, "four", "10.0.0.0/31", json!({"blockSize": 31}));
    pool(&store, "six", "fd00::/127", json!({"blockSize": 127}));
    let both = |container: &str| request("n1", container, &[Family::V4, Family::V6]);
    for container in ["a", "b"] {
        assign(&store, &both(container)).await.unwrap();
    }
    let six: ipnet::IpNet = "fd00::/127".parse().unwrap();
    for likely in [vec![], vec![six]] {
        let refused = engine::assign(&store, &both("c"), &likely, now()).await.unwrap_err();
        assert!(matches!(refused, Error::Exhausted { family: Family::V4, .. }), "{refused}");
    }
}

/// What is free and cannot be had is told from what is taken.
#[tokio::test]
async fn why_free_addresses_are_not_given_is_said() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/28", json!({"blockSize": 29}));
    let wants = || vec![Want::Any { family: Family::V4, pools: vec![] }];
    let refusal = async |node: &str| {
        let explained = explain(&store, &newcomer(node, wants()), vec![], now()).await.unwrap();
        let states: Vec<_> =
            explained.wants[0].held.iter().map(|held| format!("{:?}", held.state)).collect();
        (states.join(" "), explained.outcome.unwrap_err().to_string())
    };
    for container in 0..2 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let kept = json!({"metadata": {"name": "r"}, "spec": {"reservedCIDRs": ["10.0.0.0/28"]}});
    put(&store, keys::reservation("r"), kept);
    let (state, refused) = refusal("n1").await;
    assert_eq!(state, r#"Reserved({"IPReservation r"})"#);
    let reserved = "; all free addresses there are reserved (IPReservation r); see: ";
    assert!(refused.contains(reserved), "{refused}");
    assert!(!refused.contains("strict affinity"), "{refused}");

    store.seed([(
        keys::IPAM_CONFIG.to_owned(),
        br#"{"strict_affinity":true,"auto_allocate_blocks":true}"#.to_vec(),
    )]);
    let none = json!({"metadata": {"name": "r"}, "spec": {"reservedCIDRs": ["10.0.0.0/32"]}});
    put(&store, keys::reservation("r"), none);
    assign(&store, &request("n2", "c", V4)).await.unwrap();
    let (_, refused) = refusal("n3").await;
    let strict = "; some free addresses there are reserved (IPReservation r); blocks of n1, n2 \
                  have 12 free addresses, but strict affinity keeps n3 from borrowing them: weirctl ipam configure --strictaffinity=false; see: ";
    assert!(refused.contains(strict), "{refused}");
}

/// A limit of blocks stops the search before all has been looked at.
#[tokio::test]
async fn a_reservation_is_not_blamed_for_what_the_limit_stops() {
    let store = Memory::new();
    pool(&store, "blue", "10.0.0.0/28", json!({"blockSize": 30}));
    let config =
        json!({"strict_affinity": true, "auto_allocate_blocks": true, "maxBlocksPerHost": 1});
    store.seed([(keys::IPAM_CONFIG.to_owned(), config.to_string().into_bytes())]);
    for container in 0..4 {
        assign(&store, &request("n1", &container.to_string(), V4)).await.unwrap();
    }
    let refused = assign(&store, &request("n1", "e", V4)).await.unwrap_err().to_string();
    assert!(refused.contains("maxBlocksPerHost") && !refused.contains("reserved"), "{refused}");
}
