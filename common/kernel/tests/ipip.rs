//! The tunnel: what needs a kernel with ipip. Run by `scripts/test.sh` under one
//! that has it.

#![allow(clippy::unwrap_used)]

mod support;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::UdpSocket;

use ipnet::IpNet;
use support::cluster::{address, assert_none, ipip, net};
use support::{Other, ip, on_a_node, run, succeeds};
use weir_common::network::{
    ActualTunnel, Change, ClusterPlan, ClusterPool, ClusterState, Difference, Peer, PoolTunnel,
    RouteKind, TunnelFilter, diff,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::{Keep, Kernel, Monitor};

const IPIP: TunnelKind = TunnelKind::Ipip;

/// A plan with a tunnel that has this address.
fn plan(own: Option<&str>, routes: &[(&str, RouteKind)]) -> ClusterPlan {
    let tunnel = ipip(own, [address("198.51.100.2")]);
    ClusterPlan { tunnels: [(IPIP, tunnel)].into(), ..no_tunnel(routes) }
}

fn no_tunnel(routes: &[(&str, RouteKind)]) -> ClusterPlan {
    ClusterPlan { pod_mtu: 1480, ..support::cluster::plan(routes) }
}

fn tunnel(next_hop: &str, source: Option<&str>) -> RouteKind {
    RouteKind::Tunnel { kind: IPIP, next_hop: address(next_hop), source: source.map(address) }
}

/// Makes the kernel what `plan` says, without a failure, and looks whether it is
/// that then.
async fn converge(kernel: &Kernel, plan: &ClusterPlan) {
    let present = kernel.actual_state().await.unwrap();
    let Difference { changes, problems, .. } = diff(plan, &present);
    assert_eq!(problems, BTreeSet::new());
    assert_none(&kernel.change(&changes).await);
    let filter = TunnelFilter::new(plan.tunnels.keys().copied(), plan, &present);
    kernel.ensure_tunnel_filter(filter.as_ref()).await.unwrap();
    let present = kernel.actual_state().await.unwrap();
    assert_eq!(diff(plan, &present), Difference::default());
}

/// A link of the node to another one, which has two addresses there.
fn connect(other: &Other) {
    ip("link add uplink type veth peer name eth0");
    run("ip", &["link", "set", "eth0", "netns", other.path().to_str().unwrap()]);
    ip("address add 198.51.100.1/24 dev uplink");
    ip("link set uplink up");
    for address in ["198.51.100.2/24", "198.51.100.3/24"] {
        other.ip(&format!("address add {address} dev eth0"));
    }
    other.ip("link set eth0 up");
}

#[test]
fn the_device_becomes_what_is_wanted_and_goes_out_of_service() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        for key in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{key}/rp_filter"), "1").unwrap();
        }
        let kernel = Kernel::open().unwrap();
        let device = async || kernel.actual_state().await.unwrap().tunnels.remove(&IPIP);
        // Nobody has asked for a tunnel yet: whatever is there is another program's.
        kernel.change(&[Change::CreateTunnel(IPIP, None)]).await;
        ip("address add 192.0.2.7/32 dev tunl0");
        ip("link set tunl0 up");
        converge(&kernel, &no_tunnel(&[])).await;
        let others = device().await.unwrap();
        assert!(others.up && !others.addresses.is_empty() && !others.claimed, "{others:?}");
        converge(&kernel, &plan(None, &[])).await;
        let of_link: IpNet = "169.254.191.1/32".parse().unwrap();
        let addresses = [of_link].into();
        let bare = ActualTunnel { claimed: true, up: true, mtu: 1480, addresses, vxlan: None };
        assert_eq!(device().await, Some(bare.clone()));
        let strict = kernel.actual_state().await.unwrap().strict;
        assert_eq!(strict, ["uplink".to_owned()].into(), "the tunnel device is loose");
        converge(&kernel, &plan(Some("10.0.0.1"), &[])).await;
        let listed = ip("-4 -oneline address show dev tunl0");
        assert!(listed.contains("inet 10.0.0.1/32 scope global tunl0"), "{listed}");

        // What others have put there goes, also the own address with another
        // prefix, one with another end, and one of another scope.
        ip("link set tunl0 mtu 1400");
        for address in
            ["10.0.0.1/24", "10.0.0.7/32", "10.0.0.8 peer 10.0.0.9", "10.0.0.10/32 scope link"]
        {
            ip(&format!("address add {address} dev tunl0"));
        }
        let wanted = plan(Some("10.0.0.1"), &[]);
        converge(&kernel, &wanted).await;
        let addresses = [of_link, "10.0.0.1/32".parse().unwrap()].into();
        let own = ActualTunnel { addresses, ..bare };
        assert_eq!(device().await, Some(own));
        // Another address of its own.
        converge(&kernel, &plan(Some("10.0.0.2"), &[])).await;
        converge(&kernel, &no_tunnel(&[])).await;
        let idle = device().await.unwrap();
        assert!(!idle.up && !idle.claimed && idle.addresses.is_empty(), "{idle:?}");
        assert_eq!(run("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn routes_through_the_tunnel_read_back_as_they_were_made() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        let kernel = Kernel::open().unwrap();
        let direct = RouteKind::Direct {
            next_hop: address("198.51.100.2"),
            link: "uplink".to_owned(),
            source: address("198.51.100.1"),
        };
        let ways = [
            tunnel("198.51.100.2", Some("10.0.0.1")),
            tunnel("203.0.113.9", Some("10.0.0.1")),
            direct,
            RouteKind::Blackhole,
        ];
        // Every way to every other.
        for first in &ways {
            for second in &ways {
                for way in [first, second] {
                    let routes = [("10.1.0.0/26", way.clone()), ("10.2.0.1/32", way.clone())];
                    converge(&kernel, &plan(Some("10.0.0.1"), &routes)).await;
                    let present = kernel.actual_state().await.unwrap();
                    assert_eq!(present.routes[&net("10.1.0.0/26")].as_ref(), Some(way));
                }
            }
        }
        // The tunnel's address comes, becomes another, and goes with the tunnel.
        converge(&kernel, &no_tunnel(&[])).await;
        for source in [None, Some("10.0.0.1"), Some("10.0.0.2")] {
            let routes = [("10.1.0.0/26", tunnel("203.0.113.9", source))];
            converge(&kernel, &plan(source, &routes)).await;
        }
        for odd in ["src 10.0.0.2 metric 5", "src 10.0.0.2 mtu 1300"] {
            ip("route delete 10.1.0.0/26");
            ip(&format!("route add 10.1.0.0/26 via 203.0.113.9 dev tunl0 onlink proto 77 {odd}"));
            let present = kernel.actual_state().await.unwrap();
            assert_eq!(present.routes[&net("10.1.0.0/26")], None, "{odd}");
            let routes = [("10.1.0.0/26", tunnel("203.0.113.9", Some("10.0.0.2")))];
            converge(&kernel, &plan(Some("10.0.0.2"), &routes)).await;
        }
        converge(&kernel, &no_tunnel(&[])).await;
        assert_eq!(kernel.actual_state().await.unwrap().routes.len(), 0);
    });
}

/// The other node answers from 10.1.0.1, through its own end of the tunnel.
#[test]
fn packets_pass_from_and_to_known_nodes_only() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        let kernel = Kernel::open().unwrap();
        let routes = [("10.1.0.0/26", tunnel("198.51.100.2", Some("10.0.0.1")))];
        converge(&kernel, &plan(Some("10.0.0.1"), &routes)).await;
        other.within(|| succeeds("ip", &["link", "add", IPIP.device(), "type", "ipip"]));
        other.ip("address add 10.1.0.1/32 dev tunl0");
        other.ip("link set tunl0 up");
        other.ip("route add 10.0.0.0/24 via 198.51.100.1 dev tunl0 onlink src 10.1.0.1");
        let answers = || succeeds("ping", &["-n", "-c", "1", "-W", "2", "10.1.0.1"]);
        assert!(answers(), "a known node");
        // It has a second address, by which nobody knows it.
        other.ip("route add 198.51.100.1/32 dev eth0 src 198.51.100.3");
        assert!(!answers(), "an unknown sender");
        kernel.ensure_tunnel_filter(None).await.unwrap();
        assert!(answers(), "without the filter");
    });
}

/// Answers to an address that is not the tunnel's would not come back through
/// it: the other node has no route for it.
#[test]
fn the_node_itself_sends_by_the_tunnels_address() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        ip("address add 192.0.2.1/32 dev lo");
        let kernel = Kernel::open().unwrap();
        let routes = [("10.1.0.0/26", tunnel("198.51.100.2", Some("10.0.0.1")))];
        converge(&kernel, &plan(Some("10.0.0.1"), &routes)).await;
        other.within(|| succeeds("ip", &["link", "add", IPIP.device(), "type", "ipip"]));
        other.ip("address add 10.1.0.1/32 dev tunl0");
        other.ip("link set tunl0 up");
        other.ip("route add 10.0.0.0/24 via 198.51.100.1 dev tunl0 onlink src 10.1.0.1");
        let from_elsewhere =
            || succeeds("ping", &["-n", "-c", "1", "-W", "2", "-I", "192.0.2.1", "10.1.0.1"]);
        assert!(from_elsewhere(), "masqueraded");
        kernel.ensure_tunnel_filter(None).await.unwrap();
        assert!(!from_elsewhere(), "without the filter");
    });
}

#[test]
fn what_befalls_the_tunnel_is_told() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        let kernel = Kernel::open().unwrap();
        let routes = [("10.1.0.0/26", tunnel("198.51.100.2", Some("10.0.0.1")))];
        let wanted = plan(Some("10.0.0.1"), &routes);
        for command in [
            "address delete 10.0.0.1/32 dev tunl0",
            "link set tunl0 down",
            "link set tunl0 mtu 1400",
            "route delete 10.1.0.0/26",
        ] {
            converge(&kernel, &wanted).await;
            let mut monitor = Monitor::open().unwrap();
            ip(command);
            let told = monitor.changed();
            tokio::time::timeout(std::time::Duration::from_secs(30), told).await.unwrap().unwrap();
        }
    });
}

/// Two nodes with a block each, and addresses for both kinds of tunnels.
fn two_nodes(kind: TunnelKind) -> ClusterState {
    let mut state = ClusterState::default();
    let pool = ClusterPool {
        cidr: net("10.0.0.0/16"),
        tunnel: Some(PoolTunnel { kind, cross_subnet: false }),
        nat_outgoing: false,
        has_tunnel_addresses: true,
        is_exported: true,
    };
    state.pools.insert("pool".to_owned(), pool);
    for number in [1, 2] {
        let name = format!("n{number}");
        let tunnels = [
            (IPIP, address(&format!("10.0.{number}.0"))),
            (TunnelKind::Vxlan, address(&format!("10.0.{number}.1"))),
        ];
        let ipv4 = Some(net(&format!("198.51.100.{number}/24")));
        let peer = Peer { ipv4, tunnels: tunnels.into(), ..Peer::default() };
        state.nodes.insert(name.clone(), peer);
        state.blocks.insert(net(&format!("10.0.{number}.0/26")), [name].into());
    }
    state
}

/// The port is taken, so that VXLAN cannot be had; then it can.
#[test]
fn a_pool_that_changes_its_tunnel_keeps_the_old_one_until_there_is_the_new_one() {
    on_a_node(|| async {
        let other = Other::new();
        connect(&other);
        let kernel = Kernel::open().unwrap();
        let reconcile = async |state: &ClusterState| {
            let state = Cow::Borrowed(state);
            let outcome = kernel.reconcile("n1", state, Keep::default()).await.unwrap();
            let actual = kernel.actual_state().await.unwrap();
            let way = actual.routes[&net("10.0.2.0/26")].as_ref().and_then(RouteKind::tunnel_kind);
            let failures: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
            (way, outcome.still_used, failures, actual.tunnels)
        };
        let (way, _, failures, _) = reconcile(&two_nodes(IPIP)).await;
        assert_eq!((way, failures), (Some(IPIP), Vec::new()));
        let taken = UdpSocket::bind("0.0.0.0:4789").unwrap();
        let changed = two_nodes(TunnelKind::Vxlan);
        let (way, still_used, failures, _) = reconcile(&changed).await;
        assert_eq!((way, still_used, failures.len()), (Some(IPIP), [IPIP].into(), 1));
        drop(taken);
        let (way, still_used, failures, tunnels) = reconcile(&changed).await;
        assert_eq!((way, still_used), (Some(TunnelKind::Vxlan), BTreeSet::new()));
        assert_eq!(failures, Vec::<String>::new());
        assert!(tunnels[&IPIP].claimed, "the other node may still send by it");
        let mut settled = changed;
        for peer in settled.nodes.values_mut() {
            peer.tunnels.remove(&IPIP);
        }
        let (way, _, failures, tunnels) = reconcile(&settled).await;
        assert_eq!((way, failures), (Some(TunnelKind::Vxlan), Vec::new()));
        assert!(!tunnels[&IPIP].claimed && !tunnels[&IPIP].up, "{tunnels:?}");
    });
}
