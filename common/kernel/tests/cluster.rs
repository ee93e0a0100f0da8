//! A node's part in the cluster: its links, the tunnel and its filter. Routes
//! are in `routes.rs`, and what needs a kernel with ipip in `ipip.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use support::cluster::{address, assert_none, direct_v4, foreign, ipip, net, plan};
use support::{add_link, ip, on_a_node, run};
use weir_common::network::{
    ActualState, Change, ClusterPlan, HOST_MAC, NatPool, NatTable, RouteKind, Step, TunnelFilter,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::{Error, Kernel};

const IPIP: TunnelKind = TunnelKind::Ipip;

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
        Change::CreateTunnel(IPIP, None),
        Change::SetTunnelMtu(IPIP, 1400),
        Change::AddTunnelAddress(IPIP, "10.0.0.1".parse().unwrap()),
        Change::SetTunnelUp(IPIP),
        Change::LoosenReversePath(IPIP.device().to_owned()),
    ]
}

fn tunnel_way() -> RouteKind {
    RouteKind::Tunnel {
        kind: IPIP,
        next_hop: "203.0.113.9".parse().unwrap(),
        source: Some("10.0.0.1".parse().unwrap()),
    }
}

/// A kernel that has ipip refuses where something else has the name.
#[test]
fn without_a_tunnel_there_is_one_error_and_direct_routes_are_made() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        let mut changes = tunnel_changes();
        for number in 0..3 {
            changes.push(Change::AddRoute(net(&format!("10.1.{number}.0/26")), tunnel_way()));
        }
        changes.push(Change::AddRoute(net("10.2.0.0/26"), direct_v4()));
        changes.push(Change::RemoveTunnelAddress(IPIP, "10.0.0.9/32".parse().unwrap()));
        let has_ipip = {
            let probe = "link add probe type ipip local 198.51.100.1 remote 198.51.100.2";
            support::succeeds("ip", &probe.split(' ').collect::<Vec<_>>())
        };
        let advice = if has_ipip {
            fake_tunnel();
            "delete or rename it"
        } else {
            "modprobe ipip"
        };
        let failures = kernel.change(&changes).await;
        let [(what, error)] = &failures[..] else {
            panic!("{failures:?}");
        };
        assert_eq!(what, "ip link add tunl0 type ipip");
        assert!(error.to_string().contains(advice), "{error}");
        let routes = kernel.actual_state().await.unwrap().routes;
        assert_eq!(routes, [(net("10.2.0.0/26"), Some(direct_v4()))].into());
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
        assert_eq!(kernel.actual_state().await.unwrap().tunnels, BTreeMap::new());
        let mut changes = tunnel_changes();
        changes.push(Change::AddRoute(net("10.1.0.0/26"), tunnel_way()));
        let failures = kernel.change(&changes).await;
        assert!(matches!(&failures[..], [(_, Error::NotATunnel { .. })]), "{failures:?}");
        assert_eq!(foreign(), before);
        assert_eq!(kernel.actual_state().await.unwrap().routes, BTreeMap::new());
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
        let names: Vec<&str> = interfaces.iter().map(|it| it.name.as_str()).collect();
        assert!(names.starts_with(&["lo"]) && names.ends_with(&["pdown", "zdown"]), "{names:?}");
        let of = |name: &str| interfaces.iter().find(|interface| interface.name == name).unwrap();
        let uplink = of("uplink");
        assert!(uplink.up && of("lo").up);
        assert_eq!(uplink.addresses, [net("198.51.100.1/24"), net("fd00:198::1/64")]);
        assert_eq!(
            (of("zdown").up, &of("zdown").addresses[..]),
            (false, &[net("203.0.113.1/24")][..])
        );

        // A bridge of containers; the uplink of a machine that is a container itself.
        ip("link add zbridge type bridge");
        ip("link set zdown master zbridge");
        let interfaces = kernel.interfaces().await.unwrap();
        let is_virtual = |name: &str| {
            interfaces.iter().find(|interface| interface.name == name).unwrap().is_virtual
        };
        assert!(is_virtual("zbridge") && !is_virtual("uplink"));

        for more in ["fd00:198::9/128", "198.51.100.8/32"] {
            ip(&format!("address add {more} dev uplink valid_lft forever preferred_lft 0 nodad"));
        }
        let interfaces = kernel.interfaces().await.unwrap();
        let uplink = interfaces.iter().find(|interface| interface.name == "uplink").unwrap();
        assert_eq!(uplink.addresses, [net("198.51.100.1/24"), net("fd00:198::1/64")]);
        assert_eq!(uplink.deprecated, [net("198.51.100.8/32"), net("fd00:198::9/128")]);

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
fn strict_reverse_path_filters_are_seen_and_loosened() {
    on_a_node(|| async {
        support::add_addressed_link();
        add_link("bare", 1500);
        let kernel = Kernel::open().unwrap();
        let set = |link: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), value).unwrap();
        };
        let strict = async || kernel.actual_state().await.unwrap().strict;
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

fn filter(peers: impl IntoIterator<Item = Ipv4Addr>) -> TunnelFilter {
    let tunnel = ipip(None, peers.into_iter().map(IpAddr::V4));
    let plan = ClusterPlan { tunnels: [(IPIP, tunnel)].into(), ..plan(&[]) };
    TunnelFilter::new([IPIP], &plan, &ActualState::default()).unwrap()
}

#[test]
fn the_tunnel_filter_is_replaced_when_it_changes_and_apart_from_nat() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        // With the handles, which every replacement changes.
        let listing = || run("nft", &["-a", "list", "ruleset"]);
        kernel.ensure_tunnel_filter(None).await.unwrap();
        assert_eq!(listing(), "");
        let pools = [NatPool { cidr: net("10.1.0.0/16"), nat_outgoing: true }];
        let _ = kernel.apply(&[Step::EnsureNat(NatTable::from_pools(&pools, None))]).await.unwrap();
        let nat = listing();
        let peers = |count: u32| (0..count).map(|number| Ipv4Addr::from(0x0a00_0001 + number));
        kernel.ensure_tunnel_filter(Some(&filter(peers(0)))).await.unwrap();
        kernel.ensure_tunnel_filter(Some(&filter(peers(1_000)))).await.unwrap();
        let installed = listing();
        assert!(installed.starts_with(&nat), "{installed}");
        assert!(installed.contains("10.0.3.232"), "the last peer: {installed}");
        kernel.ensure_tunnel_filter(Some(&filter(peers(1_000)))).await.unwrap();
        assert_eq!(listing(), installed, "installed again though nothing changed");
        kernel.ensure_tunnel_filter(Some(&filter(peers(999)))).await.unwrap();
        assert!(!listing().contains("10.0.3.232"), "{}", listing());
        // Somebody takes a rule away, or adds one: noticed.
        for command in
            ["flush chain inet weir-tunnel input", "add rule inet weir-tunnel input counter"]
        {
            run("nft", &command.split(' ').collect::<Vec<_>>());
            kernel.ensure_tunnel_filter(Some(&filter(peers(2)))).await.unwrap();
            let listing = listing();
            assert!(listing.contains("drop") && !listing.contains("counter"), "{listing}");
        }
        kernel.ensure_tunnel_filter(None).await.unwrap();
        assert_eq!(listing(), nat);
    });
}
