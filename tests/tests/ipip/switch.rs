//! A pool changes between all three modes under its containers.

use serde_json::json;
use weir_tests::{Fleet, Member, Place, Pod, SteadyPing, Subnet};

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

/// The router knows the way to each container, as by BGP, and so does each node that is not near.
fn announce(fleet: &Fleet, pods: &[Pod]) {
    for (to, pod) in pods.iter().enumerate() {
        let (range, by) = (pod.address.to_string(), fleet.members[to].host.address.to_string());
        fleet.underlay.router().run(&["ip", "route", "add", &range, "via", &by]);
        let block: ipnet::Ipv4Net = format!("{range}/28").parse().expect("a block");
        let block = block.trunc().to_string();
        let far = (0..SUBNETS.len()).filter(|from| SUBNETS[*from] != SUBNETS[to]);
        for from in far {
            let router = format!("172.31.{}.1", SUBNETS[from] as u8);
            let line = ["ip", "route", "add", &block, "via", &router, "metric", "1024"];
            fleet.members[from].node().run(&line);
        }
    }
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
    announce(&fleet, &pods);
    let pairs: Vec<(usize, usize)> = (0..pods.len())
        .flat_map(|from| (0..SUBNETS.len()).map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .collect();
    for (from, to) in &pairs {
        fleet.until_reached(&pods[*from], &pods[*to]);
    }
    for mode in &ORDER[1..] {
        let pings: Vec<SteadyPing> =
            pairs.iter().map(|(from, to)| pods[*from].ping(&pods[*to], 100)).collect();
        set_mode(&fleet, mode);
        fleet.until(&format!("packets go as {mode} says"), || {
            fleet.members.iter().all(|member| is_as_asked(member, mode))
        });
        let counts: Vec<(usize, usize)> = pings.into_iter().map(SteadyPing::count).collect();
        let lost = pairs.iter().zip(counts).filter(|(_, (_, missing))| *missing > LOST);
        let lost: Vec<String> = lost
            .map(|((from, to), (answered, missing))| {
                format!("n{} to n{}: {missing}, beside {answered}", from + 1, to + 1)
            })
            .collect();
        assert!(lost.is_empty(), "{mode}: {lost:#?}\n{}", fleet.report());
    }
}
