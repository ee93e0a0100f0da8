//! The BGP speakers that other tests have as routers and judges: each program passes on what
//! another one announces, and each says the same of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_tests::SpeakerProgram::{Bird, Frr, GoBgp};
use weir_tests::{
    Host, Neighbour, Place, ReceivedRoute, Speaker, SpeakerOptions, SpeakerProgram, Subnet,
    Underlay, until_reporting,
};

const ROUTER_AS: u32 = 65000;

fn neighbour(address: &str, as_number: u32) -> Neighbour {
    let address: IpNet = address.parse().expect("a prefix");
    Neighbour { address, as_number, password: Some("a-secret".to_owned()) }
}

fn v6(host: &Host) -> Ipv6Addr {
    host.address_v6.expect("the underlay has IPv6")
}

/// A speaker on a host of the subnet `number`, which speaks to the router in both families.
fn speaker_on(host: &Host, number: u8, program: SpeakerProgram, announced: &[&str]) -> Speaker {
    let router = [format!("172.31.{number}.1/32"), format!("fd31:{number}::1/128")];
    let options = SpeakerOptions {
        as_number: 64512 + u32::from(number),
        router_id: host.address,
        neighbours: router.iter().map(|it| neighbour(it, ROUTER_AS)).collect(),
        announced: announced.iter().map(|it| it.parse().expect("a prefix")).collect(),
        communities: vec!["64513:120".to_owned(), "64513:7:9".to_owned()],
    };
    Speaker::start(program, &host.node, &options)
}

/// What is announced by `first` gets to `last` through `router`, with all of its attributes, and
/// packets follow.
fn passes(first: SpeakerProgram, router: SpeakerProgram, last: SpeakerProgram) {
    let underlay = Underlay::dual();
    let [near, far] = [(Subnet::First, 1), (Subnet::Second, 2)].map(|(s, n)| underlay.node(s, n));
    // Where it can, the router waits for whoever knows the password.
    let is_dynamic = router != GoBgp;
    let neighbours = [(&near, 1u8), (&far, 2)].into_iter().flat_map(|(host, number)| {
        let as_number = 64512 + u32::from(number);
        let ranges = [format!("172.31.{number}.0/24"), format!("fd31:{number}::/64")];
        let addresses = [host.address.into(), v6(host).into()];
        let addresses = addresses.map(|it: IpAddr| IpNet::from(it).to_string());
        let whom = if is_dynamic { ranges } else { addresses };
        whom.map(|it| neighbour(&it, as_number))
    });
    let options = SpeakerOptions {
        as_number: ROUTER_AS,
        router_id: Ipv4Addr::new(172, 31, 1, 1),
        neighbours: neighbours.collect(),
        announced: Vec::new(),
        communities: Vec::new(),
    };
    let router = Speaker::start(router, underlay.router(), &options);
    let first = speaker_on(&near, 1, first, &["10.7.0.0/28", "fd07::/64"]);
    let last = speaker_on(&far, 2, last, &[]);
    near.node.run(&["ip", "address", "add", "10.7.0.1/32", "dev", "lo"]);
    near.node.run(&["ip", "address", "add", "fd07::1/128", "dev", "lo"]);
    let report = || format!("{}, {}, {}", first.version(), router.version(), last.version());
    let communities = BTreeSet::from(["64513:120".to_owned(), "64513:7:9".to_owned()]);
    for (range, own, routers, target) in [
        ("10.7.0.0/28", IpAddr::from(near.address), "172.31.2.1", "10.7.0.1"),
        ("fd07::/64", v6(&near).into(), "fd31:2::1", "fd07::1"),
    ] {
        let (range, routers): (IpNet, IpAddr) =
            (range.parse().expect("a prefix"), routers.parse().expect("an address"));
        let route = |next_hop: IpAddr, as_path: &[u32]| {
            let (as_path, communities) = (as_path.to_vec(), communities.clone());
            (range, ReceivedRoute { next_hop, as_path, communities })
        };
        let seen = router.until_received(own, &[range]);
        assert_eq!(seen, [route(own, &[64513])].into(), "{}", report());
        let seen = last.until_received(routers, &[range]);
        assert_eq!(seen, [route(routers, &[ROUTER_AS, 64513])].into(), "{}", report());
        assert!(router.is_established(own) && last.is_established(routers), "{}", report());
        router.install(&[own]);
        let arrives = || underlay.router().reaches(target) && far.node.reaches(target);
        until_reporting(arrives, || format!("{target} is reached\n{router}"));
    }
}

#[test]
fn bird_passes_on_what_frr_announces_to_gobgp() {
    passes(Frr, Bird, GoBgp);
}

#[test]
fn frr_passes_on_what_gobgp_announces_to_bird() {
    passes(GoBgp, Frr, Bird);
}

#[test]
fn gobgp_passes_on_what_bird_announces_to_frr() {
    passes(Bird, GoBgp, Frr);
}

/// A judge must see that something is not there.
#[test]
fn a_wrong_password_lets_no_session_come_up() {
    let underlay = Underlay::new();
    let host = underlay.node(Subnet::First, 1);
    let options = |as_number, address: &str, theirs, password: &str| SpeakerOptions {
        as_number,
        router_id: host.address,
        neighbours: vec![Neighbour {
            password: Some(password.to_owned()),
            ..neighbour(address, theirs)
        }],
        announced: vec!["10.7.0.0/28".parse().expect("a prefix")],
        communities: Vec::new(),
    };
    let router = options(ROUTER_AS, "172.31.1.11/32", 64513, "right");
    let router = Speaker::start(Bird, underlay.router(), &router);
    let _speaker =
        Speaker::start(Frr, &host.node, &options(64513, "172.31.1.1/32", ROUTER_AS, "wrong"));
    let refused = || {
        let counters = underlay.router().run(&["nstat", "-asz", "TcpExtTCPMD5Failure"]);
        let count = counters.split_whitespace().find_map(|it| it.parse::<u64>().ok());
        count.is_some_and(|count| count > 0)
    };
    until_reporting(refused, || format!("a segment is refused\n{router}"));
    assert!(!router.is_established(host.address.into()));
    assert_eq!(router.received(host.address.into()), [].into());
}
