//! Routes to other nodes' containers: as planned, and nobody else's.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use proptest::prelude::*;
use support::cluster::{
    address, assert_none, converge, direct, direct_v4, direct_v6, foreign, net, plan,
};
use support::{Other, add_link, attachment, ip, on_a_node, open, run};
use weir_common::network::{Change, ClusterPlan, Difference, RouteKind, diff, plan_attachment};
use weir_kernel::{Error, Kernel};

#[test]
fn routes_read_back_as_they_were_made_replaced_and_deleted() {
    on_a_node(|| async {
        support::add_addressed_link();
        let before = foreign();
        let kernel = Kernel::open().unwrap();
        let first = [
            ("10.1.0.0/26", RouteKind::Blackhole),
            ("10.1.0.64/26", direct_v4()),
            ("10.1.9.9/32", direct_v4()),
            ("10.1.0.128/26", direct_v4()),
            ("fd00:1::/122", RouteKind::Blackhole),
            ("fd00:1::40/122", direct_v6()),
            ("fd00:1::9:9/128", direct_v6()),
            ("fd00:1::80/122", direct_v6()),
        ];
        // Every kind to every other, one gone, one new.
        let second = [
            ("10.1.0.0/26", direct_v4()),
            ("10.1.0.64/26", RouteKind::Blackhole),
            ("10.1.9.9/32", direct("198.51.100.8", "198.51.100.1")),
            ("10.1.0.192/26", direct_v4()),
            ("fd00:1::/122", direct_v6()),
            ("fd00:1::40/122", RouteKind::Blackhole),
            ("fd00:1::9:9/128", direct("fd00:198::8", "fd00:198::1")),
            ("fd00:1::c0/122", direct_v6()),
        ];
        for routes in [&first, &second, &first] {
            let plan = plan(routes);
            assert_none(&converge(&kernel, &plan).await);
            let present = kernel.actual_state().await.unwrap();
            let wanted: BTreeMap<IpNet, Option<RouteKind>> =
                plan.routes.iter().map(|(range, way)| (*range, Some(way.clone()))).collect();
            assert_eq!(present.routes, wanted);
            assert_eq!(diff(&plan, &present), Difference::default());
            assert_eq!(foreign(), before);
        }
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(kernel.actual_state().await.unwrap().routes, BTreeMap::new());
    });
}

#[test]
fn a_route_of_another_form_is_told_and_put_right() {
    on_a_node(|| async {
        support::add_addressed_link();
        add_link("other", 1500);
        ip("address add 203.0.113.1/24 dev other");
        let kernel = Kernel::open().unwrap();
        let wanted = plan(&[("10.1.0.0/26", direct_v4()), ("fd00:1::/122", direct_v6())]);
        let v4 = "10.1.0.0/26 via 198.51.100.9 dev uplink proto 77";
        let v6 = "fd00:1::/122 via fd00:198::9 dev uplink proto 77";
        let odd = [
            v4.to_owned(),
            format!("{v4} src 198.51.100.1 metric 7"),
            format!("{v4} src 198.51.100.1 mtu 1300"),
            format!("{v4} src 198.51.100.1 onlink"),
            format!("{v4} src 198.51.100.1 tos 4"),
            "10.1.0.0/26 proto 77 nexthop via 198.51.100.9 nexthop via 198.51.100.8".to_owned(),
            "blackhole 10.1.0.0/26 proto 77 metric 9".to_owned(),
            v6.to_owned(),
            format!("{v6} src fd00:198::1 metric 7"),
            format!("{v6} src fd00:198::1 mtu 1300"),
            format!("{v6} src fd00:198::1 expires 9999"),
            "blackhole fd00:1::/122 proto 77 metric 9".to_owned(),
        ];
        for odd in odd {
            for plan in [&wanted, &plan(&[])] {
                ip(&format!("route add {odd}"));
                let present = kernel.actual_state().await.unwrap();
                let range = net(if odd.contains(':') { "fd00:1::/122" } else { "10.1.0.0/26" });
                assert_eq!(present.routes, [(range, None)].into(), "{odd}");
                assert_none(&converge(&kernel, plan).await);
                let present = kernel.actual_state().await.unwrap();
                assert_eq!(diff(plan, &present), Difference::default(), "{odd}");
                assert_none(&converge(&kernel, &support::cluster::plan(&[])).await);
            }
        }
        // By another link it has a form of Weir's, but another way.
        ip("route add 10.1.0.0/26 via 203.0.113.9 src 203.0.113.1 proto 77");
        let present = kernel.actual_state().await.unwrap();
        assert!(matches!(
            &present.routes[&net("10.1.0.0/26")],
            Some(RouteKind::Direct { link, .. }) if link == "other"
        ));
    });
}

#[test]
fn several_routes_of_weir_to_one_range_become_one() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let wanted = plan(&[("10.1.0.0/26", direct_v4()), ("fd00:1::/122", direct_v6())]);
        for kind in ["append", "prepend"] {
            ip("route add blackhole 10.1.0.0/26 proto 77");
            ip(&format!("route {kind} 10.1.0.0/26 via 198.51.100.9 src 198.51.100.1 proto 77"));
            ip("route add blackhole 10.1.0.0/26 proto 77 metric 5");
            ip("route add blackhole fd00:1::/122 proto 77");
            ip("route add fd00:1::/122 via fd00:198::9 proto 77 metric 5");
            assert_none(&converge(&kernel, &wanted).await);
            let present = kernel.actual_state().await.unwrap();
            assert_eq!(diff(&wanted, &present), Difference::default());
            assert_none(&converge(&kernel, &plan(&[])).await);
            assert_eq!(kernel.actual_state().await.unwrap().routes, BTreeMap::new());
        }
    });
}

#[test]
fn what_another_program_has_stays() {
    on_a_node(|| async {
        support::add_addressed_link();
        let container = Other::new();
        let kernel = open(&container);
        let _ = kernel
            .apply(&plan_attachment(&attachment("one", &["10.1.0.7", "fd00:1::7"])))
            .await
            .unwrap();
        for route in [
            "10.1.0.0/26 via 198.51.100.5",
            "unreachable 10.1.0.64/26",
            "10.1.0.128/26 via 198.51.100.5 metric 5",
            "10.1.0.192/26 via 198.51.100.5 tos 4",
            "10.3.0.0/26 nexthop via 198.51.100.5 nexthop via 198.51.100.6",
            "10.3.0.64/26 dev uplink",
            "10.3.0.128/26 via inet6 fd00:198::5 dev uplink",
            "fd00:1::/122 via fd00:198::5",
            "blackhole fd00:1::40/122 metric 5",
            "10.2.0.0/26 via 198.51.100.9 src 198.51.100.1 proto 77 table 99",
        ] {
            ip(&format!("route add {route}"));
        }
        run("nft", &["add", "table", "inet", "theirs"]);
        let before = foreign();
        let containers = || {
            let host = kernel_link();
            ip(&format!("-4 route show dev {host}")) + &ip(&format!("-6 route show dev {host}"))
        };
        let container_routes = containers();
        let present = kernel.actual_state().await.unwrap();
        assert_eq!(present.routes, BTreeMap::new());
        let taken = [
            "10.1.0.0/26",
            "10.1.0.64/26",
            "10.3.0.0/26",
            "10.3.0.64/26",
            "10.3.0.128/26",
            "198.51.100.0/24",
            "fd00:1::/122",
        ];
        assert_eq!(present.occupied, taken.iter().map(|range| net(range)).collect());
        // Neither the subnets of links nor Weir's own.
        let led = present.foreign_routes.iter().map(|(range, next_hops)| {
            let next_hops: Vec<_> = next_hops.iter().map(ToString::to_string).collect();
            format!("{range} {}", next_hops.join(","))
        });
        let expected = [
            "10.1.0.0/26 198.51.100.5",
            "10.1.0.128/26 198.51.100.5",
            "10.1.0.192/26 198.51.100.5",
            "10.3.0.0/26 198.51.100.5,198.51.100.6",
            "10.3.0.64/26 ",
            "10.3.0.128/26 fd00:198::5",
            "fd00:1::/122 fd00:198::5",
        ];
        assert_eq!(led.collect::<Vec<_>>(), expected);
        assert_eq!(present.foreign_blackholes, [net("fd00:1::40/122")].into());

        // What `difference` would not ask for: the kernel edge refuses by itself.
        let mut changes = Vec::new();
        for range in ["10.1.0.0/26", "10.1.0.64/26", "10.1.0.7/32"] {
            changes.push(Change::AddRoute(net(range), direct_v4()));
            changes.push(Change::DeleteRoute(net(range), Some(direct_v4())));
            changes.push(Change::DeleteRoute(net(range), Some(RouteKind::Blackhole)));
            changes.push(Change::DeleteRoute(net(range), None));
        }
        for range in ["fd00:1::/122", "fd00:1::7/128"] {
            changes.push(Change::AddRoute(net(range), direct_v6()));
            changes.push(Change::DeleteRoute(net(range), Some(direct_v6())));
            changes.push(Change::DeleteRoute(net(range), Some(RouteKind::Blackhole)));
            changes.push(Change::DeleteRoute(net(range), None));
        }
        changes.push(Change::ReplaceRoute(net("10.1.0.0/26"), direct_v4()));
        changes.push(Change::ReplaceRoute(net("fd00:1::/122"), RouteKind::Blackhole));
        // A container's that has taken the place of a stale one meanwhile.
        changes.push(Change::ReplaceRoute(net("10.1.0.7/32"), direct_v4()));
        changes.push(Change::ReplaceRoute(net("fd00:1::7/128"), direct_v6()));
        // Beside a route of another metric there is room.
        changes.push(Change::AddRoute(net("10.1.0.128/26"), direct_v4()));
        changes.push(Change::AddRoute(net("fd00:1::40/122"), direct_v6()));
        let failures = kernel.change(&changes).await;
        assert!(
            failures.iter().all(|(_, error)| matches!(error, Error::RouteExists { .. })),
            "{failures:?}"
        );
        let of_container = failures.iter().find(|(what, _)| what.contains("10.1.0.7/32")).unwrap();
        assert!(of_container.1.to_string().contains("alias \"weir:test:one:eth0\""));
        assert_eq!(failures.len(), 9, "{failures:?}");
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(foreign(), before);
        assert_eq!(containers(), container_routes);
    });
}

/// The name of the only attachment's host end.
fn kernel_link() -> String {
    support::identity("one").host_interface()
}

#[test]
fn a_foreign_route_beside_weirs_own_survives_a_replacement() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        for (range, way) in [("10.1.0.0/26", direct_v4()), ("fd00:1::/122", direct_v6())] {
            let theirs = if range.contains(':') { "fd00:198::5" } else { "198.51.100.5" };
            ip(&format!("route add blackhole {range} proto 77 metric 5"));
            ip(&format!("route add {range} via {theirs} proto static"));
            let before = foreign();
            let failures = kernel.change(&[Change::ReplaceRoute(net(range), way)]).await;
            assert!(matches!(&failures[..], [(_, Error::RouteExists { .. })]), "{failures:?}");
            assert_eq!(foreign(), before);
            ip(&format!("route del blackhole {range} proto 77"));
        }
        // With IPv6 the kernel joins them, and lists them as the first one's.
        ip("route add fd00:2::/122 via fd00:198::9 src fd00:198::1 proto 77");
        ip("-6 route append fd00:2::/122 via fd00:198::5 proto static");
        let change = Change::ReplaceRoute(net("fd00:2::/122"), RouteKind::Blackhole);
        assert_eq!(kernel.change(&[change]).await.len(), 1);
        assert!(ip("-6 route show fd00:2::/122").contains("fd00:198::5"));
        assert_none(&kernel.change(&[Change::DeleteRoute(net("fd00:2::/122"), None)]).await);
        assert_eq!(
            ip("-6 route show fd00:2::/122").trim_end(),
            "fd00:2::/122 via fd00:198::5 dev uplink proto static metric 1024 pref medium"
        );
    });
}

#[test]
fn a_change_that_fails_does_not_stop_the_others() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let gone = RouteKind::Direct {
            next_hop: address("203.0.113.9"),
            link: "gone".to_owned(),
            source: address("203.0.113.1"),
        };
        let changes = [
            Change::LoosenReversePath("gone".to_owned()),
            Change::AddRoute(net("10.1.0.0/26"), direct("203.0.113.9", "198.51.100.1")),
            Change::AddRoute(net("10.1.0.64/26"), gone.clone()),
            Change::AddRoute(net("10.1.0.128/26"), direct_v4()),
            // Made by somebody meanwhile, and as it should be.
            Change::AddRoute(net("10.1.0.128/26"), direct_v4()),
            // Gone meanwhile.
            Change::DeleteRoute(net("10.1.0.192/26"), Some(gone)),
            Change::DeleteRoute(net("10.1.0.192/26"), Some(direct_v4())),
        ];
        let failures = kernel.change(&changes).await;
        let mut what: Vec<String> = failures.into_iter().map(|(what, _)| what).collect();
        what.sort();
        let mut expected: Vec<String> = changes[..3].iter().map(ToString::to_string).collect();
        expected.sort();
        assert_eq!(what, expected);
        assert_eq!(kernel.actual_state().await.unwrap().routes.len(), 1);
    });
}

/// Routes that may be there before Weir looks: RANGE is `10.1.X.0/26`.
const FOUND_V4: [&str; 13] = [
    "RANGE via 198.51.100.5",
    "unreachable RANGE",
    "RANGE via 198.51.100.5 metric 5",
    "RANGE via 198.51.100.5 tos 4",
    "RANGE via 198.51.100.9 src 198.51.100.1 proto 77 table 99",
    "blackhole RANGE proto 77",
    "blackhole RANGE proto 77 metric 5",
    "RANGE via 198.51.100.9 src 198.51.100.1 proto 77",
    "RANGE via 198.51.100.8 src 198.51.100.1 proto 77",
    "RANGE via 198.51.100.9 src 198.51.100.1 proto 77 metric 5",
    "RANGE via 198.51.100.9 proto 77",
    "RANGE via 198.51.100.9 src 198.51.100.1 proto 77 tos 4",
    "RANGE proto 77 nexthop via 198.51.100.9 nexthop via 198.51.100.8",
];

/// The same for IPv6. Nothing that the kernel would join with Weir's.
const FOUND_V6: [&str; 9] = [
    "unreachable RANGE",
    "RANGE via fd00:198::5 metric 5",
    "RANGE via fd00:198::9 src fd00:198::1 proto 77 table 99",
    "blackhole RANGE proto 77",
    "blackhole RANGE proto 77 metric 5",
    "RANGE via fd00:198::9 src fd00:198::1 proto 77",
    "RANGE via fd00:198::9 src fd00:198::1 proto 77 metric 7",
    "RANGE via fd00:198::9 proto 77 metric 9",
    "RANGE via fd00:198::9 src fd00:198::1 proto 77 mtu 1300 metric 11",
];

/// What is there and what is wanted, for eight ranges of each family.
fn random_states() -> impl Strategy<Value = (Vec<String>, ClusterPlan)> {
    let found = |variants: &'static [&'static str]| {
        proptest::sample::subsequence(variants.to_vec(), 0..=3).prop_shuffle()
    };
    let wanted =
        |way: RouteKind| prop_oneof![Just(None), Just(Some(RouteKind::Blackhole)), Just(Some(way))];
    let v4 = proptest::collection::vec((found(&FOUND_V4), wanted(direct_v4())), 8);
    let v6 = proptest::collection::vec((found(&FOUND_V6), wanted(direct_v6())), 8);
    (v4, v6).prop_map(|(v4, v6)| {
        let v4 = v4.into_iter().enumerate().map(|(at, state)| (format!("10.1.{at}.0/26"), state));
        let v6 = v6.into_iter().enumerate().map(|(at, state)| (format!("fd00:{at}::/122"), state));
        let (mut lines, mut plan) = (Vec::new(), plan(&[]));
        for (range, (found, wanted)) in v4.chain(v6) {
            lines.extend(found.iter().map(|route| route.replace("RANGE", &range)));
            plan.routes.extend(wanted.map(|way| (net(&range), way)));
        }
        (lines, plan)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn whatever_is_there_only_weirs_own_changes_and_becomes_what_is_wanted(
        (lines, plan) in random_states()
    ) {
        on_a_node(move || async move {
            support::add_addressed_link();
            for line in &lines {
                // Two of one range may be the same to the kernel.
                let line = format!("route append {line}");
                support::succeeds("ip", &line.split(' ').collect::<Vec<_>>());
            }
            only_weirs_own_changes(&plan).await;
        });
    }
}

async fn only_weirs_own_changes(plan: &ClusterPlan) {
    let kernel = Kernel::open().unwrap();
    let before = foreign();
    let taken = kernel.actual_state().await.unwrap().occupied;
    for (what, error) in converge(&kernel, plan).await {
        assert!(matches!(error, Error::RouteExists { .. }), "{what}: {error}");
    }
    assert_eq!(foreign(), before);
    // Only what another program's route stands in the way of is left.
    let present = kernel.actual_state().await.unwrap();
    for change in diff(plan, &present).changes {
        let Change::ReplaceRoute(range, _) = &change else {
            panic!("{change} is left");
        };
        assert!(taken.contains(range), "{change} is left");
    }
}

#[test]
fn ten_thousand_routes_are_made_replaced_and_deleted() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let mut wanted = plan(&[]);
        for number in 0..10_000u32 {
            let block = Ipv4Addr::from(0x0a00_0000 + 64 * number);
            wanted.routes.insert(IpNet::new(block.into(), 26).unwrap(), direct_v4());
        }
        for next_hop in ["198.51.100.9", "198.51.100.8"] {
            for way in wanted.routes.values_mut() {
                *way = direct(next_hop, "198.51.100.1");
            }
            assert_none(&converge(&kernel, &wanted).await);
            let present = kernel.actual_state().await.unwrap();
            assert_eq!(diff(&wanted, &present), Difference::default());
        }
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(kernel.actual_state().await.unwrap().routes, BTreeMap::new());
    });
}
