//! Giving a node another name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_common::datastore::keys;
use weir_common::ipam::{ATTRIBUTE_NODE, ATTRIBUTE_TYPE, Affinity, Attribute, Block, Handle};
use weir_common::tunnel::TunnelKind;
use weir_datastore::memory::CommitFault;

use super::force::{Dump, assert_consistent, blocks};
use super::*;

const NEW: &str = "n4.example.org";

/// A recorded store whose node n4 has all that hangs on a name: a Node with fields that
/// Weir does not know, blocks, addresses in others' blocks, a tunnel address in its own
/// block and one in another's, a note, a claim without a block, a machine.
fn store() -> Memory {
    let memory = recorded_store("busy");
    let cidr = |text: &str| text.parse::<IpNet>().unwrap();
    let (own, others) = (cidr("10.9.0.32/29"), cidr("10.9.0.40/29"));
    let mut handle = Handle::default();
    let mut entries = Vec::new();
    for (host, cidr) in [("n4", own), ("n5", others)] {
        let mut block = Block::new(cidr, host, 7);
        let facts = [(ATTRIBUTE_NODE, "n4"), (ATTRIBUTE_TYPE, "ipipTunnelAddress")];
        let tunnel = Attribute {
            handle_id: Some(TunnelKind::Ipip.handle_of("n4")),
            secondary: Some(facts.map(|(key, value)| (key.into(), value.into())).into()),
            ..Attribute::default()
        };
        block.assign(3, tunnel);
        handle.set(cidr, 1);
        entries.push((keys::affinity(host, cidr), Affinity::default().to_json()));
        entries.push((keys::block(cidr), block.to_json()));
    }
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "later": [1],
        "metadata": {"name": "n4", "uid": "u", "annotations": {"a": "n4"}},
        "spec": {"bgp": {"ipv4Address": "172.16.1.14/24", "ipv4IPIPTunnelAddr": "10.9.0.35"}},
    });
    entries.extend([
        (keys::handle(&TunnelKind::Ipip.handle_of("n4")), handle.to_json()),
        (keys::full("n4", cidr("10.7.0.28/30")), Vec::new()),
        (keys::full("n4", cidr("10.7.0.200/30")), Vec::new()),
        (keys::affinity("n4", cidr("10.7.0.196/30")), br#"{"state":"pending"}"#.to_vec()),
        (keys::machine("n4"), b"0123456789abcdef".to_vec()),
        (keys::node("n4"), node.to_string().into_bytes()),
    ]);
    memory.seed(entries);
    memory
}

/// The store with the new name wherever the old one is the node's, by its text; blocks
/// without their sequence numbers.
fn expected(before: &Dump) -> BTreeMap<String, Value> {
    let replaced = |text: &str, parts: [&str; 4]| {
        parts
            .iter()
            .fold(text.to_owned(), |text, part| text.replace(part, &part.replace("n4", NEW)))
    };
    let pair = |(key, value): (&String, &Vec<u8>)| {
        // So that the end of a key is seen.
        let key = replaced(&format!("{key}$"), ["/n4/", "/n4$", "addr-n4$", "$"]);
        let text = String::from_utf8(value.clone()).unwrap();
        let parts =
            [r#""host:n4""#, r#""node":"n4""#, r#""ipip-tunnel-addr-n4""#, r#""name":"n4""#];
        (key.trim_end_matches('$').to_owned(), masked_value(replaced(&text, parts).as_bytes()))
    };
    before.iter().map(pair).collect()
}

fn masked_value(value: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(value)
        .unwrap_or_else(|_| Value::String(String::from_utf8(value.to_vec()).unwrap()));
    if let Some(object) = value.as_object_mut() {
        object.remove("sequenceNumber");
    }
    value
}

fn masked_dump(dump: &Dump) -> BTreeMap<String, Value> {
    dump.iter().map(|(key, value)| (key.clone(), masked_value(value))).collect()
}

fn in_use(dump: &Dump) -> BTreeSet<(IpAddr, u64)> {
    let blocks = blocks(dump);
    let of_block = |block: &Block| {
        let taken = block.held_by(|_| true).into_iter();
        let number = |it: usize| block.sequence_number_for_allocation[&it.to_string()];
        taken.map(|it| (block.address(it), number(it))).collect::<Vec<_>>()
    };
    blocks.iter().flat_map(of_block).collect()
}

/// Affinities and blocks agree, the claim of [`store`] apart.
fn assert_whole(dump: &Dump) {
    let mut dump = dump.clone();
    dump.retain(|key, _| !key.ends_with("10.7.0.196-30"));
    assert_consistent(&dump);
}

const LINE: &str = "node rename n4 n4.example.org";

#[tokio::test]
async fn everything_is_moved_and_nothing_else_is_changed() {
    let memory = store();
    let before = memory.dump();
    let answer = call(&memory, &format!("{LINE} --dry-run")).await;
    assert_eq!(memory.dump(), before);
    assert!(answer.output.ends_with("Dry run: nothing was changed\n"), "{}", answer.output);
    let done = "Renamed node n4 to n4.example.org: 3 block(s) and 9 address(es) in use\n";
    assert!(answer.output.starts_with(done), "{}", answer.output);
    let check = call(&memory, "ipam check").await;
    let answer = call(&memory, LINE).await;
    assert_eq!(answer.exit, 0, "{}", answer.output);
    assert!(answer.output.starts_with(done), "{}", answer.output);
    let after = memory.dump();
    assert_eq!(masked_dump(&after), expected(&before));
    assert_eq!(in_use(&after), in_use(&before));
    assert_whole(&after);
    // The claim without a block is found before and after, and nothing besides.
    let check_after = call(&memory, "ipam check").await;
    let of = |answer: &Answer| answer.output.replace(NEW, "n4");
    assert_eq!(of(&check_after), of(&check));
    let answer = call(&memory, LINE).await;
    assert!(answer.output.starts_with("node n4 is not known"), "{}", answer.output);
}

/// After each of its transactions, and with the answer to each lost.
#[tokio::test]
async fn a_rename_that_was_cut_off_is_finished_by_the_same_command() {
    let memory = store();
    let before = memory.dump();
    call(&memory, LINE).await;
    let whole = memory.dump();
    let mut cut_off = 0;
    for fault in [CommitFault::CrashBefore, CommitFault::CrashAfter, CommitFault::AnswerLost] {
        for nth in 1.. {
            let memory = store();
            memory.fail_commit(nth, fault);
            let first = call(&memory, LINE).await;
            let next = memory.another_process();
            assert_whole(&next.dump());
            assert_eq!(in_use(&next.dump()), in_use(&before));
            if first.exit == 0 {
                assert_eq!(next.dump(), whole);
                // A lost answer is found out, whichever it is.
                if fault == CommitFault::AnswerLost && nth < 9 {
                    continue;
                }
                break;
            }
            cut_off += 1;
            let dump = next.dump();
            let is_begun = dump.contains_key(&keys::rename("n4"));
            if is_begun {
                // Every block's node is registered meanwhile.
                assert!([keys::node("n4"), keys::node(NEW)].iter().all(|it| dump.contains_key(it)));
                let other = call(&next, "node rename n4 n7").await;
                let advice = "finish that first: weirctl node rename n4 n4.example.org";
                assert!(other.output.contains(advice), "{}", other.output);
                assert_eq!(next.dump(), dump);
            }
            let second = call(&next, LINE).await;
            // After the last transaction there is nothing left to do.
            let is_done = !is_begun && dump.contains_key(&keys::node(NEW));
            assert_eq!(second.exit, i64::from(is_done), "{first:?} {second:?}");
            assert_eq!(second.output.contains("what was left of it"), is_begun);
            assert_eq!(next.dump(), whole, "{fault:?} {nth}");
        }
    }
    assert!(cut_off > 16, "{cut_off} transactions failed");
}

#[tokio::test]
async fn what_others_change_meanwhile_is_moved_too() {
    let memory = store();
    call(&memory, LINE).await;
    let whole = memory.dump();
    for nth in 1..=8 {
        let memory = store();
        memory.fail_commit(nth, CommitFault::Conflict);
        assert_eq!(call(&memory, LINE).await.exit, 0);
        assert_eq!(memory.dump(), whole, "{nth}");
    }
}

#[tokio::test]
async fn names_that_cannot_be_had_are_refused() {
    let machine = |name: &str| (keys::machine(name), b"another".to_vec());
    let cidr = "10.7.0.204/30".parse().unwrap();
    for (line, there, expected) in [
        ("node rename n4 n4", None, "the node is called n4 already"),
        ("node rename n4 a/b", None, "\"a/b\" is not a valid node name"),
        ("node rename n44 n5", None, "node n44 is not known"),
        ("node rename n4 n2", None, "a node of that name is registered"),
        ("node rename n4 n7", Some(machine("n7")), "another machine has that name"),
        (
            "node rename n4 n7",
            Some((keys::affinity("n7", cidr), Vec::new())),
            "a node of that name has blocks",
        ),
        (
            "node rename n4 n7",
            Some((keys::rename("n1"), br#"{"to":"n7"}"#.to_vec())),
            "finish that first: weirctl node rename n1 n7",
        ),
        ("node rename n4 n7", Some((keys::rename("n4"), b"{}".to_vec())), "cannot be read"),
        (
            "node rename n4 n7",
            Some((
                keys::CLUSTER_INFORMATION.into(),
                br#"{"spec":{"datastoreReady":false}}"#.into(),
            )),
            "the datastore is locked",
        ),
    ] {
        let memory = store();
        memory.seed(there);
        let before = memory.dump();
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 1);
        assert!(answer.output.contains(expected), "{line}: {}", answer.output);
        assert_eq!(memory.dump(), before);
    }
}

/// The tests' own node is n1.
#[tokio::test]
async fn the_nodes_own_file_follows() {
    for (line, kept, told) in [
        ("node rename n1 n7", "n7", true),
        ("node rename n1 n7 --dry-run", "n1", false),
        ("node rename n4 n7", "n1", false),
    ] {
        let environment = Prepared::new("", None);
        let arguments: Vec<_> = line.split(' ').collect();
        let answer = call_in(&store(), &arguments, &environment, Style::default()).await;
        assert_eq!(answer.exit, 0, "{}", answer.output);
        assert_eq!(*environment.kept_name.lock().unwrap(), kept, "{line}");
        assert_eq!(answer.output.contains("/var/lib/weir/nodename says n7 now"), told, "{line}");
    }
}

#[tokio::test]
async fn a_node_whose_agent_runs_is_not_renamed() {
    for (line, exit) in [("node rename n1 n7", 1), ("node rename n4 n7", 0)] {
        let environment = Prepared { agent_runs: true, ..Prepared::new("", None) };
        let arguments: Vec<_> = line.split(' ').collect();
        let answer = call_in(&store(), &arguments, &environment, Style::default()).await;
        assert_eq!(answer.exit, exit, "{}", answer.output);
        assert_eq!(answer.output.contains("systemctl stop weir-node"), exit == 1);
    }
}
