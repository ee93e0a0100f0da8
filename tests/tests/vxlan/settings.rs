//! What FelixConfiguration says of VXLAN counts at once, under running agents.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_tests::{Capture, Fleet, Member, Place, UDP, UPLINK};

use crate::{DEVICE, listed, pair};

fn configure(fleet: &Fleet, name: &str, spec: Value) {
    fleet.apply("FelixConfiguration", name, spec);
}

/// The identifier and the port of a node's device; null without device.
fn numbers(member: &Member) -> [Value; 2] {
    let links = listed(member, &["ip", "-j", "-d", "link", "show"]);
    let link = links.iter().find(|link| link["ifname"] == DEVICE);
    let data = link.map_or(Value::Null, |link| link["linkinfo"]["info_data"].clone());
    [data["id"].clone(), data["port"].clone()]
}

fn until_numbers(fleet: &Fleet, vni: u32, port: u16) {
    let wanted = [Value::from(vni), Value::from(port)];
    fleet.until(&format!("all devices have {wanted:?}"), || {
        fleet.members.iter().all(|it| numbers(it) == wanted && it.has_device(DEVICE))
    });
}

fn mtu(member: &Member) -> Value {
    let links = listed(member, &["ip", "-j", "link", "show"]);
    links.iter().find(|link| link["ifname"] == DEVICE).map_or(Value::Null, |it| it["mtu"].clone())
}

#[test]
fn the_identifier_and_the_port_change_under_containers() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    until_numbers(&fleet, 4096, 4789);
    let capture = Capture::start(fleet.members[0].node(), UPLINK);
    for (spec, vni, port) in [
        (json!({"vxlanVNI": 5000}), 5000, 4789),
        (json!({"vxlanVNI": 5000, "vxlanPort": 8472}), 5000, 8472),
        (json!({"vxlanPort": 8472}), 4096, 8472),
        (json!({}), 4096, 4789),
    ] {
        configure(&fleet, "default", spec);
        until_numbers(&fleet, vni, port);
        fleet.until_connected(&pods[0], &pods[1]);
        fleet.until("all is well", || fleet.members.iter().all(|it| it.agent().is_well()));
        // What passed before is seen.
        capture.packets();
        assert!(pods[0].container.reaches(&pods[1].address.to_string()));
        let packets = capture.packets();
        let hosts: [IpAddr; 2] =
            [0, 1].map(|member: usize| fleet.members[member].host.address.into());
        let between = |packet: &&weir_tests::Packet| {
            [packet.outer.source, packet.outer.destination] == hosts && packet.outer.protocol == UDP
        };
        assert!(packets.iter().any(|packet| between(&packet)), "{packets:?}");
        // Only VXLAN's own port is looked into.
        let of_default = packets.iter().any(|packet| packet.inner.is_some());
        assert_eq!(of_default, port == 4789, "{packets:?}");
    }
}

#[test]
fn the_mtu_counts_for_the_device_and_for_new_containers() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    configure(&fleet, "default", json!({"vxlanMTU": 1300}));
    fleet.until("the devices have it", || fleet.members.iter().all(|it| mtu(it) == 1300));
    let later = [0, 1].map(|member| fleet.named_pod(member, "blue", &format!("later-{member}")));
    for (pod, mtu) in [(&pods[0], 1450), (&later[0], 1300), (&later[1], 1300)] {
        assert_eq!(pod.container.link("eth0")["mtu"], mtu, "{}", pod.address);
    }
    fleet.until_connected(&later[0], &later[1]);
    let address = later[1].address.to_string();
    assert!(later[0].container.passes(&address, 1300));
    assert!(!later[0].container.passes(&address, 1301));
    // One node's own setting comes first, and 0 leaves it to the link.
    configure(&fleet, "node.n2", json!({"vxlanMTU": 0}));
    fleet.until("n2 has its link's", || mtu(&fleet.members[1]) == 1450);
    assert_eq!(mtu(&fleet.members[0]), 1300);
    configure(&fleet, "default", json!({}));
    fleet.until("both have their links'", || fleet.members.iter().all(|it| mtu(it) == 1450));
    let last = fleet.named_pod(0, "blue", "last");
    assert_eq!(last.container.link("eth0")["mtu"], 1450);
    fleet.until_connected(&pods[0], &pods[1]);
}

#[test]
fn vxlan_that_is_switched_off_is_reported_and_comes_back() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    configure(&fleet, "default", json!({"vxlanEnabled": false}));
    let words =
        ["vxlanMode", "vxlanEnabled of FelixConfiguration is false", "take vxlanEnabled out"];
    fleet.until("each agent reports it", || {
        fleet.members.iter().all(|member| {
            let health = member.agent().answer("/health").unwrap_or_default();
            words.iter().all(|word| health.contains(word))
        })
    });
    let has_link = |member: &Member| member.node().run(&["ip", "-brief", "link"]).contains(DEVICE);
    fleet.until("no device is left", || !fleet.members.iter().any(has_link));
    for (number, member) in (1..).zip(&fleet.members) {
        let routes = member.routes();
        assert!(routes.iter().all(|route| route.starts_with("blackhole ")), "{routes:?}");
        let status =
            fleet.weirctl(number - 1, &["node", "status", "--node", &format!("n{number}")]);
        assert!(!status.succeeded && status.stdout.contains(words[1]), "{status:?}");
    }
    configure(&fleet, "default", json!({}));
    fleet.until("all is well", || fleet.members.iter().all(|it| it.agent().is_well()));
    fleet.until_connected(&pods[0], &pods[1]);
    assert!(fleet.members.iter().all(|member| member.has_device(DEVICE)));
}
