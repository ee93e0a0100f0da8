//! Pools whose mode is changed while containers speak to each other, as one node sees it: each
//! step takes the kernel from what the last one left to what is planned then. No range is without
//! a way that leads to its node in any of them.

use std::collections::BTreeMap;

use super::changes::{carry_out, is_usable};
use super::*;

use TunnelKind::{Ipip, Vxlan};

/// n1 of [`four_nodes`], and its kernel.
struct Switch {
    state: ClusterState,
    actual: ActualState,
    still_used: BTreeSet<TunnelKind>,
}

const RANGES: [&str; 3] = ["10.0.2.0/26", "10.0.3.0/26", "10.0.4.0/26"];

impl Switch {
    /// The nodes have had a pool of this mode for long: with all addresses that it takes, and
    /// other programs' routes to the nodes of the other subnet, where they are BGP's.
    fn settled(kind: Option<TunnelKind>) -> Self {
        let (actual, still_used) = (ActualState::default(), BTreeSet::new());
        let mut switch = Self { state: four_nodes(&[Never]), actual, still_used };
        switch.set_mode(kind);
        (1..=4).for_each(|number| switch.give(number, kind));
        if kind.is_none() {
            switch.learn_by_bgp(true);
        }
        switch.step();
        assert_eq!(switch.step(), [""; 0], "nothing is left to do");
        switch
    }

    fn set_mode(&mut self, kind: Option<TunnelKind>) {
        let mode = if kind.is_some() { Always } else { Never };
        let pool = pool_of(kind.unwrap_or(Ipip), "10.0.0.0/16", mode);
        self.state.pools.insert("p0".into(), pool);
    }

    /// Registers a node with an address of a kind.
    fn give(&mut self, number: u8, kind: Option<TunnelKind>) {
        let host = if kind == Some(Ipip) { 1 } else { 2 };
        let tunnels = &mut self.state.nodes.get_mut(&format!("n{number}")).unwrap().tunnels;
        tunnels.extend(kind.map(|kind| (kind, IpAddr::from([10, 0, number, host]))));
    }

    fn take(&mut self, number: u8, kind: TunnelKind) {
        self.state.nodes.get_mut(&format!("n{number}")).unwrap().tunnels.remove(&kind);
    }

    /// A routing daemon has its routes to the other subnet, or withdraws them.
    fn learn_by_bgp(&mut self, has_routes: bool) {
        self.actual.foreign_routes = BTreeMap::new();
        if has_routes {
            let via = BTreeSet::from(["172.16.1.254".parse().unwrap()]);
            let far = RANGES[1..].iter().map(|range| (net(range), via.clone()));
            self.actual.foreign_routes = far.collect();
        }
    }

    /// Makes the plan true; every change leaves a way to every range that had one.
    fn step(&mut self) -> Vec<String> {
        let plan = plan_of_n1(&self.state);
        let Difference { changes, still_used, .. } = diff(&plan, &self.actual);
        for change in &changes {
            let before = self.reached();
            carry_out(&mut self.actual, change);
            assert!(self.reached().is_superset(&before), "{change}: {changes:?}");
        }
        assert_eq!(diff(&plan, &self.actual).changes, [], "a second time");
        self.still_used = still_used;
        changes.iter().map(ToString::to_string).collect()
    }

    /// The ranges with a way.
    fn reached(&self) -> BTreeSet<IpNet> {
        let all = RANGES.map(net).into_iter();
        let own = |range: &IpNet| {
            let way = self.actual.way(range);
            way.is_some_and(|way| is_usable(&self.actual, way).is_ok())
        };
        all.filter(|range| own(range) || self.actual.has_foreign_route(*range)).collect()
    }

    /// How each of the ranges is reached: the name of a device, `bgp`, or nothing.
    fn ways(&self) -> [String; 3] {
        RANGES.map(net).map(|range| match self.actual.way(&range) {
            Some(RouteKind::Tunnel { kind, .. }) => kind.device().to_owned(),
            Some(RouteKind::Direct { link, .. }) => link.clone(),
            Some(RouteKind::Blackhole) => "blackhole".to_owned(),
            None if self.actual.has_foreign_route(range) => "bgp".to_owned(),
            None => String::new(),
        })
    }

    /// The devices in service.
    fn devices(&self) -> Vec<TunnelKind> {
        let in_service = self.actual.tunnels.iter().filter(|(_, it)| it.claimed && it.up);
        in_service.map(|(kind, _)| *kind).collect()
    }

    /// Whether n1 would give its address of a kind back now.
    fn gives_back(&self, kind: TunnelKind) -> bool {
        !needs_tunnel(kind, "n1", &self.state) && !self.still_used.contains(&kind)
    }
}

/// A node without an address for IPIP is reached by it all the same, so only a route of Weir's
/// waits for the other node.
#[test]
fn from_never_to_ipip() {
    let mut switch = Switch::settled(None);
    assert_eq!(switch.ways(), ["eth0", "bgp", "bgp"]);
    switch.set_mode(Some(Ipip));
    switch.step();
    assert_eq!(
        (switch.ways(), switch.devices()),
        (["eth0", "tunl0", "tunl0"].map(Into::into), vec![Ipip])
    );
    switch.learn_by_bgp(false);
    switch.give(2, Some(Ipip));
    switch.step();
    assert_eq!(switch.ways(), ["tunl0"; 3]);
    switch.give(1, Some(Ipip));
    let changes = switch.step();
    assert_eq!(changes[0], "ip address add 10.0.1.1/32 dev tunl0");
    assert!(changes[1..].iter().all(|it| it.ends_with("onlink src 10.0.1.1 proto 77")));
    assert_eq!(changes.len(), 4, "{changes:?}");
}

#[test]
fn from_never_to_vxlan() {
    let mut switch = Switch::settled(None);
    switch.set_mode(Some(Vxlan));
    switch.step();
    // No node has an address yet.
    assert_eq!(
        (switch.ways(), switch.devices()),
        (["eth0", "bgp", "bgp"].map(Into::into), vec![Vxlan])
    );
    switch.give(3, Some(Vxlan));
    switch.step();
    // Nor has this node, and others rely on its sending nothing by VXLAN until then.
    assert_eq!(switch.ways(), ["eth0", "bgp", "bgp"]);
    switch.give(1, Some(Vxlan));
    switch.step();
    assert_eq!(switch.ways(), ["eth0", "vxlan.calico", "bgp"]);
    for number in [2, 4] {
        switch.give(number, Some(Vxlan));
    }
    switch.step();
    switch.learn_by_bgp(false);
    assert_eq!(switch.step(), [""; 0]);
    assert_eq!(switch.ways(), ["vxlan.calico"; 3]);
}

#[test]
fn from_ipip_to_never() {
    from_a_tunnel_to_never(Ipip, "tunl0");
}

#[test]
fn from_vxlan_to_never() {
    from_a_tunnel_to_never(Vxlan, "vxlan.calico");
}

fn from_a_tunnel_to_never(kind: TunnelKind, device: &str) {
    let mut switch = Switch::settled(Some(kind));
    assert_eq!(switch.ways(), [device; 3]);
    switch.set_mode(None);
    switch.step();
    // The other subnet goes by the tunnel until a routing daemon knows it.
    assert_eq!(switch.ways(), ["eth0", device, device]);
    assert!(switch.still_used.contains(&kind) && !switch.gives_back(kind));
    switch.learn_by_bgp(true);
    let changes = switch.step();
    assert!(changes.iter().all(|it| it.starts_with("ip route delete 10.0.")), "{changes:?}");
    assert_eq!(switch.ways(), ["eth0", "bgp", "bgp"]);
    assert!(switch.gives_back(kind));
    // The others may send by it still, as long as one is registered with an address for it.
    for number in [1, 2, 3] {
        switch.take(number, kind);
        switch.step();
        assert_eq!(switch.devices(), [kind], "{number}");
    }
    switch.take(4, kind);
    switch.step();
    assert_eq!((switch.devices(), switch.ways()), (vec![], ["eth0", "bgp", "bgp"].map(Into::into)));
}

/// Another node may have given its address back before this one has learnt a route by BGP.
#[test]
fn a_route_by_a_tunnel_stays_after_the_other_node_has_given_its_address_back() {
    for (kind, device) in [(Ipip, "tunl0"), (Vxlan, "vxlan.calico")] {
        let mut switch = Switch::settled(Some(kind));
        switch.set_mode(None);
        for number in [2, 3, 4] {
            switch.take(number, kind);
            switch.step();
            assert_eq!(switch.ways(), ["eth0", device, device], "{number}");
        }
        assert!(!switch.gives_back(kind));
        switch.learn_by_bgp(true);
        switch.step();
        assert_eq!(
            (switch.ways(), switch.devices()),
            (["eth0", "bgp", "bgp"].map(Into::into), vec![])
        );
    }
}

#[test]
fn from_ipip_to_vxlan() {
    let mut switch = Switch::settled(Some(Ipip));
    switch.set_mode(Some(Vxlan));
    switch.step();
    assert_eq!(
        (switch.ways(), switch.devices()),
        (["tunl0"; 3].map(Into::into), vec![Ipip, Vxlan])
    );
    assert!(!switch.gives_back(Ipip));
    switch.give(1, Some(Vxlan));
    switch.step();
    for number in [2, 3] {
        switch.give(number, Some(Vxlan));
        switch.step();
        assert!(!switch.gives_back(Ipip), "{number}");
    }
    assert_eq!(switch.ways(), ["vxlan.calico", "vxlan.calico", "tunl0"]);
    switch.give(4, Some(Vxlan));
    switch.step();
    assert_eq!(switch.ways(), ["vxlan.calico"; 3]);
    assert!(switch.gives_back(Ipip));
    // Both are taken as long as anybody may send either.
    for number in [1, 2, 3] {
        switch.take(number, Ipip);
        switch.step();
        assert_eq!(switch.devices(), [Ipip, Vxlan], "{number}");
    }
    switch.take(4, Ipip);
    let changes = switch.step();
    let retired = [
        "ip address delete 169.254.191.1/32 dev tunl0",
        "ip link set tunl0 down",
        "ip link set tunl0 alias \"\"",
    ];
    assert_eq!(changes, retired);
    assert_eq!(switch.devices(), [Vxlan]);
}

#[test]
fn from_vxlan_to_ipip() {
    let mut switch = Switch::settled(Some(Vxlan));
    switch.set_mode(Some(Ipip));
    switch.step();
    assert_eq!(
        (switch.ways(), switch.devices()),
        (["vxlan.calico"; 3].map(Into::into), vec![Ipip, Vxlan])
    );
    assert!(!switch.gives_back(Vxlan));
    switch.give(3, Some(Ipip));
    switch.step();
    assert_eq!(switch.ways(), ["vxlan.calico", "tunl0", "vxlan.calico"]);
    (1..=4).for_each(|number| switch.give(number, Some(Ipip)));
    switch.step();
    assert_eq!(switch.ways(), ["tunl0"; 3]);
    assert!(switch.gives_back(Vxlan));
    for number in [1, 2, 3] {
        switch.take(number, Vxlan);
        switch.step();
        assert_eq!(switch.devices(), [Ipip, Vxlan], "{number}");
    }
    switch.take(4, Vxlan);
    assert_eq!(switch.step(), ["ip link delete vxlan.calico"]);
    assert_eq!(switch.ways(), ["tunl0"; 3]);
}

/// One that is changed back before all have followed.
#[test]
fn back_and_forth() {
    for (one, other) in [(None, Vxlan), (Some(Ipip), Vxlan), (Some(Vxlan), Ipip), (None, Ipip)] {
        let mut switch = Switch::settled(one);
        let before = (switch.ways(), switch.actual.clone());
        switch.set_mode(Some(other));
        switch.step();
        switch.give(1, Some(other));
        switch.give(2, Some(other));
        switch.step();
        switch.set_mode(one);
        switch.step();
        assert_eq!(switch.ways(), before.0, "{one:?}");
        switch.take(1, other);
        switch.take(2, other);
        switch.step();
        assert_eq!(switch.actual.routes, before.1.routes, "{one:?}");
        assert_eq!(switch.devices(), one.into_iter().collect::<Vec<_>>());
    }
}

/// A device that was made with something else is made again, and what went by it with it.
#[test]
fn another_network_identifier_makes_the_device_again_and_all_that_went_with_it() {
    let mut switch = Switch::settled(Some(Vxlan));
    let settled = switch.actual.clone();
    let vxlan = switch.actual.tunnels.get_mut(&Vxlan).unwrap().vxlan.as_mut().unwrap();
    vxlan.device.vni = 7;
    let plan = plan_of_n1(&switch.state);
    let changes = diff(&plan, &switch.actual).changes;
    assert_eq!(changes[0], Change::DeleteTunnel(Vxlan));
    assert!(matches!(&changes[1], Change::CreateTunnel(Vxlan, Some(made)) if made.vni == 4096));
    let added = changes.iter().filter(|it| matches!(it, Change::AddRoute(..))).count();
    assert_eq!(added, 3, "{changes:?}");
    for change in &changes {
        carry_out(&mut switch.actual, change);
    }
    assert_eq!(
        (&switch.actual.routes, &switch.actual.tunnels),
        (&settled.routes, &settled.tunnels)
    );
    // What only stays meanwhile, too.
    switch.set_mode(None);
    switch.step();
    let vxlan = switch.actual.tunnels.get_mut(&Vxlan).unwrap().vxlan.as_mut().unwrap();
    vxlan.device.port = 8472;
    for change in &diff(&plan_of_n1(&switch.state), &switch.actual).changes {
        carry_out(&mut switch.actual, change);
    }
    assert_eq!(switch.ways(), ["eth0", "vxlan.calico", "vxlan.calico"]);
}
