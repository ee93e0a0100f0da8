//! What nodes have is known on all others, in other subnets too, soon and for as long as it is
//! theirs.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use weir_tests::{
    Place, RouteMonitor, Routed, SpeakerProgram, Subnet, TimedLines, rounds, router_programs,
};

const THREE: [Subnet; 3] = [Subnet::First, Subnet::First, Subnet::Second];

/// How long it may take at most that half of the new blocks are known. The aim is 100 ms on an
/// idle machine.
const MEDIAN: Duration = Duration::from_millis(500);

/// By how much BIRD's reckoning may differ. A round takes longer.
const RECKONING: SignedDuration = SignedDuration::from_millis(50);

/// When BIRD of each node read its configuration last, as it reckons back from now.
fn reconfigured(lab: &Routed) -> Vec<DateTime> {
    let status = lab.fleet.members.iter().map(|member| member.birdc("show status"));
    let time = |text: String| {
        let found = text.lines().find_map(|line| line.strip_prefix("Last reconfiguration on "));
        found.expect("BIRD tells it").parse().expect("a time")
    };
    status.map(time).collect()
}

/// From the moment when etcd tells a watch of the block to that when the kernel of a node in the
/// other subnet tells of its route.
#[test]
#[expect(clippy::print_stdout, reason = "the times are a result")]
fn a_new_block_is_known_across_subnets_without_a_reconfiguration() {
    let lab = Routed::new(&THREE, "10.244.0.0/16", 26, |_| ());
    let first = lab.pod_at(2, Ipv4Addr::new(10, 244, 255, 1));
    let pinging = lab.pod_at(0, Ipv4Addr::new(10, 244, 254, 1));
    lab.fleet.until_connected(&first, &pinging);
    let before = reconfigured(&lab);
    let etcd = lab.fleet.etcd();
    let (endpoint, revision) = (etcd.endpoint(), (etcd.revision() + 1).to_string());
    let line =
        ["etcdctl", "--endpoints", &endpoint, "watch", "--prefix", "/calico/ipam/v2/host/n3/"];
    let commits = TimedLines::of(etcd.node(), &[&line[..], &["--rev", &revision]].concat());
    let routes = RouteMonitor::start(lab.fleet.members[0].node());
    let mut times = Vec::new();
    for number in 0..rounds(10, 100) {
        let third = u8::try_from(number).expect("few rounds");
        let pod = lab.pod_at(2, Ipv4Addr::new(10, 244, third, 1));
        let key = format!("10.244.{third}.0-26");
        let (committed, _) = commits.until(&key, |line| line.ends_with(&key));
        let route = format!("10.244.{third}.0/26 via 172.31.1.1 ");
        times.push(routes.until(&route, |line| line.starts_with(&route)) - committed);
        lab.fleet.until_reached(&pinging, &pod);
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{}; {} new blocks:", lab.router.version(), times.len());
    println!(
        "from the commit to the route in the other subnet: median {median:?}, worst {worst:?}"
    );
    for (then, now) in before.into_iter().zip(reconfigured(&lab)) {
        assert!(now.duration_since(then).abs() < RECKONING, "reconfigured at {now}, not {then}");
    }
    assert!(median < MEDIAN, "{times:?}");
}

#[test]
fn a_borrowed_address_is_known_to_all_until_it_is_given_back() {
    router_programs().iter().for_each(|program| borrow_an_address(*program));
}

/// Borrows an address and gives it back, beside a router with this program.
fn borrow_an_address(router: SpeakerProgram) {
    let lab = Routed::with_router(router, &THREE, ("10.7.0.0/30", 30), |_| ());
    let owner = lab.fleet.pod(0, "direct");
    lab.until_known(0, "10.7.0.0/30");
    let third = lab.fleet.pod(1, "direct");
    let borrower = lab.fleet.pod(2, "direct");
    let borrowed = borrower.address.to_string();
    lab.until_known(2, &borrowed);
    for pod in [&owner, &third] {
        lab.fleet.until_connected(pod, &borrower);
    }
    lab.fleet.call(2, "direct", &borrower.container).delete(lab.fleet.members[2].node());
    let nodes = lab.fleet.members.iter().map(|member| member.node());
    for node in nodes.chain([lab.fleet.underlay.router()]) {
        lab.until(&format!("{} has no route to {borrowed}", node.name()), || {
            let routes = node.run(&["ip", "-4", "route", "show", "table", "all"]);
            !routes.lines().any(|line| line.split(' ').any(|word| word == borrowed))
        });
    }
    assert!(!third.container.reaches(&borrowed));
    // What others have borrowed, and the block itself, are known as before.
    lab.until_known(1, &third.address.to_string());
    lab.until_known(0, "10.7.0.0/30");
}
