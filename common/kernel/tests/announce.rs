//! What a node announces by BGP: a routing table of its own.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::cluster::{assert_none, converge, foreign, net, plan};
use support::{ip, on_a_node};
use tokio::time::timeout;
use weir_common::network::{ANNOUNCE_TABLE, BgpNeed, Change, ClusterPlan, RouteKind, diff};
use weir_kernel::{Error, Kernel, Monitor};

/// A plan that announces these, and has this route.
fn announcing(ranges: &[&str]) -> ClusterPlan {
    let announced = ranges.iter().map(|range| net(range)).collect();
    let bgp_need = Some(BgpNeed::Peer("router".to_owned()));
    ClusterPlan { announced, bgp_need, ..plan(&[("10.1.0.0/26", RouteKind::Blackhole)]) }
}

/// The table as `ip` prints it, IPv4 first.
fn table() -> Vec<String> {
    // A table without routes may be none, which `ip` would call an error.
    let all = ["-4 route show table all", "-6 route show table all"].map(ip).concat();
    let mark = format!("table {ANNOUNCE_TABLE} ");
    let lines = all.lines().filter(|line| line.contains(&mark));
    lines.map(|line| line.trim_end().replace(&mark, "")).collect()
}

#[test]
fn the_table_holds_what_is_announced_and_leads_nowhere() {
    on_a_node(|| async {
        support::add_addressed_link();
        ip("route add default via 198.51.100.254");
        let (before, rules) = (foreign(), ip("rule") + &ip("-6 rule"));
        let kernel = Kernel::open().unwrap();
        let first = announcing(&["10.1.0.0/26", "10.2.0.7/32", "fd00:1::/122", "fd00:2::7/128"]);
        let v6 = |range: &str| format!("blackhole {range} dev lo proto 77 metric 1024 pref medium");
        assert_none(&converge(&kernel, &first).await);
        let [v6_block, v6_address] = ["fd00:1::/122", "fd00:2::7"].map(v6);
        let v4 = ["blackhole 10.1.0.0/26 proto 77", "blackhole 10.2.0.7 proto 77"];
        assert_eq!(table(), [v4[0], v4[1], &v6_block, &v6_address]);
        assert_eq!(diff(&first, &kernel.actual_state().await.unwrap()).changes, []);
        let led = ip("route get 10.2.0.7");
        assert!(led.contains("via 198.51.100.254"), "{led}");
        // One goes and one comes, in each family; the rest is left alone.
        let second = announcing(&["10.1.0.0/26", "10.2.0.8/32", "fd00:1::/122", "fd00:2::8/128"]);
        assert_none(&converge(&kernel, &second).await);
        assert_eq!(table().len(), 4);
        assert_eq!(diff(&second, &kernel.actual_state().await.unwrap()).changes, []);
        assert_none(&converge(&kernel, &plan(&[])).await);
        assert_eq!(table(), [""; 0]);
        assert_eq!((foreign(), ip("rule") + &ip("-6 rule")), (before, rules));
    });
}

#[test]
fn routes_of_others_in_the_table_are_left_alone_and_told() {
    on_a_node(|| async {
        support::add_addressed_link();
        let kernel = Kernel::open().unwrap();
        for (range, wanted) in [("10.1.0.0/26", "10.1.0.64/26"), ("fd00:1::/122", "fd00:1::40/122")]
        {
            ip(&format!("route add blackhole {range} proto static table {ANNOUNCE_TABLE}"));
            let before = table();
            let failures = converge(&kernel, &announcing(&[range, wanted])).await;
            let [(what, Error::RouteExists { .. })] = &failures[..] else { panic!("{failures:?}") };
            assert_eq!(*what, Change::Announce(net(range)).to_string());
            assert_eq!(table().len(), before.len() + 1);
            assert_none(&kernel.change(&[Change::Withdraw(net(range))]).await);
            assert_none(&converge(&kernel, &announcing(&[])).await);
            assert_eq!(table(), before);
        }
    });
}

/// Another ADD has done the same meanwhile, or undone it; or somebody has by hand.
#[test]
fn a_change_that_is_made_already_succeeds() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        for range in ["10.1.0.7/32", "fd00:1::7/128"].map(net) {
            let [announce, withdraw] = [Change::Announce(range), Change::Withdraw(range)];
            // No table yet, then one with a route of another form, then an empty one.
            assert_none(&kernel.change(std::slice::from_ref(&withdraw)).await);
            ip(&format!("route add unreachable {range} proto 77 metric 9 table {ANNOUNCE_TABLE}"));
            assert_none(&kernel.change(std::slice::from_ref(&withdraw)).await);
            let twice = [announce.clone(), announce, withdraw.clone(), withdraw];
            assert_none(&kernel.change(&twice[..2]).await);
            assert_eq!(kernel.actual_state().await.unwrap().announced, [range].into());
            // What is announced is not reached by that.
            assert!(!kernel.routed_addresses().await.unwrap().contains(&range.addr()));
            assert_none(&kernel.change(&twice[2..]).await);
            assert_eq!(table(), [""; 0]);
        }
    });
}

#[test]
fn drift_in_the_table_is_told_and_changes_of_ones_own_are_not() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        let mut monitor = Monitor::open().unwrap().ignoring(&kernel);
        let silence = Duration::from_millis(200);
        let plan = announcing(&["10.1.0.0/26", "fd00:1::/122"]);
        assert_none(&converge(&kernel, &plan).await);
        let own = timeout(silence, monitor.changed()).await;
        assert!(own.is_err(), "{own:?}");
        for command in [
            "route delete 10.1.0.0/26 table 1465207154",
            "-6 route flush table 1465207154",
            "route add blackhole 10.9.0.0/26 proto 77 table 1465207154",
            "route replace blackhole 10.1.0.0/26 proto static table 1465207154",
        ] {
            ip(command);
            let told = timeout(Duration::from_secs(30), monitor.changed()).await;
            assert!(told.unwrap_or_else(|_| panic!("not told: {command}")).unwrap().cluster);
            let _ = converge(&kernel, &plan).await;
        }
    });
}
