//! Tunnels of VXLAN: two nodes in two subnets with a router between them, each with what Weir
//! plans for it. Every kernel that the tests run under has VXLAN.

#![allow(clippy::unwrap_used)]

mod support;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use support::cluster::{address, assert_none, net};
use support::{Other, ip, on_a_node, run, succeeds, until};
use tokio::time::timeout;
use weir_common::network::{
    Change, ClusterPool, ClusterState, Peer, PoolTunnel, RouteKind, VxlanDevice,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::{Error, Keep, Kernel, Monitor, Reconciled};

const KINDS: [TunnelKind; 2] = [TunnelKind::Vxlan, TunnelKind::VxlanV6];

/// Two nodes with a block of each family each, and a tunnel address out of it.
fn cluster() -> ClusterState {
    let mut state = ClusterState::default();
    for (name, cidr, kind) in
        [("v4", "10.1.0.0/16", TunnelKind::Vxlan), ("v6", "fd00:1::/48", TunnelKind::VxlanV6)]
    {
        let pool = ClusterPool {
            cidr: net(cidr),
            tunnel: Some(PoolTunnel { kind, cross_subnet: false }),
            nat_outgoing: false,
            has_tunnel_addresses: true,
            is_exported: true,
        };
        state.pools.insert(name.to_owned(), pool);
    }
    for (number, subnet) in [(1, 198), (2, 203)] {
        let name = format!("n{number}");
        let peer = Peer {
            ipv4: Some(net(&format!("192.0.{subnet}.1/24"))),
            ipv6: Some(net(&format!("fd00:{subnet}::1/64"))),
            tunnels: [
                (TunnelKind::Vxlan, address(&format!("10.1.{number}.0"))),
                (TunnelKind::VxlanV6, address(&format!("fd00:1:0:{number}::"))),
            ]
            .into(),
            ..Peer::default()
        };
        state.nodes.insert(name.clone(), peer);
        for block in [format!("10.1.{number}.0/26"), format!("fd00:1:0:{number}::/122")] {
            state.blocks.insert(net(&block), [name.clone()].into());
        }
    }
    state
}

/// The same once no pool tunnels and no node has an address for it.
fn without_tunnels() -> ClusterState {
    let mut state = cluster();
    state.pools.values_mut().for_each(|pool| pool.tunnel = None);
    state.nodes.values_mut().for_each(|peer| peer.tunnels.clear());
    state
}

/// The second node and the router between it and the first one, which is the thread's namespace.
struct Network {
    second: Other,
    _router: Other,
}

impl Network {
    fn new() -> Self {
        let (second, router) = (Other::new(), Other::new());
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            router.within(|| std::fs::write(format!("/proc/sys/{key}"), "1")).unwrap();
        }
        connect(&router, 198, ip, None);
        connect(&router, 203, |arguments| second.ip(arguments), Some(&second));
        let network = Self { second, _router: router };
        let meets = || succeeds("ping", &["-n", "-c", "1", "-W", "1", "fd00:203::1"]);
        let met = (0..30).any(|_| meets());
        assert!(met, "the underlay has no way to the second node");
        network
    }

    /// Gives the second node what `state` asks for.
    fn reconcile_second(&self, state: &ClusterState) {
        let second = || {
            self.second.within(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let kernel = Kernel::open().unwrap();
                    settled(&kernel, "n2", state).await;
                });
            });
        };
        thread::scope(|scope| scope.spawn(second).join().unwrap());
    }
}

/// Links a node, in whose namespace `ip` runs, with the router by a subnet of its own.
fn connect(router: &Other, subnet: u8, ip: impl Fn(&str) -> String, node: Option<&Other>) {
    let end = format!("r{subnet}");
    ip(&format!("link add uplink type veth peer name {end}"));
    let path = router.path();
    let move_away = || run("ip", &["link", "set", &end, "netns", path.to_str().unwrap()]);
    node.map_or_else(move_away, |node| node.within(move_away));
    for (ip, link, host) in [
        (&ip as &dyn Fn(&str) -> String, "uplink", "1"),
        (&|arguments: &str| router.ip(arguments), &end, "fe"),
    ] {
        let host_v4 = if host == "1" { 1 } else { 254 };
        ip(&format!("address add 192.0.{subnet}.{host_v4}/24 dev {link}"));
        ip(&format!("address add fd00:{subnet}::{host}/64 dev {link} nodad"));
        ip(&format!("link set {link} up"));
    }
    ip(&format!("route add default via 192.0.{subnet}.254"));
    ip(&format!("-6 route add default via fd00:{subnet}::fe"));
}

async fn reconcile(kernel: &Kernel, node: &str, state: &ClusterState) -> Reconciled {
    kernel.reconcile(node, Cow::Borrowed(state), Keep::default()).await.unwrap()
}

/// Gives a node what `state` asks for, without a failure, and looks whether it has that then.
/// Returns what was changed.
async fn settled(kernel: &Kernel, node: &str, state: &ClusterState) -> Vec<Change> {
    let first = reconcile(kernel, node, state).await;
    assert!(first.failures.is_empty(), "{:?}", first.failures);
    assert!(first.problems.is_empty(), "{:?}", first.problems);
    let again = reconcile(kernel, node, state).await;
    assert_eq!((again.changes, again.failures.len()), (Vec::new(), 0));
    first.changes
}

/// The two nodes, of which the first one has what it should.
async fn begun() -> (Network, Kernel, ClusterState) {
    let network = Network::new();
    let (kernel, state) = (Kernel::open().unwrap(), cluster());
    settled(&kernel, "n1", &state).await;
    (network, kernel, state)
}

/// The same once both have.
async fn connected() -> (Network, Kernel, ClusterState) {
    let (network, kernel, state) = begun().await;
    network.reconcile_second(&state);
    (network, kernel, state)
}

/// Whether one echo request of that size is answered by the second node's tunnel address, whole.
fn passes(kind: TunnelKind, more: &[&str]) -> bool {
    let to = if kind.row().is_ipv6 { "fd00:1:0:2::" } else { "10.1.2.0" };
    let arguments = ["-n", "-c", "1", "-W", "2", "-M", "do"].iter().chain(more).chain([&to]);
    succeeds("ping", &arguments.copied().collect::<Vec<_>>())
}

fn index(device: &str) -> String {
    ip(&format!("-oneline link show {device}")).split(':').next().unwrap().to_owned()
}

/// Both ways, from containers' addresses and the nodes' own, up to the devices' MTU.
#[test]
fn packets_pass_in_both_families_up_to_the_mtu() {
    on_a_node(|| async {
        let (network, kernel, _) = connected().await;
        let devices = kernel.tunnel_devices().await.unwrap();
        // Less the headers of IP and ICMP.
        for (kind, mtu, headers) in [(TunnelKind::Vxlan, 1450, 28), (TunnelKind::VxlanV6, 1430, 48)]
        {
            assert_eq!(devices[&kind].mtu, mtu);
            assert!(passes(kind, &[]), "{kind}");
            assert!(passes(kind, &["-s", &(mtu - headers).to_string()]), "{kind}");
            assert!(!passes(kind, &["-s", &(mtu - headers + 1).to_string()]), "{kind}");
        }
        for (own, other) in [("10.1.1.5", "10.1.2.5"), ("fd00:1:0:1::5", "fd00:1:0:2::5")] {
            ip(&format!("address add {own} dev lo nodad"));
            network.second.ip(&format!("address add {other} dev lo nodad"));
            // The kernel adds their local routes a moment later.
            let family = if own.contains(':') { "-6" } else { "-4" };
            let route = |of: &str| format!("{family} route show table local {of}");
            until("the addresses have their local routes", || {
                !ip(&route(own)).is_empty() && !network.second.ip(&route(other)).is_empty()
            });
            assert!(network.second.reaches(address(own)), "{own}");
            assert!(succeeds("ping", &["-n", "-c", "1", "-W", "2", "-I", own, other]), "{other}");
        }
        // IPv6 leaves no choice (RFC 8200), and with IPv4 it is the kernel's own.
        let details = ip("-details link show vxlan-v6.calico");
        assert!(details.contains("noudp6zerocsumtx"), "{details}");
    });
}

#[test]
fn packets_of_others_than_nodes_are_dropped_and_the_node_sends_by_the_tunnels_address() {
    on_a_node(|| async {
        let (network, kernel, state) = begun().await;
        // By these, nobody knows it.
        network.second.ip("address add 192.0.203.3/24 dev uplink");
        network.second.ip("address add fd00:203::3/64 dev uplink nodad");
        for [own, elsewhere] in [["1", "192.0.9.1"], ["3", "fd00:9::1"]] {
            let mut theirs = state.clone();
            let second = theirs.nodes.get_mut("n2").unwrap();
            second.ipv4 = Some(net(&format!("192.0.203.{own}/24")));
            second.ipv6 = Some(net(&format!("fd00:203::{own}/64")));
            network.reconcile_second(&theirs);
            for kind in KINDS {
                assert_eq!(passes(kind, &[]), own == "1", "{kind}");
            }
            ip(&format!("address add {elsewhere} dev lo nodad"));
        }
        kernel.ensure_tunnel_filter(None).await.unwrap();
        let from = |kind: TunnelKind| if kind.row().is_ipv6 { "fd00:9::1" } else { "192.0.9.1" };
        for kind in KINDS {
            assert!(passes(kind, &[]), "{kind}: without the filter");
            assert!(!passes(kind, &["-I", from(kind)]), "{kind}: without the filter");
        }
        network.reconcile_second(&state);
        settled(&kernel, "n1", &state).await;
        for kind in KINDS {
            assert!(passes(kind, &["-I", from(kind)]), "{kind}: masqueraded");
        }
    });
}

/// What is done to a device by hand, as commands; `DEVICE` is its name, and `MAC` the hardware
/// address of the other node's.
const DRIFT: &[&str] = &[
    "ip link delete DEVICE",
    "ip link set DEVICE address 66:00:00:00:00:01",
    "ip link set DEVICE type vxlan learning",
    "ip link set DEVICE mtu 1300",
    "ip link set DEVICE down",
    "ip link set DEVICE alias other",
    "ip neighbour delete HOP dev DEVICE",
    "ip neighbour replace HOP lladdr 66:00:00:00:00:02 dev DEVICE nud permanent",
    "ip neighbour add ODD lladdr 66:00:00:00:00:03 dev DEVICE nud permanent",
    "bridge fdb delete MAC dev DEVICE dst NODE self",
    "bridge fdb replace MAC dev DEVICE dst ODD self permanent",
    "bridge fdb append 66:00:00:00:00:04 dev DEVICE dst ODD self permanent",
    "bridge fdb append 00:00:00:00:00:00 dev DEVICE dst NODE self permanent",
    "bridge fdb append 00:00:00:00:00:00 dev DEVICE dst ODD self permanent",
    "ip route delete BLOCK",
    "ip address delete OWN dev DEVICE",
    "ip address add ODD dev DEVICE",
    "nft delete table inet weir-tunnel",
];

/// Fills in the names.
fn by_hand(command: &str, kind: TunnelKind) -> String {
    let mac = kind.mac("n2").unwrap();
    let [hop, odd, node, block, own] = match kind.row().is_ipv6 {
        false => ["10.1.2.0", "192.0.77.7", "192.0.203.1", "10.1.2.0/26", "10.1.1.0/32"]
            .map(str::to_owned),
        true => [
            &weir_common::tunnel::link_local(mac).to_string(),
            "fd00:77::7",
            "fd00:203::1",
            "fd00:1:0:2::/122",
            "fd00:1:0:1::/128",
        ]
        .map(str::to_owned),
    };
    let names =
        [("DEVICE", kind.device()), ("MAC", &mac.to_string()), ("HOP", &hop), ("ODD", &odd)]
            .map(|(name, value)| (name, value.to_owned()));
    let more = [("NODE", node), ("BLOCK", block), ("OWN", own)];
    let all = names.into_iter().chain(more);
    all.fold(command.to_owned(), |text, (name, value)| text.replace(name, &value))
}

#[test]
fn what_is_done_to_a_device_is_told_and_undone() {
    on_a_node(|| async {
        let (_network, kernel, state) = connected().await;
        let wanted = kernel.actual_state().await.unwrap();
        for kind in KINDS {
            for command in DRIFT {
                let command = by_hand(command, kind);
                let mut monitor = Monitor::open().unwrap();
                let words: Vec<&str> = command.split(' ').collect();
                run(words[0], &words[1..]);
                let told = async { while !monitor.changed().await.unwrap().cluster {} };
                timeout(Duration::from_secs(30), told).await.expect(&command);
                settled(&kernel, "n1", &state).await;
                let state = kernel.actual_state().await.unwrap();
                assert_eq!(state, wanted, "{command}");
                assert!(passes(kind, &[]), "{command}");
            }
        }
    });
}

/// What it is made with cannot be changed later.
#[test]
fn a_device_that_was_made_with_something_else_is_made_again() {
    on_a_node(|| async {
        let (network, kernel, state) = connected().await;
        let wanted = kernel.actual_state().await.unwrap();
        let mac = TunnelKind::Vxlan.mac("n1").unwrap();
        for odd in [
            "id 7 dstport 4789 local 192.0.198.1 dev uplink nolearning",
            "id 4096 dstport 8472 local 192.0.198.1 dev uplink nolearning",
            "id 4096 dstport 4789 local 192.0.198.9 dev uplink nolearning",
            "id 4096 dstport 4789 local 192.0.198.1 nolearning",
            "id 4096 dstport 4789 local fd00:198::9 nolearning",
            "id 4096 dstport 4789 remote 192.0.203.1 dev uplink",
        ] {
            ip("link delete vxlan.calico");
            // Two of IPv6 with one identifier cannot be.
            let _ = succeeds("ip", &["link", "delete", "vxlan-v6.calico"]);
            ip(&format!("link add vxlan.calico address {mac} type vxlan {odd}"));
            ip("link set vxlan.calico alias weir");
            ip("link set vxlan.calico up");
            settled(&kernel, "n1", &state).await;
            assert_eq!(kernel.actual_state().await.unwrap(), wanted, "{odd}");
            assert!(passes(TunnelKind::Vxlan, &[]), "{odd}");
            let guarded = run("nft", &["list", "table", "inet", "weir-tunnel"]);
            assert_eq!(guarded.matches("udp dport 4789").count(), 4, "{guarded}");
            assert!(!guarded.contains("8472"), "{odd}: the old port is not guarded any more");
        }
        // Another hardware address in the store, here and there.
        let mut changed = state.clone();
        let mac = weir_common::link::MacAddress([0x66, 9, 9, 9, 9, 9]);
        for name in ["n1", "n2"] {
            let mac = if name == "n1" { mac } else { TunnelKind::Vxlan.mac("other").unwrap() };
            changed.nodes.get_mut(name).unwrap().tunnel_macs = KINDS.map(|kind| (kind, mac)).into();
        }
        network.reconcile_second(&changed);
        settled(&kernel, "n1", &changed).await;
        for kind in KINDS {
            assert!(passes(kind, &[]), "{kind}");
        }
    });
}

/// A node that comes back with another address has the same hardware address.
#[test]
fn a_node_that_moves_is_followed() {
    on_a_node(|| async {
        let (network, kernel, state) = begun().await;
        let mut moved = state.clone();
        let second = moved.nodes.get_mut("n2").unwrap();
        (second.ipv4, second.ipv6) = (Some(net("192.0.203.3/24")), Some(net("fd00:203::3/64")));
        network.second.ip("address add 192.0.203.3/24 dev uplink");
        network.second.ip("address add fd00:203::3/64 dev uplink nodad");
        network.reconcile_second(&moved);
        settled(&kernel, "n1", &moved).await;
        for kind in KINDS {
            assert!(passes(kind, &[]), "{kind}");
        }
        // And one that has gone leaves nothing.
        moved.nodes.remove("n2");
        moved.blocks.retain(|_, hosts| !hosts.contains("n2"));
        reconcile(&kernel, "n1", &moved).await;
        for tunnel in kernel.tunnel_devices().await.unwrap().into_values() {
            let vxlan = tunnel.vxlan.unwrap();
            assert_eq!((vxlan.neighbours.len(), vxlan.forwarding.len()), (0, 0));
        }
    });
}

/// More entries than one listing's message holds, and none of them lost on the way.
#[test]
fn a_thousand_nodes_get_their_entries_and_leave_none() {
    on_a_node(|| async {
        let _network = Network::new();
        let (kernel, state) = (Kernel::open().unwrap(), cluster());
        let mut many = state.clone();
        for number in 3..=1000_u16 {
            let [high, low] = number.to_be_bytes();
            let peer = Peer {
                ipv4: Some(net(&format!("192.1.{high}.{low}/24"))),
                ipv6: Some(net(&format!("fd00:204::{number}/64"))),
                tunnels: [
                    (TunnelKind::Vxlan, address(&format!("10.1.{}.{low}", 100 + high))),
                    (TunnelKind::VxlanV6, address(&format!("fd00:1:0:{number}::"))),
                ]
                .into(),
                ..Peer::default()
            };
            many.nodes.insert(format!("n{number}"), peer);
        }
        for (state, count) in [(&many, 999), (&state, 1), (&many, 999)] {
            settled(&kernel, "n1", state).await;
            for tunnel in kernel.tunnel_devices().await.unwrap().into_values() {
                let vxlan = tunnel.vxlan.unwrap();
                assert_eq!((vxlan.neighbours.len(), vxlan.forwarding.len()), (count, count));
            }
        }
    });
}

/// As Calico makes it (`felix/dataplane/linux/vxlan_mgr.go`): without checksums over IPv4.
#[test]
fn calicos_device_is_taken_over_as_it_is_and_goes_once_nobody_needs_it() {
    on_a_node(|| async {
        let _network = Network::new();
        let (kernel, state) = (Kernel::open().unwrap(), cluster());
        let other = TunnelKind::VxlanV6;
        for (kind, made, address) in [
            (TunnelKind::Vxlan, "local 192.0.198.1 dev uplink nolearning noudpcsum", "10.1.1.0/32"),
            (other, "local fd00:198::1 dev uplink nolearning", "fd00:1:0:1::/128"),
        ] {
            let (device, mac) = (kind.device(), kind.mac("n1").unwrap());
            let mtu = if kind == other { 1430 } else { 1450 };
            ip(&format!(
                "link add {device} address {mac} mtu {mtu} type vxlan id 4096 dstport 4789 {made}"
            ));
            ip(&format!("address add {address} dev {device} nodad"));
            if kind == TunnelKind::Vxlan {
                ip(&format!("address add 169.254.191.1/32 dev {device} scope link"));
            }
            ip(&format!("link set {device} up"));
            for command in [
                "ip neighbour add HOP lladdr MAC dev DEVICE nud permanent",
                "bridge fdb append MAC dev DEVICE dst NODE self permanent",
            ] {
                let command = by_hand(command, kind);
                let words: Vec<&str> = command.split(' ').collect();
                run(words[0], &words[1..]);
            }
        }
        let before = KINDS.map(|kind| index(kind.device()));
        // Nobody needs them: they are another program's.
        settled(&kernel, "n1", &without_tunnels_nor_blocks()).await;
        let changes = settled(&kernel, "n1", &state).await;
        let of_routes = |change: &&Change| matches!(change, Change::AddRoute(..));
        let others: Vec<&Change> = changes.iter().filter(|change| !of_routes(change)).collect();
        assert_eq!(others, KINDS.map(Change::ClaimTunnel).iter().collect::<Vec<_>>());
        assert_eq!(KINDS.map(|kind| index(kind.device())), before);
        assert!(run("nft", &["list", "tables"]).contains("weir-tunnel"));

        // No pool asks for them, but the other node may still send.
        let mut ending = state.clone();
        ending.pools.values_mut().for_each(|pool| pool.tunnel = None);
        let meanwhile = reconcile(&kernel, "n1", &ending).await;
        assert_eq!(KINDS.map(|kind| index(kind.device())), before);
        assert_eq!(meanwhile.still_used, KINDS.into(), "no other way leads to the other node");
        let ended = reconcile(&kernel, "n1", &without_tunnels_nor_blocks()).await;
        for kind in KINDS {
            assert!(ended.changes.contains(&Change::DeleteTunnel(kind)), "{:?}", ended.changes);
        }
        assert_eq!(kernel.tunnel_devices().await.unwrap(), BTreeMap::new());
        assert_eq!(run("nft", &["list", "tables"]), "");
        // None is made only because another node has an address.
        reconcile(&kernel, "n1", &ending).await;
        assert_eq!(kernel.tunnel_devices().await.unwrap(), BTreeMap::new());
    });
}

fn without_tunnels_nor_blocks() -> ClusterState {
    ClusterState { blocks: BTreeMap::new(), ..without_tunnels() }
}

#[test]
fn another_device_with_the_identifier_or_the_port_is_named() {
    on_a_node(|| async {
        let _network = Network::new();
        let (kernel, state) = (Kernel::open().unwrap(), cluster());
        let failures = async || {
            let failures = reconcile(&kernel, "n1", &state).await.failures;
            let texts: Vec<String> = failures.iter().map(ToString::to_string).collect();
            texts
        };
        ip("link add flannel.4096 type vxlan id 4096 dstport 4789 local 192.0.198.1 dev uplink");
        let [failure] = &failures().await[..] else { panic!("one failure is expected") };
        for part in ["flannel.4096", "4096", "vxlanVNI", "vxlanPort", "FelixConfiguration"] {
            assert!(failure.contains(part), "{failure}");
        }
        // The other family has its tunnel all the same.
        let devices = kernel.tunnel_devices().await.unwrap();
        assert_eq!(devices.keys().collect::<Vec<_>>(), [&TunnelKind::VxlanV6]);
        let routes = kernel.actual_state().await.unwrap().routes;
        let of_tunnels: BTreeSet<Option<TunnelKind>> =
            routes.values().flatten().map(RouteKind::tunnel_kind).collect();
        assert_eq!(of_tunnels, [None, Some(TunnelKind::VxlanV6)].into());
        ip("link delete flannel.4096");

        let taken = UdpSocket::bind("0.0.0.0:4789").unwrap();
        let [failure] = &failures().await[..] else { panic!("one failure is expected") };
        for part in ["another program", "4789", "vxlanPort", "vxlan.calico"] {
            assert!(failure.contains(part), "{failure}");
        }
        drop(taken);
        settled(&kernel, "n1", &state).await;
        ip("link delete vxlan.calico");
        ip("link delete vxlan-v6.calico");
        // They take packets in another way, so that they cannot share the port.
        for (made, taken) in [("id 9 gbp local 192.0.198.1", 1), ("external", 2)] {
            ip(&format!("link add theirs type vxlan dstport 4789 {made}"));
            ip("link set theirs up");
            let failures = failures().await;
            assert_eq!(failures.len(), taken, "{failures:?}");
            for failure in failures {
                assert!(failure.contains("theirs") && failure.contains("4789"), "{failure}");
            }
            ip("link delete theirs");
            ip("link delete vxlan.calico");
            ip("link delete vxlan-v6.calico");
        }
        settled(&kernel, "n1", &state).await;
    });
}

/// A restored datastore has lost the addresses.
#[test]
fn the_addresses_of_the_devices_are_told_and_kept() {
    on_a_node(|| async {
        let (_network, kernel, state) = begun().await;
        let facts = kernel.local_facts("n1", &state, false).await.unwrap();
        let told: BTreeMap<TunnelKind, BTreeSet<_>> = [
            (TunnelKind::Vxlan, [address("10.1.1.0")].into()),
            (TunnelKind::VxlanV6, [address("fd00:1:0:1::")].into()),
        ]
        .into();
        assert_eq!(facts.tunnels, told);
        let mut restored = state.clone();
        restored.nodes.get_mut("n1").unwrap().tunnels.clear();
        let keep = |kinds: &[TunnelKind]| Keep {
            tunnel_addresses: kinds.iter().copied().collect(),
            ..Keep::default()
        };
        let kept = kernel.reconcile("n1", Cow::Borrowed(&restored), keep(&KINDS)).await.unwrap();
        assert_eq!((kept.changes, kept.failures.len()), (Vec::new(), 0));
        // One that another node may have takes no other away.
        let keep_v6 = keep(&[TunnelKind::VxlanV6]);
        let kept = kernel.reconcile("n1", Cow::Borrowed(&restored), keep_v6).await.unwrap();
        let lost = Change::RemoveTunnelAddress(TunnelKind::Vxlan, net("10.1.1.0/32"));
        assert!(kept.changes.contains(&lost), "{:?}", kept.changes);
        let addresses = kernel.local_facts("n1", &state, false).await.unwrap().tunnels;
        assert_eq!(addresses[&TunnelKind::Vxlan], BTreeSet::new());
        assert_eq!(addresses[&TunnelKind::VxlanV6], told[&TunnelKind::VxlanV6]);
        // And no pool is said to be in the way of what Weir itself has there.
        let occupied = kernel.occupied().await.unwrap();
        let is_in_pool =
            |range: &ipnet::IpNet| state.pools.values().any(|pool| pool.cidr.contains(range));
        let others: Vec<_> =
            occupied.into_iter().filter(|it| is_in_pool(&it.range) && !it.by_weir).collect();
        assert_eq!(others, []);
    });
}

/// A table that another program keeps to itself, until it is dropped.
struct OwnedTable(Child);

impl OwnedTable {
    fn new() -> Self {
        let mut child = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let command = b"add table inet weir-tunnel { flags owner; }\n";
        child.stdin.as_mut().unwrap().write_all(command).unwrap();
        until("the table is there", || run("nft", &["list", "tables"]).contains("weir-tunnel"));
        Self(child)
    }
}

impl Drop for OwnedTable {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn without_its_filter_a_tunnel_stays_out_of_service_and_in_it() {
    on_a_node(|| async {
        let _network = Network::new();
        let (kernel, state) = (Kernel::open().unwrap(), cluster());
        let refused = async || {
            let failures = reconcile(&kernel, "n1", &state).await.failures;
            let [failure] = &failures[..] else { panic!("{failures:?}") };
            assert!(matches!(failure.downcast_ref(), Some(Error::Nft { .. })), "{failure}");
            kernel.actual_state().await.unwrap()
        };
        // The nodes share a subnet too, so that there is a way without tunnels. It stays.
        ip("address add 192.0.203.9/24 dev uplink");
        reconcile(&kernel, "n1", &without_tunnels()).await;
        let before = kernel.actual_state().await.unwrap();
        let is_direct = |way: &RouteKind| matches!(way, RouteKind::Direct { .. });
        assert!(before.routes.values().flatten().any(is_direct), "{before:?}");
        let owned = OwnedTable::new();
        let meanwhile = refused().await;
        assert_eq!((meanwhile.tunnels, meanwhile.routes), (BTreeMap::new(), before.routes));
        drop(owned);
        settled(&kernel, "n1", &state).await;
        let wanted = kernel.actual_state().await.unwrap();
        run("nft", &["delete", "table", "inet", "weir-tunnel"]);
        let owned = OwnedTable::new();
        assert_eq!(refused().await, wanted);
        drop(owned);
        settled(&kernel, "n1", &state).await;
        assert_eq!(kernel.actual_state().await.unwrap(), wanted);
    });
}

#[test]
fn a_link_of_another_kind_that_has_the_name_stays_as_it_is() {
    on_a_node(|| async {
        let _network = Network::new();
        let (kernel, state) = (Kernel::open().unwrap(), cluster());
        ip("link add vxlan.calico type bridge");
        let before = ip("-details link show vxlan.calico");
        let outcome = reconcile(&kernel, "n1", &state).await;
        let [failure] = &outcome.failures[..] else { panic!("{:?}", outcome.failures) };
        let error = failure.downcast_ref::<Error>();
        assert!(matches!(error, Some(Error::NotATunnel { .. })), "{failure}");
        assert_eq!(ip("-details link show vxlan.calico"), before);
        assert_none(&kernel.change(&[Change::DeleteTunnel(TunnelKind::Vxlan)]).await);
        assert_eq!(ip("-details link show vxlan.calico"), before);
    });
}

/// What is to go has gone with the device, or by itself.
#[test]
fn taking_away_what_is_not_there_succeeds() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        let mac = TunnelKind::Vxlan.mac("n2").unwrap();
        let kind = TunnelKind::Vxlan;
        let removals = [
            Change::RemoveTunnelAddress(kind, net("10.1.1.0/32")),
            Change::RemoveForwarding(kind, mac, address("192.0.203.1")),
            Change::RemoveNeighbour(kind, address("10.1.2.0")),
            Change::SetTunnelDown(kind),
            Change::DisclaimTunnel(kind),
            Change::DeleteTunnel(kind),
        ];
        assert_none(&kernel.change(&removals).await);
        let device = VxlanDevice {
            vni: 4096,
            port: 4789,
            local: address("192.0.198.1"),
            parent: None,
            mac,
            is_learning: false,
        };
        assert_none(&kernel.change(&[Change::CreateTunnel(kind, Some(device.clone()))]).await);
        assert_none(&kernel.change(&removals[..3]).await);
        // A link that is to be below it is not there: one failure, and what follows is left out.
        let above = VxlanDevice { parent: Some("eth7".to_owned()), ..device };
        let failures = kernel
            .change(&[
                Change::DeleteTunnel(kind),
                Change::CreateTunnel(kind, Some(above)),
                Change::SetTunnelUp(kind),
                Change::SetNeighbour(kind, address("10.1.2.0"), mac),
            ])
            .await;
        assert!(matches!(&failures[..], [(_, Error::LinkMissing { .. })]), "{failures:?}");
    });
}
