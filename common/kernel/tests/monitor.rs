//! Listening to what happens to the node's network.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{
    Other, add_addressed_link, add_link, attachment, identity, ip, on_a_node, open, run,
};
use tokio::time::timeout;
use weir_common::network::{NatPool, NatTable, SourceAddresses, Step, plan_attachment};
use weir_kernel::{Kernel, Monitor};

/// How long is waited for what must not come. Too short a time could only let a
/// failure pass.
const SILENCE: Duration = Duration::from_millis(200);

/// How long what must come may take before the test is given up.
const LONG: Duration = Duration::from_secs(30);

/// A monitor that has nothing to tell.
async fn settled() -> Monitor {
    let mut monitor = Monitor::open().unwrap();
    while timeout(SILENCE, monitor.changed()).await.is_ok() {}
    monitor
}

/// Waits until it tells of the cluster.
async fn cluster_changed(monitor: &mut Monitor) {
    while !monitor.changed().await.unwrap().cluster {}
}

async fn assert_told(monitor: &mut Monitor, what: &str) {
    let told = timeout(LONG, cluster_changed(monitor)).await;
    told.unwrap_or_else(|_| panic!("not told: {what}"));
    // The kernel may add to it by and by: carrier, addresses.
    while timeout(SILENCE, monitor.changed()).await.is_ok() {}
}

async fn assert_silent(monitor: &mut Monitor, what: &str) {
    assert!(timeout(SILENCE, cluster_changed(monitor)).await.is_err(), "told: {what}");
}

#[test]
fn what_concerns_the_cluster_is_told() {
    on_a_node(|| async {
        add_addressed_link();
        ip("route add 10.1.0.0/26 via 198.51.100.9 proto 77");
        ip("route add blackhole fd00:1::/122 proto 77");
        let mut monitor = settled().await;
        for command in [
            "route delete 10.1.0.0/26",
            "route delete blackhole fd00:1::/122",
            "route add 10.1.0.0/26 via 198.51.100.5",
            "address delete fd00:198::1/64 dev uplink",
            "address add 203.0.113.1/24 dev uplink",
            "link set uplink mtu 1400",
            "link set uplink down",
            "link set uplink up",
            "link delete uplink",
        ] {
            ip(command);
            assert_told(&mut monitor, command).await;
        }
    });
}

/// The kernel tells of the neighbours and addresses of all links, and of those that containers come
/// and go with too.
#[test]
fn entries_of_tunnel_devices_are_told_and_of_no_other_link() {
    on_a_node(|| async {
        add_addressed_link();
        let mut monitor = settled().await;
        for device in ["other", "vxlan.calico"] {
            ip(&format!(
                "link add {device} type vxlan id {} dstport 4789 local 198.51.100.1 dev uplink",
                device.len()
            ));
            assert_told(&mut monitor, "a device is made").await;
        }
        let commands = |device: &str| {
            [
                ("ip", format!("neighbour add 10.1.0.1 lladdr 66:0:0:0:0:1 dev {device}")),
                ("ip", format!("neighbour replace 10.1.0.1 lladdr 66:0:0:0:0:2 dev {device}")),
                ("ip", format!("neighbour delete 10.1.0.1 dev {device}")),
                ("bridge", format!("fdb append 66:0:0:0:0:1 dev {device} dst 198.51.100.2")),
                ("bridge", format!("fdb replace 66:0:0:0:0:1 dev {device} dst 198.51.100.3")),
                ("bridge", format!("fdb delete 66:0:0:0:0:1 dev {device}")),
                ("ip", format!("address add 169.254.191.1/32 scope link dev {device}")),
                ("ip", format!("address delete 169.254.191.1/32 dev {device}")),
            ]
        };
        for (program, arguments) in commands("other") {
            run(program, &arguments.split(' ').collect::<Vec<_>>());
            assert_silent(&mut monitor, &arguments).await;
        }
        for (program, arguments) in commands("vxlan.calico") {
            run(program, &arguments.split(' ').collect::<Vec<_>>());
            assert_told(&mut monitor, &arguments).await;
        }
        ip("link delete vxlan.calico");
        assert_told(&mut monitor, "the device is deleted").await;
        ip("neighbour add 198.51.100.7 lladdr 66:0:0:0:0:1 dev uplink");
        assert_silent(&mut monitor, "a neighbour of the uplink").await;
    });
}

#[test]
fn what_befalls_weirs_tables_is_told() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        let pools = [NatPool { cidr: "10.1.0.0/16".parse().unwrap(), nat_outgoing: true }];
        let nat = [Step::EnsureNat(NatTable::from_pools(&pools, None))];
        let _ = kernel.apply(&nat).await.unwrap();
        let mut monitor = settled().await;
        for command in ["flush table inet weir", "delete table inet weir"] {
            run("nft", &command.split(' ').collect::<Vec<_>>());
            assert_told(&mut monitor, command).await;
        }
        for command in ["add table inet theirs", "add table ip weir", "add table inet weird"] {
            run("nft", &command.split(' ').collect::<Vec<_>>());
            assert_silent(&mut monitor, command).await;
        }
    });
}

#[test]
fn what_comes_and_goes_with_attachments_is_not_told() {
    on_a_node(|| async {
        let container = Other::new();
        let kernel = open(&container);
        let mut monitor = settled().await;
        for _ in 0..3 {
            let steps = plan_attachment(&attachment("one", &["10.1.0.1", "fd00:1::1"]));
            let _ = kernel.apply(&steps).await.unwrap();
            assert_silent(&mut monitor, "the attachment is made").await;
            let (link, _) = kernel.remove_routes(&identity("one")).await.unwrap().unwrap();
            kernel.remove_link(link).await.unwrap();
            assert_silent(&mut monitor, "the attachment is removed").await;
        }
        ip("route add blackhole 10.2.0.0/26 table 99");
        assert_silent(&mut monitor, "a route in another table").await;
        add_link("uplink", 1500);
        assert_told(&mut monitor, "another link").await;
    });
}

/// An ADD tells of nothing that would be looked at.
#[test]
fn what_a_host_end_loses_is_told_and_its_making_is_not() {
    on_a_node(|| async {
        let container = Other::new();
        let kernel = open(&container);
        let mut monitor = settled().await;
        let steps = plan_attachment(&attachment("one", &["10.1.0.1", "fd00:1::1"]));
        let _ = kernel.apply(&steps).await.unwrap();
        let link = identity("one").host_interface();
        let told = timeout(SILENCE, monitor.changed()).await;
        assert!(told.is_err(), "{told:?}");
        let index = kernel.host_ends(SourceAddresses::default()).await.unwrap().remove(0).index;
        for command in [
            format!("link set {link} down"),
            format!("link set {link} up"),
            "route delete 10.1.0.1".to_owned(),
        ] {
            if command.starts_with("route") {
                let route = format!("route add 10.1.0.1 dev {link} proto 77");
                ip(&route);
            }
            ip(&command);
            let told = timeout(LONG, monitor.changed()).await.unwrap().unwrap();
            assert_eq!(told.host_ends, [index].into(), "{command}");
            while timeout(SILENCE, monitor.changed()).await.is_ok() {}
        }
    });
}

/// More than a socket keeps, and nobody reads meanwhile.
#[test]
fn an_overrun_counts_as_a_change() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let batch = directory.path().join("batch");
        // In a table that does not count: only the overrun is left to tell.
        let line = |number: u32| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            format!("route add blackhole {address} table 99\n")
        };
        let lines: String = (0..10_000).map(line).collect();
        let mut monitor = settled().await;
        std::fs::write(&batch, lines).unwrap();
        run("ip", &["-batch", batch.to_str().unwrap()]);
        assert_told(&mut monitor, "an overrun").await;
        // And it goes on after that.
        ip("route add blackhole 10.0.0.0/8");
        assert_told(&mut monitor, "a route").await;
    });
}
