//! Namespaces, and what concerns the node as a whole.

#![allow(clippy::unwrap_used)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use support::{Other, add_addressed_link, add_link, attachment, ip, on_a_node, open, run};
use weir_common::link::DEFAULT_MTU;
use weir_common::network::{NatPool, NatTable, NodeNeeds, Step, plan_attachment, plan_node};
use weir_kernel::{Error, Kernel, Namespace, is_same_namespace};

fn nat(pools: &[(&str, bool)]) -> Step {
    let pool = |&(cidr, nat_outgoing): &(&str, bool)| NatPool {
        cidr: cidr.parse().unwrap(),
        nat_outgoing,
    };
    Step::EnsureNat(NatTable::from_pools(&pools.iter().map(pool).collect::<Vec<_>>(), None))
}

#[test]
fn a_path_that_is_no_namespace_is_told_from_one_that_is_missing() {
    let missing = Namespace::open(Path::new("/run/netns/no-such-namespace")).unwrap_err();
    assert!(matches!(missing, Error::NamespaceMissing { .. }), "{missing}");
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), Path::new("/proc/self/status")] {
        let other = Namespace::open(path).unwrap_err();
        assert!(matches!(other, Error::NotANamespace { .. }), "{other}");
    }
    // A namespace, but of another kind.
    let user = Namespace::open(Path::new("/proc/self/ns/uts")).unwrap();
    let other = user.run(|| ()).unwrap_err();
    assert!(matches!(other, Error::NotANamespace { .. }), "{other}");
}

#[test]
fn the_thread_is_back_whatever_happens_inside() {
    on_a_node(|| async {
        let container = Other::new();
        let namespace = Namespace::open(&container.path()).unwrap();
        let own = Path::new("/proc/thread-self/ns/net");
        let home = std::fs::read_link(own).unwrap();
        let inside = namespace.run(|| std::fs::read_link(own).unwrap()).unwrap();
        assert_ne!(inside, home);
        let panic = catch_unwind(AssertUnwindSafe(|| namespace.run(|| panic!("inside"))));
        assert!(panic.is_err());
        assert_eq!(std::fs::read_link(own).unwrap(), home);
        assert!(is_same_namespace(own).unwrap());
        assert!(!is_same_namespace(&container.path()).unwrap());
    });
}

#[test]
fn nat_is_installed_once_and_replaced_when_it_changes() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        // With the handles, which every replacement changes.
        let listing = || run("nft", &["-a", "list", "ruleset"]);
        let _ = kernel.apply(&[nat(&[("10.1.0.0/16", false)])]).await.unwrap();
        assert_eq!(listing(), "", "no pool asks for NAT");
        let pools = [("10.1.0.0/16", true), ("10.2.0.0/16", false), ("fd00:1::/64", true)];
        let _ = kernel.apply(&[nat(&pools)]).await.unwrap();
        let installed = listing();
        for set in ["@nat_pools_v4", "@pools_v4", "@nat_pools_v6", "@pools_v6"] {
            assert!(installed.contains(set), "{installed}");
        }
        let _ = kernel.apply(&[nat(&pools)]).await.unwrap();
        assert_eq!(listing(), installed, "installed again though nothing changed");
        let _ = kernel.apply(&[nat(&pools[..2])]).await.unwrap();
        assert!(!listing().contains("ip6"), "{}", listing());
        // Somebody empties the table: noticed.
        run("nft", &["flush", "table", "inet", "weir"]);
        let _ = kernel.apply(&[nat(&pools[..2])]).await.unwrap();
        assert!(listing().contains("masquerade"));
        // Not wanted any more it masquerades nothing, but connections are kept.
        let _ = kernel.apply(&[nat(&[])]).await.unwrap();
        let retired = listing();
        assert!(retired.contains("ct state") && !retired.contains("masquerade"), "{retired}");
        let _ = kernel.apply(&[nat(&[])]).await.unwrap();
        assert_eq!(listing(), retired, "retired again though nothing changed");
        for _ in 0..2 {
            kernel.remove_nat().await.unwrap();
            assert_eq!(listing(), "");
        }
    });
}

#[test]
fn nat_can_be_ensured_by_many_at_once() {
    on_a_node(|| async {
        let pools = [("10.1.0.0/16", true), ("fd00:1::/64", true)];
        // New threads are born in the namespace of this one.
        let ensure = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let _ = Kernel::open().unwrap().apply(&[nat(&pools)]).await.unwrap();
            });
        };
        std::thread::scope(|scope| {
            for thread in (0..8).map(|_| scope.spawn(ensure)).collect::<Vec<_>>() {
                thread.join().unwrap();
            }
        });
        assert_eq!(run("nft", &["list", "ruleset"]).matches("masquerade").count(), 2);
    });
}

#[test]
fn nft_is_missed_only_where_nat_is_wanted() {
    on_a_node(|| async {
        let empty = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        for directory in ["/sbin", "/usr/sbin"] {
            let path = std::fs::canonicalize(directory).unwrap();
            mount(Some(empty.path()), &path, none, MsFlags::MS_BIND, none).unwrap();
        }
        let kernel = Kernel::open().unwrap();
        let _ = kernel.apply(&[nat(&[("10.1.0.0/16", false)])]).await.unwrap();
        let error = kernel.apply(&[nat(&[("10.1.0.0/16", true)])]).await.unwrap_err();
        assert!(matches!(error.cause, Error::NftMissing { .. }), "{error}");
        assert!(error.to_string().contains("package nftables"), "{error}");
    });
}

/// The outside knows no way back to the pool: an answer means that the source
/// was the node's address.
#[test]
fn only_nat_pools_are_masqueraded_and_only_towards_the_outside() {
    on_a_node(|| async {
        let outside = Other::new();
        ip("link add uplink type veth peer name eth0");
        let namespace = outside.path();
        run("ip", &["link", "set", "eth0", "netns", namespace.to_str().unwrap()]);
        ip("address add 198.51.100.1/24 dev uplink");
        ip("link set uplink up");
        outside.ip("address add 198.51.100.2/24 dev eth0");
        outside.ip("link set eth0 up");
        let containers = [Other::new(), Other::new()];
        for (container, address) in containers.iter().zip(["10.1.0.1", "10.2.0.1"]) {
            let kernel = open(container);
            let mut steps = plan_attachment(&attachment(address, &[address]));
            let needs = NodeNeeds { ipv4: true, ..NodeNeeds::default() };
            steps.extend(plan_node(&needs, &kernel.node_state(true).unwrap()));
            steps.push(nat(&[("10.1.0.0/16", true), ("10.2.0.0/16", false)]));
            let _ = kernel.apply(&steps).await.unwrap();
        }
        let server = "198.51.100.2".parse().unwrap();
        assert!(containers[0].reaches(server), "from the pool with NAT");
        assert!(!containers[1].reaches(server), "from the pool without NAT");
        outside.ip("route add 10.2.0.0/16 via 198.51.100.1");
        assert!(containers[1].reaches(server), "without NAT, the way back known");
    });
}

#[test]
fn router_advertisements_survive_forwarding() {
    on_a_node(|| async {
        add_link("uplink", 1500);
        let kernel = Kernel::open().unwrap();
        let needs = NodeNeeds { ipv6: true, ..NodeNeeds::default() };
        let state = kernel.node_state(true).unwrap();
        assert!(state.taking_advertisements.contains(&"uplink".to_owned()), "{state:?}");
        let _ = kernel.apply(&plan_node(&needs, &state)).await.unwrap();
        let accept_ra = std::fs::read_to_string("/proc/sys/net/ipv6/conf/uplink/accept_ra");
        assert_eq!(accept_ra.unwrap(), "2\n");
        let state = kernel.node_state(true).unwrap();
        assert!(state.ipv6_forwarding);
        assert_eq!(plan_node(&needs, &state), []);
    });
}

#[test]
fn the_mtu_is_that_of_the_default_route_or_of_the_smallest_uplink() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        assert_eq!(kernel.uplink_mtu().await.unwrap(), DEFAULT_MTU);
        for (name, mtu) in [("eth8", 1380), ("eth9", 1390), ("other", 1300)] {
            add_link(name, mtu);
        }
        assert_eq!(kernel.uplink_mtu().await.unwrap(), 1380);
        ip("-6 route add default dev other");
        assert_eq!(kernel.uplink_mtu().await.unwrap(), 1300);
        ip("route add default dev eth9");
        assert_eq!(kernel.uplink_mtu().await.unwrap(), 1390);
    });
}

#[test]
fn addresses_and_routes_of_the_node_are_occupied() {
    on_a_node(|| async {
        add_addressed_link();
        ip("route add default via 198.51.100.254");
        ip("route add 192.168.64.0/18 via 198.51.100.254");
        ip("route add blackhole 10.66.0.0/16");
        ip("route add 10.67.0.0/16 via 198.51.100.254 table 77");
        let occupied = Kernel::open().unwrap().occupied().await.unwrap();
        let what: Vec<_> = occupied.iter().map(|occupied| occupied.what.as_str()).collect();
        for part in ["198.51.100.1/", "route 192.168.64.0/18 by ", "route 10.66.0.0/16 by no link"]
        {
            assert!(what.iter().any(|what| what.contains(part)), "no {part} in {what:?}");
        }
        let ranges: Vec<_> = occupied.iter().map(|occupied| occupied.range.to_string()).collect();
        for absent in ["0.0.0.0/0", "::/0", "10.67.0.0/16", "fe80::/64", "ff00::/8"] {
            let by_route =
                occupied.iter().zip(&ranges).filter(|(it, _)| it.what.starts_with("route"));
            assert!(by_route.clone().all(|(_, range)| range != absent), "{absent} in {what:?}");
        }
    });
}

/// What an audit must not call free.
#[test]
fn single_addresses_that_the_node_reaches_are_known() {
    on_a_node(|| async {
        add_addressed_link();
        ip("route add 10.66.0.7 via 198.51.100.254");
        ip("route add 10.66.0.8 via 198.51.100.254 table 77");
        ip("route add blackhole 10.66.0.0/24");
        ip("-6 route add blackhole fd00::9");
        let routed = Kernel::open().unwrap().routed_addresses().await.unwrap();
        for present in ["198.51.100.1", "10.66.0.7", "10.66.0.8", "fd00::9"] {
            assert!(routed.contains(&present.parse().unwrap()), "no {present} in {routed:?}");
        }
        assert!(!routed.contains(&"10.66.0.0".parse().unwrap()), "{routed:?}");
    });
}
