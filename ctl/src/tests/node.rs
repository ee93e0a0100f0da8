//! The commands about this node.

use serde_json::json;
use weir_common::datastore::keys;
use weir_common::ipam::assign::Want;
use weir_common::ipam::{Assignee, Family, engine};
use weir_common::network::{
    ActualTunnel, ActualVxlan, ClusterSnapshot, RouteKind, TunnelPlan, UnderlayLink, diff,
    plan_cluster,
};
use weir_common::tunnel::TunnelKind;

use super::golden::{WIDTHS, check, style};
use super::*;

/// A store that Calico wrote, in which two nodes have tunnel addresses.
fn busy() -> Memory {
    let memory = recorded_store("busy");
    set(&memory, "n1", "ipv4IPIPTunnelAddr", "10.7.0.17");
    set(&memory, "n4", "ipv4IPIPTunnelAddr", "10.7.0.25");
    for (name, address) in [("n1", "10.8.0.17"), ("n5", "10.8.0.65")] {
        change(&memory, name, |node| node["spec"]["ipv4VXLANTunnelAddr"] = address.into());
    }
    memory
}

/// Gives a node this value in `spec.bgp`.
fn set(memory: &Memory, name: &str, field: &str, value: &str) {
    change(memory, name, |node| node["spec"]["bgp"][field] = value.into());
}

fn change(memory: &Memory, name: &str, change: impl FnOnce(&mut Value)) {
    let key = keys::node(name);
    let mut node: Value = serde_json::from_slice(&memory.dump()[&key]).unwrap();
    change(&mut node);
    memory.seed([(key, node.to_string().into_bytes())]);
}

/// The links of node n1.
fn underlay() -> Underlay {
    let addresses = ["172.16.1.11/24", "2001:db8::1/64"];
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Underlay {
        links: vec![UnderlayLink { name: "eth0".into(), mtu: 1500, addresses }],
        ..Underlay::default()
    }
}

/// A kernel that has all that n1 should have.
async fn agreeing(memory: &Memory) -> ActualState {
    let inventory = ClusterSnapshot::read(memory, usize::MAX).await.unwrap().state;
    let plan = plan_cluster("n1", &inventory, &underlay());
    let made = |(kind, tunnel): (&TunnelKind, &TunnelPlan)| (*kind, made_of(*kind, tunnel));
    let tunnels = plan.tunnels.iter().map(made).collect();
    let routes = plan.routes.iter().map(|(range, way)| (*range, Some(way.clone()))).collect();
    let announced = plan.bgp_need.as_ref().map(|_| plan.announced.clone()).unwrap_or_default();
    let present = ActualState { tunnels, routes, announced, ..ActualState::default() };
    assert_eq!(diff(&plan, &present).changes, []);
    present
}

/// A tunnel as it is planned.
fn made_of(kind: TunnelKind, plan: &TunnelPlan) -> ActualTunnel {
    let vxlan = plan.vxlan.as_ref().map(|vxlan| ActualVxlan {
        device: vxlan.device.clone(),
        neighbours: vxlan.neighbours.clone(),
        forwarding: vxlan.forwarding.clone().into_iter().collect(),
    });
    let addresses = plan.addresses(kind);
    ActualTunnel { claimed: true, up: true, mtu: plan.mtu, addresses, vxlan }
}

async fn status(memory: &Memory, line: &str, present: ActualState, style: Style) -> Answer {
    let mut environment = Prepared::new("", None);
    environment.cluster = (underlay(), present);
    let arguments: Vec<&str> = line.split(' ').collect();
    call_in(memory, &arguments, &environment, style).await
}

/// Breaks what the kernel has, in each way there is.
fn disturb(present: &mut ActualState) {
    let by_hand = RouteKind::Direct {
        next_hop: "172.16.1.99".parse().unwrap(),
        link: "eth0".to_owned(),
        source: "172.16.1.11".parse().unwrap(),
    };
    let ranges: Vec<_> = present.routes.keys().copied().collect();
    present.routes.remove(&ranges[0]);
    present.routes.insert(ranges[1], Some(by_hand.clone()));
    present.routes.remove(&ranges[2]);
    present.occupied.insert(ranges[2]);
    present.routes.insert("10.99.0.0/26".parse().unwrap(), Some(by_hand));
    if let Some(tunnel) = present.tunnels.get_mut(&TunnelKind::Ipip) {
        tunnel.mtu = 1400;
        tunnel.up = false;
    }
}

#[tokio::test]
async fn a_node_s_part_in_the_cluster_is_shown() {
    for width in WIDTHS {
        let memory = busy();
        let good = agreeing(&memory).await;
        let mut bad = good.clone();
        disturb(&mut bad);
        let mut text = String::new();
        let empty = Memory::new();
        let cases = [
            (&memory, "node status", good),
            (&memory, "node status", bad.clone()),
            (&memory, "node status -o json", bad),
            (&empty, "node status", ActualState::default()),
        ];
        for (memory, line, present) in cases {
            let answer = status(memory, line, present, style(width)).await;
            text.push_str(&format!("$ weirctl {line}\n{}[{}]\n\n", answer.output, answer.exit));
        }
        check("node-status", width, &text);
    }
}

#[tokio::test]
async fn the_exit_status_says_whether_all_is_well() {
    let memory = recorded_store("small");
    set(&memory, "n1", "ipv4Address", "172.16.1.11/24");
    set(&memory, "n2", "ipv4Address", "172.16.1.12/24");
    let good = agreeing(&memory).await;
    let answer = status(&memory, "node status", good.clone(), Style::default()).await;
    assert_eq!(answer.exit, 0, "{}", answer.output);
    let mut stale = good;
    stale.routes.insert("10.99.0.0/26".parse().unwrap(), None);
    let answer = status(&memory, "node status", stale.clone(), Style::default()).await;
    assert_eq!(answer.exit, 1, "{}", answer.output);
    assert!(answer.output.contains("the kernel differs in 1 place from"), "{}", answer.output);
    let answer = status(&memory, "node status -o json", stale, Style::default()).await;
    let (document, _) = answer.output.split_once("\n}\n").unwrap();
    let document: Value = serde_json::from_str(&format!("{document}}}")).unwrap();
    let range = json!({
        "range": "10.99.0.0/26", "nodes": [], "pool": null, "way": null, "kernel": "superfluous",
    });
    assert!(document["ranges"].as_array().unwrap().contains(&range), "{document}");
}

/// Two subnets without IPIP, between which a routing daemon has the routes.
#[tokio::test]
async fn a_routing_daemons_routes_are_no_problem() {
    let memory = recorded_store("small");
    set(&memory, "n1", "ipv4Address", "172.16.1.11/24");
    set(&memory, "n2", "ipv4Address", "172.16.2.12/24");
    let inventory = ClusterSnapshot::read(&memory, usize::MAX).await.unwrap().state;
    let plan = plan_cluster("n1", &inventory, &underlay());
    let left: Vec<_> = plan.left_to_others.keys().copied().collect();
    assert!(!left.is_empty());
    let mut present = agreeing(&memory).await;
    let answer = status(&memory, "node status", present.clone(), Style::default()).await;
    assert_eq!(answer.exit, 1, "{}", answer.output);
    assert!(answer.output.contains("is not on a link of this node"), "{}", answer.output);
    present.foreign_routes.extend(left.iter().map(|range| (*range, Default::default())));
    let answer = status(&memory, "node status", present.clone(), Style::default()).await;
    assert_eq!(answer.exit, 0, "{}", answer.output);
    assert!(answer.output.contains("another program's route"), "{}", answer.output);
    let answer = status(&memory, "node status -o json", present, Style::default()).await;
    let document: Value = serde_json::from_str(&answer.output).unwrap();
    let ranges = document["ranges"].as_array().unwrap();
    let range = ranges.iter().find(|it| it["range"] == left[0].to_string()).unwrap();
    assert_eq!((&range["way"], &range["kernel"]), (&Value::Null, &json!("foreign")));
    assert_eq!(document["problems"], json!([]));
}

#[tokio::test]
async fn looking_at_a_node_changes_nothing() {
    let memory = busy();
    let before = memory.dump();
    status(&memory, "node status", ActualState::default(), Style::default()).await;
    assert_eq!(memory.dump(), before);
}

/// A slip in a node's name shows.
#[tokio::test]
async fn a_name_that_is_not_registered_is_noted() {
    let memory = busy();
    let note = "Note: no node typo is registered; those that are: weirctl get nodes\n";
    for (line, noted) in [
        ("node status --node typo", true),
        ("node status --node n1", false),
        ("ipam explain --node typo", true),
        ("ipam explain --node n1", false),
    ] {
        let answer = status(&memory, line, ActualState::default(), Style::default()).await;
        assert_eq!(answer.output.contains(note), noted, "{line}: {}", answer.output);
    }
    let line = "node status --node typo -o json";
    let answer = status(&memory, line, ActualState::default(), Style::default()).await;
    assert!(answer.output.contains("\"known\": false"), "{}", answer.output);
    let empty =
        status(&Memory::new(), "node status", ActualState::default(), Style::default()).await;
    assert!(!empty.output.contains("Note:"), "{}", empty.output);
}

/// A store in which node n1 is another machine's, which has two of its addresses.
async fn clashing() -> Memory {
    let memory = Memory::new();
    create(&memory, &super::pool("blue", "cidr: 10.1.0.0/24")).await;
    for container in ["a", "b"] {
        let request = weir_common::ipam::assign::Request {
            assignee: Assignee::interface("n1", "net", container, "eth0")
                .on(Some(MachineId::from_source("another machine"))),
            facts: Default::default(),
            wants: vec![Want::Any { family: Family::V4, pools: vec![] }],
            gateways: vec![],
            within: None,
        };
        let made = "2026-11-23T00:00:00Z".parse().unwrap();
        engine::assign(&memory, &request, &[], made).await.unwrap();
    }
    memory
}

#[tokio::test]
async fn a_name_is_taken_over_with_its_addresses() {
    let memory = clashing().await;
    let own = MachineId::from_source("this machine");
    let other = MachineId::from_source("another machine");
    let before = memory.dump();
    let dry = call(&memory, "node adopt n1 --dry-run").await;
    assert_eq!(memory.dump(), before);
    let answer = call(&memory, "node adopt n1").await;
    assert_eq!(
        answer.output,
        format!("Node n1 is machine {own} now; it was {other}\nTook over 2 addresses\n")
    );
    assert_eq!(dry.output, format!("{}Dry run: nothing was changed\n", answer.output));
    assert_eq!((dry.exit, answer.exit), (0, 0));
    let again = call(&memory, "node adopt n1").await;
    assert_eq!(again.output, format!("Node n1 is machine {own}\nTook over 0 addresses\n"));
}

#[tokio::test]
async fn a_name_is_not_taken_over_by_mistake() {
    let memory = clashing().await;
    let before = memory.dump();
    let answer = call(&memory, "node adopt n2").await;
    assert!(answer.exit == 1 && answer.output.contains("node name n1, not n2"), "{answer:?}");
    let nobody = Prepared { machine: None, ..Prepared::new("", None) };
    let answer = call_in(&memory, &["node", "adopt", "n1"], &nobody, Style::default()).await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.contains("/var/lib/weir/machine"), "{answer:?}");
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn a_clash_is_a_problem_of_the_node_and_no_reason_to_rename_the_other() {
    let memory = clashing().await;
    let other = MachineId::from_source("another machine");
    let answer = status(&memory, "node status", ActualState::default(), Style::default()).await;
    assert_eq!(answer.exit, 1);
    for words in [other.as_str(), "weirctl node adopt n1"] {
        assert!(answer.output.contains(words), "{}", answer.output);
    }
    let before = memory.dump();
    let answer = call(&memory, "node rename n1 n9").await;
    assert!(answer.exit == 1 && answer.output.contains(other.as_str()), "{answer:?}");
    assert_eq!(memory.dump(), before);
    // What another machine has is not compared with the kernel of this one.
    let node = ThisNode {
        host: "n1".to_owned(),
        machine: Some(MachineId::from_source("this machine")),
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    };
    let check = async |arguments: &[&str]| {
        call_on_node(&memory, arguments, "", Some(node.clone())).await.output
    };
    let text = check(&["ipam", "check", "--repair"]).await;
    assert!(text.contains("Not judged: 2 addresses of node n1"), "{text}");
    assert!(text.contains("found 0 problems. Not judged: 2 of "), "{text}");
    let document: Value =
        serde_json::from_str(&check(&["ipam", "check", "-o", "json"]).await).unwrap();
    let unjudged = &document["notJudgedAddresses"][0];
    assert_eq!((&unjudged["reason"], &unjudged["addresses"]), (&"other-machine".into(), &2.into()));
    // Taken over, it is.
    assert_eq!(call(&memory, "node adopt n1").await.exit, 0);
    let text = check(&["ipam", "check", "--repair"]).await;
    assert!(text.contains("repaired: ") && !text.contains("Not judged"), "{text}");
}

#[tokio::test]
async fn a_node_that_is_deleted_leaves_its_name_to_any_machine() {
    let memory = clashing().await;
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "n1"}, "spec": {},
    });
    memory.seed([(keys::node("n1"), node.to_string().into_bytes())]);
    assert!(memory.dump().contains_key(&keys::machine("n1")));
    assert_eq!(call(&memory, "delete node n1").await.exit, 0);
    assert!(!memory.dump().contains_key(&keys::machine("n1")));
}
