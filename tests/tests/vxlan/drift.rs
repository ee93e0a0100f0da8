//! What is lost or changed by hand comes back.

use std::time::{Duration, Instant};

use weir_tests::{Place, Pod, UPLINK};

use crate::{DEVICE, pair};

/// Each of these takes something from the tunnel of a node, or changes it; `%a` is the other
/// node's address, `%t` its tunnel address, `%m` the hardware address of its device, `%o` the
/// node's own tunnel address, `%b` the other's block.
const LOSSES: [(&str, &str); 15] = [
    ("the device", "ip link delete vxlan.calico"),
    ("the device's state", "ip link set vxlan.calico down"),
    ("its hardware address", "ip link set vxlan.calico address 66:00:00:00:00:01"),
    ("its MTU", "ip link set vxlan.calico mtu 1400"),
    ("its alias", "ip link set vxlan.calico alias other"),
    ("its address", "ip address delete %o/32 dev vxlan.calico"),
    ("the link's address", "ip address delete 169.254.191.1/32 dev vxlan.calico"),
    ("a second address", "ip address add 10.99.0.1/32 dev vxlan.calico"),
    ("a neighbour", "ip neighbour delete %t dev vxlan.calico"),
    (
        "a neighbour's address",
        "ip neighbour replace %t lladdr 66:00:00:00:00:02 dev vxlan.calico nud permanent",
    ),
    (
        "a stranger's neighbour",
        "ip neighbour add 10.99.0.9 lladdr 66:00:00:00:00:02 dev vxlan.calico nud permanent",
    ),
    ("a forwarding entry", "bridge fdb delete %m dev vxlan.calico dst %a self"),
    (
        "a stranger's forwarding entry",
        "bridge fdb append 66:00:00:00:00:02 dev vxlan.calico dst 172.31.4.99 self permanent",
    ),
    ("a route", "ip route delete %b"),
    (
        "a device with other parameters",
        "ip link delete vxlan.calico; ip link add vxlan.calico type vxlan id 77 dstport 4789 dev eth0; ip link set vxlan.calico alias weir",
    ),
];

#[test]
fn what_is_changed_by_hand_is_repaired_within_seconds() {
    let fleet = pair();
    let pods = fleet.connected_pods("blue");
    let [member, other] = [&fleet.members[0], &fleet.members[1]];
    let address = |member: &weir_tests::Member| {
        let shown = crate::listed(member, &["ip", "-j", "-4", "address", "show", "dev", DEVICE]);
        let all = shown[0]["addr_info"].as_array().expect("a list");
        let own = all.iter().find(|address| address["scope"] == "global").expect("its own");
        own["local"].as_str().expect("an address").to_owned()
    };
    let routes = member.routes();
    let block = routes.iter().find(|route| route.contains(DEVICE)).expect("a route");
    let words = [
        ("%a", other.host.address.to_string()),
        ("%t", address(other)),
        ("%m", other.node().link(DEVICE)["address"].as_str().expect("an address").to_owned()),
        ("%o", address(member)),
        ("%b", block.split(' ').next().expect("a range").to_owned()),
    ];
    let state = || state(member);
    let before = state();
    for (what, lines) in LOSSES {
        let lines = words.iter().fold(lines.to_owned(), |line, (word, is)| line.replace(word, is));
        for line in lines.split("; ") {
            member.node().run(&line.split(' ').collect::<Vec<_>>());
        }
        let begun = Instant::now();
        fleet.until(&format!("{what} is repaired\n{before}\n"), || state() == before);
        // The look at everything comes once a minute; what the kernel tells of is looked at once.
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", begun.elapsed());
        reaches(&fleet, &pods);
    }
}

fn reaches(fleet: &weir_tests::Fleet, pods: &[Pod; 2]) {
    fleet.until_connected(&pods[0], &pods[1]);
}

/// All that Weir keeps of the tunnel, without the numbers of links.
fn state(member: &weir_tests::Member) -> String {
    let of = |line: &str| -> Vec<String> {
        let line: Vec<&str> = line.split(' ').collect();
        let output = member.node().output(std::process::Command::new(line[0]).args(&line[1..]), "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    let without_number =
        |line: &String| line.split_once(": ").map_or(line.clone(), |(_, rest)| rest.to_owned());
    let link: Vec<String> =
        of(&format!("ip -o -d link show {DEVICE}")).iter().map(without_number).collect();
    let all = [
        link,
        of(&format!("ip -4 -brief address show {DEVICE}")),
        of(&format!("ip neighbour show dev {DEVICE} nud permanent")),
        of(&format!("bridge fdb show dev {DEVICE}")),
        member.routes(),
    ];
    let text = all.map(|lines| lines.join("\n")).join("\n--\n");
    text.replace(UPLINK, "uplink")
}
