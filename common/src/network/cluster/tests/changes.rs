//! Examples of the diff, and the kernel that its changes are made to.

use super::*;

/// A routing daemon has routes to all blocks, and drops what is for this node's own.
#[test]
fn what_another_programs_routes_do_as_well_is_no_problem() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    let nets = |ranges: &[&str]| ranges.iter().map(|range| net(range)).collect::<BTreeSet<_>>();
    let daemon = |led: &[&str]| ActualState {
        occupied: nets(&["10.0.1.0/26", "10.0.2.0/26", "10.0.3.0/26"]),
        foreign_blackholes: nets(&["10.0.1.0/26"]),
        announced: nets(&["10.0.1.0/26"]),
        foreign_routes: led.iter().map(|range| (net(range), BTreeSet::new())).collect(),
        ..ActualState::default()
    };
    // By each block, or by a range around some of them.
    for led in [&["10.0.2.0/26", "10.0.3.0/26", "10.0.4.0/26"][..], &["10.0.2.0/26", "10.0.0.0/16"]]
    {
        assert_eq!(diff(&plan, &daemon(led)), Default::default());
    }
    let (_, problems) = diff(&plan, &daemon(&["10.0.3.0/26", "10.0.4.0/27"]));
    let (node, next_hop) = ("n4".to_owned(), "172.16.2.2".parse().unwrap());
    let expected = [
        Problem::NextHopNotOnLink { node, next_hop, cross_subnet: false },
        Problem::ForeignRoute { destination: net("10.0.2.0/26") },
    ];
    assert_eq!(problems, expected.into(), "a part of a block is not enough");
    // What is to be tunnelled is not reached as the pool asks.
    let plan = plan_of_n1(&four_nodes(&[Always]));
    let (_, problems) = diff(&plan, &daemon(&["10.0.2.0/26", "10.0.3.0/26"]));
    let expected = ["10.0.2.0/26", "10.0.3.0/26"].map(net);
    assert_eq!(problems, expected.map(|destination| Problem::ForeignRoute { destination }).into());
}

/// A routing daemon that was killed leaves routes behind, to nodes of before.
#[test]
fn another_programs_route_to_another_node_than_the_blocks_is_reported() {
    let plan = plan_of_n1(&four_nodes(&[Never]));
    let told = |route: &str, next_hops: &[&str]| {
        let next_hops = next_hops.iter().map(|it| it.parse().unwrap()).collect();
        // All others are served.
        let mut foreign_routes: BTreeMap<_, _> =
            ["10.0.3.0/26", "10.0.4.0/26"].map(|range| (net(range), BTreeSet::new())).into();
        foreign_routes.insert(net(route), next_hops);
        let occupied = BTreeSet::from([net(route)]);
        let actual = ActualState { occupied, foreign_routes, ..ActualState::default() };
        let (_, problems) = diff(&plan, &actual);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    // To where the block is, by a router, or by a link.
    for next_hops in [&["172.16.1.2"][..], &["172.16.1.254"], &[]] {
        assert_eq!(told("10.0.2.0/26", next_hops), "");
    }
    for next_hops in [&["172.16.2.1"][..], &["172.16.2.1", "172.16.1.254"], &[]] {
        assert_eq!(told("10.0.3.0/26", next_hops), "");
    }
    let misrouted = "10.0.2.0/26 is on the node at 172.16.1.2, and another program's route leads to \
                  node n4 (172.16.2.2) instead; look at it with \"ip route show 10.0.2.0/26\"";
    assert!(told("10.0.2.0/26", &["172.16.2.2"]).starts_with(misrouted));
    assert!(told("10.0.2.0/26", &["172.16.1.2", "172.16.2.2"]).starts_with(misrouted));
    let left = told("10.0.3.0/26", &["172.16.1.2"]);
    assert!(left.starts_with("10.0.3.0/26 is on the node at 172.16.2.1"), "{left}");
    // A range around is looked at where there is none of the block's own.
    assert_eq!(told("10.0.0.0/16", &["172.16.1.2"]), "");
    let mut actual = ActualState::default();
    actual.foreign_routes.insert(net("10.0.0.0/16"), ["172.16.1.2".parse().unwrap()].into());
    let (_, problems) = diff(&plan, &actual);
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("look at it with \"ip route show 10.0.0.0/16\""), "{problems:?}");
}

#[test]
fn a_new_tunnel_address_is_there_before_the_old_one_goes() {
    let mut state = four_nodes(&[Always]);
    let mut with_address = |host: u8| {
        let tunnel = Some(Ipv4Addr::new(10, 0, 1, host));
        state.nodes.get_mut("n1").unwrap().tunnel = tunnel;
        plan_of_n1(&state)
    };
    let mut actual = ActualState::default();
    for change in diff(&with_address(1), &actual).0 {
        carry_out(&mut actual, &change);
    }
    let changes = diff(&with_address(2), &actual).0;
    let place = |wanted: &Change| changes.iter().position(|change| change == wanted).unwrap();
    let added = place(&Change::AddTunnelAddress(Ipv4Addr::new(10, 0, 1, 2)));
    let removed = place(&Change::RemoveTunnelAddress(Ipv4Addr::new(10, 0, 1, 1).into()));
    let is_replacement = |change: &Change| matches!(change, Change::ReplaceRoute(..));
    assert!(added < removed);
    assert_eq!(changes[added..removed].iter().filter(|change| is_replacement(change)).count(), 3);
}

#[test]
fn addresses_that_may_be_borrowed_stay() {
    let mut plan = plan_of_n1(&four_nodes(&[Never]));
    plan.keeps_addresses = true;
    let [address, block] = ["10.0.9.9/32", "10.0.9.0/26"].map(net);
    let routes = [address, block].map(|range| (range, Some(RouteKind::Blackhole)));
    let announced = BTreeSet::from([address, block]);
    let actual = ActualState { routes: routes.into(), announced, ..ActualState::default() };
    let deletions = |plan: &ClusterPlan| {
        let is_deletion = |it: &Change| matches!(it, Change::DeleteRoute(..) | Change::Withdraw(_));
        diff(plan, &actual).0.into_iter().filter(is_deletion).collect::<Vec<_>>()
    };
    let delete = || Change::DeleteRoute(block, Some(RouteKind::Blackhole));
    assert_eq!(deletions(&plan), [Change::Withdraw(block), delete()]);
    // Where it is not known that BGP is needed, it may be all the same.
    (plan.bgp_need, plan.keeps_announcing) = (None, true);
    assert_eq!(deletions(&plan), [Change::Withdraw(block), delete()]);
    // Where it is not, they are not announced in any case.
    plan.keeps_announcing = false;
    let all = [Change::Withdraw(block), Change::Withdraw(address), delete()];
    assert_eq!(deletions(&plan), all);
}

#[test]
fn a_block_is_announced_once_its_route_is_there_and_withdrawn_first() {
    let texts = |plan: &ClusterPlan, actual: &ActualState| -> Vec<String> {
        diff(plan, actual).0.iter().map(ToString::to_string).collect()
    };
    let plan = plan_of_n1(&four_nodes(&[Never]));
    let stale = ActualState { announced: [net("10.0.3.0/26")].into(), ..ActualState::default() };
    let expected = [
        "ip route delete 10.0.3.0/26 proto 77 table 1465207154",
        "ip route add blackhole 10.0.1.0/26 proto 77",
        "ip route add 10.0.2.0/26 via 172.16.1.2 dev eth0 src 172.16.1.1 proto 77",
        "ip route add blackhole 10.0.1.0/26 proto 77 table 1465207154",
    ];
    assert_eq!(texts(&plan, &stale), expected);
    // An ADD does not know of BGPPeers: it goes on, and does not begin.
    let unaware = ClusterPlan { bgp_need: None, keeps_announcing: true, ..plan };
    assert_eq!(texts(&unaware, &stale), expected);
    assert_eq!(texts(&unaware, &ActualState::default()), expected[1..3]);
}

/// The kernel, as far as changes go.
pub(super) fn carry_out(actual: &mut ActualState, change: &Change) {
    let missing = "the tunnel device is there before it is used";
    match change {
        Change::CreateTunnel => {
            assert!(actual.tunnel.is_none());
            actual.tunnel = Some(ActualTunnel { mtu: 1480, ..ActualTunnel::default() });
        }
        Change::ClaimTunnel => actual.tunnel.as_mut().expect(missing).claimed = true,
        Change::DisclaimTunnel => actual.tunnel.as_mut().expect(missing).claimed = false,
        Change::SetTunnelMtu(mtu) => actual.tunnel.as_mut().expect(missing).mtu = *mtu,
        Change::AddTunnelAddress(address) => {
            let added = actual.tunnel.as_mut().expect(missing).addresses.insert((*address).into());
            assert!(added, "{address} is there already");
        }
        Change::RemoveTunnelAddress(address) => {
            assert!(actual.tunnel.as_mut().expect(missing).addresses.remove(address));
            let sends_from_it = |way: &Option<RouteKind>| {
                matches!(way, Some(RouteKind::Tunnel { source: Some(source), .. })
                    if *source == address.addr())
            };
            actual.routes.retain(|_, way| !sends_from_it(way));
        }
        Change::SetTunnelUp => actual.tunnel.as_mut().expect(missing).up = true,
        Change::SetTunnelDown => {
            actual.tunnel.as_mut().expect(missing).up = false;
            actual.routes.retain(|_, way| !matches!(way, Some(RouteKind::Tunnel { .. })));
        }
        Change::LoosenReversePath(link) => {
            actual.strict.remove(link);
        }
        Change::AddRoute(destination, way) => {
            assert!(!actual.occupied.contains(destination), "{destination} is another program's");
            assert_usable(actual, way);
            let before = actual.routes.insert(*destination, Some(way.clone()));
            assert_eq!(before, None, "{destination} had a route");
        }
        Change::ReplaceRoute(destination, way) => {
            assert_usable(actual, way);
            let before = actual.routes.insert(*destination, Some(way.clone()));
            assert!(before.is_some(), "{destination} had no route of Weir's");
        }
        Change::DeleteRoute(destination, way) => {
            assert_eq!(actual.routes.remove(destination).as_ref(), Some(way));
        }
        Change::Announce(range) => assert!(actual.announced.insert(*range), "{range} was there"),
        Change::Withdraw(range) => assert!(actual.announced.remove(range), "{range} was not there"),
    }
}

fn assert_usable(actual: &ActualState, way: &RouteKind) {
    if let RouteKind::Tunnel { source, .. } = way {
        let tunnel = actual.tunnel.as_ref().expect("a tunnel route needs the device");
        assert!(tunnel.up, "a tunnel route needs the device up");
        let has = |source: Ipv4Addr| tunnel.addresses.contains(&Ipv4Net::from(source));
        assert!(source.is_none_or(has), "the route's source is on the device");
    }
}
