//! BIRD's configuration: golden files that BIRD itself takes, and what is left out of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use support::{address, configuration, net, plan, refusal, router, secret, session, with};
use weir_common::network::{
    BgpPlan, BgpSession, BirdConfiguration, BirdProblem, ExportedOthers, NextHop, Origin,
    StaticRoute,
};
use weir_common::resources::bgp::{
    Bfd, BgpFilter, FilterAction, FilterOperation, FilterRule, LogSeverity, PeerType,
    PrefixAdvertisement, PrefixMatch, PrefixOperator,
};

const LOCAL: &str = "10.0.1.11";

/// Compares with the golden file, which BIRD has to take.
fn assert_golden(name: &str, configuration: &BirdConfiguration) {
    assert_eq!(refusal(&configuration.text), None, "{name}");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = folder.join(format!("{name}.conf"));
    if std::env::var_os("WEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &configuration.text).unwrap();
    }
    assert_eq!(configuration.text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

fn mesh() -> BgpPlan {
    let six = BgpSession { restart_time: Some(9000), ..session("fd00:1::11", "fd00:1::12") };
    let of_mesh = BgpSession { password: Some(secret("mesh")), ..session(LOCAL, "10.0.1.12") };
    let far = BgpSession { restart_time: Some(120), ..session(LOCAL, "10.0.2.9") };
    let mut plan = with(with(with(plan(LOCAL), "Mesh", of_mesh), "Mesh", far), "Mesh", six);
    plan.of_agent.insert(net("10.245.0.0/16"));
    plan.not_exported.insert(net("10.246.0.0/16"));
    plan.ignored_interfaces.push("docker*".to_owned());
    plan
}

fn rule(action: FilterAction) -> FilterRule {
    FilterRule {
        prefix: None,
        is_from_peers: false,
        interface: None,
        peer_type: None,
        communities: Vec::new(),
        as_path_prefix: Vec::new(),
        priority: None,
        action,
        operations: Vec::new(),
    }
}

fn of(cidr: &str, operator: PrefixOperator, length: Option<(u8, u8)>) -> Option<PrefixMatch> {
    Some(PrefixMatch { cidr: net(cidr), operator, length })
}

/// A filter with every field.
fn filter() -> BgpFilter {
    let every = FilterRule {
        prefix: of("10.244.0.0/16", PrefixOperator::In, Some((24, 28))),
        is_from_peers: true,
        interface: Some("eth*".to_owned()),
        peer_type: Some(PeerType::External),
        communities: vec!["65000:100".parse().unwrap(), "65000:1:2".parse().unwrap()],
        as_path_prefix: vec![65000, 4_200_000_000],
        priority: Some(512),
        action: FilterAction::Accept,
        operations: vec![
            FilterOperation::AddCommunity("65000:200".parse().unwrap()),
            FilterOperation::AddCommunity("65000:1:200".parse().unwrap()),
            FilterOperation::PrependAsPath(vec![65001, 65002]),
            FilterOperation::SetPriority(256),
        ],
    };
    let of_prefix = |cidr: &str, operator, length| FilterRule {
        prefix: of(cidr, operator, length),
        ..rule(FilterAction::Reject)
    };
    let internal = FilterRule { peer_type: Some(PeerType::Internal), ..rule(FilterAction::Reject) };
    BgpFilter {
        export_v4: vec![every, rule(FilterAction::Reject)],
        import_v4: vec![
            of_prefix("0.0.0.0/0", PrefixOperator::Equal, None),
            of_prefix("10.9.1.1/8", PrefixOperator::NotIn, Some((0, 0))),
            internal,
        ],
        export_v6: vec![of_prefix("fd00::/8", PrefixOperator::NotEqual, None)],
        import_v6: vec![of_prefix("fd00::/8", PrefixOperator::NotIn, None)],
    }
}

fn top_of_rack() -> BgpPlan {
    let tor = BgpSession {
        port: 1790,
        local_as: 64600,
        ttl_security: Some(1),
        keepalive_time: Some(10),
        allowed_own_as: Some(1),
        bfd: Some(Bfd { interval: 300, multiplier: 3 }),
        password: Some(secret("tor")),
        filters: vec!["only-pools".to_owned(), "x".repeat(253)],
        exports_others: ExportedOthers::All,
        next_hop: NextHop::Itself,
        ..router(LOCAL, "192.0.2.1")
    };
    let six = BgpSession { next_hop: NextHop::Keep, ..router("fd00:1::11", "fd00:1::1") };
    let mut plan = with(with(plan(LOCAL), "Global", tor), "Global", six);
    plan.listen_port = 1179;
    plan.listen_addresses = [address(LOCAL), address("fd00:1::11")].into();
    plan.log_severity = LogSeverity::Warning;
    plan.filters.insert("only-pools".to_owned(), filter());
    plan.filters.insert("x".repeat(253), BgpFilter::default());
    plan.filters.insert("not-named".to_owned(), filter());
    plan.static_routes
        .insert(StaticRoute { peer: address("192.0.2.1"), via: address("10.0.1.254") });
    let communities = vec!["64512:120".parse().unwrap(), "64512:1:2".parse().unwrap()];
    plan.prefix_advertisements
        .push(PrefixAdvertisement { cidr: net("10.244.0.0/16"), communities });
    plan
}

fn reflector() -> BgpPlan {
    let origin = Origin::Node("reflectors".to_owned());
    let client = BgpSession {
        origin: origin.clone(),
        reflects_as: Some("244.0.0.1".parse().unwrap()),
        exports_others: ExportedOthers::All,
        ..session(LOCAL, "10.0.1.12")
    };
    let unknown = BgpSession {
        origin: origin.clone(),
        filters: vec!["gone".to_owned()],
        ..session(LOCAL, "10.0.1.13")
    };
    let other = BgpSession { origin, local_address: None, ..session(LOCAL, "10.0.1.14") };
    let plan = with(with(plan(LOCAL), "Node", client), "Node", unknown);
    with(plan, "Node", other)
}

/// Peers on the node's link that are to be noticed quickly when they are lost: a router, one with
/// GTSM, another node.
fn on_link() -> BgpPlan {
    let bfd = Some(Bfd { interval: 200, multiplier: 3 });
    let is_on_link = true;
    let near = BgpSession { bfd, is_on_link, ..router(LOCAL, "10.0.1.1") };
    let guarded = BgpSession { ttl_security: Some(1), ..near.clone() };
    let guarded = BgpSession { address: address("10.0.1.2"), ..guarded };
    let node = BgpSession { bfd, is_on_link, ..session("fd00:1::11", "fd00:1::12") };
    with(with(with(plan(LOCAL), "Global", near), "Global", guarded), "Mesh", node)
}

fn passwords() -> BTreeMap<weir_common::resources::bgp::SecretReference, String> {
    [("mesh", "pass; } # 'word"), ("tor", "ünï")]
        .map(|(key, password)| (secret(key), password.to_owned()))
        .into()
}

#[test]
fn a_mesh_across_subnets() {
    let configuration = BirdConfiguration::of(&mesh(), &passwords());
    assert_eq!(configuration.problems, BTreeSet::new());
    assert_golden("mesh", &configuration);
}

#[test]
fn a_router_with_everything() {
    let configuration = BirdConfiguration::of(&top_of_rack(), &passwords());
    assert_eq!(configuration.problems, BTreeSet::new());
    assert_golden("top-of-rack", &configuration);
}

#[test]
fn a_reflector_and_a_filter_that_does_not_exist() {
    assert_golden("reflector", &configuration(&reflector()));
}

#[test]
fn bfd_on_the_link() {
    let configuration = configuration(&on_link());
    assert_eq!(configuration.problems, BTreeSet::new());
    assert_golden("on-link", &configuration);
}

#[test]
fn only_bfd_on_the_link_makes_a_session_of_a_single_hop() {
    let bfd = Some(Bfd { interval: 200, multiplier: 3 });
    let near = BgpSession { bfd, is_on_link: true, ..router(LOCAL, "10.0.1.1") };
    let text = |session: &BgpSession| {
        let text = configuration(&with(plan(LOCAL), "Global", session.clone())).text;
        assert_eq!(refusal(&text), None);
        text.split_once("protocol bgp Global_").unwrap().1.to_owned()
    };
    for (session, line) in [
        (near.clone(), "  direct;"),
        (BgpSession { ttl_security: Some(1), ..near.clone() }, "  ttl security on; direct;"),
        (BgpSession { ttl_security: Some(2), ..near.clone() }, "  ttl security on; multihop 2;"),
        (BgpSession { is_on_link: false, ..near.clone() }, "  multihop;"),
        (BgpSession { bfd: None, ..near.clone() }, "  multihop;"),
        (BgpSession { local_address: None, ..near.clone() }, "  multihop;"),
    ] {
        let text = text(&session);
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
        // Of an eBGP session of a single hop alone; all others tell this node as next hop anyway.
        assert_eq!(text.contains("next hop self;"), line.contains("direct"), "{text}");
    }
    let kept = text(&BgpSession { next_hop: NextHop::Keep, ..near.clone() });
    assert!(kept.contains("next hop keep;") && !kept.contains("next hop self;"), "{kept}");
    let internal = text(&BgpSession { as_number: 64512, ..near });
    assert!(internal.contains("  direct;") && !internal.contains("next hop"), "{internal}");
}

#[test]
fn beside_a_filter_that_does_not_exist_no_other_lets_anything_pass() {
    let mut plan = top_of_rack();
    let tor = plan.sessions.get_mut("Global_192_0_2_1").unwrap();
    tor.filters = vec!["only-pools".to_owned(), "gone".to_owned()];
    let text = BirdConfiguration::of(&plan, &passwords()).text;
    assert_eq!(refusal(&text), None);
    assert!(text.contains("import filter { weir_import4(); reject; accept; };"), "{text}");
    assert!(!text.contains("filter_only_2dpools_export4(true)"), "{text}");
}

#[test]
fn the_least_is_taken_by_bird_and_has_its_digest() {
    let least = BirdConfiguration::least();
    assert_eq!(refusal(&least.text), None);
    assert_eq!(BirdConfiguration::digest_in(&least.text), Some(least.digest.as_str()));
    assert_eq!(BirdConfiguration::digest_in("define OTHER = \"1\";\n"), None);
    assert!(!least.text.contains("kernel"), "{}", least.text);
}

#[test]
fn no_session_at_all() {
    assert_golden("bare", &configuration(&plan(LOCAL)));
}

#[test]
fn the_digest_is_of_all_the_rest() {
    let digests: BTreeSet<String> = [mesh(), top_of_rack(), reflector(), plan(LOCAL)]
        .iter()
        .map(|plan| {
            let printed = BirdConfiguration::of(plan, &passwords());
            assert_eq!(printed, BirdConfiguration::of(plan, &passwords()));
            let first = format!("define WEIR_CONFIG = \"{}\";", printed.digest);
            assert_eq!(printed.text.lines().next(), Some(first.as_str()));
            printed.digest
        })
        .collect();
    assert_eq!(digests.len(), 4);
    let rotated = [(secret("mesh"), "another".to_owned())].into();
    assert!(!digests.contains(&BirdConfiguration::of(&mesh(), &rotated).digest));
}

#[test]
fn a_line_belongs_to_the_resource_that_it_is_made_of() {
    let configuration = BirdConfiguration::of(&top_of_rack(), &passwords());
    let mut seen = BTreeSet::new();
    for (index, line) in configuration.text.lines().enumerate().skip(1) {
        let resource = configuration.resource_at(index + 1).unwrap();
        seen.insert(resource);
        if line.contains("bgp_path ~") {
            assert_eq!(resource, "BGPFilter only-pools");
        }
        if line.contains("neighbor 192.0.2.1") {
            assert_eq!(resource, "BGPPeer tor (Global_192_0_2_1)");
        }
        if line.contains("kernel table") {
            assert_eq!(resource, "BGPConfiguration");
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn nothing_persists_in_the_configuration_before_the_end() {
    let configuration = BirdConfiguration::of(&mesh(), &passwords());
    let leaving = configuration.leaving();
    assert_eq!(refusal(&leaving.text), None);
    assert_ne!(leaving.digest, configuration.digest);
    assert!(!leaving.text.contains("persist") && leaving.text.contains("Mesh_10_0_1_12"));
    let is_persist = |line: &&str| line.contains("persist");
    assert_eq!(configuration.text.lines().filter(is_persist).count(), 4);
}

/// The problem with the only session of a plan, and that the session is not there.
fn problem(session: BgpSession, password: Option<&str>) -> String {
    let passwords = password.map(|text| (secret("tor"), text.to_owned()));
    let plan = with(plan(LOCAL), "Global", session);
    let configuration = BirdConfiguration::of(&plan, &passwords.into_iter().collect());
    assert_eq!(refusal(&configuration.text), None);
    assert!(!configuration.text.contains("protocol bgp"), "{}", configuration.text);
    let [problem] = &configuration.problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{:?}", configuration.problems)
    };
    problem.to_string()
}

#[test]
fn a_session_is_never_tried_without_its_password_and_the_password_is_never_told() {
    let guarded = || BgpSession { password: Some(secret("tor")), ..router(LOCAL, "10.0.1.1") };
    let text = problem(guarded(), None);
    assert!(
        text.starts_with("BGPPeer tor: no session with 10.0.1.1: its password bgp/tor"),
        "{text}"
    );
    let long = "x".repeat(81);
    for unusable in ["", "pass\"word", "pass\nword", "pass\tword", "pass\u{85}word", &long] {
        let text = problem(guarded(), Some(unusable));
        assert!(text.contains("10.0.1.1") && text.contains("bgp/tor"), "{text}");
        assert!(unusable.is_empty() || !text.contains(unusable), "{text}");
    }
    let plan = with(plan(LOCAL), "Global", guarded());
    let good = [(secret("tor"), "x".repeat(80))].into();
    let configuration = BirdConfiguration::of(&plan, &good);
    assert_eq!(refusal(&configuration.text), None);
    assert!(!format!("{configuration:?}").contains("xxx"));
}

#[test]
fn a_session_that_bird_cannot_have_keeps_no_other_from_being_there() {
    let peer = |address: &str| router(LOCAL, address);
    let unusable = [
        peer("0.0.0.0"),
        peer("224.0.0.1"),
        peer("255.255.255.255"),
        peer(LOCAL),
        peer("fd00::1"),
        router("fd00::2", "fe80::1"),
        router("fd00::2", "::ffff:10.0.1.1"),
        router("0.0.0.0", "10.0.1.1"),
        BgpSession { as_number: 0, ..peer("10.0.1.1") },
        BgpSession { local_as: 0, ..peer("10.0.1.1") },
        BgpSession { port: 0, ..peer("10.0.1.1") },
        BgpSession { ttl_security: Some(0), ..peer("10.0.1.1") },
    ];
    for session in unusable {
        let text = problem(session.clone(), None);
        assert!(text.contains(&format!("no session with {}", session.address)), "{text}");
    }
    let mut plan = with(mesh(), "Global", peer("0.0.0.0"));
    plan.sessions.insert("Node_1; }".to_owned(), peer("10.0.1.1"));
    let configuration = BirdConfiguration::of(&plan, &passwords());
    assert_eq!(configuration.problems.len(), 2);
    assert_eq!(configuration.text, BirdConfiguration::of(&mesh(), &passwords()).text);
}

#[test]
fn a_filter_with_a_rule_that_is_not_valid_rejects_everything_in_that_list() {
    let odd = [
        FilterRule { interface: Some("\"; accept".to_owned()), ..rule(FilterAction::Accept) },
        FilterRule {
            prefix: of("10.0.0.0/8", PrefixOperator::In, Some((28, 24))),
            ..rule(FilterAction::Accept)
        },
        FilterRule {
            prefix: of("fd00::/8", PrefixOperator::In, None),
            ..rule(FilterAction::Accept)
        },
        FilterRule { priority: Some(u32::MAX), ..rule(FilterAction::Accept) },
    ];
    for odd in odd {
        let mut plan = top_of_rack();
        let filter = BgpFilter { export_v4: vec![rule(FilterAction::Accept), odd], ..filter() };
        plan.filters.insert("only-pools".to_owned(), filter);
        let configuration = BirdConfiguration::of(&plan, &passwords());
        assert_eq!(refusal(&configuration.text), None);
        let problem = BirdProblem::UnusableFilter {
            filter: "only-pools".to_owned(),
            field: "exportV4",
            rule: 2,
        };
        assert_eq!(configuration.problems, [problem].into());
        let function = "function filter_only_2dpools_export4(bool is_external) {\n  reject;\n}";
        assert!(configuration.text.contains(function), "{}", configuration.text);
    }
}

#[test]
fn bfd_that_bird_refuses_is_left_out_and_the_session_stays() {
    let bfd = Some(Bfd { interval: 300, multiplier: 3 });
    let session = BgpSession { bfd, local_address: None, ..router(LOCAL, "10.0.1.1") };
    let configuration = configuration(&with(plan(LOCAL), "Global", session));
    assert_eq!(refusal(&configuration.text), None);
    let resource = "BGPPeer tor".to_owned();
    let problem = BirdProblem::NoBfd { resource, peer: address("10.0.1.1") };
    assert_eq!(configuration.problems, [problem].into());
    assert!(configuration.text.contains("protocol bgp Global_10_0_1_1"));
}

#[test]
fn routes_and_interfaces_that_are_none_are_left_out() {
    let mut plan = plan(LOCAL);
    for (peer, via) in [("192.0.2.1", "fd00::1"), ("192.0.2.1", "0.0.0.0"), ("fe80::1", "fd00::1")]
    {
        plan.static_routes.insert(StaticRoute { peer: address(peer), via: address(via) });
    }
    plan.ignored_interfaces.extend(["", "a\"b", "a b", "é"].map(str::to_owned));
    let configuration = configuration(&plan);
    assert_eq!(configuration.problems.len(), 7, "{:?}", configuration.problems);
    assert_eq!(configuration.text, support::configuration(&support::plan(LOCAL)).text);
}
