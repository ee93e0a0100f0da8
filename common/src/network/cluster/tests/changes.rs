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
    let problems = diff(&plan, &daemon(&["10.0.3.0/26", "10.0.4.0/27"])).problems;
    let (node, next_hop) = ("n4".to_owned(), "172.16.2.2".parse().unwrap());
    let expected = [
        Problem::NextHopNotOnLink { node, next_hop, cross_subnet: false },
        Problem::ForeignRoute { destination: net("10.0.2.0/26") },
    ];
    assert_eq!(problems, expected.into(), "a part of a block is not enough");
    // What is to be tunnelled is not reached as the pool asks.
    let plan = plan_of_n1(&four_nodes(&[Always]));
    let problems = diff(&plan, &daemon(&["10.0.2.0/26", "10.0.3.0/26"])).problems;
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
        let problems = diff(&plan, &actual).problems;
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
    let problems = diff(&plan, &actual).problems;
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("look at it with \"ip route show 10.0.0.0/16\""), "{problems:?}");
}

#[test]
fn a_new_tunnel_address_is_there_before_the_old_one_goes() {
    let mut state = four_nodes(&[Always]);
    let mut with_address = |host: u8| {
        let own = state.nodes.get_mut("n1").unwrap();
        own.tunnels.insert(TunnelKind::Ipip, [10, 0, 1, host].into());
        plan_of_n1(&state)
    };
    let mut actual = ActualState::default();
    for change in diff(&with_address(1), &actual).changes {
        carry_out(&mut actual, &change);
    }
    let changes = diff(&with_address(2), &actual).changes;
    let place = |wanted: &Change| changes.iter().position(|change| change == wanted).unwrap();
    let added = place(&Change::AddTunnelAddress(TunnelKind::Ipip, [10, 0, 1, 2].into()));
    let removed = place(&Change::RemoveTunnelAddress(TunnelKind::Ipip, net("10.0.1.1/32")));
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
        diff(plan, &actual).changes.into_iter().filter(is_deletion).collect::<Vec<_>>()
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
        diff(plan, actual).changes.iter().map(ToString::to_string).collect()
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

/// The kernel, as far as changes go. Panics where it would refuse one.
pub(super) fn carry_out(actual: &mut ActualState, change: &Change) {
    match change {
        Change::CreateTunnel(..)
        | Change::DeleteTunnel(_)
        | Change::ClaimTunnel(_)
        | Change::DisclaimTunnel(_)
        | Change::SetTunnelMtu(..)
        | Change::SetTunnelUp(_)
        | Change::SetTunnelDown(_) => change_device(actual, change),
        Change::AddTunnelAddress(kind, address) => {
            let added = device(actual, *kind).addresses.insert((*address).into());
            assert!(added, "{address} is there already");
        }
        Change::RemoveTunnelAddress(kind, address) => {
            assert!(device(actual, *kind).addresses.remove(address));
            drop_routes(actual, |by, source| by == *kind && source == Some(address.addr()));
        }
        Change::AddForwarding(kind, mac, node) => {
            let added = vxlan(actual, *kind).forwarding.insert((*mac, *node));
            assert!(added, "the kernel refuses {mac} with {node} twice");
        }
        Change::RemoveForwarding(kind, mac, node) => {
            assert!(vxlan(actual, *kind).forwarding.remove(&(*mac, *node)));
        }
        Change::SetNeighbour(kind, address, mac) => {
            let is_known = vxlan(actual, *kind).forwarding.iter().any(|(it, _)| it == mac);
            assert!(is_known, "{mac} has a node before a neighbour has it");
            vxlan(actual, *kind).neighbours.insert(*address, *mac);
        }
        Change::RemoveNeighbour(kind, address) => {
            assert!(vxlan(actual, *kind).neighbours.remove(address).is_some());
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

fn change_device(actual: &mut ActualState, change: &Change) {
    match change {
        Change::CreateTunnel(kind, made_with) => {
            assert_eq!(kind.row().frames().is_some(), made_with.is_some());
            let with = |device: &VxlanDevice| ActualVxlan {
                device: device.clone(),
                neighbours: BTreeMap::new(),
                forwarding: BTreeSet::new(),
            };
            let vxlan = made_with.as_ref().map(with);
            let fresh = ActualTunnel { mtu: 1480, vxlan, ..ActualTunnel::default() };
            let before = actual.tunnels.insert(*kind, fresh);
            assert_eq!(before, None, "{kind} had a device");
            // Filters of the reverse path are of IPv4.
            let strict = (!kind.row().is_ipv6).then(|| kind.device().to_owned());
            actual.strict.extend(strict);
        }
        Change::DeleteTunnel(kind) => {
            assert!(kind.row().is_deletable, "{kind}");
            device(actual, *kind);
            actual.tunnels.remove(kind);
            actual.strict.remove(kind.device());
            drop_routes(actual, |by, _| by == *kind);
        }
        Change::ClaimTunnel(kind) => device(actual, *kind).claimed = true,
        Change::DisclaimTunnel(kind) => device(actual, *kind).claimed = false,
        Change::SetTunnelMtu(kind, mtu) => device(actual, *kind).mtu = *mtu,
        Change::SetTunnelUp(kind) => device(actual, *kind).up = true,
        Change::SetTunnelDown(kind) => {
            device(actual, *kind).up = false;
            drop_routes(actual, |by, _| by == *kind);
        }
        other => panic!("{other} changes no device"),
    }
}

fn device(actual: &mut ActualState, kind: TunnelKind) -> &mut ActualTunnel {
    actual.tunnels.get_mut(&kind).expect("the tunnel device is there before it is used")
}

fn vxlan(actual: &mut ActualState, kind: TunnelKind) -> &mut ActualVxlan {
    device(actual, kind).vxlan.as_mut().expect("the device is one of VXLAN")
}

/// The kernel drops routes with what they need.
fn drop_routes(actual: &mut ActualState, goes: impl Fn(TunnelKind, Option<IpAddr>) -> bool) {
    actual.routes.retain(|_, way| match way {
        Some(RouteKind::Tunnel { kind, source, .. }) => !goes(*kind, *source),
        _ => true,
    });
}

/// Packets on the route arrive: by a device that is up, from an address on it, to a next hop
/// behind which the node is known.
pub(super) fn is_usable(actual: &ActualState, way: &RouteKind) -> Result<(), &'static str> {
    let RouteKind::Tunnel { kind, next_hop, source } = way else { return Ok(()) };
    let device = actual.tunnels.get(kind).ok_or("the device is missing")?;
    if !device.up {
        return Err("the device is down");
    }
    if source.is_some_and(|source| !device.addresses.contains(&source.into())) {
        return Err("the source is not on the device");
    }
    if kind.row().frames().is_none() {
        return Ok(());
    }
    let vxlan = device.vxlan.as_ref().ok_or("the device is none of VXLAN")?;
    let mac = vxlan.neighbours.get(next_hop).ok_or("the next hop is no neighbour")?;
    let is_known = vxlan.forwarding.iter().any(|(it, _)| it == mac);
    is_known.then_some(()).ok_or("the neighbour has no forwarding entry")
}

fn assert_usable(actual: &ActualState, way: &RouteKind) {
    assert_eq!(is_usable(actual, way), Ok(()), "{way}");
}
