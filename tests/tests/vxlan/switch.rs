//! A pool gets another mode under its containers.

use std::net::IpAddr;

use serde_json::json;
use weir_tests::{Fleet, Place, Pod, SteadyPing, Subnet, cluster_routes, lossy};

use crate::{DEVICE, DEVICE_V6, TWO_SUBNETS, dual, pool, pool_v6};

/// How many answers a pair may miss in one switch.
const LOST: usize = 1;

fn set_mode(fleet: &Fleet, ipip: &str, vxlan: &str) {
    let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "ipipMode": ipip,
        "vxlanMode": vxlan});
    fleet.apply_pool("blue", spec);
}

#[test]
fn all_pairs_survive_every_switch_between_never_and_vxlan() {
    let mut fleet = Fleet::new(&TWO_SUBNETS);
    // The routes without a tunnel are there already.
    fleet.agent_arguments.extend(["--bgp", "off"]);
    set_mode(&fleet, "Never", "Always");
    fleet.start_agents();
    // Before the containers, so that each node has one block for both.
    fleet.until("all have tunnels", || fleet.members.iter().all(|it| it.has_device(DEVICE)));
    let pods: Vec<Pod> = (0..4).map(|member| fleet.pod(member, "blue")).collect();
    fleet.announce(&pods);
    let pairs = fleet.pairs();
    for (from, to) in &pairs {
        fleet.until_reached(&pods[*from], &pods[*to]);
    }
    for mode in ["Never", "Always", "CrossSubnet", "Always", "Never", "CrossSubnet", "Never"] {
        let ping = |(from, to): &(usize, usize)| {
            (format!("n{} to n{}", from + 1, to + 1), pods[*from].ping(&pods[*to], 100))
        };
        let pings: Vec<(String, SteadyPing)> = pairs.iter().map(ping).collect();
        set_mode(&fleet, "Never", mode);
        fleet.until(&format!("packets go as {mode} says"), || {
            fleet.members.iter().all(|member| {
                let by_tunnel = member.routes().iter().filter(|it| it.contains(DEVICE)).count();
                let wanted = match mode {
                    "Never" => 0,
                    "Always" => 3,
                    _ => 2,
                };
                by_tunnel == wanted && member.has_device(DEVICE) == (mode != "Never")
            })
        });
        let lost = lossy(pings, LOST);
        assert!(lost.is_empty(), "{mode}: {lost:#?}\n{}", fleet.report());
    }
    for member in &fleet.members {
        assert!(!member.node().run(&["ip", "-brief", "link"]).contains(DEVICE), "{}", member.name);
    }
}

/// In one subnet no router needs to know the containers.
#[test]
fn both_families_survive_every_switch_in_one_subnet() {
    let mut fleet = dual(&[Subnet::First; 3]);
    let set_mode = |fleet: &Fleet, mode: &str| {
        pool(fleet, "blue", 61, mode);
        pool_v6(fleet, "blue6", 61, mode);
    };
    set_mode(&fleet, "Always");
    fleet.start_agents();
    let pods: Vec<(Pod, IpAddr)> = (0..3)
        .map(|member| fleet.dual_pod(member, ["blue", "blue6"]))
        .map(|(pod, address)| (pod, address.into()))
        .collect();
    let pairs = fleet.pairs();
    let until_as = |mode: &str| {
        let is_tunnelled = mode == "Always";
        fleet.until(&format!("packets go as {mode} says"), || {
            fleet.members.iter().all(|member| {
                [("-4", DEVICE), ("-6", DEVICE_V6)].into_iter().all(|(family, device)| {
                    let routes = cluster_routes(member.node(), family);
                    let by_tunnel = routes.iter().filter(|route| route.contains(device)).count();
                    let by_any = routes.iter().filter(|route| route.contains(" via ")).count();
                    // A node may have more than one block.
                    by_any >= 2
                        && by_tunnel == if is_tunnelled { by_any } else { 0 }
                        && member.has_device(device) == is_tunnelled
                })
            })
        });
    };
    until_as("Always");
    for (from, to) in &pairs {
        fleet.until_reached(&pods[*from].0, &pods[*to].0);
        let (source, target) = (&pods[*from].0.container, pods[*to].1.to_string());
        fleet.until(&format!("n{} reaches {target}", from + 1), || source.reaches(&target));
    }
    for mode in ["Never", "Always", "CrossSubnet", "Always", "Never", "CrossSubnet"] {
        let ping = |(from, to): &(usize, usize)| {
            let (from, to) = (*from, *to);
            [pods[to].0.address.into(), pods[to].1].map(|address: IpAddr| {
                (format!("n{} to {address}", from + 1), pods[from].0.ping_address(address, 100))
            })
        };
        let pings: Vec<(String, SteadyPing)> = pairs.iter().flat_map(ping).collect();
        set_mode(&fleet, mode);
        until_as(mode);
        let lost = lossy(pings, LOST);
        assert!(lost.is_empty(), "{mode}: {lost:#?}\n{}", fleet.report());
    }
}
