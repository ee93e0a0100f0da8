//! Repairs while others are at work.

use std::collections::BTreeMap;

use serde_json::json;
use weir_common::audit::{Attached, ThisNode};
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::{Block, engine};
use weir_common::network::AttachmentIdentity;

use weir_common::ipam::Assignee;

use super::*;

/// A store with an address of each of these containers on these nodes.
async fn store_of(containers: &[(&str, &str, &str)]) -> Memory {
    let memory = Memory::new();
    create(&memory, &pool("blue", "cidr: 10.1.0.0/24, blockSize: 28")).await;
    for (host, container, address) in containers {
        let request = Request {
            assignee: Assignee::interface(host, "net", container, "eth0"),
            facts: BTreeMap::new(),
            wants: vec![Want::Exactly(address.parse().unwrap())],
            gateways: Vec::new(),
            within: None,
        };
        let made = "2026-11-23T00:00:00Z".parse().unwrap();
        engine::assign(&memory, &request, &[], made).await.unwrap();
    }
    memory
}

/// The node n1 with the interface of these containers.
fn node_with(containers: &[(&str, &str)]) -> ThisNode {
    let attached = |(container, address): &(&str, &str)| Attached {
        identity: AttachmentIdentity::new("net", *container, "eth0").unwrap(),
        addresses: vec![address.parse().unwrap()],
    };
    ThisNode {
        host: "n1".to_owned(),
        attachments: containers.iter().map(attached).collect(),
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    }
}

fn put(memory: &Memory, key: String, value: &Value) {
    memory.seed([(key, value.to_string().into_bytes())]);
}

fn register(memory: &Memory, name: &str) {
    let node = json!({"kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name}, "spec": {}});
    put(memory, keys::node(name), &node);
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The document in what was printed, without the message after it.
fn document(output: &str) -> String {
    output.rsplit_once("}\n").unwrap().0.to_owned() + "}"
}

async fn run(memory: &Memory, line: &str, environment: &Prepared) -> Answer {
    call_in(memory, &words(line), environment, Style::default()).await
}

/// A container that is there when its address is to be released keeps it.
#[tokio::test]
async fn the_kernel_is_read_again_before_an_address_is_released() {
    let memory = store_of(&[("n1", "web", "10.1.0.7")]).await;
    let before = memory.dump();
    let mut environment = Prepared::new("", Some(node_with(&[])));
    environment.still = Some(node_with(&[("web", "10.1.0.7")]));
    let report = run(&memory, "ipam check -o json", &environment).await.output;
    assert!(report.contains("address-without-attachment"), "{report}");
    let answer = run(&memory, "ipam check --repair", &environment).await;
    assert!(answer.output.contains("gone by itself"), "{}", answer.output);
    assert_eq!(memory.dump(), before);
    environment.input = document(&report);
    let answer = run(&memory, "ipam release --from-report=r", &environment).await;
    assert_eq!((answer.exit, memory.dump()), (1, before), "{}", answer.output);
    assert!(answer.output.contains("10.1.0.7 is not released"), "{}", answer.output);
    environment.still = environment.node.clone();
    let answer = run(&memory, "ipam release --from-report=r", &environment).await;
    assert_eq!(answer.output, "Successfully released IP address 10.1.0.7\n");
}

#[tokio::test]
async fn a_report_that_is_out_of_date_releases_nothing() {
    let memory = store_of(&[("n1", "web", "10.1.0.7")]).await;
    let mut environment = Prepared::new("", Some(node_with(&[])));
    let report = run(&memory, "ipam check -o json", &environment).await.output;
    environment.input = document(&report);
    environment.node = Some(node_with(&[("web", "10.1.0.7")]));
    let before = memory.dump();
    let answer = run(&memory, "ipam release --from-report=r", &environment).await;
    assert_eq!(
        answer.output,
        "IP address 10.1.0.7 is not released: nothing here shows that it is unused; run the same \
         command on n1\n"
    );
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn only_what_two_scans_see_is_repaired() {
    let memory = store_of(&[("n1", "first", "10.1.0.7")]).await;
    let both = store_of(&[("n1", "first", "10.1.0.7"), ("n1", "second", "10.1.0.8")]).await.dump();
    let mut environment = Prepared::new("", Some(node_with(&[])));
    let others = memory.clone();
    environment.meanwhile = Some(Box::new(move |number| {
        if number == 0 {
            others.seed(both.clone());
        }
    }));
    let answer = run(&memory, "ipam check --repair", &environment).await;
    assert_eq!(answer.exit, 0, "{}", answer.output);
    assert_eq!(answer.output.matches("repaired: release it").count(), 2, "{}", answer.output);
    assert_eq!(environment.pauses.load(Ordering::Relaxed), 2, "the second needed two more scans");
}

/// What another program writes again and again is left, and it is said why.
#[tokio::test]
async fn what_others_are_changing_is_left_with_the_reason() {
    let memory = store_of(&[("n1", "web", "10.1.0.7")]).await;
    let (key, nothing) = (keys::handle("net.busy"), json!({"block": {"10.1.0.0/28": 1}}));
    put(&memory, key.clone(), &nothing);
    let mut environment = Prepared::new("", Some(node_with(&[("web", "10.1.0.7")])));
    let others = memory.clone();
    let again = key.clone();
    environment.meanwhile = Some(Box::new(move |_| put(&others, again.clone(), &nothing)));
    let answer = run(&memory, "ipam check --repair", &environment).await;
    assert_eq!(
        answer.output.split_once('\n').unwrap().1,
        "[handle-without-address] handle net.busy has no address\n\
         \x20 not repaired: others are changing it\n\
         Check complete; found 1 problems.\n\
         1 problems are left for the reasons above; try again: weirctl ipam check --repair\n"
    );
    assert!(memory.dump().contains_key(&key));
    let answer = run(&memory, "ipam check --repair -o json", &environment).await;
    let value: Value = serde_json::from_str(&document(&answer.output)).unwrap();
    assert_eq!(value["repairs"][0]["done"], "left");
    assert_eq!(value["repairs"][0]["reason"], "others are changing it");
}

#[tokio::test]
async fn a_host_that_is_not_registered_is_gone_only_when_it_is_named() {
    let memory = store_of(&[("n1", "web", "10.1.0.7"), ("n9", "far", "10.1.0.33")]).await;
    register(&memory, "n1");
    let mut environment = Prepared::new("", Some(node_with(&[("web", "10.1.0.7")])));
    let before = memory.dump();
    let answer = run(&memory, "ipam check --repair", &environment).await;
    assert!(answer.output.contains("if it is gone for good, add: --gone-host=n9"));
    let answer = run(&memory, "ipam reclaim", &environment).await;
    assert_eq!(
        answer.output,
        "Nothing to reclaim\nhost n9 is not registered; its 1 addresses and 1 blocks are left to \
         it; if it is gone for good: weirctl ipam reclaim --gone-host n9\n"
    );
    let answer = run(&memory, "ipam reclaim --gone-host n1", &environment).await;
    assert_eq!(
        answer.output,
        "--gone-host n1: this is host n1; name one that is gone, or run the command elsewhere; those \
         that may be gone are listed by: weirctl ipam reclaim --dry-run\n"
    );
    assert_eq!(memory.dump(), before);
    let report = run(&memory, "ipam check --gone-host n9 -o json", &environment).await.output;
    environment.input = document(&report);
    let copy = Memory::new();
    copy.seed(memory.dump());
    let answer = run(&copy, "ipam release --from-report=r", &environment).await;
    assert_eq!(answer.output, "Successfully released IP address 10.1.0.33\n");
    register(&copy, "n9");
    let answer = run(&copy, "ipam release --from-report=r", &environment).await;
    assert!(answer.output.contains("this host is registered"), "{}", answer.output);
    let answer = run(&memory, "ipam reclaim --gone-host n9", &environment).await;
    assert!(answer.exit == 0 && answer.output.contains("10.1.0.33"), "{}", answer.output);
    assert_eq!(run(&memory, "ipam check", &environment).await.exit, 0);
    assert!(!memory.dump().keys().any(|key| key.contains("/n9/")));
}

#[tokio::test]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let memory = store_of(&[("n1", "gone", "10.1.0.7"), ("n9", "far", "10.1.0.33")]).await;
    register(&memory, "n1");
    put(&memory, keys::handle("net.nothing"), &json!({"block": {"10.1.0.0/28": 1}}));
    let empty = Block::new("10.1.0.64/28".parse().unwrap(), "n1", 1);
    memory.seed([(keys::block(empty.cidr), empty.to_json())]);
    put(&memory, keys::affinity("n1", empty.cidr), &json!({"state": "confirmed"}));
    let mut environment = Prepared::new("", Some(node_with(&[])));
    let report = run(&memory, "ipam check -o json", &environment).await.output;
    environment.input = document(&report);
    for line in [
        "ipam check --repair --gone-host n9",
        "ipam release --ip=10.1.0.7",
        "ipam release --from-report=r",
        "ipam configure --strictaffinity=true",
        "ipam reclaim --gone-host n9",
    ] {
        let before = memory.dump();
        let copy = Memory::new();
        copy.seed(before.clone());
        let tried = run(&memory, &format!("{line} --dry-run"), &environment).await;
        assert_eq!(memory.dump(), before, "{line}");
        let done = run(&copy, line, &environment).await;
        let expected = format!("{}Dry run: nothing was changed\n", done.output);
        assert_eq!(tried, Answer { exit: 0, output: expected }, "{line}");
        assert_ne!(copy.dump(), before, "{line}");
    }
    let line = "ipam check --repair --gone-host n9 --dry-run -o json";
    let answer = run(&memory, line, &environment).await;
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    assert_eq!((&value["dryRun"], value["repairs"].as_array().unwrap().len()), (&json!(true), 4));
    assert_eq!(run(&memory, "ipam check --dry-run", &environment).await.exit, 1);
}

/// Whoever releases what a container uses succeeds, and is told what comes of it.
#[tokio::test]
async fn a_container_that_keeps_a_released_address_is_named() {
    for (address, warned) in [("10.1.0.5", true), ("10.1.0.6", false)] {
        let memory = store_of(&[("n1", "alive", "10.1.0.5"), ("n1", "gone", "10.1.0.6")]).await;
        let environment = Prepared::new("", Some(node_with(&[("alive", "10.1.0.5")])));
        let answer = run(&memory, &format!("ipam release --ip={address}"), &environment).await;
        let released = format!("Successfully released IP address {address}\n");
        assert_eq!(answer, Answer { exit: 0, output: released });
        let warnings = environment.warnings.into_inner().unwrap().join("\n");
        let says = "10.1.0.5 is still in use on this node: by interface eth0 of container alive \
                    in network net";
        assert_eq!(warnings.contains(says), warned, "{warnings:?}");
        assert_eq!(warnings.is_empty(), !warned);
    }
}
