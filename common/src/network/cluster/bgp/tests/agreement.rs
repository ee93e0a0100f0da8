//! What is explained is what is planned, and what BIRD is told.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::properties::some_cluster;
use super::*;
use crate::network::{ClusterPlan, RouteKind, plan_cluster};
use crate::resources::EncapsulationMode::{Always, CrossSubnet};
use crate::resources::bgp::{BgpFilter, FilterAction, FilterRule};
use crate::tunnel::TunnelKind;

/// A filter of one rule that every prefix meets.
fn filter(action: FilterAction) -> BgpFilter {
    let rule = FilterRule {
        prefix: None,
        is_from_peers: false,
        interface: None,
        peer_type: None,
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        priority: None,
        action,
        operations: Vec::new(),
    };
    let rules = vec![rule];
    BgpFilter { export_v4: rules.clone(), import_v4: rules, ..BgpFilter::default() }
}

/// Block number 0 has nodes in it, and of the others every third is in no pool.
fn block(number: u8) -> IpNet {
    match number {
        0 => "10.0.0.0/17".parse().unwrap(),
        _ => format!("10.{}.{number}.0/28", 244 + number % 3).parse().unwrap(),
    }
}

/// A cluster with pools, blocks, borrowed addresses, and filters at some of its peerings.
fn some_network() -> impl Strategy<Value = ClusterState> {
    let mode = || prop::sample::select(vec![Never, Never, CrossSubnet, Always]);
    let host = || prop::collection::btree_set(1u8..=9, 1..=2);
    (
        some_cluster(),
        prop::collection::vec((mode(), any::<bool>()), 2),
        prop::collection::btree_map(0u8..16, host(), 0..12),
        prop::collection::vec((0u8..16, 1u8..=9), 0..6),
        prop::collection::vec(prop::sample::select(vec!["", "", "gone", "all", "none"]), 4),
        (any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(mut state, pools, blocks, borrowed, filters, (re_exports, leaves, mesh))| {
                pool(&mut state, "lan", "10.0.0.0/16", Never);
                for (number, (mode, is_exported)) in (244..).zip(pools) {
                    let name = format!("p{number}");
                    pool(&mut state, &name, &format!("10.{number}.0.0/16"), mode);
                    state.pools.get_mut(&name).unwrap().is_exported = is_exported;
                }
                for (number, hosts) in blocks {
                    let hosts = hosts.iter().map(|host| format!("n{host}")).collect();
                    state.blocks.insert(block(number), hosts);
                }
                for (number, host) in borrowed {
                    let users = state.borrowed.entry(block(number)).or_default();
                    users.insert(address_in(block(number)), format!("n{host}"));
                }
                for (peer, filter) in state.bgp.peers.values_mut().zip(filters) {
                    peer.filters.extend((!filter.is_empty()).then(|| filter.to_owned()));
                }
                let filters = [("all", FilterAction::Accept), ("none", FilterAction::Reject)];
                let filters = filters.map(|(name, action)| (name.to_owned(), filter(action)));
                state.bgp.filters.extend(filters);
                let cluster = state.bgp.configurations.get_mut("default").unwrap();
                (cluster.re_exports, cluster.leaves_cluster_routes) = (re_exports, leaves);
                cluster.node_to_node_mesh = mesh.then_some(true);
                state
            },
        )
}

fn address_in(block: IpNet) -> std::net::IpAddr {
    block.hosts().nth(4).unwrap()
}

/// The links of a node: its registered address has a link of 25 bits, so that others of the same
/// registered subnet may be beyond it.
fn links(state: &ClusterState, node: &str) -> Underlay {
    underlay(&format!("{}/25", state.nodes[node].ipv4.unwrap().addr()))
}

fn explained(state: &ClusterState, node: &str, question: &BgpQuestion) -> BgpExplanation {
    explain_bgp(node, state, &links(state, node), question)
}

fn cluster_plan(state: &ClusterState, node: &str) -> ClusterPlan {
    plan_cluster(node, state, &links(state, node))
}

/// The text of a session's protocol in BIRD's configuration, up to its end.
fn protocol<'a>(text: &'a str, name: &str) -> &'a str {
    let begin = format!("protocol bgp {name} from");
    let (_, rest) = text.split_once(&begin).unwrap();
    rest.split_once("\n}").unwrap().0
}

/// Whether the export filter of a protocol lets a range of another node pass that no filter
/// decides about, as far as the text of the configuration goes.
fn lets_pass(protocol: &str, owner: Option<std::net::IpAddr>) -> bool {
    let condition = protocol.split("weir_export4(").nth(1).unwrap();
    let condition = condition.split_once(");").unwrap().0;
    let of_owner = |owner: std::net::IpAddr| {
        let list = condition.split_once("[ ").map_or("", |(_, list)| list);
        list.trim_end_matches(" ]").split(", ").any(|it| it == owner.to_string())
    };
    protocol.contains("if source = RTS_BGP then accept;")
        || condition == "true"
        || owner.is_some_and(of_owner)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Sessions, the need of a daemon, and what is announced are the plan's.
    #[test]
    fn what_is_explained_is_what_is_planned(state in some_network()) {
        for node in state.nodes.keys() {
            let plan = plan_bgp(node, &state, &links(&state, node));
            let cluster = cluster_plan(&state, node);
            let all = explained(&state, node, &BgpQuestion::Sessions);
            let names: Vec<&String> = all.sessions.iter().map(|session| &session.name).collect();
            prop_assert_eq!(names, plan.sessions.keys().collect::<Vec<_>>());
            prop_assert_eq!(&cluster.bgp_need, &plan.need);
            prop_assert_eq!(all.need, plan.need.map(|need| need.to_string()));
            let borrowed = state.borrowed.values().flat_map(|users| users.keys());
            let ranges: BTreeSet<IpNet> =
                borrowed.map(|it| IpNet::from(*it)).chain(state.blocks.keys().copied()).collect();
            for range in ranges {
                let answer = explained(&state, node, &BgpQuestion::Range(range)).prefix.unwrap();
                let announces = cluster.bgp_need.is_some() && cluster.announced.contains(&range);
                let by_me = answer.announced_by.as_ref() == Some(node);
                prop_assert_eq!(by_me && answer.announced == Some(range), announces, "{:?}", answer);
                prop_assert_eq!(answer.announced.is_some(), answer.announced_by.is_some());
                if let (Some(by), Some(announced)) = (&answer.announced_by, answer.announced)
                    && state.nodes.contains_key(by)
                {
                    let announced_there = cluster_plan(&state, by).announced.contains(&announced);
                    prop_assert!(announced_there, "{} by {}", announced, by);
                }
                let subject = answer.announced.unwrap_or(range);
                let by_agent = match cluster.routes.get(&subject) {
                    Some(RouteKind::Direct { .. }) => "by the agent's route via ",
                    Some(RouteKind::Tunnel { kind: TunnelKind::Ipip, .. }) => "by the agent's IPIP tunnel",
                    Some(RouteKind::Tunnel { .. }) => "by the agent's VXLAN",
                    Some(RouteKind::Blackhole) => "on this node",
                    None => "",
                };
                prop_assert!(answer.reached.starts_with(by_agent), "{:?}", answer);
            }
        }
    }

    /// What each peer is told is what the text of BIRD's configuration lets pass.
    #[test]
    fn what_is_told_is_what_bird_lets_pass(state in some_network()) {
        for node in state.nodes.keys() {
            let plan = plan_bgp(node, &state, &links(&state, node));
            let text = BirdConfiguration::of(&plan, &Default::default()).text;
            for range in state.blocks.keys() {
                let answer = explained(&state, node, &BgpQuestion::Range(*range)).prefix.unwrap();
                let Some(by) = &answer.announced_by else { continue };
                let owner = state.nodes.get(by).and_then(|owner| Some(owner.ipv4?.addr()));
                for peer in &answer.peers {
                    let session = &plan.sessions[&peer.session];
                    let protocol = protocol(&text, &peer.session);
                    let expected = match session.filters.first().map(String::as_str) {
                        _ if plan.need.is_none() || session.node.as_ref() == Some(by) => false,
                        Some("gone" | "none") => false,
                        Some(_) => true,
                        None => by == node || lets_pass(protocol, owner),
                    };
                    // Beyond the text, BIRD tells other reflectors only what clients have told.
                    let is_among_reflectors = by != node
                        && !session.is_external()
                        && session.reflects_as.is_none();
                    let is_told = match is_among_reflectors {
                        true => peer.is_told.unwrap_or(expected) && expected,
                        false => expected,
                    };
                    prop_assert_eq!(peer.is_told.unwrap_or(is_told), is_told, "{:?} {}", peer, range);
                    prop_assert_eq!(
                        peer.is_told.is_none() && !is_among_reflectors, false, "{:?}", peer
                    );
                }
            }
        }
    }
}
