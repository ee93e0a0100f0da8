//! The answers, out of recorded stores and of values of every kind.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use weir_common::audit::{AuditContext, audit};
use weir_common::datastore::{Datastore, Entry, Event, Revision, Selection};
use weir_common::ipam::docker::ATTRIBUTE_MAC;
use weir_common::ipam::history::{Record, answer};
use weir_common::ipam::{ATTRIBUTE_NODE, ATTRIBUTE_TIMESTAMP, Attribute, Block, IpamSnapshot};
use weir_common::network::{RouteKind, Underlay, plan_cluster};
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;

use super::*;
use crate::tests::{call, recorded_store};

fn put(key: String, value: impl Into<Vec<u8>>) -> Event {
    Event::Put(Entry { key, value: value.into(), revision: Revision(1) })
}

/// What is known after a listing of a store.
async fn listed(memory: &Memory) -> ClusterView {
    let all = memory.read(&[Selection::Prefix("/calico/".to_owned())]).await.unwrap();
    let (mut cluster, mut kept) = (ClusterState::default(), KeptValues::default());
    for entry in all.selected.iter().flatten() {
        let is_watched = |prefix: &&str| entry.key.starts_with(prefix);
        if ClusterState::PREFIXES.iter().any(is_watched) {
            cluster.put(entry);
            kept.put(entry);
        }
    }
    ClusterView::new(cluster, kept)
}

fn state(view: &ClusterView) -> Value {
    let around = Circumstances { here: Some("n1".to_owned()), ..Circumstances::default() };
    serde_json::to_value(StateDocument::of(view, &around, Timestamp::UNIX_EPOCH)).unwrap()
}

fn search(view: &ClusterView, query: &str) -> Value {
    let found = SearchDocument::of(query, Some("n1"), view, &HistoryAnswer::default());
    serde_json::to_value(found.unwrap_or_else(|refused| panic!("{query}: {refused:?}"))).unwrap()
}

/// Kinds and titles of what is found.
fn titles(view: &ClusterView, query: &str) -> Vec<String> {
    let found = search(view, query);
    let title = |it: &Value| format!("{} {}", it["kind"], it["title"]).replace('"', "");
    found["answers"].as_array().unwrap().iter().map(title).collect()
}

/// What is said of the first answer under a name.
fn told(view: &ClusterView, query: &str, name: &str) -> Option<String> {
    let found = search(view, query);
    let lines = found["answers"][0]["lines"].as_array()?.clone();
    lines.iter().find(|line| line[0] == name).map(|line| line[1].as_str().unwrap().to_owned())
}

fn number(value: &Value) -> u128 {
    value.as_str().unwrap().parse().unwrap()
}

/// In each recorded cluster, pool by pool and block by block.
#[tokio::test]
async fn addresses_are_counted_as_ipam_show_counts_them() {
    let mut pools = 0;
    for case in ["busy", "seed", "small"] {
        let memory = recorded_store(case);
        let shown = call(&memory, "ipam show --show-blocks -o json").await.output;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let state = state(&listed(&memory).await);
        for pool in state["pools"].as_array().unwrap() {
            let mut all = shown["pools"].as_array().unwrap().iter();
            let expected = all.find(|it| it["name"] == pool["name"]).unwrap();
            let counts = ["used", "cooling", "reserved", "free"].map(|it| number(&pool[it]));
            assert_eq!(pool["total"], expected["total"]);
            assert_eq!(counts[0] + counts[1], number(&expected["inUse"]), "{pool}");
            assert_eq!(counts.iter().sum::<u128>(), number(&pool["total"]), "{pool}");
            let blocks = pool["blocks"].as_array().unwrap();
            let expected = expected["blocks"].as_array().unwrap();
            assert_eq!(blocks.len(), expected.len());
            for block in expected {
                let of_state = blocks.iter().find(|it| it[0] == block["cidr"]).unwrap();
                let used = of_state[2].as_u64().unwrap() + of_state[5].as_u64().unwrap();
                assert_eq!(u128::from(used), number(&block["inUse"]), "{block}");
                assert_eq!(of_state[3].to_string(), block["total"].as_str().unwrap());
            }
            pools += 1;
        }
        let on_nodes: u64 = state["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["addresses"].as_u64().unwrap())
            .sum();
        let in_pools: u128 =
            state["pools"].as_array().unwrap().iter().map(|it| number(&it["used"])).sum();
        assert!(u128::from(on_nodes) <= in_pools, "{on_nodes} {in_pools}");
    }
    assert!(pools >= 2, "{pools}");
}

#[tokio::test]
async fn a_block_shows_who_has_its_addresses() {
    let view = listed(&recorded_store("busy")).await;
    let state = state(&view);
    let block = &state["pools"][0]["blocks"][0];
    let cidr = block[0].as_str().unwrap();
    let shown = serde_json::to_value(BlockDocument::of(cidr, &view).unwrap()).unwrap();
    let addresses = shown["addresses"].as_array().unwrap();
    assert_eq!(addresses.len() as u64, block[2].as_u64().unwrap() + block[5].as_u64().unwrap());
    assert!(addresses.iter().all(|it| it["state"] == "used"), "{addresses:?}");
    let node = &state["nodes"][usize::try_from(block[1].as_u64().unwrap()).unwrap()];
    assert_eq!(shown["node"], node["name"]);
    for wrong in ["10.7.0.0", "", "10.99.0.0/26", "fd00::/122"] {
        let refused = BlockDocument::of(wrong, &view).unwrap_err();
        assert!(refused.0.contains("weirctl") || refused.0.contains("write"), "{refused:?}");
    }
}

/// For every node of a recorded cluster.
#[tokio::test]
async fn ways_are_those_that_the_agent_plans() {
    let view = listed(&recorded_store("busy")).await;
    let mut routes = 0;
    for (name, peer) in &view.cluster.nodes {
        let plan = plan_cluster(name, &view.cluster, &Underlay::registered(peer));
        let reach = ReachDocument::of(Some(name), None, &view).unwrap();
        for (block, route) in &plan.routes {
            let (Some(next_hop), Some((pool, _))) =
                (route.next_hop(), view.cluster.pool_of(*block))
            else {
                continue;
            };
            let device = route.tunnel_kind().map(TunnelKind::device);
            let fits = |row: &&reach::NextHopRow| {
                row.pools.iter().any(|it| it == pool)
                    && row.next_hop == Some(next_hop)
                    && row.device.as_deref() == device
                    && (row.how == "direct") == matches!(route, RouteKind::Direct { .. })
            };
            assert!(reach.to.iter().any(|row| fits(&row)), "{name} {block} {route:?} {reach:?}");
            routes += 1;
        }
    }
    assert!(routes > 5, "{routes}");
    assert!(
        ReachDocument::of(Some("n99"), None, &view).unwrap_err().0.contains("weirctl get nodes")
    );
    let of =
        |asked, here| serde_json::to_value(ReachDocument::of(asked, here, &view).unwrap()).unwrap();
    let first = view.cluster.nodes.keys().next().unwrap();
    assert_eq!(of(None, Some("elsewhere"))["from"], first.as_str());
    assert_eq!(ReachDocument::of(None, None, &ClusterView::default()).unwrap().to, []);
}

fn pool(name: &str, spec: &Value) -> Event {
    put(keys::pool(name), json!({"metadata": {"name": name}, "spec": spec}).to_string())
}

fn node(name: &str, bgp: &Value) -> Event {
    put(keys::node(name), json!({"metadata": {"name": name}, "spec": {"bgp": bgp}}).to_string())
}

/// A block of a host's with these holders, one after another.
fn block(cidr: &str, host: &str, holders: &[Value]) -> Event {
    let mut block = Block::new(cidr.parse().unwrap(), host, 1);
    for (ordinal, holder) in holders.iter().enumerate() {
        let holder: Attribute = serde_json::from_value(holder.clone()).unwrap();
        block.assign(ordinal, holder);
    }
    put(keys::block(block.cidr), block.to_json())
}

/// Two nodes in two subnets; a pod and a container of Docker's on the second, IPv4 and IPv6.
fn small() -> ClusterView {
    let mut view = ClusterView::default();
    let pod = json!({"handle_id": "pods.c0ffee0123456789", "secondary": {
        ATTRIBUTE_NODE: "n2", "namespace": "shop", "pod": "cart-0",
        ATTRIBUTE_TIMESTAMP: "2026-11-23 03:40:17 +0000 UTC",
    }});
    let docker = json!({"handle_id": "docker.e0", "secondary": {
        ATTRIBUTE_NODE: "n2", ATTRIBUTE_MAC: "02:42:0a:07:00:02",
    }});
    let cools = json!({"handle_id": null, "releasedAt": "2026-11-23T03:36:01Z"});
    view.apply(&[
        node("n1", &json!({"ipv4Address": "192.0.2.1/24", "ipv6Address": "fd01::1/64"})),
        node("n2", &json!({"ipv4Address": "198.51.100.2/24", "ipv6Address": "fd01::2/64"})),
        pool(
            "blue",
            &json!({"cidr": "10.7.0.0/24", "ipipMode": "CrossSubnet", "natOutgoing": true}),
        ),
        pool("six", &json!({"cidr": "fd00:7::/112"})),
        block("10.7.0.0/26", "n2", &[pod.clone(), docker, cools]),
        block("fd00:7::40/122", "n2", &[pod]),
    ]);
    view
}

#[test]
fn everything_is_found_by_what_it_is_called() {
    let view = small();
    for (query, expected) in [
        ("10.7.0.0", &["address 10.7.0.0"][..]),
        (" 10.7.0.9 ", &["address 10.7.0.9"]),
        ("fd00:7::40", &["address fd00:7::40"]),
        ("192.0.2.1", &["address 192.0.2.1", "node n1"]),
        ("c0ffee01", &["container c0ffee0123456789", "container c0ffee0123456789"]),
        ("c0f", &[]),
        ("pods.c0ffee0123456789", &["container c0ffee0123456789", "container c0ffee0123456789"]),
        ("cart", &["pod shop/cart-0", "pod shop/cart-0"]),
        ("shop/cart-0", &["pod shop/cart-0", "pod shop/cart-0"]),
        ("other/cart-0", &[]),
        ("n2", &["node n2"]),
        ("02:42:0A:07:00:02", &["mac 02:42:0a:07:00:02"]),
        ("02:42:0a:07:00:03", &[]),
        ("blu", &["pool blue"]),
        ("10.7.0.0/24", &["pool blue"]),
        ("10.7.0.0/26", &["block 10.7.0.0/26", "pool blue"]),
        ("fd00:7::40/122", &["block fd00:7::40/122", "pool six"]),
        ("\u{1b}[2J\"", &[]),
    ] {
        assert_eq!(titles(&view, query), expected, "{query}");
    }
    let mac = TunnelKind::ALL.into_iter().find_map(|kind| kind.mac("n2")).unwrap();
    assert_eq!(titles(&view, &mac.to_string()), [format!("mac {mac}")]);
    let long = "x".repeat(257);
    for wrong in ["", "  ", &long] {
        assert!(SearchDocument::of(wrong, None, &view, &HistoryAnswer::default()).is_err());
    }
}

#[test]
fn an_answer_says_who_since_when_where_and_by_what_way() {
    let view = small();
    let told = |query: &str, name: &str| told(&view, query, name).unwrap();
    assert_eq!(told("10.7.0.0", "has it"), "pod shop/cart-0, container c0ffee0123456789 on n2");
    assert_eq!(told("10.7.0.0", "since"), "2026-11-23T03:40:17Z");
    assert_eq!(told("10.7.0.0", "block"), "10.7.0.0/26 of n2");
    let line = told("10.7.0.0", "reached from n1");
    assert!(line.starts_with("IPIP by 198.51.100.2 over tunl0: "), "{line}");
    assert!(line.ends_with("198.51.100.2 is not in 192.0.2.0/24"), "{line}");
    assert_eq!(told("fd00:7::40", "reached from n1"), "direct by fd01::2: same subnet fd01::/64");
    assert!(told("10.7.0.2", "has it").contains("cools down"));
    assert_eq!(told("10.7.0.2", "since"), "2026-11-23T03:36:01Z");
    assert_eq!(
        (told("10.7.0.9", "has it"), told("10.9.0.0", "block")),
        ("nobody".into(), "none".into())
    );
}

#[test]
fn the_history_stands_with_its_address_or_alone() {
    let view = small();
    let lines = r#"{"t":1795400000000}
{"t":1795400000000,"b":0,"a":"10.7.0.0","o":{"h":"pods.decaf001","n":"n1","s":"shop","p":"old"}}
{"t":1795410000000,"a":"10.7.0.0"}"#;
    let asked = |query: &str| {
        let tenures = answer(&question(query), lines.lines().filter_map(Record::read)).tenures;
        let history = HistoryAnswer { tenures, failure: Some("why".to_owned()) };
        let found = SearchDocument::of(query, None, &view, &history).unwrap();
        assert_eq!(found.note.as_deref(), Some("why"));
        serde_json::to_value(found.answers).unwrap()
    };
    let row = json!({
        "from": "before 2026-11-23T02:13:20Z",
        "until": "2026-11-23T05:00:00Z",
        "what": "pod shop/old, container decaf001 on n1",
    });
    for query in ["10.7.0.0", "old", "decaf001"] {
        let answers = asked(query);
        assert_eq!(answers.as_array().unwrap().len(), 1, "{query}");
        assert_eq!(answers[0]["history"], json!([row]), "{query}");
    }
    assert_eq!(asked("old")[0]["kind"], "pod");
}

/// Whatever the store and the history have, an answer is bounded.
#[test]
fn answers_and_problems_are_bounded() {
    let mut view = small();
    let record = |nth: i64| {
        let time = 1_795_400_000_000 + nth * 60_000;
        let line = json!({"t": time, "a": "10.7.0.0", "o": {"h": format!("pods.{nth}")}});
        Record::read(&line.to_string()).unwrap()
    };
    let records = (0..200).map(record);
    let tenures = answer(&question("10.7.0.0"), records).tenures;
    assert_eq!(tenures.len(), 200);
    let last = serde_json::to_value(super::answer::PastRow::from(&tenures[199])).unwrap();
    let history = HistoryAnswer { tenures, failure: None };
    let found = SearchDocument::of("10.7.0.0", None, &view, &history).unwrap();
    assert!(found.note.as_deref().unwrap().contains("earlier holders"));
    let found = serde_json::to_value(&found.answers[0].history).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 50);
    assert_eq!(found[49], last, "the last ones");
    let broken = (0..300).map(|nth| pool(&format!("broken-{nth}"), &json!({"cidr": 7})));
    view.apply(&broken.collect::<Vec<_>>());
    let found = problems(&view);
    assert_eq!(found.len(), 201);
    assert!(found[200][2].starts_with("100 more problems"), "{:?}", found[200]);
}

fn problems(view: &ClusterView) -> Vec<[String; 3]> {
    let state = state(view);
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    let all = state["problems"].as_array().unwrap().iter();
    all.map(|it| ["severity", "about", "what"].map(|key| text(it, key))).collect()
}

#[test]
fn what_is_wrong_is_said_with_its_cure() {
    let mut view = small();
    assert_eq!(problems(&view), [] as [[String; 3]; 0]);
    let holder = |nth: usize| json!({"handle_id": format!("pods.{nth}"), "secondary": {ATTRIBUTE_NODE: "n1"}});
    let holders: Vec<Value> = (0..64).map(holder).collect();
    view.apply(&[
        pool("full", &json!({"cidr": "10.8.0.0/26"})),
        block("10.8.0.0/26", "n1", &holders),
        pool("nearly", &json!({"cidr": "10.8.1.0/26"})),
        block("10.8.1.0/26", "n1", &holders[..58]),
        pool("off", &json!({"cidr": "10.8.2.0/26", "disabled": true})),
        block("10.8.2.0/26", "n1", &holders),
        pool("broken", &json!({"cidr": 7})),
        node("n3", &json!({})),
        node("n4", &json!({"ipv4Address": "192.0.2.1/24"})),
    ]);
    let found = problems(&view);
    let is_there = |severity: &str, about: &str, what: &str| {
        let fits = |it: &&[String; 3]| it[0] == severity && it[1] == about && it[2].contains(what);
        assert!(found.iter().any(|it| fits(&it)), "{about}: {found:#?}");
    };
    is_there("error", "pool full", "no free address");
    is_there("warning", "pool nearly", "6 free addresses left");
    is_there("error", "ippool broken", "cannot be read");
    is_there("warning", "n3", "without an address");
    is_there("error", "n4", "so is node n1");
    assert_eq!(found.len(), 5, "nothing of the pool that is meant to be off: {found:#?}");
    let severities: Vec<&str> = found.iter().map(|it| it[0].as_str()).collect();
    assert!(severities.is_sorted(), "errors first: {severities:?}");
    let state = state(&view);
    let all = state["problems"].as_array().unwrap();
    assert!(all.iter().all(|it| it["cure"].as_str().unwrap().starts_with("weirctl ")), "{all:?}");
    let n4 = state["nodes"].as_array().unwrap().iter().find(|it| it["name"] == "n4").unwrap();
    assert_eq!(n4["problems"], 1);
}

/// Damage that the audit finds has its words and the command that repairs it.
#[tokio::test]
async fn damage_is_told_in_the_audits_words() {
    let memory = recorded_store("busy");
    let handle = keys::handle("pods.nobody");
    memory.seed([(handle, br#"{"handleID":"pods.nobody","block":{"10.7.0.0/30":1}}"#.to_vec())]);
    let snapshot = IpamSnapshot::list(&memory).await.unwrap();
    let damage = audit(&snapshot, &AuditContext::new(None, Timestamp::UNIX_EPOCH));
    let view = listed(&memory).await;
    let around = Circumstances { damage: damage.clone(), ..Circumstances::default() };
    let state =
        serde_json::to_value(StateDocument::of(&view, &around, Timestamp::UNIX_EPOCH)).unwrap();
    let all = state["problems"].as_array().unwrap();
    let found =
        all.iter().find(|it| it["what"].as_str().unwrap().starts_with(damage[0].problem.as_str()));
    assert_eq!(found.expect("the damage")["cure"], "weirctl ipam check --repair");
}

#[test]
fn a_value_that_cannot_be_read_leaves_what_was_known() {
    let mut view = small();
    let before = state(&view)["pools"].clone();
    let cidr = "10.7.0.0/26".parse().unwrap();
    view.apply(&[put(keys::block(cidr), "{"), put(keys::pool("blue"), "[]")]);
    assert_eq!(state(&view)["pools"], before);
    assert_eq!(titles(&view, "cart").len(), 2);
    view.apply(&[Event::Delete { key: keys::block(cidr), revision: Revision(2) }]);
    assert_eq!(titles(&view, "cart").len(), 1);
    assert_eq!(state(&view)["pools"][0]["blocks"], json!([]));
}

fn a_value() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::sample::select(vec![
        "null",
        "{",
        "[]",
        "7",
        "{}",
        r#"{"spec":{}}"#,
        r#"{"state":"confirmed"}"#,
        r#"{"metadata":{"name":"a"},"spec":{"cidr":"10.7.0.0/16","ipipMode":"Always"}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"cidr":"::/0","disabled":true}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"cidr":"0.0.0.0/0","blockSize":99}}"#,
        r#"{"spec":{"reservedCIDRs":["10.7.0.0/30","::/0","0.0.0.0/0"]}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"bgp":{"ipv4Address":"10.7.0.1/32","ipv6Address":"x"}}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"bgp":{"ipv6Address":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/64"}}}"#,
        r#"{"cidr":"10.7.0.0/30","affinity":"host:a","allocations":[0,1,0,null],"unallocated":[3],
            "attributes":[{"handle_id":"\u0000.\"","secondary":{"node":"b","pod":"p","timestamp":"?"}},{"releasedAt":7}]}"#,
        r#"{"cidr":"10.7.0.3/31","affinity":null,"allocations":[0,0],"unallocated":[],"attributes":[{"handle_id":null,"secondary":null}]}"#,
        r#"{"cidr":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126","affinity":"virtual:x","allocations":[0,0,0,0],"unallocated":[],
            "attributes":[{"handle_id":"h","secondary":{"node":""}}]}"#,
    ]);
    let known = text.prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![4 => known, 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

fn a_key() -> impl Strategy<Value = String> {
    let block = prop::sample::select(vec![
        "10.7.0.0/30",
        "10.7.0.2/31",
        "10.7.0.0/16",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126",
        "255.255.255.255/32",
        "::/0",
    ]);
    (0usize..6, block, prop::sample::select(vec!["a", "b", "", "a/b"])).prop_map(
        |(kind, block, name)| {
            let block: IpNet = block.parse().unwrap();
            match kind {
                0 => keys::pool(name),
                1 => keys::node(name),
                2 => keys::reservation(name),
                3 => keys::affinity(name, block),
                4 => keys::machine(name),
                _ => keys::block(block),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nothing that a store may hold and nobody who asks makes it fail.
    #[test]
    fn whatever_is_stored_and_asked_there_is_an_answer(
        changes in prop::collection::vec((a_key(), prop::option::of(a_value())), 0..24),
        query in prop_oneof![
            prop::sample::select(vec!["10.7.0.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "a", "h", "p",
                "::/0", "10.7.0.0/30", "02:00:00:00:00:01", "a/b"]).prop_map(str::to_owned),
            ".{0,300}",
        ],
    ) {
        let mut view = ClusterView::default();
        for (key, value) in changes {
            view.apply(&[match value {
                Some(value) => put(key, value),
                None => Event::Delete { key, revision: Revision(2) },
            }]);
        }
        let state = state(&view);
        for pool in state["pools"].as_array().unwrap() {
            for block in pool["blocks"].as_array().unwrap() {
                let used = block[2].as_u64().unwrap();
                prop_assert!(used <= 4096);
                prop_assert!(block[1].as_i64().unwrap() < state["nodes"].as_array().unwrap().len() as i64);
                let _ = BlockDocument::of(block[0].as_str().unwrap(), &view);
            }
        }
        for here in [None, Some("a"), Some("b")] {
            let _ = ReachDocument::of(here, None, &view);
            if let Ok(found) = SearchDocument::of(&query, here, &view, &HistoryAnswer::default()) {
                prop_assert!(found.answers.len() <= 50);
                prop_assert!(serde_json::to_string(&found).is_ok());
            }
        }
    }
}
