//! How fast TCP is through Weir's tunnel of VXLAN, measured in turn with two that are made by hand:
//! one between the same nodes and containers, which differs in nothing but the tunnel, and one
//! between nodes without Weir, where nothing is filtered, checked or tracked.
//!
//! `scripts/bench-tunnel.sh` builds and runs it.
#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use serde_json::{Value, json};
use weir_tests::{Container, Fleet, Place, Pod, Subnet, UPLINK};

/// How many pairs of measurements there are.
const ROUNDS: usize = 20;
/// How long one of them is, in seconds.
const SECONDS: &str = "2";
/// How often medians are drawn for the interval.
const DRAWS: usize = 10_000;

fn main() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second, Subnet::First, Subnet::Second]);
    let spec = json!({"cidr": "10.61.0.0/24", "blockSize": 28, "vxlanMode": "Always"});
    fleet.apply_pool("blue", spec);
    for member in [0, 1] {
        fleet.start_agent(member);
    }
    let pods = [0, 1].map(|member| fleet.pod(member, "blue"));
    fleet.until_connected(&pods[0], &pods[1]);
    let bare = [2, 3].map(|member| made_by_hand(&fleet, member));
    (0..2).for_each(|member| add_tunnel(&fleet, member, 1 - member));
    let bare_far = "10.99.3.2";
    assert!(bare[0].reaches(bare_far), "the tunnel that is made by hand carries nothing");
    let far = pods[1].address.to_string();
    let mut ratios = [Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS)];
    println!("round  weir  by hand  ratio  bare  ratio (Gbit/s)");
    for round in 0..ROUNDS {
        // In turn, and each first as often as the others.
        let mut speeds = [0.0; 3];
        for turn in 0..3 {
            let which = (round + turn) % 3;
            speeds[which] = match which {
                0 => speed(&pods[0].container, &pods[1].container, &far),
                1 => by_other_tunnel(&fleet, &pods, || {
                    speed(&pods[0].container, &pods[1].container, &far)
                }),
                _ => speed(&bare[0], &bare[1], bare_far),
            };
        }
        let [weir, by_hand, bare] = speeds;
        let of_both = [weir / by_hand, weir / bare];
        let [first, second] = of_both;
        println!(
            "{:5}  {weir:4.2}  {by_hand:7.2}  {first:5.3}  {bare:4.2}  {second:5.3}",
            round + 1
        );
        ratios.iter_mut().zip(of_both).for_each(|(ratios, ratio)| ratios.push(ratio));
    }
    for (what, ratios) in ["the same containers", "nodes without Weir"].iter().zip(&mut ratios) {
        let (low, high) = interval(ratios);
        println!("{what}: median ratio {:.3} (95 %: {low:.3} to {high:.3})", median(ratios));
    }
}

/// Measures while the two containers reach each other by the tunnel that is made by hand.
fn by_other_tunnel(fleet: &Fleet, pods: &[Pod; 2], measure: impl FnOnce() -> f64) -> f64 {
    let routes = |verb: &str| {
        for (member, pod) in [(0, &pods[1]), (1, &pods[0])] {
            let (range, by) = (pod.address.to_string(), format!("10.99.{}.1", 1 - member));
            let line = ["ip", "route", verb, &range, "via", &by, "dev", "vx", "onlink"];
            fleet.members[member].node().run(&line);
        }
    };
    routes("add");
    let measured = measure();
    routes("delete");
    measured
}

/// A tunnel from one node to another, made by hand.
fn add_tunnel(fleet: &Fleet, member: usize, other: usize) {
    let node = fleet.members[member].node();
    let (own, far) = (fleet.members[member].host.address, fleet.members[other].host.address);
    let lines = format!(
        "link add vx type vxlan id 77 dstport 4790 local {own} dev {UPLINK} nolearning\n\
         link set vx address 66:00:00:00:00:0{member} mtu 1450 up\n\
         address add 10.99.{member}.1/32 dev vx\n\
         neighbour add 10.99.{other}.1 lladdr 66:00:00:00:00:0{other} dev vx nud permanent\n"
    );
    node.run_with(&["ip", "-batch", "-"], &lines);
    let entry =
        format!("bridge fdb append 66:00:00:00:00:0{other} dev vx dst {far} self permanent");
    node.run(&entry.split(' ').collect::<Vec<_>>());
}

/// A container on a node without Weir, and the tunnel to the other such node.
fn made_by_hand(fleet: &Fleet, member: usize) -> Container {
    let (node, other) = (fleet.members[member].node(), 5 - member);
    let container = node.container("by-hand");
    add_tunnel(fleet, member, other);
    let lines = format!(
        "route add 10.99.{other}.0/24 via 10.99.{other}.1 dev vx onlink src 10.99.{member}.1\n\
         link add host type veth peer name eth0 netns by-hand\n\
         link set host mtu 1450 up\n\
         route add 10.99.{member}.2 dev host scope link\n"
    );
    node.run_with(&["ip", "-batch", "-"], &lines);
    node.write("/proc/sys/net/ipv4/ip_forward", "1");
    node.write("/proc/sys/net/ipv4/conf/host/proxy_arp", "1");
    let lines = format!(
        "link set eth0 mtu 1450 up\naddress add 10.99.{member}.2/32 dev eth0\n\
         route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1 dev eth0\n"
    );
    container.run_with(&["ip", "-batch", "-"], &lines);
    container
}

/// What iperf3 measures from one container to another, in Gbit/s.
fn speed(from: &Container, to: &Container, address: &str) -> f64 {
    let mut server = std::process::Command::new("iperf3");
    let mut server =
        to.spawn(server.args(["-s", "-1", "-B", address]).stdout(std::process::Stdio::null()));
    let listens = || to.run(&["ss", "-Hltn", "sport", "=", "5201"]).contains("LISTEN");
    weir_tests::until_reporting(listens, || "iperf3 listens".to_owned());
    let text = from.run(&["iperf3", "-J", "-t", SECONDS, "-O", "1", "-c", address]);
    server.wait().expect("iperf3 ends after one client");
    let report: Value = serde_json::from_str(&text).expect("iperf3 prints JSON");
    report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a speed") / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// The interval that holds 95 % of the medians of values that are drawn again (bootstrap).
fn interval(values: &[f64]) -> (f64, f64) {
    // A linear congruential generator (Knuth, MMIX) is random enough, and the same each time.
    let mut state = 1_u64;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % values.len()
    };
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| median(&mut (0..values.len()).map(|_| values[draw()]).collect::<Vec<_>>()))
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[DRAWS / 40], medians[DRAWS - DRAWS / 40])
}
