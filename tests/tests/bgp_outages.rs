//! What nodes have is known on all others, and reached by containers, whatever ends meanwhile:
//! daemons, agents, route reflectors, the datastore.

#![expect(clippy::print_stdout, reason = "what is measured is printed")]

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;
use weir_tests::{
    Fleet, Place, Pod, RouteMonitor, Routed, SpeakerProgram, Subnet, rounds, router_programs,
};

/// Where the snapshot is that a datastore is restored from.
const SNAPSHOT: &str = "/run/before.db";

/// How often a second containers are pinged.
const RATE: u32 = 100;

/// The monitors of nodes and the router.
struct Monitors(Vec<RouteMonitor>);

impl Monitors {
    /// Those of all nodes but the first `skipped`, and of the router.
    fn start(fleet: &Fleet, skipped: usize) -> Self {
        let nodes = fleet.members.iter().skip(skipped).map(|member| member.node());
        Self(nodes.chain([fleet.underlay.router()]).map(RouteMonitor::start).collect())
    }

    /// Requires that no kernel told anything of these ranges since the last look.
    fn require_silence(&self, ranges: &[String], when: &str) {
        for (number, monitor) in self.0.iter().enumerate() {
            let events = monitor.events_of(ranges);
            assert!(events.is_empty(), "{when}, monitor {number}: {events:#?}");
        }
    }
}

/// A container on each node, known to all others, and the blocks.
fn pods(lab: &Routed) -> (Vec<Pod>, Vec<String>) {
    let members = 0..lab.fleet.members.len();
    let pods: Vec<Pod> = members
        .clone()
        .map(|member| lab.pod_at(member, address(u8::try_from(member).expect("few"))))
        .collect();
    let blocks: Vec<String> = members.map(|member| format!("10.244.{member}.0/26")).collect();
    for (member, block) in blocks.iter().enumerate() {
        lab.until_known(member, block);
    }
    (pods, blocks)
}

/// The first address of the block with this number.
fn address(block: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, block, 1)
}

/// Makes a new block on a node and waits until all know it: the sessions of the node are up again
/// and have passed everything on.
fn tell_a_new_block(lab: &Routed, member: usize, block: u8) {
    let _pod = lab.pod_at(member, address(block));
    lab.until_known(member, &format!("10.244.{block}.0/26"));
}

fn kill_bird(lab: &Routed, member: usize) {
    let member = &lab.fleet.members[member];
    member.node().run(&["kill", "-9", &member.bird().expect("BIRD runs")]);
}

#[test]
fn no_kernel_sees_the_end_of_a_daemon_or_an_agent() {
    router_programs().iter().for_each(|program| end_daemons_and_agents(*program));
}

/// Ends BIRD and the agent of a node again and again, beside a router with this program.
fn end_daemons_and_agents(router: SpeakerProgram) {
    let three = [Subnet::First, Subnet::First, Subnet::Second];
    let mut lab = Routed::with_router(router, &three, ("10.244.0.0/16", 26), |_| ());
    let (pods, blocks) = pods(&lab);
    let monitors = Monitors::start(&lab.fleet, 0);
    let pings = [pods[2].ping(&pods[0], RATE), pods[1].ping(&pods[2], RATE)];
    let mut block = 10;
    for _ in 0..rounds(1, 5) {
        for what in ["BIRD killed", "agent killed", "both killed", "upgrade"] {
            let bird = lab.fleet.members[0].bird();
            match what {
                "BIRD killed" => kill_bird(&lab, 0),
                "agent killed" => lab.fleet.kill_agent(0),
                "both killed" => {
                    lab.fleet.kill_agent(0);
                    kill_bird(&lab, 0);
                }
                _ => drop(lab.fleet.members[0].birdc("graceful restart")),
            }
            lab.fleet.start_agents();
            let is_same = what == "agent killed";
            lab.until(&format!("{what}: a daemon is there"), || {
                let now = lab.fleet.members[0].bird();
                now.is_some() && (now == bird) == is_same
            });
            lab.until_established();
            tell_a_new_block(&lab, 0, block);
            block += 1;
            monitors.require_silence(&blocks, what);
        }
    }
    let answers = pings.map(|ping| ping.finish());
    println!(
        "{}: killed and restarted, no route event; {answers:?} pings, none lost",
        lab.router.version()
    );
}

#[test]
fn containers_lose_no_packet_when_reflectors_come_and_one_goes() {
    router_programs().iter().for_each(|program| change_reflectors(*program));
}

/// Two reflectors, one in each subnet, and clients in both, beside a router with this program.
fn change_reflectors(router: SpeakerProgram) {
    let clients = rounds(4, 6);
    let subnets: Vec<Subnet> =
        [Subnet::First, Subnet::Second].into_iter().cycle().take(2 + clients).collect();
    let mut lab = Routed::with_router(router, &subnets, ("10.244.0.0/16", 26), |_| ());
    let (pods, blocks) = pods(&lab);
    // Of the first subnet to the second and back, and within one.
    let pings = [(2, 3), (5, 2), (2, 4)].map(|(from, to)| pods[from].ping(&pods[to], RATE));
    let to_reflector = pods[3].ping(&pods[0], RATE);
    let monitors = Monitors::start(&lab.fleet, 2);

    lab.fleet.apply(
        "BGPPeer",
        "reflectors",
        json!({
            "nodeSelector": "all()",
            "peerSelector": "has(route-reflector)",
        }),
    );
    for node in ["n1", "n2"] {
        let id = r#"{"spec":{"bgp":{"routeReflectorClusterID":"244.0.0.1"}}}"#;
        weirctl(&lab, &["patch", "node", node, "-p", id]);
        weirctl(&lab, &["label", "node", node, "route-reflector=true"]);
    }
    let reflectors = ["172.31.1.11", "172.31.2.12"];
    let have = |lab: &Routed, wanted: &dyn Fn(usize) -> Vec<&'static str>| {
        let members = lab.fleet.members.iter().enumerate().skip(2);
        members.into_iter().all(|(number, member)| {
            member.established().into_iter().eq(wanted(number).into_iter().map(str::to_owned))
        })
    };
    let all_reflectors = |lab: &Routed| {
        lab.fleet.members.iter().skip(2).all(|member| {
            reflectors.iter().all(|reflector| member.established().contains(*reflector))
        })
    };
    lab.until("all clients speak to both reflectors", || all_reflectors(&lab));
    lab.until_established();
    lab.fleet.apply("BGPConfiguration", "default", json!({"nodeToNodeMeshEnabled": false}));
    let of_client = |number: usize| match subnets[number] {
        Subnet::First => vec!["172.31.1.1", "172.31.1.11", "172.31.2.12"],
        _ => vec!["172.31.1.11", "172.31.2.1", "172.31.2.12"],
    };
    lab.until("the mesh is gone", || have(&lab, &of_client));
    tell_a_new_block(&lab, 2, 20);
    monitors.require_silence(&blocks[2..], "mesh to reflectors");
    // Its sessions are others now.
    let (answered, missing) = to_reflector.count();
    println!(
        "of {} pings to a container on the first reflector {missing} were lost",
        answered + missing
    );

    lab.fleet.kill_agent(0);
    kill_bird(&lab, 0);
    let without = |number: usize| {
        let mut peers = of_client(number);
        peers.retain(|peer| *peer != reflectors[0]);
        peers
    };
    lab.until("the sessions with the first reflector are down", || have(&lab, &without));
    // Not before: what the kernel sends when BIRD dies would be lost, and the hold time pass.
    lab.fleet.underlay.cut(lab.fleet.members[0].node());
    // By way of the other reflector.
    let _pod = lab.pod_at(3, address(21));
    for member in [2, 4, 5] {
        let node = lab.fleet.members[member].node();
        lab.until(&format!("{} knows the new block", node.name()), || {
            node.run(&["ip", "route", "show", "10.244.21.0/26"]).contains(" via ")
        });
    }
    // Then nobody waits for the first one to come back (RFC 4724's restart time, 120 s).
    sleep(Duration::from_secs(rounds(0, 130) as u64));
    monitors.require_silence(&blocks[2..], "one reflector lost");
    let answers = pings.map(|ping| ping.finish());
    println!(
        "{}: two reflectors, {clients} clients: mesh to reflectors, then one reflector lost: \
         {answers:?} pings, none lost",
        lab.router.version()
    );
}

fn weirctl(lab: &Routed, arguments: &[&str]) {
    let answer = lab.fleet.weirctl(1, arguments);
    assert!(answer.succeeded, "{arguments:?}: {answer:?}");
}

#[test]
fn a_datastore_that_is_away_or_forgets_changes_nothing() {
    router_programs().iter().for_each(|program| lose_the_datastore(*program));
}

/// Stops the datastore for a while, and restores it from a snapshot, beside a router with this
/// program.
fn lose_the_datastore(router: SpeakerProgram) {
    let subnets = [Subnet::First, Subnet::Second];
    let mut lab = Routed::with_router(router, &subnets, ("10.244.0.0/16", 26), |fleet| {
        fleet.apply_pool("first", json!({"cidr": "10.6.0.0/24", "blockSize": 28}));
        fleet.etcd().save(SNAPSHOT);
        // Its raft term is now higher than that of a datastore that has just been restored.
        fleet.etcd_mut().stop();
        fleet.etcd_mut().restart();
    });
    let (pods, blocks) = pods(&lab);
    let announced = |lab: &Routed| -> Vec<_> {
        lab.fleet.members.iter().map(|member| (member.announced(), member.bird())).collect()
    };
    let before = announced(&lab);
    let monitors = Monitors::start(&lab.fleet, 0);
    let ping = pods[0].ping(&pods[1], RATE);

    let outage = Duration::from_secs(rounds(5, 300) as u64);
    lab.fleet.etcd_mut().stop();
    sleep(outage);
    monitors.require_silence(&blocks, "while the datastore is away");
    lab.fleet.etcd_mut().restart();
    let are_well = |lab: &Routed| lab.fleet.members.iter().all(|member| member.agent().is_well());
    lab.until("the agents are well", || are_well(&lab));
    monitors.require_silence(&blocks, "when the datastore is back");
    assert_eq!(announced(&lab), before);

    lab.fleet.etcd_mut().stop();
    lab.fleet.etcd_mut().restore(SNAPSHOT);
    let knows = |text: &str| lab.fleet.store.entries().keys().any(|key| key.contains(text));
    assert!(!knows("/ippools/direct"), "it is lost");
    for member in &lab.fleet.members {
        // The pool, the blocks and the peers.
        let held = || member.agent().metric("weir_node_held");
        lab.until(&format!("{} holds what is lost", member.name), || held() == Some(5.0));
    }
    lab.until("the nodes are registered", || knows("/nodes/n1") && knows("/nodes/n2"));
    lab.until("the agents are well", || are_well(&lab));
    lab.until_established();
    monitors.require_silence(&blocks, "when the datastore has forgotten");
    assert_eq!(announced(&lab), before);
    let answers = ping.finish();
    println!(
        "{}: datastore away for {outage:?}, then restored without pool, peers and blocks: \
         no route event; {answers} pings, none lost",
        lab.router.version()
    );
}
