//! A node's part in the cluster: reading it, and carrying changes out. What
//! needs a kernel with ipip is in `ipip.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use support::{Other, add_link, attachment, ip, on_a_node, open, run};
use weir_common::network::{
    Change, ClusterPlan, HOST_MAC, NatPool, NatTable, Step, TUNNEL_DEVICE, TunnelFilter,
    TunnelPlan, Way, difference, plan_attachment,
};
use weir_kernel::{Error, Kernel};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn direct(next_hop: &str, source: &str) -> Way {
    let link = "uplink".to_owned();
    Way::Direct { next_hop: address(next_hop), link, source: address(source) }
}

fn direct_v4() -> Way {
    direct("198.51.100.9", "198.51.100.1")
}

fn direct_v6() -> Way {
    direct("fd00:198::9", "fd00:198::1")
}

/// A plan of nothing but routes.
fn plan(routes: &[(&str, Way)]) -> ClusterPlan {
    ClusterPlan {
        tunnel: None,
        routes: routes.iter().map(|(range, way)| (net(range), way.clone())).collect(),
        nat: None,
        pod_mtu: 1500,
        problems: BTreeSet::new(),
    }
}

/// Makes the kernel what `plan` says and returns what could not be done.
async fn converge(kernel: &Kernel, plan: &ClusterPlan) -> Vec<(String, Error)> {
    let present = kernel.cluster_present().await.unwrap();
    kernel.change(&difference(plan, &present).0).await
}

fn assert_none(failures: &[(String, Error)]) {
    let texts: Vec<String> = failures.iter().map(|(what, why)| format!("{what}: {why}")).collect();
    assert_eq!(texts, Vec::<String>::new());
}

/// The routes of the node that are not Weir's, its links and their parameters,
/// and its nftables.
fn foreign() -> String {
    let lines = ["-4 route show table all", "-6 route show table all"].map(ip).join("");
    let lines: Vec<&str> = lines.lines().filter(|line| !line.contains("proto 77")).collect();
    lines.join("\n") + &ip("-details address") + &run("nft", &["list", "ruleset"])
}

/// Makes a link that has the tunnel device's name and is none. The device that
/// a kernel with ipip has made by itself gives up its name.
fn fake_tunnel() {
    if ip("-brief link").contains("tunl0") {
        ip("link set tunl0 name spare");
    }
    add_link("tunl0", 1480);
}

/// What a plan with a tunnel begins with.
fn tunnel_changes() -> Vec<Change> {
    vec![
        Change::CreateTunnel,
        Change::SetTunnelMtu(1400),
        Change::AddTunnelAddress("10.0.0.1".parse().unwrap()),
        Change::SetTunnelUp,
        Change::LoosenReversePath(TUNNEL_DEVICE.to_owned()),
    ]
}

fn tunnel_way() -> Way {
    Way::Tunnel {
        next_hop: "203.0.113.9".parse().unwrap(),
        source: Some("10.0.0.1".parse().unwrap()),
    }
}

#[test]
fn without_ipip_there_is_one_error_and_direct_routes_are_made() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let mut changes = tunnel_changes();
        for number in 0..3 {
            changes.push(Change::AddRoute(net(&format!("10.1.{number}.0/26")), tunnel_way()));
        }
        changes.push(Change::AddRoute(net("10.2.0.0/26"), direct_v4()));
        changes.push(Change::RemoveTunnelAddress("10.0.0.9/32".parse().unwrap()));
        let has_ipip = {
            let probe = "link add probe type ipip local 198.51.100.1 remote 198.51.100.2";
            support::succeeds("ip", &probe.split(' ').collect::<Vec<_>>())
        };
        let failures = kernel.change(&changes).await;
        let routes = kernel.cluster_present().await.unwrap().routes;
        assert_eq!(routes[&net("10.2.0.0/26")], Some(direct_v4()));
        if has_ipip {
            assert_none(&failures);
            assert_eq!(routes.len(), 4);
            return;
        }
        let [(what, error @ Error::NoIpip { .. })] = &failures[..] else {
            panic!("{failures:?}");
        };
        assert_eq!(what, "ip link add tunl0 type ipip");
        assert!(error.to_string().contains("modprobe ipip"), "{error}");
        assert_eq!(routes.len(), 1);
    });
}

#[test]
fn a_link_of_the_tunnels_name_that_is_none_stays_as_it_is() {
    on_a_node(|| async {
        support::add_addressed_link();
        fake_tunnel();
        ip("address add 10.0.0.7/32 dev tunl0");
        let before = foreign();
        let kernel = Kernel::open().unwrap();
        assert_eq!(kernel.cluster_present().await.unwrap().tunnel, None);
        let mut changes = tunnel_changes();
        changes.push(Change::AddRoute(net("10.1.0.0/26"), tunnel_way()));
        let failures = kernel.change(&changes).await;
        assert!(matches!(&failures[..], [(_, Error::NotATunnel { .. })]), "{failures:?}");
        assert_eq!(foreign(), before);
        assert_eq!(kernel.cluster_present().await.unwrap().routes, BTreeMap::new());
    });
}

#[test]
fn the_underlay_is_what_is_up_with_a_global_address() {
    on_a_node(|| async {
        support::add_addressed_link();
        add_link("bare", 1400);
        add_link("zdown", 1400);
        ip("address add 203.0.113.1/24 dev zdown");
        ip("link set zdown down");
        add_link("local", 1400);
        ip("address add 169.254.7.7/16 scope link dev local");
        add_link("wide", 9000);
        ip("address add 192.0.2.1/25 dev wide");
        ip("address add 192.0.2.2/25 dev wide");
        // Not yet to be used as a source.
        ip("address add fd00:2::7/64 dev wide");
        fake_tunnel();
        ip("address add 10.0.0.1/32 dev tunl0");
        // What looks like an attachment's with an address on it.
        let host = "weir0123456789a";
        add_link(host, 1500);
        ip(&format!("link set {host} address {HOST_MAC}"));
        ip(&format!("address add 10.0.0.2/32 dev {host}"));
        let underlay = Kernel::open().unwrap().underlay().await.unwrap();
        let found: Vec<_> = underlay
            .links
            .iter()
            .map(|link| (link.name.as_str(), link.mtu, link.addresses.clone()))
            .collect();
        let wide: Vec<IpNet> = found[1].2[..2].to_vec();
        assert_eq!(
            (found[0].clone(), found[1].0, found[1].1, found.len()),
            (
                ("uplink", 1500, vec![net("198.51.100.1/24"), net("fd00:198::1/64")]),
                "wide",
                9000,
                2
            )
        );
        assert_eq!(wide, [net("192.0.2.1/25"), net("192.0.2.2/25")]);
    });
}

#[test]
fn interfaces_tell_what_autodetection_decides_by() {
    on_a_node(|| async {
        support::add_addressed_link();
        add_link("zdown", 1400);
        ip("address add 203.0.113.1/24 dev zdown");
        ip("link set zdown down");
        let kernel = Kernel::open().unwrap();
        let interfaces = kernel.interfaces().await.unwrap();
        assert!(interfaces.is_sorted_by_key(|interface| interface.index));
        let of = |name: &str| interfaces.iter().find(|interface| interface.name == name).unwrap();
        let uplink = of("uplink");
        assert_eq!((uplink.up, uplink.kind.as_deref()), (true, Some("veth")));
        assert_eq!(uplink.addresses, [net("198.51.100.1/24"), net("fd00:198::1/64")]);
        assert_eq!(
            (of("zdown").up, &of("zdown").addresses[..]),
            (false, &[net("203.0.113.1/24")][..])
        );
        assert_eq!((of("lo").up, of("lo").kind.as_deref()), (true, None));

        ip("route add 192.0.2.0/24 via 198.51.100.9 src 198.51.100.1");
        let source = async |towards| kernel.source_towards(address(towards)).await.unwrap();
        assert_eq!(source("192.0.2.77").await, Some(net("198.51.100.1/24")));
        assert_eq!(source("fd00:198::77").await, Some(net("fd00:198::1/64")));
        assert_eq!(source("198.51.100.1").await, Some(net("198.51.100.1/24")));
        assert_eq!(source("8.8.8.8").await, None);
        assert_eq!(source("2001:db8::1").await, None);
    });
}

#[test]
fn routes_read_back_as_they_were_made_replaced_and_deleted() {
    on_a_node(|| async {
        support::add_addressed_link();
        let before = foreign();
        let kernel = Kernel::open().unwrap();
        let first = [
            ("10.1.0.0/26", Way::Blackhole),
            ("10.1.0.64/26", direct_v4()),
            ("10.1.9.9/32", direct_v4()),
            ("10.1.0.128/26", direct_v4()),
            ("fd00:1::/122", Way::Blackhole),
            ("fd00:1::40/122", direct_v6()),
            ("fd00:1::9:9/128", direct_v6()),
            ("fd00:1::80/122", direct_v6()),
        ];
        // Every kind to every other, one gone, one new.
        let second = [
            ("10.1.0.0/26", direct_v4()),
            ("10.1.0.64/26", Way::Blackhole),
            ("10.1.9.9/32", direct("198.51.100.8", "198.51.100.1")),
            ("10.1.0.192/26", direct_v4()),
            ("fd00:1::/122", direct_v6()),
            ("fd00:1::40/122", Way::Blackhole),
            ("fd00:1::9:9/128", direct("fd00:198::8", "fd00:198::1")),
            ("fd00:1::c0/122", direct_v6()),
        ];
        for routes in [&first, &second, &first] {
            let plan = plan(routes);
            assert_none(&converge(&kernel, &plan).await);
            let present = kernel.cluster_present().await.unwrap();
            let wanted: BTreeMap<IpNet, Option<Way>> =
                plan.routes.iter().map(|(range, way)| (*range, Some(way.clone()))).collect();
            assert_eq!(present.routes, wanted);
            assert_eq!(difference(&plan, &present), (Vec::new(), BTreeSet::new()));
            assert_eq!(foreign(), before);
        }
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(kernel.cluster_present().await.unwrap().routes, BTreeMap::new());
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
                let present = kernel.cluster_present().await.unwrap();
                let range = net(if odd.contains(':') { "fd00:1::/122" } else { "10.1.0.0/26" });
                assert_eq!(present.routes, [(range, None)].into(), "{odd}");
                assert_none(&converge(&kernel, plan).await);
                let present = kernel.cluster_present().await.unwrap();
                assert_eq!(difference(plan, &present), (Vec::new(), BTreeSet::new()), "{odd}");
                assert_none(&converge(&kernel, &self::plan(&[])).await);
            }
        }
        // By another link it has a form of Weir's, but another way.
        ip("route add 10.1.0.0/26 via 203.0.113.9 src 203.0.113.1 proto 77");
        let present = kernel.cluster_present().await.unwrap();
        assert!(matches!(
            &present.routes[&net("10.1.0.0/26")],
            Some(Way::Direct { link, .. }) if link == "other"
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
            let present = kernel.cluster_present().await.unwrap();
            assert_eq!(difference(&wanted, &present), (Vec::new(), BTreeSet::new()));
            assert_none(&converge(&kernel, &plan(&[])).await);
            assert_eq!(kernel.cluster_present().await.unwrap().routes, BTreeMap::new());
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
        let present = kernel.cluster_present().await.unwrap();
        assert_eq!(present.routes, BTreeMap::new());
        let taken = ["10.1.0.0/26", "10.1.0.64/26", "198.51.100.0/24", "fd00:1::/122"];
        assert_eq!(present.foreign, taken.iter().map(|range| net(range)).collect());

        // What `difference` would not ask for: the kernel edge refuses by itself.
        let mut changes = Vec::new();
        for range in ["10.1.0.0/26", "10.1.0.64/26", "10.1.0.7/32"] {
            changes.push(Change::AddRoute(net(range), direct_v4()));
            changes.push(Change::DeleteRoute(net(range), Some(direct_v4())));
            changes.push(Change::DeleteRoute(net(range), Some(Way::Blackhole)));
            changes.push(Change::DeleteRoute(net(range), None));
        }
        for range in ["fd00:1::/122", "fd00:1::7/128"] {
            changes.push(Change::AddRoute(net(range), direct_v6()));
            changes.push(Change::DeleteRoute(net(range), Some(direct_v6())));
            changes.push(Change::DeleteRoute(net(range), Some(Way::Blackhole)));
            changes.push(Change::DeleteRoute(net(range), None));
        }
        changes.push(Change::ReplaceRoute(net("10.1.0.0/26"), direct_v4()));
        changes.push(Change::ReplaceRoute(net("fd00:1::/122"), Way::Blackhole));
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
        assert_eq!(failures.len(), 7, "{failures:?}");
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
        let change = Change::ReplaceRoute(net("fd00:2::/122"), Way::Blackhole);
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
        let gone = Way::Direct {
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
        assert_eq!(kernel.cluster_present().await.unwrap().routes.len(), 1);
    });
}

#[test]
fn strict_reverse_path_filters_are_seen_and_loosened() {
    on_a_node(|| async {
        support::add_addressed_link();
        add_link("bare", 1500);
        let kernel = Kernel::open().unwrap();
        let set = |link: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), value).unwrap();
        };
        let strict = async || kernel.cluster_present().await.unwrap().strict;
        let uplink: BTreeSet<String> = ["uplink".to_owned()].into();
        for (all, own, is_strict) in [
            ("0", "0", false),
            ("0", "1", true),
            ("1", "0", true),
            ("1", "1", true),
            ("2", "1", false),
            ("1", "2", false),
        ] {
            set("all", all);
            set("uplink", own);
            // It counts for links of the underlay only.
            set("bare", "1");
            assert_eq!(strict().await == uplink, is_strict, "all={all} uplink={own}");
        }
        set("uplink", "0");
        assert_eq!(strict().await, uplink);
        assert_none(&kernel.change(&[Change::LoosenReversePath("uplink".to_owned())]).await);
        assert_eq!(strict().await, BTreeSet::new());
    });
}

#[test]
fn ten_thousand_routes_are_made_replaced_and_deleted() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let mut wanted = plan(&[]);
        for number in 0..10_000u32 {
            let block = std::net::Ipv4Addr::from(0x0a00_0000 + 64 * number);
            wanted.routes.insert(IpNet::new(block.into(), 26).unwrap(), direct_v4());
        }
        for next_hop in ["198.51.100.9", "198.51.100.8"] {
            for way in wanted.routes.values_mut() {
                *way = direct(next_hop, "198.51.100.1");
            }
            assert_none(&converge(&kernel, &wanted).await);
            let present = kernel.cluster_present().await.unwrap();
            assert_eq!(difference(&wanted, &present), (Vec::new(), BTreeSet::new()));
        }
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(kernel.cluster_present().await.unwrap().routes, BTreeMap::new());
    });
}

fn filter(peers: impl IntoIterator<Item = Ipv4Addr>) -> TunnelFilter {
    TunnelFilter::from_plan(&TunnelPlan {
        address: None,
        mtu: 1480,
        peers: peers.into_iter().collect(),
        lopsided: BTreeSet::new(),
    })
}

#[test]
fn the_tunnel_filter_is_replaced_when_it_changes_and_apart_from_nat() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        // With the handles, which every replacement changes.
        let listing = || run("nft", &["-a", "list", "ruleset"]);
        kernel.ensure_tunnel_filter(None).unwrap();
        assert_eq!(listing(), "");
        let pools = [NatPool { cidr: net("10.1.0.0/16"), nat_outgoing: true }];
        let _ = kernel.apply(&[Step::EnsureNat(NatTable::from_pools(&pools))]).await.unwrap();
        let nat = listing();
        let peers = |count: u32| (0..count).map(|number| Ipv4Addr::from(0x0a00_0001 + number));
        kernel.ensure_tunnel_filter(Some(&filter(peers(0)))).unwrap();
        kernel.ensure_tunnel_filter(Some(&filter(peers(1_000)))).unwrap();
        let installed = listing();
        assert!(installed.starts_with(&nat), "{installed}");
        assert!(installed.contains("10.0.3.232"), "the last peer: {installed}");
        kernel.ensure_tunnel_filter(Some(&filter(peers(1_000)))).unwrap();
        assert_eq!(listing(), installed, "installed again though nothing changed");
        kernel.ensure_tunnel_filter(Some(&filter(peers(999)))).unwrap();
        assert!(!listing().contains("10.0.3.232"), "{}", listing());
        // Somebody takes a rule away, or adds one: noticed.
        for command in
            ["flush chain inet weir-tunnel input", "add rule inet weir-tunnel input counter"]
        {
            run("nft", &command.split(' ').collect::<Vec<_>>());
            kernel.ensure_tunnel_filter(Some(&filter(peers(2)))).unwrap();
            let listing = listing();
            assert!(listing.contains("drop") && !listing.contains("counter"), "{listing}");
        }
        kernel.ensure_tunnel_filter(None).unwrap();
        assert_eq!(listing(), nat);
    });
}
