//! BFD between the agent's BIRD and other speakers: of a single hop on the node's own link, of
//! several to peers beyond it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Fleet, Host, Place, RouteMonitor, Speaker, Subnet, until_reporting};

/// The node n1, whose agent is tested.
const NODE: &str = "172.31.1.11";
const NODE_V6: &str = "fd31:1::b";
const NODE_AS: u32 = 64512;

/// A router with which n1 has a session with BFD.
struct Router {
    host: Host,
    speaker: Speaker,
    /// Its address in the session.
    address: IpAddr,
    /// The range that it alone announces.
    range: String,
    /// Whether it is on n1's link.
    is_on_link: bool,
    /// What its BGPPeer says.
    spec: Value,
}

impl Router {
    /// BIRD, with these words in its session.
    fn bird(fleet: &Fleet, subnet: Subnet, number: u8, session: &str, spec: Value) -> Self {
        let host = fleet.underlay.node(subnet, number);
        let (address, range) = (host.address, range_of(number));
        let as_number = 65000 + u32::from(number);
        let configuration = format!(
            "router id {address};\nlog stderr all;\nprotocol device {{}}\n\
             protocol bfd {{ interface \"*\" {{ interval 200 ms; multiplier 3; }}; \
             multihop {{ interval 200 ms; multiplier 3; }}; }}\n\
             protocol direct {{ ipv4; }}\nprotocol static {{ ipv4; route {range} blackhole; }}\n\
             protocol bgp {{ local {address} as {as_number}; neighbor {NODE} as {NODE_AS}; \
             connect delay time 1; connect retry time 1; error wait time 1,2; bfd on; {session} \
             ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n"
        );
        let speaker = Speaker::bird(&host.node, &configuration);
        let is_on_link = subnet == Subnet::First;
        let address = address.into();
        Self { host, speaker, address, range, is_on_link, spec: with_as(spec, as_number) }
    }

    /// FRR on n1's link, which would want `ebgp-multihop` for a session of several hops.
    fn frr(fleet: &Fleet, number: u8, as_number: u32, v6: bool) -> Self {
        let host = fleet.underlay.node(Subnet::First, number);
        let address_v6 = host.address_v6.expect("an underlay of both families");
        let (address, neighbour, family, range) = match v6 {
            true => (address_v6.into(), NODE_V6, "ipv6", format!("fd77:{number}::/64")),
            false => (host.address.into(), NODE, "ipv4", range_of(number)),
        };
        let configuration = format!(
            "router bgp {as_number}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
             no bgp default ipv4-unicast\n no bgp network import-check\n \
             neighbor {neighbour} remote-as {NODE_AS}\n neighbor {neighbour} timers connect 1\n \
             neighbor {neighbour} bfd\n neighbor {neighbour} bfd profile quick\n \
             address-family {family} unicast\n  neighbor {neighbour} activate\n  \
             network {range}\n exit-address-family\n",
            host.address
        );
        let of_bfd = "bfd\n profile quick\n  detect-multiplier 3\n  receive-interval 200\n  \
                      transmit-interval 200\n";
        let speaker = Speaker::frr_with_bfd(&host.node, &configuration, of_bfd);
        let spec = with_as(json!({}), as_number);
        Self { host, speaker, address, range, is_on_link: true, spec }
    }

    /// The BGPPeer of it.
    fn peering(&self) -> Value {
        let mut spec = json!({"node": "n1", "peerIP": self.address});
        weir_tests::merge(&mut spec, self.spec.clone());
        json!({
            "apiVersion": "projectcalico.org/v3",
            "kind": "BGPPeer",
            "metadata": {
                "name": format!("r{}", self.host.node.name()),
                "annotations": {"weir/bfd": "200ms*3"},
            },
            "spec": spec,
        })
    }

    /// Whether n1 has its range by way of it.
    fn is_way(&self, fleet: &Fleet) -> bool {
        let via = if self.is_on_link { self.address } else { address("172.31.1.1") };
        learned(fleet).contains(&format!("{} via {via} ", self.range))
    }

    /// What n1's BIRD says of the BFD with it: the interface (`---` for several hops) and the state.
    fn bfd(&self, fleet: &Fleet) -> Option<(String, String)> {
        let text = fleet.members[0].birdc("show bfd sessions");
        let line = text
            .lines()
            .find(|it| it.split_whitespace().next() == Some(self.address.to_string().as_str()))?;
        let mut words = line.split_whitespace().skip(1).map(str::to_owned);
        Some((words.next()?, words.next()?))
    }

    /// Whether BFD with it is up, of the kind that belongs to where it is.
    fn is_watched(&self, fleet: &Fleet) -> bool {
        self.bfd(fleet).is_some_and(|(interface, state)| {
            state == "Up" && (interface != "---") == self.is_on_link
        })
    }
}

fn range_of(number: u8) -> String {
    format!("198.51.{number}.0/24")
}

fn with_as(mut spec: Value, as_number: u32) -> Value {
    spec["asNumber"] = json!(as_number);
    spec
}

/// What n1 has from others.
fn learned(fleet: &Fleet) -> String {
    let node = fleet.members[0].node();
    ["-4", "-6"].map(|family| node.run(&["ip", family, "route", "show", "proto", "bird"])).concat()
}

fn apply(fleet: &Fleet, resources: &[Value]) {
    let text: Vec<String> = resources.iter().map(Value::to_string).collect();
    fleet.members[0].node().write("/run/bgp.yaml", &text.join("\n---\n"));
    let answer = fleet.weirctl(0, &["apply", "-f", "/run/bgp.yaml"]);
    assert!(answer.succeeded, "{answer:?}");
}

/// Waits until n1 has each router's range, and BFD with it is up.
fn until_all_are_ways(fleet: &Fleet, routers: &[Router]) {
    until_reporting(
        || routers.iter().all(|router| router.is_way(fleet) && router.is_watched(fleet)),
        || {
            let bfd = fleet.members[0].birdc("show bfd sessions");
            let peers = fleet.weirctl(0, &["bgp", "peers"]).stdout;
            let lacks = routers.iter().filter(|it| !it.is_way(fleet) || !it.is_watched(fleet));
            let lacks = lacks.map(|it| format!("{}\n", it.speaker)).collect::<String>();
            format!("all ranges are there:\n{}{bfd}{peers}{lacks}", learned(fleet))
        },
    );
}

#[test]
#[expect(clippy::print_stdout, reason = "the time is a result")]
fn bfd_notices_a_lost_peer_long_before_the_hold_time() {
    let mut fleet = Fleet::dual(&[Subnet::First]);
    fleet.agent_arguments = vec!["--ip6-autodetection-method", "first-found"];
    fleet.start_agents();
    let others = json!({"filters": ["others"]});
    let bird = |subnet, number, session, spec| Router::bird(&fleet, subnet, number, session, spec);
    let routers = [
        bird(Subnet::First, 20, "direct; graceful restart aware;", others),
        // Its packets have not been forwarded; and it asks for graceful restart, as nodes do.
        bird(
            Subnet::First,
            21,
            "direct; ttl security on; graceful restart on;",
            json!({"ttlSecurity": 1}),
        ),
        bird(Subnet::Second, 22, "multihop;", json!({})),
        Router::frr(&fleet, 23, 65023, false),
        Router::frr(&fleet, 24, NODE_AS, false),
        Router::frr(&fleet, 25, 65025, true),
    ];
    let rules = json!([{"source": "RemotePeers", "action": "Accept"}, {"action": "Reject"}]);
    let filter = json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPFilter",
        "metadata": {"name": "others"},
        "spec": {"exportV4": rules},
    });
    let peerings = routers.iter().map(Router::peering);
    apply(&fleet, &peerings.chain([filter]).collect::<Vec<_>>());
    until_all_are_ways(&fleet, &routers);
    // FRR says the same of its side.
    for router in &routers[3..] {
        let text = router.host.node.run(&["vtysh", "-d", "bfdd", "-c", "show bfd peers json"]);
        let peers: Value = serde_json::from_str(&text).expect("vtysh prints JSON");
        let seen = (&peers[0]["multihop"], &peers[0]["status"]);
        assert_eq!(seen, (&json!(false), &json!("up")), "{}: {text}", router.speaker.version());
    }
    // The way to what others on the link tell is this node, as in sessions of several hops.
    let told: BTreeMap<String, IpAddr> = routers[0]
        .speaker
        .received(address(NODE))
        .into_iter()
        .map(|(range, route)| (range.to_string(), route.next_hop))
        .collect();
    let wanted = [21, 22, 23, 24].map(|number| (range_of(number), address(NODE))).into();
    assert_eq!(told, wanted, "{}", routers[0].speaker);

    for (index, router) in routers.iter().enumerate() {
        let report = |what: &str| format!("{what}:\n{}\n{}", learned(&fleet), router.speaker);
        let began = Instant::now();
        fleet.underlay.cut(&router.host.node);
        until_reporting(|| !router.is_way(&fleet), || report("the lost peer's way is gone"));
        let took = began.elapsed();
        let version = router.speaker.version();
        println!("{version}, {}: its way was gone after {took:?}", router.address);
        // The hold time is 90 s, or FRR's of 180 s, of which the smaller one counts.
        assert!(took < Duration::from_secs(5), "{took:?}: {version}");
        let stay = routers[index + 1..].iter().all(|other| other.is_way(&fleet));
        assert!(stay, "{}", report("the other ways stay"));
    }
    for router in &routers {
        fleet.underlay.heal(&router.host.node);
    }
    until_all_are_ways(&fleet, &routers);
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_link_that_comes_and_goes_makes_no_other_session() {
    let mut fleet = Fleet::new(&[Subnet::First]);
    fleet.start_agents();
    let routers = [Router::bird(&fleet, Subnet::First, 20, "direct;", json!({}))];
    apply(&fleet, &routers.each_ref().map(Router::peering));
    until_all_are_ways(&fleet, &routers);
    let configured = || {
        let status = fleet.members[0].birdc("show status");
        let line = status.lines().find(|line| line.starts_with("Last reconfiguration"));
        line.unwrap_or_else(|| panic!("{status}")).to_owned()
    };
    let before = configured();
    let node = fleet.members[0].node();
    for _ in 0..2 {
        node.run(&["ip", "link", "set", "eth0", "down"]);
        let told = "the link that leads to 172.31.1.30 is down";
        let status = || fleet.members[0].bgp().to_string();
        until_reporting(|| status().contains(told), || format!("{told}: {}", status()));
        node.run(&["ip", "link", "set", "eth0", "up"]);
        node.run(&["ip", "route", "add", "default", "via", "172.31.1.1"]);
        until_all_are_ways(&fleet, &routers);
        let agent = fleet.members[0].agent();
        until_reporting(|| agent.is_well(), || format!("the agent is well: {}", agent.log()));
    }
    assert_eq!(configured(), before, "{}", routers[0].speaker);
}

#[test]
fn a_daemon_that_is_killed_leaves_its_routes_to_the_next_one() {
    let mut fleet = Fleet::dual(&[Subnet::First]);
    fleet.agent_arguments = vec!["--ip6-autodetection-method", "first-found"];
    fleet.start_agents();
    let routers = [
        Router::bird(&fleet, Subnet::First, 20, "direct;", json!({})),
        Router::bird(&fleet, Subnet::Second, 21, "multihop;", json!({})),
        Router::frr(&fleet, 22, 65022, true),
    ];
    apply(&fleet, &routers.each_ref().map(Router::peering));
    until_all_are_ways(&fleet, &routers);
    let node = fleet.members[0].node();
    let monitor = RouteMonitor::start(node);
    let bird = fleet.members[0].bird();
    node.run(&["kill", "-9", bird.as_deref().expect("BIRD runs")]);
    fleet.until("another daemon is there", || {
        fleet.members[0].bird().is_some_and(|now| Some(now) != bird)
            && node.succeeds(&["birdc", "-s", "/run/weir/bird/bird.ctl", "show", "status"])
    });
    let recovers = || fleet.members[0].birdc("show status").contains("recovery");
    fleet.until("it has recovered", || !recovers());
    until_all_are_ways(&fleet, &routers);
    let ranges = routers.each_ref().map(|router| router.range.clone());
    let mut events = monitor.events_of(&ranges);
    // BIRD writes an IPv6 route once more in its place, with whichever kind of session.
    events.retain(|event| event.starts_with("Deleted") || !event.contains(&ranges[2]));
    assert!(events.is_empty(), "{events:#?}\n{}", routers[0].speaker);
}
