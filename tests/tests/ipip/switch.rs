//! A pool changes between all three modes under its containers.

use serde_json::json;
use weir_tests::{Fleet, Member, Pod, SteadyPing, Subnet, lossy};

const SUBNETS: [Subnet; 3] = [Subnet::First, Subnet::First, Subnet::Second];

/// How many answers a pair may miss in one switch.
const LOST: usize = 1;

/// The device of each mode's tunnel.
const DEVICES: [(&str, Option<&str>); 3] =
    [("Never", None), ("IPIP", Some("tunl0")), ("VXLAN", Some("vxlan.calico"))];

/// Every mode comes after every other one.
const ORDER: [&str; 7] = ["IPIP", "VXLAN", "Never", "VXLAN", "IPIP", "Never", "IPIP"];

fn set_mode(fleet: &Fleet, mode: &str) {
    let of = |kind| if mode == kind { "Always" } else { "Never" };
    let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "ipipMode": of("IPIP"),
        "vxlanMode": of("VXLAN")});
    fleet.apply_pool("blue", spec);
}

fn is_as_asked(member: &Member, mode: &str) -> bool {
    DEVICES.iter().all(|(of, device)| {
        let Some(device) = device else { return true };
        let by_tunnel = member.routes().iter().filter(|route| route.contains(device)).count();
        let wanted = if *of == mode { SUBNETS.len() - 1 } else { 0 };
        by_tunnel == wanted && member.has_device(device) == (*of == mode)
    })
}

#[test]
fn all_pairs_survive_every_switch_of_modes() {
    let mut fleet = Fleet::new(&SUBNETS);
    // The routes without a tunnel are there already.
    fleet.agent_arguments.extend(["--bgp", "off"]);
    set_mode(&fleet, "IPIP");
    fleet.start_agents();
    // Before the containers, so that each node has one block for both.
    fleet.until("all have tunnels", || fleet.members.iter().all(Member::has_tunnel));
    let pods: Vec<Pod> = (0..SUBNETS.len()).map(|member| fleet.pod(member, "blue")).collect();
    fleet.announce(&pods);
    let pairs = fleet.pairs();
    for (from, to) in &pairs {
        fleet.until_reached(&pods[*from], &pods[*to]);
    }
    for mode in &ORDER[1..] {
        let ping = |(from, to): &(usize, usize)| {
            (format!("n{} to n{}", from + 1, to + 1), pods[*from].ping(&pods[*to], 100))
        };
        let pings: Vec<(String, SteadyPing)> = pairs.iter().map(ping).collect();
        set_mode(&fleet, mode);
        fleet.until(&format!("packets go as {mode} says"), || {
            fleet.members.iter().all(|member| is_as_asked(member, mode))
        });
        let lost = lossy(pings, LOST);
        assert!(lost.is_empty(), "{mode}: {lost:#?}\n{}", fleet.report());
    }
}
